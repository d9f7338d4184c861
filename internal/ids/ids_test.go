package ids

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tideline/internal/sqlstore"
)

var quiet = slog.New(slog.DiscardHandler)

// desk is a store of leases by the rules of the real one, in memory.
type desk struct {
	mu     sync.Mutex // guards what follows
	leases []struct {
		holder string
		until  int64
	}
	away bool
}

var errAway = errors.New("the store is away")

func (d *desk) LeaseMachine(_ context.Context, holder string, until, freeBefore int64, _ int) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.leases {
		if l := &d.leases[i]; l.until < freeBefore {
			l.holder, l.until = holder, until
			return i, nil
		}
	}
	d.leases = append(d.leases, struct {
		holder string
		until  int64
	}{holder, until})
	return len(d.leases) - 1, nil
}

func (d *desk) RenewMachine(_ context.Context, machine int, holder string, until int64) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away {
		return false, errAway
	}
	l := &d.leases[machine]
	if l.holder != holder {
		return false, nil
	}
	l.until = until
	return true, nil
}

func (d *desk) be(away bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = away
}

func lease(t *testing.T, d Store, holder string) *Generator {
	t.Helper()
	g, err := Lease(t.Context(), d, holder, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestNextID_IsUniqueAmongProcessesAndGrows(t *testing.T) {
	s, err := sqlstore.Open(t.Context(), sqlstore.Config{Driver: "sqlite", Path: filepath.Join(t.TempDir(), "s.db"), MaxOpen: 4, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	const each = 2000
	var mu sync.Mutex
	seen := map[int64]string{}
	var wg sync.WaitGroup
	for _, holder := range []string{"a", "b", "c"} {
		g := lease(t, s, holder)
		wg.Go(func() {
			last := int64(0)
			for range each {
				id, err := g.NextID()
				if err != nil || id <= last {
					t.Errorf("%d after %d, %v", id, last, err)
					return
				}
				last = id
				mu.Lock()
				if other, there := seen[id]; there {
					t.Errorf("%d was made by %s and %s", id, other, holder)
				}
				seen[id] = holder
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestNextID_EndsBeforeALeaseThatIsNotRenewedDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(epoch.AddDate(2, 0, 0))) // made time begins in 2000
		d := &desk{}
		g := lease(t, d, "a")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- g.Run(ctx) }()
		time.Sleep(10 * time.Minute) // of made time: it was renewed forty times
		if _, err := g.NextID(); err != nil {
			t.Fatal(err)
		}
		d.be(true)
		time.Sleep(leaseTime - margin + renewAt)
		if _, err := g.NextID(); !errors.Is(err, ErrLeaseEnded) {
			t.Fatalf("made after the lease: %v", err)
		}
		d.be(false)
		time.Sleep(renewAt)
		if _, err := g.NextID(); err != nil {
			t.Fatalf("the store is back, the number still ours, and it was refused: %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestRun_EndsTheProcessWhenSomebodyElseHasTheNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(epoch.AddDate(2, 0, 0))) // made time begins in 2000
		d := &desk{}
		a := lease(t, d, "a")
		time.Sleep(leaseTime + skew/2)
		if b := lease(t, d, "b"); b.machine == a.machine {
			t.Fatal("the number was given away while clocks may differ")
		}
		time.Sleep(skew)
		b := lease(t, d, "c")
		if b.machine != a.machine {
			t.Fatalf("a number that is free again was not given: %d", b.machine)
		}
		if _, err := a.NextID(); !errors.Is(err, ErrLeaseEnded) {
			t.Fatalf("two make numbers with one machine number: %v", err)
		}
		if err := a.Run(t.Context()); !errors.Is(err, ErrLeaseEnded) {
			t.Fatalf("it goes on: %v", err)
		}
	})
}

func TestNextID_EndsWhenTheMachineHadSlept(t *testing.T) {
	g := lease(t, &desk{}, "a")
	// What a sleeping machine's monotonic clock does: the lease looks fresh on it, and by the other clock it is over.
	g.until.Store(time.Now().Add(-time.Second).UnixMilli())
	if _, err := g.NextID(); !errors.Is(err, ErrLeaseEnded) {
		t.Fatalf("got %v", err)
	}
}
