package platform

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"tideline/internal/servers"
)

// Cluster is four separate processes, two of ingest, on the real servers.
type Cluster struct {
	Platform
	Redis                 *servers.Process
	API, Pusher, Timeline *Process
	Ingest                [2]*Process
	// MySQL is the address of the store.
	MySQL string
	// Tideline runs the operators' command, and gives what it prints.
	Tideline func(args ...string) string
}

// StartCluster starts one; more are variables of every process.
func StartCluster(t testing.TB, more ...string) *Cluster {
	t.Helper()
	k, r := servers.StartKafka(t), servers.Redis(t)
	c := &Cluster{Redis: r, MySQL: servers.MySQL(t)}
	archive := servers.ClickHouse(t)
	c.ClickHouse = func() string { return archive }
	c.Admin = func() string { return AdminToken }
	c.SQL = func() (string, string) { return "mysql", c.MySQL }
	env := []string{
		"TIDELINE_KAFKA_BROKERS=" + k.Addr, "TIDELINE_KAFKA_PARTITIONS=8", "TIDELINE_KAFKA_REPLICATION=1", "TIDELINE_KAFKA_MIN_IN_SYNC=1",
		"TIDELINE_KAFKA_SESSION_TIMEOUT=3s", "TIDELINE_STORE_DSN=" + c.MySQL, "TIDELINE_REDIS_ADDRS=" + r.Addr, "TIDELINE_OPS_ADDR=127.0.0.1:0",
	}
	env = append(env, more...)
	secrets := []string{"TIDELINE_INGEST_HASH_KEY=a hash key of the tests"}
	door := append(append([]string{"TIDELINE_AUTH_TOKEN_KEY=a token key of the tests, long enough", "TIDELINE_AUTH_ADMIN_TOKEN=" + AdminToken}, secrets...), env...)
	archiving := append([]string{"TIDELINE_ARCHIVE_ADDR=" + archive}, env...)
	c.Tideline = func(args ...string) string {
		t.Helper()
		cmd := exec.Command(Built(t, "tideline"), args...)
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, archiving...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("tideline %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	c.Tideline("migrate")
	c.Tideline("topics", "create")
	httpAddr, wsAddr := FreePort(t), FreePort(t)
	for i := range c.Ingest {
		c.Ingest[i] = StartProcess(t, "ingest", append(secrets, env...)...)
	}
	c.Timeline = StartProcess(t, "timeline", archiving...)
	c.API = StartProcess(t, "api", append(door, "TIDELINE_HTTP_ADDR="+httpAddr)...)
	c.Pusher = StartProcess(t, "pusher", append(door, "TIDELINE_HTTP_ADDR="+wsAddr)...)
	c.HTTP, c.WS, c.Kafka = "http://"+httpAddr, "http://"+wsAddr, k.Addr
	c.Parts = []*Process{c.Ingest[0], c.Ingest[1], c.Timeline, c.API, c.Pusher}
	c.Restart = func() {
		for _, p := range c.Parts {
			p.Kill()
		}
		for _, p := range c.Parts {
			p.Start()
		}
	}
	return c
}
