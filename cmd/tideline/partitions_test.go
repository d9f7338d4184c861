package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tideline/internal/embedded"
	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
)

// Commands that use topics ask the brokers for the partition count; one that is set and is not theirs is refused.
func TestTideline_ReadsThePartitionCountFromTheBrokers(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	cfg := sqlstore.DefaultConfig()
	cfg.Driver, cfg.Path = "sqlite", filepath.Join(t.TempDir(), "store.db")
	store, err := sqlstore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	export := filepath.Join(t.TempDir(), "export.jsonl")
	if err := os.WriteFile(export, []byte(`{"day":"2004-12-25","minute":554,"kind":"message","sender":"anna","text":"hello"}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 8} {
		broker, err := embedded.StartBroker(t.TempDir(), "127.0.0.1:0", "secret", kafka.MaxUnpackedBytes, quiet)
		if err != nil {
			t.Fatal(err)
		}
		stop, cancel := context.WithCancel(context.Background())
		stopped := make(chan struct{})
		go func() { defer close(stopped); _ = broker.Run(stop) }()
		t.Cleanup(func() { cancel(); <-stopped })
		kc := kafka.DefaultConfig()
		kc.Partitions, kc.Replication, kc.MinInSync = n, 1, 1
		broker.Join(&kc)
		admin, err := kc.NewAdmin("tests", quiet)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(admin.Close)
		log := []string{"-kafka.brokers", broker.Addr(), "-kafka.user", embedded.User, "-kafka.password", "secret"}
		fsck := append([]string{"fsck", "-store.driver", "sqlite", "-store.path", cfg.Path, "-skip", "redis"}, log...)
		imports := append([]string{"import", "-import.api", "http://127.0.0.1:1", "-import.admin-token", "0123456789abcdef", "-import.group", "Quay"}, log...)
		commands := map[string][]string{
			"fsck": fsck, "import": imports,
			"parked replay": append([]string{"parked", "replay", "-store.driver", "sqlite", "-store.path", cfg.Path}, log...),
			"archive fill":  append([]string{"archive", "fill", "-store.driver", "sqlite", "-store.path", cfg.Path, "-archive.addr", "http://127.0.0.1:1/x"}, log...),
		}
		run := func(name string, more ...string) said {
			args := append(commands[name], more...)
			if name == "import" {
				args = append(args, export)
			}
			return tideline(t, args...)
		}
		for name := range commands {
			if got := run(name); got.code == 0 || !strings.Contains(got.err, "create the topics") {
				t.Errorf("%s before there are topics: %+v", name, got)
			}
		}
		if err := kafka.EnsureTopics(t.Context(), admin, kc); err != nil {
			t.Fatal(err)
		}

		if got := run("fsck"); got.code != 0 {
			t.Errorf("fsck with %d partitions: %+v", n, got)
		}
		if got := run("parked replay"); got.code != 0 {
			t.Errorf("parked replay with %d partitions: %+v", n, got)
		}
		for name := range commands {
			got := run(name, "-kafka.partitions", "3")
			if want := fmt.Sprintf("topic im.inbound has %d partitions and kafka.partitions says 3", n); got.code == 0 || !strings.Contains(got.err, want) {
				t.Errorf("%s with 3 partitions where there are %d: %+v", name, n, got)
			}
		}
	}
	if got := tideline(t, "topics", "create", "-kafka.partitions", "0"); got.code != 1 || !strings.Contains(got.err, "kafka.partitions is 0") {
		t.Errorf("topics without partitions: %+v", got)
	}
}
