// Package ids makes sonyflake numbers. Their machine number is leased in the store and never guessed from an address, so
// that no two processes make the same number.
package ids

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/sony/sonyflake"
)

// epoch is where the numbers' clock begins. Changing it would repeat numbers.
var epoch = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// Lease times. A number that was held is free again only after a pause longer than clocks of a cluster differ, because
// the numbers of two holders are told apart by time alone.
const (
	leaseTime = 60 * time.Second
	renewAt   = 15 * time.Second
	margin    = 10 * time.Second // before the end of the lease, nothing is made any more
	skew      = 5 * time.Minute  // after it, nobody else gets it
	machines  = 1 << 16
)

// Store keeps the leases.
type Store interface {
	// LeaseMachine gives a number to a holder until a time (ms); one whose lease ended may go to another after freeBefore.
	LeaseMachine(ctx context.Context, holder string, until, freeBefore int64, limit int) (int, error)
	// RenewMachine extends a lease; false where it is somebody else's.
	RenewMachine(ctx context.Context, machine int, holder string, until int64) (bool, error)
}

// Generator makes numbers, 25,600 a second at most, as sonyflake has 8 bits for each 10 ms. It is safe for concurrent use.
type Generator struct {
	store   Store
	log     *slog.Logger
	holder  string
	machine int
	flake   *sonyflake.Sonyflake
	started time.Time
	// The lease is over when either of two clocks says so: the monotonic one stands still while a machine sleeps, and the
	// other one may be set back.
	valid atomic.Int64 // nanoseconds on the monotonic clock since started
	until atomic.Int64 // ms
}

// ErrLeaseEnded means that the lease could not be renewed in time: somebody else may have the machine number.
var ErrLeaseEnded = errors.New("the lease of the machine number has ended")

// Lease takes a machine number. Run must be running for it to last.
func Lease(ctx context.Context, store Store, holder string, log *slog.Logger) (*Generator, error) {
	g := &Generator{store: store, log: log, holder: holder, started: time.Now()}
	asked := time.Now()
	machine, err := store.LeaseMachine(ctx, holder, asked.Add(leaseTime).UnixMilli(), asked.Add(-skew).UnixMilli(), machines)
	if err != nil {
		return nil, err
	}
	g.machine = machine
	g.extend(asked)
	g.flake = sonyflake.NewSonyflake(sonyflake.Settings{StartTime: epoch, MachineID: func() (uint16, error) { return uint16(machine), nil }})
	if g.flake == nil {
		return nil, errors.New("making ids: the clock is before 2024")
	}
	return g, nil
}

// extend makes the lease valid from the moment at which it was asked for.
func (g *Generator) extend(asked time.Time) {
	g.valid.Store(int64(asked.Sub(g.started) + leaseTime - margin))
	g.until.Store(asked.Add(leaseTime - margin).UnixMilli())
}

// NextID gives the next number; ErrLeaseEnded where it might not be unique.
func (g *Generator) NextID() (int64, error) {
	if now := time.Now(); int64(now.Sub(g.started)) > g.valid.Load() || now.UnixMilli() > g.until.Load() {
		return 0, ErrLeaseEnded
	}
	id, err := g.flake.NextID()
	if err != nil {
		return 0, fmt.Errorf("making an id: %w", err)
	}
	return int64(id), nil
}

// Run renews the lease until the context ends. It returns an error when the lease is lost: the process must not go on.
func (g *Generator) Run(ctx context.Context) error {
	tick := time.NewTicker(renewAt)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		asked := time.Now()
		ours, err := g.store.RenewMachine(ctx, g.machine, g.holder, asked.Add(leaseTime).UnixMilli())
		switch {
		case err != nil && ctx.Err() == nil:
			g.log.Warn("the lease of the machine number could not be renewed; it is tried again", "err", err, "machine", g.machine)
		case err == nil && !ours:
			return fmt.Errorf("machine number %d: %w", g.machine, ErrLeaseEnded)
		case err == nil:
			g.extend(asked)
		}
	}
}
