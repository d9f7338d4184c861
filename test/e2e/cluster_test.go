package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tideline/internal/servers"
)

// cluster is four separate processes, two of ingest, on the real servers.
type cluster struct {
	platform
	redis                 *servers.Process
	api, pusher, timeline *process
	ingest                [2]*process
	mysql                 string
	// tideline runs the operators' command, and gives what it prints.
	tideline func(args ...string) string
}

func startCluster(t *testing.T, more ...string) *cluster {
	t.Helper()
	k, r := servers.StartKafka(t), servers.Redis(t)
	c := &cluster{redis: r, mysql: servers.MySQL(t)}
	archive := servers.ClickHouse(t)
	c.clickhouse = func() string { return archive }
	c.admin = func() string { return adminToken }
	c.sql = func() (string, string) { return "mysql", c.mysql }
	env := []string{
		"TIDELINE_KAFKA_BROKERS=" + k.Addr, "TIDELINE_KAFKA_PARTITIONS=8", "TIDELINE_KAFKA_REPLICATION=1", "TIDELINE_KAFKA_MIN_IN_SYNC=1",
		"TIDELINE_KAFKA_SESSION_TIMEOUT=3s", "TIDELINE_STORE_DSN=" + c.mysql, "TIDELINE_REDIS_ADDRS=" + r.Addr, "TIDELINE_OPS_ADDR=127.0.0.1:0",
	}
	env = append(env, more...)
	secrets := []string{"TIDELINE_INGEST_HASH_KEY=a hash key of the tests"}
	door := append(append([]string{"TIDELINE_AUTH_TOKEN_KEY=a token key of the tests, long enough", "TIDELINE_AUTH_ADMIN_TOKEN=" + adminToken}, secrets...), env...)
	archiving := append([]string{"TIDELINE_ARCHIVE_ADDR=" + archive}, env...)
	c.tideline = func(args ...string) string {
		t.Helper()
		cmd := exec.Command(built(t, "tideline"), args...)
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, archiving...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("tideline %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	c.tideline("migrate")
	c.tideline("topics", "create")
	httpAddr, wsAddr := freePort(t), freePort(t)
	for i := range c.ingest {
		c.ingest[i] = start(t, "ingest", append(secrets, env...)...)
	}
	c.timeline = start(t, "timeline", archiving...)
	c.api = start(t, "api", append(door, "TIDELINE_HTTP_ADDR="+httpAddr)...)
	c.pusher = start(t, "pusher", append(door, "TIDELINE_HTTP_ADDR="+wsAddr)...)
	c.http, c.ws, c.kafka = "http://"+httpAddr, "http://"+wsAddr, k.Addr
	c.parts = []*process{c.ingest[0], c.ingest[1], c.timeline, c.api, c.pusher}
	c.restart = func() {
		for _, p := range c.parts {
			p.kill()
		}
		for _, p := range c.parts {
			p.start()
		}
	}
	return c
}

func TestCluster_CarriesAConversation(t *testing.T) {
	c := startCluster(t)
	converse(t, &c.platform)
}

func TestCluster_LosesNothingThatWasAnsweredWhenPartsAreKilled(t *testing.T) {
	c := startCluster(t)
	survive(t, &c.platform, len(c.parts)+1, func(i int) {
		if i == len(c.parts) {
			cl := redis.NewClient(&redis.Options{Addr: c.redis.Addr})
			defer func() { _ = cl.Close() }()
			if err := cl.FlushAll(context.Background()).Err(); err != nil {
				t.Error(err)
			}
			return
		}
		c.parts[i].kill()
		c.parts[i].start()
	})
}

func TestCluster_FillsAnArchiveThatHasLostSomething(t *testing.T) {
	c := startCluster(t)
	ada := join(t, c.http, c.ws, "ada")
	var g struct {
		ID string `json:"conversation_id"`
	}
	ada.eventually(201, "POST", "/groups", map[string]any{"name": "Attic"}, &g)
	gone := ada.send(g.ID, "1", "taken back")
	ada.must(200, "DELETE", fmt.Sprintf("/conversations/%s/messages/%d", g.ID, gone.Seq), nil, nil)
	a := c.archived(t, g.ID, ada.send(g.ID, "2", "kept").Seq)
	if err := a.conn.Exec(t.Context(), "TRUNCATE TABLE messages"); err != nil {
		t.Fatal(err)
	}
	c.timeline.kill()
	if out := c.tideline("archive", "fill"); !strings.Contains(out, "4 rows were filled in") {
		t.Fatalf("the fill says %s", out)
	}
	c.timeline.start()
	c.archived(t, g.ID, ada.send(g.ID, "3", "and on").Seq)
	if n := a.count("SELECT countIf(text = 'taken back') FROM messages"); n != 0 {
		t.Fatal("what was recalled came back with the fill")
	}
	if n := a.count("SELECT countIf(text = 'kept') FROM messages"); n != 1 {
		t.Fatalf("what was said stands %d times", n)
	}
}

func TestCluster_TakesRecordsOfAForeignPartitioner(t *testing.T) {
	c := startCluster(t)
	ada, bob := join(t, c.http, c.ws, "ada"), join(t, c.http, c.ws, "bob")
	var g struct {
		ID string `json:"conversation_id"`
	}
	ada.eventually(201, "POST", "/groups", map[string]any{"name": "Quay", "member_ids": []string{bob.id}}, &g)
	bobs := bob.listen()
	for i := range 3 {
		line := fmt.Sprintf(`{"type":"message","conversation_id":%q,"sender_id":%q,"client_msg_id":"kcat-%d","message":{"type":"text","content":{"text":"from kcat"}}}`, g.ID, ada.id, i)
		cmd := exec.Command(servers.Kcat(t), "-b", c.kafka, "-t", "im.inbound", "-P", "-k", g.ID, "-X", "partitioner=consistent", "-H", "content-type=application/json", "-H", "producer=kcat")
		cmd.Stdin = strings.NewReader(line + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("kcat: %v\n%s", err, out)
		}
	}
	bobs.waitFor(g.ID, 4)
	if all := bob.history(g.ID); len(all) != 4 {
		t.Fatalf("three messages of a backend and the creation are %d entries", len(all))
	}
}

func TestCluster_StopsInOrder(t *testing.T) {
	c := startCluster(t)
	join(t, c.http, c.ws, "ada").listen()
	started := time.Now()
	for _, p := range c.parts {
		p.terminate()
	}
	t.Logf("all of it stopped in %s", time.Since(started))
}
