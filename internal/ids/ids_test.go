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

	"github.com/sony/sonyflake"

	"tideline/internal/sqlstore"
)

var quiet = slog.New(slog.DiscardHandler)

// desk is a store of leases by the rules of the real one, in memory, with a clock of its own.
type desk struct {
	mu     sync.Mutex // guards what follows
	leases []struct {
		holder string
		until  int64
	}
	ahead time.Duration // of the clock, against that of the processes
	away  bool
}

var errAway = errors.New("the store is away")

func (d *desk) now() time.Time { return time.Now().Add(d.ahead) }

func (d *desk) LeaseMachine(_ context.Context, holder string, lease, rest time.Duration, _ int) (int, int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	until := d.now().Add(lease).UnixMilli()
	for i := range d.leases {
		if l := &d.leases[i]; l.until < d.now().Add(-rest).UnixMilli() {
			l.holder, l.until = holder, until
			return i, until, nil
		}
	}
	d.leases = append(d.leases, struct {
		holder string
		until  int64
	}{holder, until})
	return len(d.leases) - 1, until, nil
}

func (d *desk) RenewMachine(_ context.Context, machine int, holder string, lease time.Duration, used int64) (int64, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away {
		return 0, false, errAway
	}
	l := &d.leases[machine]
	if l.holder != holder {
		return 0, false, nil
	}
	l.until = max(d.now().UnixMilli(), used) + lease.Milliseconds()
	return l.until, true, nil
}

func (d *desk) set(ahead time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ahead = ahead
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
		time.Sleep(leaseTime + rest/2)
		if b := lease(t, d, "b"); b.machine == a.machine {
			t.Fatal("the number was given away before it had rested")
		}
		time.Sleep(rest)
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

// timeOf gives when an id says that it was made.
func timeOf(id int64) time.Time { return epoch.Add(sonyflake.ElapsedTime(uint64(id))) }

func (g *Generator) must(t *testing.T) int64 {
	t.Helper()
	id, err := g.NextID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestNextID_GoesByTheClockOfTheStoreNotByItsOwn(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"the store's clock is three hours ahead": 3 * time.Hour, "and behind": -3 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			d := &desk{ahead: ahead}
			a := lease(t, d, "a")
			if off := timeOf(a.must(t)).Sub(d.now()).Abs(); off > time.Second {
				t.Errorf("an id is %s from the store's time", off)
			}
		})
	}
}

func TestNextID_TellsHoldersOfOneMachineNumberApartWhateverTheClockDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(epoch.AddDate(2, 0, 0))) // made time begins in 2000
		d := &desk{}
		a := lease(t, d, "a")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(time.Hour)
		d.set(-time.Hour) // the store's clock is set back
		time.Sleep(time.Hour / 2)
		last := a.must(t)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for {
			b := lease(t, d, "b")
			if b.machine != a.machine {
				time.Sleep(time.Minute)
				continue
			}
			if id := b.must(t); id <= last {
				t.Fatalf("%d was made %s before what the former holder has made", id, timeOf(last).Sub(timeOf(id)))
			}
			return
		}
	})
}

// TestNextID_NeitherSleepsNorGoesBackWhenTheClockIsSet sets the clock as far as a test can: the sonyflake in use is one of
// before, when the wall clock was an hour off.
func TestNextID_NeitherSleepsNorGoesBackWhenTheClockIsSet(t *testing.T) {
	for name, by := range map[string]time.Duration{"back": time.Hour, "forward": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			g := lease(t, &desk{}, "a")
			last := g.must(t)
			g.clock.mu.Lock()
			flake, err := sonyflake.New(sonyflake.Settings{StartTime: epoch.Add(by), MachineID: func() (uint16, error) { return g.clock.machine, nil }})
			if err != nil {
				t.Fatal(err)
			}
			g.clock.flake, g.clock.drift = flake, g.clock.drift+by
			g.clock.mu.Unlock()
			began := time.Now()
			for range 1000 {
				id := g.must(t)
				if id <= last {
					t.Fatalf("%d after %d", id, last)
				}
				last = id
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("1000 ids took %s", took)
			}
			if off := time.Since(timeOf(last)).Abs(); off > time.Second {
				t.Errorf("the ids are %s off", off)
			}
		})
	}
}

func TestNextID_IsMadeAgainWhenTheClockIsSetWhileItIsMade(t *testing.T) {
	g := lease(t, &desk{}, "a")
	last := g.must(t)
	g.clock.mu.Lock()
	flake, err := sonyflake.New(sonyflake.Settings{StartTime: epoch.Add(time.Hour), MachineID: func() (uint16, error) { return g.clock.machine, nil }})
	if err != nil {
		t.Fatal(err)
	}
	g.clock.flake = flake // it was looked at the clock before this
	g.clock.mu.Unlock()
	if id := g.must(t); id <= last {
		t.Fatalf("%d after %d", id, last)
	}
}

func TestRun_RenewsAtOnceWhereIdsAreAskedForAndTheMachineHadSlept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(epoch.AddDate(2, 0, 0))) // made time begins in 2000
		d := &desk{}
		g := lease(t, d, "a")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- g.Run(ctx) }()
		d.set(time.Hour) // that long, by the store's clock
		g.until.Store(time.Now().Add(-time.Hour).UnixMilli())
		if _, err := g.NextID(); !errors.Is(err, ErrLeaseEnded) {
			t.Fatalf("got %v", err)
		}
		synctest.Wait()
		if off := timeOf(g.must(t)).Sub(d.now()).Abs(); off > time.Second {
			t.Errorf("ids are %s behind the store", off)
		}
		d.be(true)
		g.until.Store(0)
		for range 10 { // a store that is away is not asked all the time
			if _, err := g.NextID(); !errors.Is(err, ErrLeaseEnded) {
				t.Fatalf("got %v", err)
			}
			synctest.Wait()
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}
