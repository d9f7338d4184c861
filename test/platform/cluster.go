package platform

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"tideline/internal/servers"
)

// Cluster is four kinds of separate processes, of ingest two, on the real servers.
type Cluster struct {
	Platform
	// The servers; MySQLServer and ClickHouseServer are nil where tests share one.
	KafkaServer, Redis, MySQLServer, ClickHouseServer *servers.Process

	API, Pusher, Timeline *Process
	Ingest                [2]*Process
	// AwaitTwins waits until both doors of each kind are ready. Nil without Setup.Twice.
	AwaitTwins func()
	// MySQL is the address of the store.
	MySQL string
	// Another starts one more process of a command that owns partitions: ingest or timeline.
	Another func(name string) *Process
	// Tideline runs the operators' command, and returns what it prints. TidelineOf runs one that was built with tags.
	Tideline   func(args ...string) string
	TidelineOf func(tags string, args ...string) string
}

// Setup is what can differ in how a cluster is made.
type Setup struct {
	// Env are more variables of every process.
	Env []string
	// Kafka is the broker; nil for one of the cluster's own.
	Kafka *servers.Process
	// MySQL is the store's server, with OwnServers; nil for one of the cluster's own.
	MySQL *servers.Process
	// OwnServers gives it a MySQL and a ClickHouse of its own, which the test may break.
	OwnServers bool
	// Failpoints lets the test end processes at places of their own; see internal/failpoint.
	Failpoints bool
	// Through gives the address by which the processes reach a server ("kafka", "mysql", "redis", "clickhouse"), such as that
	// of a proxy; nil for the server's own. The broker tells its clients its own address, whatever this says of it.
	Through func(server, addr string) string
	// As gives more variables of one process, by its name, or of the operators' command, by its first word; may be nil.
	As func(process string) []string
	// Twice makes it two processes of each kind, so that one can always be missed. Before the doors stand balancers that
	// follow their readiness, and a door lingers until they have.
	Twice bool
	// Inside gives a command that runs a process elsewhere, with the process as its arguments, or nil; it is asked once for
	// each process, by its name. May be nil.
	Inside func(process string) []string
}

// StartCluster starts one; env are more variables of every process.
func StartCluster(t testing.TB, env ...string) *Cluster {
	t.Helper()
	return Setup{Env: env}.Start(t)
}

// Start starts the cluster. It ends with the test.
func (s Setup) Start(t testing.TB) *Cluster {
	t.Helper()
	k, r := s.Kafka, servers.Redis(t)
	if k == nil {
		k = servers.StartKafka(t)
	}
	as := s.As
	if as == nil {
		as = func(string) []string { return nil }
	}
	through := s.Through
	if through == nil {
		through = func(_, addr string) string { return addr }
	}
	c := &Cluster{KafkaServer: k, Redis: r}
	var archive string
	if s.OwnServers {
		if c.MySQLServer = s.MySQL; c.MySQLServer == nil {
			c.MySQLServer = servers.StartMySQL(t)
		}
		c.ClickHouseServer = servers.StartClickHouse(t)
		c.MySQL, archive = servers.Database(t, c.MySQLServer), c.ClickHouseServer.ClickHouseDatabase()
	} else {
		c.MySQL, archive = servers.MySQL(t), servers.ClickHouse(t)
	}
	direct := archive
	c.ClickHouse = func() string { return direct }
	dsn := c.MySQL
	if s.OwnServers {
		dsn = strings.ReplaceAll(dsn, c.MySQLServer.Addr, through("mysql", c.MySQLServer.Addr))
		archive = strings.ReplaceAll(archive, c.ClickHouseServer.Addr, through("clickhouse", c.ClickHouseServer.Addr))
	}
	c.Admin = func() string { return AdminToken }
	c.SQL = func() (string, string) { return "mysql", c.MySQL }
	env := []string{
		"TIDELINE_KAFKA_BROKERS=" + through("kafka", k.Addr), "TIDELINE_KAFKA_PARTITIONS=8", "TIDELINE_KAFKA_REPLICATION=1", "TIDELINE_KAFKA_MIN_IN_SYNC=1",
		"TIDELINE_KAFKA_SESSION_TIMEOUT=3s", "TIDELINE_STORE_DSN=" + dsn, "TIDELINE_REDIS_ADDRS=" + through("redis", r.Addr), "TIDELINE_OPS_ADDR=127.0.0.1:0",
	}
	env = append(env, s.Env...)
	secrets := []string{"TIDELINE_INGEST_HASH_KEY=a hash key of the tests"}
	door := slices.Concat([]string{"TIDELINE_AUTH_TOKEN_KEY=a token key of the tests, long enough", "TIDELINE_AUTH_ADMIN_TOKEN=" + AdminToken}, secrets, env)
	archiving := slices.Concat([]string{"TIDELINE_ARCHIVE_ADDR=" + archive}, env)
	c.Tideline = func(args ...string) string { t.Helper(); return c.TidelineOf("", args...) }
	c.TidelineOf = func(tags string, args ...string) string {
		t.Helper()
		cmd := exec.Command(build(t, "tideline", tags), args...)
		cmd.Env = slices.Concat([]string{"PATH=" + os.Getenv("PATH")}, archiving, as(args[0]))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("tideline %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	c.Fsck = func() string { t.Helper(); return c.Tideline("fsck", "-at-rest") }
	c.Tideline("migrate")
	c.Tideline("topics", "create")
	tags := ""
	if s.Failpoints {
		tags = "failpoints"
	}
	inside := s.Inside
	if inside == nil {
		inside = func(string) []string { return nil }
	}
	start := func(name string, env ...[]string) *Process {
		t.Helper()
		return startProcess(t, name, append(inside(name), build(t, name, tags)), slices.Concat(append(env, as(name))...))
	}
	c.Another = func(name string) *Process {
		t.Helper()
		if name == "ingest" {
			return start(name, secrets, env)
		}
		return start(name, archiving)
	}
	var twins []*Process
	// open starts a door, or two behind a balancer, and gives the address.
	open := func(name string) (*Process, string, *balancer) {
		t.Helper()
		if !s.Twice {
			addr := FreePort(t)
			return start(name, door, []string{"TIDELINE_HTTP_ADDR=" + addr}), addr, nil
		}
		var two []*balanced
		var processes []*Process
		for range 2 {
			d := &balanced{addr: FreePort(t), ops: FreePort(t)}
			two = append(two, d)
			processes = append(processes, start(name, door, []string{"TIDELINE_HTTP_ADDR=" + d.addr, "TIDELINE_OPS_ADDR=" + d.ops, "TIDELINE_OPS_LINGER=" + linger}))
		}
		twins = append(twins, processes[1])
		b := startBalancer(t, two...)
		return processes[0], b.addr, b
	}
	for i := range c.Ingest {
		c.Ingest[i] = c.Another("ingest")
	}
	c.Timeline = c.Another("timeline")
	if s.Twice {
		twins = append(twins, c.Another("timeline"))
	}
	var httpAddr, wsAddr string
	var balancers [2]*balancer
	c.API, httpAddr, balancers[0] = open("api")
	c.Pusher, wsAddr, balancers[1] = open("pusher")
	c.HTTP, c.WS, c.Kafka = "http://"+httpAddr, "http://"+wsAddr, k.Addr
	c.Parts = append([]*Process{c.Ingest[0], c.Ingest[1], c.Timeline, c.API, c.Pusher}, twins...)
	if s.Twice {
		c.AwaitTwins = func() {
			t.Helper()
			for deadline := time.Now().Add(time.Minute); balancers[0].ready()+balancers[1].ready() < 4; time.Sleep(readinessLook) {
				if time.Now().After(deadline) {
					t.Fatal("not all doors are ready after a minute")
				}
			}
		}
		c.AwaitTwins()
	}
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
