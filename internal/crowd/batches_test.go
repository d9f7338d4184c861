package crowd

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// tally is a work that adds up.
type tally struct{ asked, seen int }

func (n *tally) add() bool {
	n.asked++
	return true
}

// Whoever works for several goes on when his own caller has gone.
func TestBatches_OneWhoWorksForSeveralDoesNotLeaveThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewBatches[tally](1, 1)
		gate := make(chan struct{})
		var works context.CancelFunc // of the one who works
		var wg sync.WaitGroup
		do := func(want int) {
			wg.Go(func() {
				ctx, hangUp := context.WithCancel(t.Context())
				defer hangUp()
				got, err := q.Do(ctx, (*tally).add, func(ctx context.Context, n *tally) error {
					works = hangUp
					select {
					case <-gate:
					case <-ctx.Done():
						return ctx.Err()
					}
					n.seen = n.asked
					return nil
				})
				if err != nil || got.seen != want {
					t.Errorf("got %+v, %v; %d are right", got, err, want)
				}
			})
			synctest.Wait()
		}
		do(1)
		for range 3 {
			do(3)
		}
		gate <- struct{}{}
		synctest.Wait() // one of the three works now
		works()
		synctest.Wait()
		gate <- struct{}{}
		wg.Wait()
	})
}

// A panic reaches whom it hit, the others learn of it, and the place is free again.
func TestBatches_APanicLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewBatches[tally](1, 1)
		gate := make(chan struct{})
		var wg sync.WaitGroup
		var mu sync.Mutex
		panics, dropped := 0, 0
		for range 4 {
			wg.Go(func() {
				defer func() {
					if recover() != nil {
						mu.Lock()
						panics++
						mu.Unlock()
					}
				}()
				_, err := q.Do(t.Context(), (*tally).add, func(context.Context, *tally) error {
					<-gate
					panic("a bug")
				})
				mu.Lock()
				defer mu.Unlock()
				if errors.Is(err, errDropped) {
					dropped++
				}
			})
			synctest.Wait()
		}
		close(gate)
		wg.Wait()
		if panics != 2 || dropped != 2 || q.running != 0 || len(q.waiting) != 0 {
			t.Fatalf("%d panicked, %d were dropped, %d run, %d wait", panics, dropped, q.running, len(q.waiting))
		}
	})
}

// Ten thousand schedules of callers who come and hang up, and of works that take their time: whoever stays is given what was done after he
// came, never are more at work than may be, and in the end nobody is.
func TestBatches_AnySchedule(t *testing.T) {
	for seed := range uint64(10_000) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			atOnce := 1 + random.IntN(3)
			q := NewBatches[tally](atOnce, 1+random.IntN(4))
			var mu sync.Mutex // guards what follows
			now, began := 0, 0
			var wg sync.WaitGroup
			for range 1 + random.IntN(12) {
				comes, stays := time.Duration(random.IntN(20)), time.Duration(random.IntN(30))
				takes, most := time.Duration(random.IntN(10)), 1+random.IntN(4)
				wg.Go(func() {
					time.Sleep(comes)
					ctx, cancel := context.WithTimeout(t.Context(), stays)
					defer cancel()
					mu.Lock()
					now++
					came := now
					mu.Unlock()
					got, err := q.Do(ctx, func(n *tally) bool {
						if n.asked >= most {
							return false
						}
						return n.add()
					}, func(ctx context.Context, n *tally) error {
						mu.Lock()
						n.seen = now
						if began++; began > atOnce {
							t.Errorf("seed %d: %d are at work", seed, began)
						}
						mu.Unlock()
						defer func() {
							mu.Lock()
							began--
							mu.Unlock()
						}()
						select {
						case <-time.After(takes):
							return nil
						case <-ctx.Done():
							return ctx.Err()
						}
					})
					if err == nil && got.seen < came {
						t.Errorf("seed %d: who came at %d was given what was done at %d", seed, came, got.seen)
					}
				})
			}
			wg.Wait()
			if q.running != 0 || len(q.waiting) != 0 {
				t.Fatalf("seed %d: %d are at work and %d wait in the end", seed, q.running, len(q.waiting))
			}
		})
	}
}
