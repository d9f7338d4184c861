package sqlstore

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/internal/config"
	"tideline/internal/servers"
	"tideline/pkg/timeline/timelinetest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	servers.Stop()
	os.Exit(code)
}

// newSQLite gives a store on a new file.
func newSQLite(t testing.TB) *Store {
	t.Helper()
	return openStore(t, Config{Driver: "sqlite", Path: filepath.Join(t.TempDir(), "store ä?#.db"), MaxOpen: 8, Timeout: 10 * time.Second})
}

// newMySQL gives a store in a new database of the real server.
func newMySQL(t testing.TB) *Store {
	t.Helper()
	return openStore(t, Config{Driver: "mysql", DSN: config.Secret(servers.MySQL(t)), MaxOpen: 8, Timeout: 10 * time.Second})
}

func openStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Migrate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore_PassesTheSuiteOfTheTimeline(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { timelinetest.Run(t, func(t *testing.T) timelinetest.Store { return newSQLite(t) }) })
	t.Run("MySQL", func(t *testing.T) { timelinetest.Run(t, func(t *testing.T) timelinetest.Store { return newMySQL(t) }) })
	// As doors have it: bounded, and with statements that a crowd shares.
	t.Run("Guarded", func(t *testing.T) {
		timelinetest.Run(t, func(t *testing.T) timelinetest.Store {
			return newSQLite(t).Guarded(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		})
	})
}

func TestOpen_HidesThePassword(t *testing.T) {
	_, err := Open(context.Background(), Config{Driver: "mysql", DSN: "app:hush@nowhere", MaxOpen: 2, Timeout: time.Second})
	if err == nil || strings.Contains(err.Error(), "hush") {
		t.Fatalf("got %v", err)
	}
}
