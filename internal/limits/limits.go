// Package limits says how often something may happen, for each of many keys: a person, an address, a username.
package limits

import (
	"container/list"
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
	now := k.now()
	e := k.of(key, now)
	e.tokens = min(k.burst, e.tokens+max(now.Sub(e.at).Seconds(), 0)*k.perSecond)
	e.at = now
	if e.tokens < 1 {
		return max(time.Duration((1-e.tokens)/k.perSecond*float64(time.Second)), time.Millisecond)
	}
	e.tokens--
	return 0
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
	if k.order.Len() >= k.most {
		last := k.order.Back()
		e = last.Value.(*entry[K])
		delete(k.entries, e.key)
		k.order.MoveToFront(last)
		k.entries[key] = last
	} else {
		e = &entry[K]{}
		k.entries[key] = k.order.PushFront(e)
	}
	*e = entry[K]{key, k.burst, now}
	return e
}

// Len tells how many keys are remembered.
func (k *Keyed[K]) Len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.entries)
}
