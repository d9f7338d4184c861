package main

import (
	"path/filepath"
	"strings"
	"testing"

	"tideline/internal/sqlstore"
)

func TestFsck_TellsByItsExitCode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store.db")
	on := func(args ...string) []string {
		return append([]string{"fsck", "-store.driver", "sqlite", "-store.path", file, "-kafka.partitions", "1"}, args...)
	}
	only := on("-skip", "log,archive,redis")
	if got := tideline(t, only...); got.code != 2 || !strings.Contains(got.out, "COULD NOT LOOK at store") {
		t.Errorf("without a file: %+v", got)
	}
	cfg := sqlstore.DefaultConfig()
	cfg.Driver, cfg.Path = "sqlite", file
	store, err := sqlstore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := tideline(t, only...); got.code != 0 || !strings.Contains(got.out, "not looked at: redis") {
		t.Errorf("an empty store: %+v", got)
	}
	if err := store.Park(t.Context(), sqlstore.Parked{Topic: "im.messages", Reason: "why", Key: []byte("g-1"), Record: []byte{0}}); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil { // nobody has it open now
		t.Fatal(err)
	}
	if got := tideline(t, only...); got.code != 1 || !strings.Contains(got.out, "im.messages/0 at 0") {
		t.Errorf("a parked record: %+v", got)
	}
	if got := tideline(t, append(only, "-json")...); got.code != 1 || !strings.Contains(got.out, `"check": "parked"`) {
		t.Errorf("a parked record, for machines: %+v", got)
	}
	for _, args := range [][]string{{"-skip", "store"}, {"-skip", "rows"}, {"-conversation", "x"}, {"-patience", "0s"}, {"-at-rst"}} {
		if got := tideline(t, on(args...)...); got.code != 2 || got.err == "" {
			t.Errorf("%q: %+v", args, got)
		}
	}
}
