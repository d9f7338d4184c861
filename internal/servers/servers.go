// Package servers starts the real servers for tests: Kafka, MariaDB, Redis and the ClickHouse engine, on free ports of this machine, with their
// data in a temporary folder. Each test binary that needs one starts its own, once; nothing outlives it, because the
// kernel ends the servers with the process that started them.
package servers

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // to make databases
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
)

// KafkaVersion is what the tests run.
const KafkaVersion = "4.1.0"

// KafkaSettings are the properties of a broker that is alone, besides where it listens and keeps its log. Only the
// penultimate matters to many brokers too: it says how soon a transaction is tried again whose predecessor's markers are
// being written, and with Kafka's 20 ms numbering is ten times slower.
const KafkaSettings = `process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
add.partitions.to.txn.retry.backoff.ms=1
auto.create.topics.enable=false
`

// Process is a server that was started for a test.
type Process struct {
	// Addr is host:port.
	Addr string

	t     testing.TB
	name  string
	start func() (*exec.Cmd, error)
	ready func(ctx context.Context) error
	cmd   *exec.Cmd
	out   *bytes.Buffer
}

// missing fails or skips: whoever says that servers are required is told, everybody else goes on without.
func missing(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("TIDELINE_REQUIRE_SERVERS") != "" {
		t.Fatalf("%s is required and cannot be started: %v (scripts/install-servers installs it)", what, err)
	}
	t.Skipf("%s is not here: %v (scripts/install-servers installs it)", what, err)
}

// root is the folder of the project.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Ports for servers that are told where to listen: below those that the kernel gives by itself to connections and listeners, one
// of which could take such a port before its server does, or while that is down. Each process begins somewhere else.
const (
	firstPort = 10_000
	ports     = 22_000
)

var nextPort atomic.Uint32

func init() { nextPort.Store(rand.Uint32N(ports)) }

// FreePort gives a port of this machine on which nobody listens.
func FreePort() (int, error) {
	for range ports {
		port := firstPort + int(nextPort.Add(1)%ports)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return 0, err
		}
		return port, l.Close()
	}
	return 0, errors.New("no port is free")
}

// launch starts the process and waits until it is ready.
func (p *Process) launch() error {
	cmd, err := p.start()
	if err != nil {
		return err
	}
	p.out = &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		// The signal comes when the thread ends that started the process, so this one stays for as long as that.
		runtime.LockOSThread()
		started <- cmd.Start()
		_ = cmd.Wait()
		close(ended)
	}()
	if err := <-started; err != nil {
		return err
	}
	p.cmd = cmd
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for {
		once, cancelOnce := context.WithTimeout(ctx, 2*time.Second)
		err := p.ready(once)
		cancelOnce()
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("%s ended at its start:\n%s", p.name, tail(p.out.String()))
		case <-ctx.Done():
			return fmt.Errorf("%s was not ready within a minute: %w", p.name, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func tail(s string) string {
	lines := strings.Split(s, "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// Ended tells whether the server runs no more.
func (p *Process) Ended() bool {
	return errors.Is(p.cmd.Process.Signal(syscall.Signal(0)), os.ErrProcessDone)
}

// Kill ends the server as a power cut does.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		if err := p.cmd.Process.Signal(syscall.Signal(0)); errors.Is(err, os.ErrProcessDone) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Restart kills the server and starts it again on the same data.
func (p *Process) Restart() {
	p.t.Helper()
	p.Kill()
	if err := p.launch(); err != nil {
		p.t.Fatal(err)
	}
}

var shared struct {
	mu    sync.Mutex // guards what follows
	kafka *Process
	mysql *Process

	clickhouse *Process
	more       []*Process

	dirs []string
}

func dir(t testing.TB) string {
	d, err := os.MkdirTemp("", "tideline-server-")
	if err != nil {
		t.Fatal(err)
	}
	shared.dirs = append(shared.dirs, d)
	return d
}

// Kafka gives the address of a broker that the tests of this binary share: each makes its own topics, or starts its own.
func Kafka(t testing.TB) string {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.kafka == nil {
		p, err := newKafka(t, dir(t), listener{})
		if err != nil {
			missing(t, "Kafka", err)
		}
		shared.kafka = p
	}
	return shared.kafka.Addr
}

// StartKafka starts a broker of the test's own.
func StartKafka(t testing.TB) *Process {
	t.Helper()
	p, err := newKafka(t, t.TempDir(), listener{})
	if err != nil {
		missing(t, "Kafka", err)
	}
	t.Cleanup(p.Kill)
	return p
}

// StartSteadyKafka starts a broker of the test's own that is measured: its JVM optimises as it does in production.
func StartSteadyKafka(t testing.TB) *Process {
	t.Helper()
	p, err := newKafka(t, t.TempDir(), listener{}, steady...)
	if err != nil {
		missing(t, "Kafka", err)
	}
	t.Cleanup(p.Kill)
	return p
}

// StartKafkaIn starts a broker of the test's own that keeps its log in a folder, such as one on a small disk.
func StartKafkaIn(t testing.TB, folder string) *Process {
	t.Helper()
	p, err := newKafka(t, folder, listener{})
	if err != nil {
		missing(t, "Kafka", err)
	}
	t.Cleanup(p.Kill)
	return p
}

// StartMySQLIn starts a MariaDB of the test's own that keeps its data in a folder; see StartMySQL.
func StartMySQLIn(t testing.TB, folder string) *Process {
	t.Helper()
	p, err := newMySQL(t, folder)
	if err != nil {
		missing(t, "MariaDB", err)
	}
	t.Cleanup(p.Kill)
	return p
}

// StartKafkaBehind starts a broker of the test's own that can be reached in two ways: at its own address, and at the one
// that front gives for a listener of its own, such as that of a proxy before it. The broker tells its clients the address by
// which they came.
func StartKafkaBehind(t testing.TB, front func(server string) (addr string)) *Process {
	t.Helper()
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	addr := front(fmt.Sprintf("127.0.0.1:%d", port))
	p, err := newKafka(t, t.TempDir(), listener{name: "FRONT", protocol: "PLAINTEXT", port: port, advertised: addr})
	if err != nil {
		missing(t, "Kafka", err)
	}
	t.Cleanup(p.Kill)
	return p
}

// listener is one more that a broker has, with its settings; without a name there is none. Where advertised is empty,
// clients are told where it listens.
type listener struct {
	name, protocol, settings, advertised string
	port                                 int
}

// How a broker's JVM runs. Most tests start one for a minute or two, in which the optimising compiler would take as much of the
// machine as the broker itself; benches, which tell what a broker costs, have the steady one.
var (
	brief  = []string{"-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}
	steady = []string{"-Xmx512m", "-XX:+UseSerialGC"}
)

func newKafka(t testing.TB, data string, more listener, jvm ...string) (*Process, error) {
	if jvm == nil {
		jvm = brief
	}
	lib := filepath.Join(root(), ".tools", "kafka-"+KafkaVersion, "lib")
	if _, err := os.Stat(lib); err != nil {
		return nil, err
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	controller, err := FreePort()
	if err != nil {
		return nil, err
	}
	listeners, protocols := fmt.Sprintf("PLAINTEXT://127.0.0.1:%d", port), "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
	advertised := listeners
	if more.name != "" {
		if more.advertised == "" {
			more.advertised = fmt.Sprintf("127.0.0.1:%d", more.port)
		}
		advertised += "," + more.name + "://" + more.advertised
		listeners += fmt.Sprintf(",%s://127.0.0.1:%d", more.name, more.port)
		protocols += "," + more.name + ":" + more.protocol
	}
	settings := KafkaSettings + fmt.Sprintf(`listeners=%s,CONTROLLER://127.0.0.1:%d
advertised.listeners=%s
listener.security.protocol.map=%s
controller.quorum.voters=1@127.0.0.1:%d
log.dirs=%s
`, listeners, controller, advertised, protocols, controller, filepath.Join(data, "log")) + more.settings
	file := filepath.Join(data, "server.properties")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		return nil, err
	}
	class := filepath.Join(lib, "*")
	format := exec.Command(java, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", class, "kafka.tools.StorageTool", "format", "-t", "dGlkZWxpbmUtdGVzdHMtMQ", "-c", file)
	if out, err := format.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("formatting the log: %w: %s", err, tail(string(out)))
	}
	p := &Process{t: t, name: "Kafka", Addr: fmt.Sprintf("127.0.0.1:%d", port)}
	p.start = func() (*exec.Cmd, error) {
		return exec.Command(java, slices.Concat(jvm, []string{"-cp", class, "kafka.Kafka", file})...), nil
	}
	p.ready = func(ctx context.Context) error {
		cl, err := kgo.NewClient(kgo.SeedBrokers(p.Addr))
		if err != nil {
			return err
		}
		defer cl.Close()
		return cl.Ping(ctx)
	}
	return p, p.launch()
}

// MySQL gives the DSN of a fresh database on a MariaDB that the tests of this binary share.
func MySQL(t testing.TB) string {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.mysql == nil {
		p, err := newMySQL(t, dir(t))
		if err != nil {
			missing(t, "MariaDB", err)
		}
		shared.mysql = p
	}
	return Database(t, shared.mysql)
}

// StartMySQL starts a MariaDB of the test's own; see Database.
func StartMySQL(t testing.TB) *Process {
	t.Helper()
	p, err := newMySQL(t, t.TempDir())
	if err != nil {
		missing(t, "MariaDB", err)
	}
	t.Cleanup(p.Kill)
	return p
}

// Database makes a database that goes with the test, and gives its DSN.
func Database(t testing.TB, p *Process) string {
	t.Helper()
	name := fmt.Sprintf("tideline_%d", rand.Int64())
	admin := func(text string) error {
		db, err := sql.Open("mysql", "root@tcp("+p.Addr+")/")
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		_, err = db.Exec(text)
		return err
	}
	if err := admin("CREATE DATABASE " + name + " CHARACTER SET utf8mb4"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin("DROP DATABASE " + name) })
	return "root@tcp(" + p.Addr + ")/" + name
}

func newMySQL(t testing.TB, data string) (*Process, error) {
	server, err := exec.LookPath("mariadbd")
	if err != nil {
		if server, err = exec.LookPath("/usr/sbin/mariadbd"); err != nil {
			return nil, err
		}
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	files := filepath.Join(data, "data")
	account := "--user=" + os.Getenv("USER")
	if os.Geteuid() == 0 {
		account = "--user=root"
	}
	install := exec.Command("mariadb-install-db", "--no-defaults", "--datadir="+files, "--auth-root-authentication-method=normal", "--skip-test-db", account)
	if out, err := install.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("making the database folder: %w: %s", err, tail(string(out)))
	}
	p := &Process{t: t, name: "MariaDB", Addr: fmt.Sprintf("127.0.0.1:%d", port)}
	p.start = func() (*exec.Cmd, error) {
		return exec.Command(server, "--no-defaults", account, "--datadir="+files, "--bind-address=127.0.0.1", fmt.Sprintf("--port=%d", port),
			"--socket="+filepath.Join(data, "socket"), "--pid-file="+filepath.Join(data, "pid"), "--innodb-buffer-pool-size=256M", "--innodb-log-file-size=128M",
			"--max-connections=500", "--character-set-server=utf8mb4", "--skip-name-resolve"), nil
	}
	p.ready = func(ctx context.Context) error {
		db, err := sql.Open("mysql", "root@tcp("+p.Addr+")/")
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		return db.PingContext(ctx)
	}
	return p, p.launch()
}

// Redis starts a Redis of the test's own, because FLUSHALL is part of what is tested.
func Redis(t testing.TB) *Process {
	t.Helper()
	server, err := exec.LookPath("redis-server")
	if err != nil {
		missing(t, "Redis", err)
	}
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	p := &Process{t: t, name: "Redis", Addr: fmt.Sprintf("127.0.0.1:%d", port)}
	p.start = func() (*exec.Cmd, error) {
		return exec.Command(server, "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", data), nil
	}
	p.ready = func(ctx context.Context) error {
		cl := redis.NewClient(&redis.Options{Addr: p.Addr})
		defer func() { _ = cl.Close() }()
		return cl.Ping(ctx).Err()
	}
	if err := p.launch(); err != nil {
		missing(t, "Redis", err)
	}
	t.Cleanup(p.Kill)
	return p
}

// Kcat gives the path of kcat, a producer that hashes keys in another way than Kafka's own clients.
func Kcat(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("kcat")
	if err != nil {
		missing(t, "kcat", err)
	}
	return path
}

// chdbVersion is that of the library that scripts/install-servers fetches.
const chdbVersion = "26.5.3"

// ClickHouse gives the address of a database on a ClickHouse engine that the tests of this binary share. The database is
// the test's own; it is not made yet.
func ClickHouse(t testing.TB) string {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.clickhouse == nil {
		p, err := newClickHouse(t, dir(t))
		if err != nil {
			missing(t, "the ClickHouse engine", err)
		}
		shared.clickhouse = p
	}
	return shared.clickhouse.ClickHouseDatabase()
}

// StartClickHouse starts an engine of the test's own; see ClickHouseDatabase.
func StartClickHouse(t testing.TB) *Process { return StartClickHouseIn(t, t.TempDir()) }

// StartClickHouseIn starts it with its data in the folder data of a folder.
func StartClickHouseIn(t testing.TB, dir string) *Process {
	t.Helper()
	p, err := newClickHouse(t, dir)
	if err != nil {
		missing(t, "the ClickHouse engine", err)
	}
	t.Cleanup(p.Kill)
	return p
}

// ClickHouseWith starts an engine with settings of cmd/chdb, such as passwords, for the tests of this binary: Stop ends it.
func ClickHouseWith(t testing.TB, settings ...string) *Process {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	p, err := newClickHouse(t, dir(t), settings...)
	if err != nil {
		missing(t, "the ClickHouse engine", err)
	}
	shared.more = append(shared.more, p)
	return p
}

// ClickHouseDatabase gives the address of a database that nobody else has.
func (p *Process) ClickHouseDatabase() string {
	return fmt.Sprintf("http://%s/tideline_%d", p.Addr, rand.Int64())
}

// ClickHouseLibrary gives the path of the engine's library, for programs that start it themselves.
func ClickHouseLibrary(t testing.TB) string {
	t.Helper()
	path := library()
	if _, err := os.Stat(path); err != nil {
		missing(t, "the ClickHouse engine", err)
	}
	return path
}

func library() string { return filepath.Join(root(), ".tools", "chdb-"+chdbVersion, "libchdb.so") }

// newClickHouse starts cmd/chdb: the engine in a process of its own, behind ClickHouse's HTTP interface.
func newClickHouse(t testing.TB, data string, settings ...string) (*Process, error) {
	if _, err := os.Stat(library()); err != nil {
		return nil, err
	}
	binary := filepath.Join(data, "chdb")
	build := exec.Command("go", "build", "-o", binary, "./cmd/chdb")
	build.Dir = root()
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building cmd/chdb: %w: %s", err, tail(string(out)))
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	p := &Process{t: t, name: "chDB", Addr: fmt.Sprintf("127.0.0.1:%d", port)}
	p.start = func() (*exec.Cmd, error) {
		return exec.Command(binary, append(settings, "-chdb.library="+library(), "-chdb.data-dir="+filepath.Join(data, "data"), "-chdb.addr="+p.Addr)...), nil
	}
	p.ready = func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Addr+"/ping", nil)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		return answer.Body.Close()
	}
	return p, p.launch()
}

// Stop ends what the tests of this binary share and removes its data; TestMain calls it.
func Stop() {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	for _, p := range append(shared.more, shared.kafka, shared.mysql, shared.clickhouse) {
		if p != nil {
			p.Kill()
		}
	}
	shared.kafka, shared.mysql, shared.clickhouse, shared.more = nil, nil, nil, nil
	for _, d := range shared.dirs {
		_ = os.RemoveAll(d)
	}
	shared.dirs = nil
}
