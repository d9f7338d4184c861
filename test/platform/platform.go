// Package platform starts the programs themselves, on embedded or on real servers, and talks to them as clients, backends and
// analysts do.
package platform

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/config"
	"tideline/internal/embedded"
	"tideline/internal/kafka"
	"tideline/internal/servers"
)

// Platform is a running Tideline: one process or many.
type Platform struct {
	HTTP  string // base address of the api
	WS    string // base address of the sockets
	Kafka string // host:port of a broker
	// Backend has more options of a backend's client, such as who it is.
	Backend []kgo.Opt
	// DataDir is the data directory of a standalone, else empty.
	DataDir string
	// Admin gives the administrators' token, and SQL the driver and the address of the store.
	Admin func() string
	SQL   func() (driver, dsn string)
	// ClickHouse gives the address of the archive's database.
	ClickHouse func() string
	// Restart ends everything as a power cut does, and starts it again.
	Restart func()
	// Fsck looks at what everything has once it has come to rest, and fails where it is not sound; it gives what is printed.
	Fsck func() string
	// Parts are its processes, in the order of the data.
	Parts []*Process
}

// ManyPartitions is the variable for a standalone whose tests need records in a wrong partition: by default it has one.
const ManyPartitions = "TIDELINE_KAFKA_PARTITIONS=8"

// Standalone starts the one process that is all of them; env are more of its variables.
func Standalone(t testing.TB, env ...string) *Platform { return StandaloneIn(t, t.TempDir(), env...) }

// StandaloneIn starts it with a folder for its data.
func StandaloneIn(t testing.TB, dir string, env ...string) *Platform {
	t.Helper()
	addr, kafkaAddr, clickhouseAddr := FreePort(t), FreePort(t), FreePort(t)
	Built(t, "chdb") // standalone looks for it beside itself
	p := StartProcess(t, "standalone", append(env, "TIDELINE_HTTP_ADDR="+addr, "TIDELINE_KAFKA_ADDR="+kafkaAddr, "TIDELINE_OPS_ADDR=127.0.0.1:0", "TIDELINE_DATA_DIR="+dir,
		"TIDELINE_CLICKHOUSE_ADDR="+clickhouseAddr, "TIDELINE_CLICKHOUSE_LIBRARY="+servers.ClickHouseLibrary(t))...)
	secret := func(name string) string {
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err == nil {
				return strings.TrimSpace(string(text))
			}
			if time.Now().After(deadline) { // it makes them when it starts for the first time
				t.Fatal(err)
			}
		}
	}
	pf := &Platform{
		Admin: func() string { return secret("admin-token") },
		SQL:   func() (string, string) { return "sqlite", filepath.Join(dir, "tideline.db") },
		ClickHouse: func() string {
			return "http://default:" + secret("clickhouse-owner-password") + "@" + clickhouseAddr + "/tideline"
		},
		HTTP: "http://" + addr, WS: "http://" + addr, Kafka: kafkaAddr, DataDir: dir, Parts: []*Process{p},
		Restart: func() { p.Kill(); p.Start() },
	}
	pf.Fsck = func() string {
		t.Helper()
		cmd := exec.Command(Built(t, "tideline"), "-data.dir", dir, "fsck", "-at-rest")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("fsck: %v\n%s", err, out)
		}
		return string(out)
	}
	return pf
}

// KafkaFlags are what the operators' command needs to reach the log.
func (pf *Platform) KafkaFlags() []string {
	if pf.DataDir != "" {
		return []string{"-data.dir", pf.DataDir}
	}
	return []string{"-kafka.brokers", pf.Kafka}
}

// Inside sets how a client of the platform's own reaches the log.
func (pf *Platform) Inside(t testing.TB, cfg *kafka.Config) {
	t.Helper()
	cfg.Brokers = []string{pf.Kafka}
	if pf.DataDir == "" {
		return
	}
	found, err := embedded.OpenFolder(pf.DataDir)
	for until := time.Now().Add(time.Minute); (err != nil || !found.Running) && time.Now().Before(until); {
		time.Sleep(20 * time.Millisecond) // it is starting, and its folder says when it has
		found, err = embedded.OpenFolder(pf.DataDir)
	}
	if err != nil {
		t.Fatal(err)
	}
	cfg.User, cfg.Password = found.Settings["kafka.user"], config.Secret(found.Settings["kafka.password"])
}

// InsideOpts are the options of such a client.
func (pf *Platform) InsideOpts(t testing.TB) []kgo.Opt {
	t.Helper()
	if pf.DataDir == "" {
		return pf.Backend
	}
	cfg := kafka.DefaultConfig()
	pf.Inside(t, &cfg)
	return append(cfg.Common("tests", slog.New(slog.DiscardHandler)), pf.Backend...)
}

// Produce writes a backend's JSON command to a partition that is not its own, as a producer with another hash does.
func (pf *Platform) Produce(t testing.TB, key, value string, partition int32) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(pf.Kafka), kgo.RecordPartitioner(kgo.ManualPartitioner())}, pf.Backend...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	r := &kgo.Record{Topic: "im.inbound", Partition: partition, Key: []byte(key), Value: []byte(value), Headers: []kgo.RecordHeader{
		{Key: "content-type", Value: []byte("application/json")}, {Key: "producer", Value: []byte("crm")},
	}}
	if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}
