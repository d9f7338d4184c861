package sqlstore

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"tideline/internal/config"
	"tideline/internal/servers"
)

func TestMigrate_OneOfManyDoesIt(t *testing.T) {
	for range 3 { // each time in an empty database: who looks at it first is a matter of chance
		dsn := config.Secret(servers.MySQL(t))
		start := make(chan struct{})
		var wg sync.WaitGroup
		for range 16 {
			s, err := Open(t.Context(), Config{Driver: "mysql", DSN: dsn, MaxOpen: 4, Timeout: 10 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			wg.Go(func() {
				<-start
				if err := s.Migrate(context.Background()); err != nil {
					t.Error(err)
				}
				if err := s.CheckSchema(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
	}
}

func TestMigrate_WaitsForAnotherLongerThanAStatementMay(t *testing.T) {
	s, err := Open(t.Context(), Config{Driver: "mysql", DSN: config.Secret(servers.MySQL(t)), MaxOpen: 4, Timeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	_, done, err := s.migrating(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Migrate(context.Background()) }()
	select {
	case err := <-ended:
		t.Errorf("it did not wait for the other: %v", err)
	case <-time.After(10 * s.timeout): // twice what a read of the services' connections may take, and more
	}
	done()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestCheckSchema_RefusesAnOlderOneAndTakesANewer(t *testing.T) {
	open := func(cfg Config) *Store {
		cfg.MaxOpen, cfg.Timeout = 4, 10*time.Second
		s, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	for name, s := range map[string]*Store{
		"SQLite": open(Config{Driver: "sqlite", Path: filepath.Join(t.TempDir(), "store.db")}),
		"MySQL":  open(Config{Driver: "mysql", DSN: config.Secret(servers.MySQL(t))}),
	} {
		t.Run(name, func(t *testing.T) {
			if err := s.CheckSchema(t.Context()); !errors.Is(err, ErrSchema) {
				t.Fatalf("an empty database was judged: %v", err)
			}
			if err := s.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := s.CheckSchema(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := s.writer.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)"); err != nil {
				t.Fatal(err)
			}
			if err := s.CheckSchema(t.Context()); err != nil {
				t.Fatalf("a newer one was refused: %v", err)
			}
			if _, err := s.writer.Exec("DELETE FROM goose_db_version WHERE version_id > 0"); err != nil {
				t.Fatal(err)
			}
			if err := s.CheckSchema(t.Context()); !errors.Is(err, ErrSchema) {
				t.Fatalf("an older one was judged: %v", err)
			}
		})
	}
}
