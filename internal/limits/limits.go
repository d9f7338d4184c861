// Package limits says how often something may happen, for each of many keys: a person, an address, a username.
package limits

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// Keyed has a token bucket for each key: so many at once, so many a second for long. It remembers a bounded number of
// keys; where there are more, the one that was quiet for longest is forgotten and begins with a full bucket when it
// comes back. It is safe for concurrent use.
type Keyed[K comparable] struct {
	perSecond float64
	burst     float64
	most      int
	now       func() time.Time

	mu      sync.Mutex // guards what follows
	entries map[K]*list.Element
	order   *list.List // of *entry[K], the one that came last first
}

type entry[K comparable] struct {
	key    K
	tokens float64
	at     time.Time
	held   int           // reserved and not settled
	freed  chan struct{} // closed when one is settled; nil while nothing waits for that
}

// New makes limits of burst at once and perSecond for long (both positive), for at most so many keys; an entry takes about
// 200 bytes. The clock is time.Now, but in tests.
func New[K comparable](perSecond float64, burst, most int, now func() time.Time) *Keyed[K] {
	return &Keyed[K]{perSecond: perSecond, burst: float64(burst), most: most, now: now, entries: map[K]*list.Element{}, order: list.New()}
}

// Take takes one for a key. Where there is none it takes nothing, and tells how long until there is one.
func (k *Keyed[K]) Take(key K) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.filled(key)
	if e.tokens < 1 {
		return k.refill(e)
	}
	e.tokens--
	return 0
}

// Reserve holds one of a key's until its outcome is known, so that only what fails costs: Settle either takes it or
// returns it. Where there is none, Reserve holds nothing and returns how long until there is one. While others hold all
// that there are, Reserve waits for them to be settled: attempts that succeed never make another one fail. The error is
// the context's.
func (k *Keyed[K]) Reserve(ctx context.Context, key K) (time.Duration, error) {
	for {
		wait, freed := k.reserve(key)
		if freed == nil {
			return wait, nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// reserve returns a channel to wait on where all that there are is held.
func (k *Keyed[K]) reserve(key K) (time.Duration, chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.filled(key)
	switch {
	case e.tokens < 1:
		return k.refill(e), nil
	case e.tokens >= float64(e.held)+1:
		e.held++
		return 0, nil
	}
	if e.freed == nil {
		e.freed = make(chan struct{})
	}
	return 0, e.freed
}

// Settle ends a reservation: it takes what was reserved, or returns it. Each successful Reserve is settled once.
func (k *Keyed[K]) Settle(key K, take bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.filled(key)
	e.held = max(e.held-1, 0)
	if take {
		e.tokens--
	}
	if e.freed != nil {
		close(e.freed)
		e.freed = nil
	}
}

// filled returns a key's bucket as it is now.
func (k *Keyed[K]) filled(key K) *entry[K] {
	now := k.now()
	e := k.of(key, now)
	e.tokens = min(k.burst, e.tokens+max(now.Sub(e.at).Seconds(), 0)*k.perSecond)
	e.at = now
	return e
}

// refill returns how long until a bucket has one.
func (k *Keyed[K]) refill(e *entry[K]) time.Duration {
	return max(time.Duration((1-e.tokens)/k.perSecond*float64(time.Second)), time.Millisecond)
}

// Return returns one that was taken for a key, up to the burst. For a key that was forgotten it does nothing.
func (k *Keyed[K]) Return(key K) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if there, ok := k.entries[key]; ok {
		e := there.Value.(*entry[K])
		e.tokens = min(k.burst, e.tokens+1)
	}
}

func (k *Keyed[K]) of(key K, now time.Time) *entry[K] {
	if there, ok := k.entries[key]; ok {
		k.order.MoveToFront(there)
		return there.Value.(*entry[K])
	}
	var e *entry[K]
	if last := k.quietest(); last != nil {
		e = last.Value.(*entry[K])
		delete(k.entries, e.key)
		k.order.MoveToFront(last)
		k.entries[key] = last
	} else {
		e = &entry[K]{}
		k.entries[key] = k.order.PushFront(e)
	}
	*e = entry[K]{key: key, tokens: k.burst, at: now}
	return e
}

// quietest returns the entry to forget, or nil while there is room. One of which something is held is kept, because its
// outcome is still to be counted; only the requests under way hold anything, so there are few of them.
func (k *Keyed[K]) quietest() *list.Element {
	if k.order.Len() < k.most {
		return nil
	}
	for last := k.order.Back(); last != nil; last = last.Prev() {
		if e := last.Value.(*entry[K]); e.held == 0 && e.freed == nil {
			return last
		}
	}
	return nil
}

// Len tells how many keys are remembered.
func (k *Keyed[K]) Len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.entries)
}
