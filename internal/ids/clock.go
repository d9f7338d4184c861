package ids

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sony/sonyflake"
)

// epoch is where the numbers' clock begins. Changing it would repeat numbers.
var epoch = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// unit is the step of a sonyflake's time.
const unit = 10 * time.Millisecond

// clock makes sonyflakes whose time is the store's, carried on by the monotonic clock from when the store last told it. It
// never goes back.
//
// The library reads the wall clock and, where that was set back, sleeps until it has caught up. So a sonyflake is used only
// for as long as the wall clock was not set; then there is a new one, which begins as much earlier as makes it go on behind
// the last number.
type clock struct {
	machine uint16
	started time.Time

	mu    sync.Mutex // guards what follows
	told  int64      // ms, of the store
	at    time.Time  // when it was told
	flake *sonyflake.Sonyflake
	drift time.Duration // of the wall clock against the monotonic one, when the flake was made
	last  uint64
}

func newClock(machine uint16, told int64) *clock {
	now := time.Now()
	return &clock{machine: machine, started: now, told: told, at: now}
}

// now gives the time in ms: no number was made for a later one but by a few units.
func (c *clock) now() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read(time.Now())
}

// read gives the time of a moment in ms, on the monotonic clock. c.mu is held.
func (c *clock) read(now time.Time) int64 { return c.told + now.Sub(c.at).Milliseconds() }

// advance takes the time (ms) that the store told just now, if it is ahead: it is after the machine has slept.
func (c *clock) advance(told int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); told > c.read(now) {
		c.told, c.at, c.flake = told, now, nil
	}
}

// renewals bounds how often a number is tried to be made for which the clock was set just then.
const renewals = 3

var errClock = errors.New("making an id: the clock is set all the time")

// next gives the next number, which is greater than all before.
func (c *clock) next() (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range renewals {
		if err := c.settle(); err != nil {
			return 0, err
		}
		id, err := c.flake.NextID()
		if err != nil {
			return 0, fmt.Errorf("making an id: %w", err)
		}
		if id > c.last {
			c.last = id
			return int64(id), nil
		}
		c.flake = nil
	}
	return 0, errClock
}

// settle makes a new sonyflake where there is none, or where the wall clock was set since it was made. c.mu is held.
func (c *clock) settle() error {
	now := time.Now()
	drift := time.Duration(now.UnixNano()-c.started.UnixNano()) - now.Sub(c.started)
	if c.flake != nil && (drift-c.drift).Abs() < unit {
		return nil
	}
	elapsed := time.Duration(c.read(now)-epoch.UnixMilli()) * time.Millisecond
	if c.last > 0 {
		elapsed = max(elapsed, sonyflake.ElapsedTime(c.last)+unit)
	}
	flake, err := sonyflake.New(sonyflake.Settings{StartTime: now.Add(-elapsed.Truncate(unit)), MachineID: func() (uint16, error) { return c.machine, nil }})
	if err != nil {
		return fmt.Errorf("making ids: %w", err)
	}
	c.flake, c.drift = flake, drift
	return nil
}
