package pusher

import (
	"sync"
	"time"
)

// flusher writes what connections have to say unasked. Each connection belongs to one of a few flushers, which takes the
// place of a writing goroutine and a timer for each: those that may be written to at once stand in a queue, those that
// wait for the end of their window in the slots of a wheel, which turns only while something is in it.
type flusher struct {
	p    *Pusher
	wake chan struct{} // one place: there is work

	mu      sync.Mutex // guards what follows
	ready   []*conn
	slots   [wheelSlots]*conn // chained by conn.next
	waiting int               // in the slots
	turned  int64             // the last tick whose slot was emptied
}

// A window is cut into this many ticks. A hint is late by one of them at most.
const (
	ticksPerWindow = 16
	wheelSlots     = 2 * ticksPerWindow // what is due within one window never meets what is due in the next turn
	leastTick      = time.Millisecond
	keptReady      = 64 << 10 // places of the queue that are kept after a crowd
)

func newFlusher(p *Pusher) *flusher { return &flusher{p: p, wake: make(chan struct{}, 1)} }

// now queues a connection that may be written to at once.
func (f *flusher) now(c *conn) {
	f.mu.Lock()
	f.ready = append(f.ready, c)
	first := len(f.ready) == 1
	f.mu.Unlock()
	if first {
		f.signal()
	}
}

// later queues a connection for the time when its window ends. One that comes too early is planned again.
func (f *flusher) later(c *conn, due time.Duration) {
	f.mu.Lock()
	if f.waiting == 0 {
		f.turned = int64(f.p.clock() / f.p.tick) // the wheel stood still
	}
	tick := max((int64(due)+int64(f.p.tick)-1)/int64(f.p.tick), f.turned+1)
	tick = min(tick, f.turned+wheelSlots-1)
	slot := &f.slots[tick%wheelSlots]
	c.next, *slot = *slot, c
	f.waiting++
	first := f.waiting == 1
	f.mu.Unlock()
	if first {
		f.signal()
	}
}

func (f *flusher) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// length tells how many connections stand here.
func (f *flusher) length() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.ready) + f.waiting
}

// run works until stop is closed.
func (f *flusher) run(stop <-chan struct{}) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	var batch, quiet []*conn
	for {
		select {
		case <-stop:
			return
		case <-f.wake:
		case <-timer.C:
		}
		for {
			batch = f.takeReady(batch[:0])
			wereReady := len(batch)
			batch = f.turn(batch)
			if len(batch) == 0 {
				break
			}
			for i, c := range batch {
				c.flush()
				if i < wereReady || i%64 != 63 {
					continue
				}
				// Those who were quiet do not wait for a crowd whose window ends. Nobody passes others who were quiet: without
				// a window all of them are, and the first would be told again and again before the last is told once.
				quiet = f.takeReady(quiet[:0])
				for _, c := range quiet {
					c.flush()
				}
				clear(quiet)
			}
			clear(batch) // connections that are gone are not kept
		}
		f.mu.Lock()
		if f.waiting > 0 {
			timer.Reset(max(time.Duration(f.turned+1)*f.p.tick-f.p.clock(), 0))
		} else {
			timer.Stop()
		}
		f.mu.Unlock()
	}
}

func (f *flusher) takeReady(into []*conn) []*conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.ready) == 0 {
		return into
	}
	into = append(into, f.ready...)
	clear(f.ready)
	if f.ready = f.ready[:0]; cap(f.ready) > keptReady {
		f.ready = nil
	}
	return into
}

// turn empties the slots whose time has come.
func (f *flusher) turn(into []*conn) []*conn {
	now := int64(f.p.clock() / f.p.tick)
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.waiting > 0 && f.turned < now {
		f.turned++
		slot := &f.slots[f.turned%wheelSlots]
		for c := *slot; c != nil; {
			next := c.next
			c.next = nil
			into = append(into, c)
			f.waiting--
			c = next
		}
		*slot = nil
	}
	return into
}
