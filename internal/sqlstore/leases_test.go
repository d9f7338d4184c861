package sqlstore

import (
	"path/filepath"
	"testing"
	"time"

	"tideline/internal/config"
	"tideline/internal/servers"
)

// onBoth runs a test on a new database of each dialect.
func onBoth(t *testing.T, do func(t *testing.T, s *Store)) {
	for name, cfg := range map[string]func(*testing.T) Config{
		"mysql":  func(t *testing.T) Config { return Config{Driver: "mysql", DSN: config.Secret(servers.MySQL(t))} },
		"sqlite": func(t *testing.T) Config { return Config{Driver: "sqlite", Path: filepath.Join(t.TempDir(), "s.db")} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := cfg(t)
			cfg.MaxOpen, cfg.Timeout = 4, 10*time.Second
			s, err := Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			if err := s.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			do(t, s)
		})
	}
}

func TestLeaseMachine_GoesByTheDatabasesClock(t *testing.T) {
	const lease, rest = time.Minute, 5 * time.Minute
	onBoth(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		before := time.Now().UnixMilli()
		machine, until, err := s.LeaseMachine(ctx, "a", lease, rest, 10)
		if err != nil || machine != 0 {
			t.Fatalf("%d, %v", machine, err)
		}
		// The database of the tests runs on this machine.
		if at := until - lease.Milliseconds(); at < before-10 || at > time.Now().UnixMilli()+10 {
			t.Errorf("the lease began at %d, and it is %d", at, before)
		}
		if machine, _, err = s.LeaseMachine(ctx, "b", lease, rest, 10); err != nil || machine != 1 {
			t.Fatalf("the number of another was given: %d, %v", machine, err)
		}
		ended := func(ago time.Duration) {
			if _, err := s.writer.ExecContext(ctx, "UPDATE machine_leases SET expires_at = ? WHERE machine_id = 0", time.Now().Add(-ago).UnixMilli()); err != nil {
				t.Fatal(err)
			}
		}
		ended(rest - time.Minute)
		if machine, _, err = s.LeaseMachine(ctx, "c", lease, rest, 10); err != nil || machine != 2 {
			t.Fatalf("a number that has not rested was given: %d, %v", machine, err)
		}
		ended(rest + time.Minute)
		if machine, until, err = s.LeaseMachine(ctx, "d", lease, rest, 10); err != nil || machine != 0 || until < before+lease.Milliseconds()-10 {
			t.Fatalf("a number that is free again was not given: %d until %d, %v", machine, until, err)
		}
		if _, ours, err := s.RenewMachine(ctx, 0, "a", lease, 0); err != nil || ours {
			t.Errorf("a lost lease was renewed: %v", err)
		}
		renewed, ours, err := s.RenewMachine(ctx, 0, "d", lease, 0)
		if err != nil || !ours || renewed < until {
			t.Errorf("renewed until %d after %d, %v, %v", renewed, until, ours, err)
		}
		// The clock was set back behind what has been used: the lease covers that all the same.
		used := time.Now().Add(time.Hour).UnixMilli()
		if renewed, ours, err = s.RenewMachine(ctx, 0, "d", lease, used); err != nil || !ours || renewed != used+lease.Milliseconds() {
			t.Errorf("renewed until %d with %d in use, %v, %v", renewed, used, ours, err)
		}
		if _, _, err = s.LeaseMachine(ctx, "e", lease, rest, 3); err == nil {
			t.Error("a fourth number was given, of three")
		}
	})
}
