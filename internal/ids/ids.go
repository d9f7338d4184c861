// Package ids makes sonyflake numbers. Their machine number is leased in the store and never guessed from an address, and
// their time is that of the store, so that no two processes make the same number whatever their clocks say.
package ids

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// Lease times. A number that was held is free again only after a pause longer than the clocks of a store's machines
// differ, because the numbers of two holders are told apart by time alone.
const (
	leaseTime = 60 * time.Second
	renewAt   = 15 * time.Second
	earliest  = time.Second      // after one renewal the next, where ids are asked for and the lease is over
	margin    = 10 * time.Second // before the end of the lease, nothing is made any more
	rest      = 5 * time.Minute  // after it, nobody else gets it
	machines  = 1 << 16
)

// Store keeps the leases, by its own clock: those of processes may be hours apart.
type Store interface {
	// LeaseMachine gives a number to a holder for some time, and tells when that ends (ms, of the store's clock). One whose
	// lease ended may go to another after a rest.
	LeaseMachine(ctx context.Context, holder string, lease, rest time.Duration, limit int) (machine int, until int64, err error)
	// RenewMachine extends a lease from now on, or from the time (ms) up to which it was used where the store's clock is
	// behind that; ours is false where it is somebody else's.
	RenewMachine(ctx context.Context, machine int, holder string, lease time.Duration, used int64) (until int64, ours bool, err error)
}

// Generator makes numbers, 25,600 a second at most, as sonyflake has 8 bits for each 10 ms. It is safe for concurrent use.
type Generator struct {
	store   Store
	log     *slog.Logger
	holder  string
	machine int
	clock   *clock
	started time.Time
	early   chan struct{} // asks for a renewal before its time
	// The lease is over when either of two clocks says so: the monotonic one stands still while a machine sleeps, and the
	// other one may be set back.
	valid atomic.Int64 // nanoseconds on the monotonic clock since started
	until atomic.Int64 // ms
}

// ErrLeaseEnded means that the lease could not be renewed in time: somebody else may have the machine number.
var ErrLeaseEnded = errors.New("the lease of the machine number has ended")

// Lease takes a machine number. Run must be running for it to last.
func Lease(ctx context.Context, store Store, holder string, log *slog.Logger) (*Generator, error) {
	asked := time.Now()
	machine, until, err := store.LeaseMachine(ctx, holder, leaseTime, rest, machines)
	if err != nil {
		return nil, err
	}
	begun := until - leaseTime.Milliseconds()
	if begun < epoch.UnixMilli() {
		return nil, errors.New("making ids: the store's clock is before 2024")
	}
	g := &Generator{
		store: store, log: log, holder: holder, machine: machine, clock: newClock(uint16(machine), begun), started: time.Now(), early: make(chan struct{}, 1),
	}
	g.extend(asked)
	return g, nil
}

// extend makes the lease valid from the moment at which it was asked for.
func (g *Generator) extend(asked time.Time) {
	g.valid.Store(int64(asked.Sub(g.started) + leaseTime - margin))
	g.until.Store(asked.Add(leaseTime - margin).UnixMilli())
}

// NextID gives the next number; ErrLeaseEnded where it might not be unique. It waits for at most the few tens of
// milliseconds for which a burst has used up the numbers.
func (g *Generator) NextID() (int64, error) {
	if now := time.Now(); int64(now.Sub(g.started)) > g.valid.Load() || now.UnixMilli() > g.until.Load() {
		// The machine has slept, or its clock was set forward: which of the two, the store can tell.
		select {
		case g.early <- struct{}{}:
		default:
		}
		return 0, ErrLeaseEnded
	}
	return g.clock.next()
}

// Run renews the lease until the context ends. It returns an error when the lease is lost: the process must not go on.
func (g *Generator) Run(ctx context.Context) error {
	tick := time.NewTicker(renewAt)
	defer tick.Stop()
	var asked time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-g.early:
			if time.Since(asked) < earliest {
				continue // who asks for ids asks again
			}
		}
		asked = time.Now()
		until, ours, err := g.store.RenewMachine(ctx, g.machine, g.holder, leaseTime, g.clock.now())
		switch {
		case err != nil && ctx.Err() == nil:
			g.log.Warn("the lease of the machine number could not be renewed; it is tried again", "err", err, "machine", g.machine)
		case err == nil && !ours:
			return fmt.Errorf("machine number %d: %w", g.machine, ErrLeaseEnded)
		case err == nil:
			g.clock.advance(until - leaseTime.Milliseconds())
			g.extend(asked)
		}
	}
}
