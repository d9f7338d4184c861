// Package crowd lets many who ask for one thing each share what asks for many: a crowd that comes back together costs few
// statements, and whoever is alone notices nothing.
package crowd

import (
	"context"
	"sync"
	"time"

	"tideline/pkg/chat"
)

// Loader answers single questions with loads of several. It is safe for concurrent use.
//
// Nobody waits for company: while fewer loads are under way than there may be, a question is a load of its own. Questions that
// come when there are as many gather, and go together as soon as one of them ends. So an answer was always looked for after
// its question, as without a Loader.
type Loader[K comparable, V any] struct {
	load         func(ctx context.Context, keys []K) (map[K]V, error)
	atOnce, most int

	mu      sync.Mutex // guards what follows
	running int
	waiting []*group[K, V] // in order; the last one takes more
}

// mostWaiting bounds the loads that wait. Whoever would be behind them is told to come back: where so many wait, loads take
// seconds, and the next is better made by who still wants it.
const mostWaiting = 32

// group is a load that several wait for.
type group[K comparable, V any] struct {
	ctx  context.Context // of the first who asked, without its end
	wait int             // how many wait; guarded by the Loader
	keys []K
	has  map[K]bool
	done chan struct{}
	got  map[K]V
	err  error
}

// New makes a Loader of at most so many loads at once, each of at most so many different keys. What load does not give is not
// there. It must bound its time itself: a load for several does not end when one of them hangs up.
func New[K comparable, V any](atOnce, most int, load func(ctx context.Context, keys []K) (map[K]V, error)) *Loader[K, V] {
	return &Loader[K, V]{load: load, atOnce: atOnce, most: most}
}

// Get gives what there is for a key; found is false where there is nothing.
func (l *Loader[K, V]) Get(ctx context.Context, k K) (v V, found bool, err error) {
	l.mu.Lock()
	if l.running < l.atOnce {
		l.running++
		l.mu.Unlock()
		defer l.next() // also if the load panics
		got, err := l.load(ctx, []K{k})
		v, found = got[k]
		return v, found, err
	}
	g := l.gathering(ctx, k)
	if g == nil {
		l.mu.Unlock()
		return v, false, chat.Refuse(chat.CodeOverloaded, "too many wait for the same").After(time.Second)
	}
	g.wait++
	l.mu.Unlock()
	select {
	case <-g.done:
	case <-ctx.Done():
		l.mu.Lock()
		g.wait--
		l.mu.Unlock()
		return v, false, ctx.Err()
	}
	v, found = g.got[k]
	return v, found, g.err
}

// gathering gives the load that a key goes with, or nil where too many wait. l.mu is held.
func (l *Loader[K, V]) gathering(ctx context.Context, k K) *group[K, V] {
	for i := len(l.waiting) - 1; i >= 0; i-- {
		if l.waiting[i].has[k] {
			return l.waiting[i]
		}
	}
	var g *group[K, V]
	if n := len(l.waiting); n > 0 && len(l.waiting[n-1].keys) < l.most {
		g = l.waiting[n-1]
	} else if n >= mostWaiting {
		return nil
	} else {
		g = &group[K, V]{ctx: context.WithoutCancel(ctx), has: map[K]bool{}, done: make(chan struct{})}
		l.waiting = append(l.waiting, g)
	}
	g.keys, g.has[k] = append(g.keys, k), true
	return g
}

// next lets the place of a load that has ended go to those who wait.
func (l *Loader[K, V]) next() {
	l.mu.Lock()
	defer l.mu.Unlock()
	var g *group[K, V]
	for g == nil || g.wait == 0 { // what nobody waits for any more is not looked for
		if len(l.waiting) == 0 {
			l.running--
			return
		}
		g = l.waiting[0]
		l.waiting[0] = nil
		l.waiting = l.waiting[1:]
	}
	go func() {
		defer l.next()
		defer close(g.done)
		g.got, g.err = l.load(g.ctx, g.keys)
	}()
}
