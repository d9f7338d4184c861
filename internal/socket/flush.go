package socket

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"tideline/pkg/chat"
)

// pending is what a connection is to be told next: the newest number of each conversation, and nothing else, however
// much happened meanwhile.
type pending struct {
	hints    []*hint // at most one for each conversation
	receipts map[chat.ConversationID]int64
	reads    map[chat.ConversationID]int64
}

func (p *pending) empty() bool { return len(p.hints) == 0 && len(p.receipts) == 0 && len(p.reads) == 0 }

// addHint keeps the higher number; it tells whether an older hint was replaced.
func (p *pending) addHint(h *hint) (replaced bool) {
	for i, old := range p.hints {
		if old.c == h.c {
			if h.seq > old.seq {
				p.hints[i] = h
			}
			return true
		}
	}
	p.hints = append(p.hints, h)
	return false
}

func raise(m *map[chat.ConversationID]int64, id chat.ConversationID, seq int64) {
	if *m == nil {
		*m = map[chat.ConversationID]int64{}
	}
	if seq > (*m)[id] {
		(*m)[id] = seq
	}
}

// flusher decides when a connection is written to: at once after a pause, and then once a window. It has no goroutine
// and no timer per connection: a wheel of slots names the connections that are due, and a few workers write. A worker that
// hangs in a slow client's socket is replaced for as long as it hangs.
type flusher struct {
	window  time.Duration
	metrics *Metrics
	queue   chan *conn

	mu    sync.Mutex // guards wheel
	wheel map[int64][]*conn

	workers atomic.Int64
	busy    sync.Map // *worker -> struct{}
}

// slot is the grain of the wheel.
const slot = 5 * time.Millisecond

// baseWorkers write while nobody is slow; the most that can hang are the connections themselves.
const baseWorkers = 8

func newFlusher(window time.Duration, maxConnections int, m *Metrics) *flusher {
	// A connection is in the queue once at most, so that nothing ever waits for a place in it.
	return &flusher{window: window, metrics: m, queue: make(chan *conn, maxConnections+1), wheel: map[int64][]*conn{}}
}

func (f *flusher) hint(c *conn, h *hint) {
	c.mu.Lock()
	if c.pending.addHint(h) {
		f.metrics.coalesced.Inc()
	}
	f.schedule(c)
}

func (f *flusher) receipt(c *conn, id chat.ConversationID, seq int64) {
	c.mu.Lock()
	raise(&c.pending.receipts, id, seq)
	f.schedule(c)
}

func (f *flusher) read(c *conn, id chat.ConversationID, seq int64) {
	c.mu.Lock()
	raise(&c.pending.reads, id, seq)
	f.schedule(c)
}

// schedule is called with c.mu held, and lets go of it.
func (f *flusher) schedule(c *conn) {
	if c.scheduled || !c.ready {
		c.mu.Unlock()
		return
	}
	c.scheduled = true
	due := c.flushedAt.Add(f.window)
	c.mu.Unlock()
	now := time.Now()
	if !due.After(now) {
		f.queue <- c
		return
	}
	at := due.UnixNano()/int64(slot) + 1
	f.mu.Lock()
	f.wheel[at] = append(f.wheel[at], c)
	f.mu.Unlock()
}

// run turns the wheel until the context ends.
func (f *flusher) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for range baseWorkers {
		f.spawn(ctx, &wg)
	}
	tick := time.NewTicker(slot)
	defer tick.Stop()
	last := time.Now().UnixNano() / int64(slot)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now().UnixNano() / int64(slot)
		for ; last <= now; last++ {
			f.mu.Lock()
			due := f.wheel[last]
			delete(f.wheel, last)
			f.mu.Unlock()
			for _, c := range due {
				f.queue <- c
			}
		}
		if len(f.queue) > 0 {
			f.relieve(ctx, &wg)
		}
	}
}

type worker struct{ since atomic.Int64 }

// stuckAfter is how long a write takes before its worker is replaced: a healthy one takes microseconds.
const stuckAfter = 10 * time.Millisecond

// relieve adds workers for those that hang.
func (f *flusher) relieve(ctx context.Context, wg *sync.WaitGroup) {
	limit := time.Now().Add(-stuckAfter).UnixNano()
	stuck := int64(0)
	f.busy.Range(func(k, _ any) bool {
		if since := k.(*worker).since.Load(); since != 0 && since < limit {
			stuck++
		}
		return true
	})
	for f.workers.Load() < stuck+baseWorkers {
		f.spawn(ctx, wg)
	}
}

func (f *flusher) spawn(ctx context.Context, wg *sync.WaitGroup) {
	w := &worker{}
	f.busy.Store(w, struct{}{})
	f.workers.Add(1)
	wg.Go(func() {
		defer f.busy.Delete(w)
		defer f.workers.Add(-1)
		for {
			select {
			case c := <-f.queue:
				w.since.Store(time.Now().UnixNano())
				f.write(c)
				took := time.Now().UnixNano() - w.since.Swap(0)
				if took > int64(stuckAfter) && f.workers.Load() > baseWorkers {
					return // it was replaced
				}
			case <-ctx.Done():
				return
			}
		}
	})
}

func (f *flusher) write(c *conn) {
	now := time.Now()
	c.mu.Lock()
	p := c.pending
	c.pending = pending{hints: c.spare[:0]}
	c.flushedAt = now
	c.mu.Unlock()
	err := f.writeFrames(c, &p)
	c.mu.Lock()
	clear(p.hints)
	c.spare = p.hints[:0]
	if cap(c.spare) > 16 {
		c.spare = nil // a burst leaves no memory behind
	}
	c.scheduled = false
	again := err == nil && !c.pending.empty()
	if again {
		f.schedule(c)
	} else {
		c.mu.Unlock()
	}
	if err != nil {
		c.closeSlow(err)
	}
}

// maxItems bounds the items of one frame.
const maxItems = 200

func (f *flusher) writeFrames(c *conn, p *pending) error {
	if len(p.hints) == 1 {
		h := p.hints[0]
		if err := c.writePrepared(h.prepared()); err != nil {
			return err
		}
		f.metrics.frames.Inc()
		f.metrics.hints.Inc()
		f.metrics.bytes.Add(float64(h.size.Load()))
	}
	for start := 0; len(p.hints) > 1 && start < len(p.hints); start += maxItems {
		text := []byte(`{"op":"hint","items":[`)
		part := p.hints[start:min(start+maxItems, len(p.hints))]
		for i, h := range part {
			if i > 0 {
				text = append(text, ',')
			}
			text = appendItem(text, h.c, h.seq)
		}
		if err := c.writeText(append(text, "]}"...)); err != nil {
			return err
		}
		f.metrics.hints.Add(float64(len(part)))
	}
	if len(p.receipts) > 0 {
		text := []byte(`{"op":"receipt","items":[`)
		first := true
		for id, seq := range p.receipts {
			if !first {
				text = append(text, ',')
			}
			first = false
			text = appendItem(text, id, seq)
		}
		if err := c.writeText(append(text, "]}"...)); err != nil {
			return err
		}
	}
	for id, seq := range p.reads {
		text := append([]byte(`{"op":"read","conversation_id":"`), id.String()...)
		text = strconv.AppendInt(append(text, `","read_seq":`...), seq, 10)
		if err := c.writeText(append(text, '}')); err != nil {
			return err
		}
	}
	return nil
}

func appendItem(b []byte, id chat.ConversationID, seq int64) []byte {
	b = append(append(append(b, `{"c":"`...), id.String()...), `","s":`...)
	return append(strconv.AppendInt(b, seq, 10), '}')
}
