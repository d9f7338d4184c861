package crowd

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tideline/pkg/chat"
)

// tally is a work that adds up.
type tally struct{ asked, seen int }

func (n *tally) add() bool {
	n.asked++
	return true
}

// Whoever works for several may go in the midst of it: he does so at once, and one of the others begins again.
func TestBatches_OneWhoWorksForSeveralDoesNotTakeThemAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewBatches[tally](1, 1, "too many")
		gate := make(chan struct{})
		var leave context.CancelFunc // of the one who works
		var wg sync.WaitGroup
		var mu sync.Mutex // guards left
		left, works := 0, 0
		for n := range 4 {
			wg.Go(func() {
				ctx, hangUp := context.WithCancel(t.Context())
				defer hangUp()
				got, err := q.Do(ctx, (*tally).add, func(ctx context.Context, n *tally) error {
					leave = hangUp
					works++
					select {
					case <-gate:
					case <-ctx.Done():
						return ctx.Err()
					}
					n.seen = n.asked
					return nil
				})
				switch {
				case errors.Is(err, context.Canceled) && got == nil:
					mu.Lock()
					left++
					mu.Unlock()
				case err != nil || got.seen != min(1+2*n, 3):
					t.Errorf("got %+v, %v", got, err)
				}
			})
			synctest.Wait()
		}
		gate <- struct{}{}
		for want := 1; want <= 2; want++ {
			synctest.Wait() // one of the three works now
			leave()
			synctest.Wait()
			if left != want {
				t.Fatalf("%d have left, who were told to: %d", left, want)
			}
		}
		gate <- struct{}{}
		wg.Wait()
		if works != 4 || left != 2 || q.running != 0 {
			t.Fatalf("%d works, %d have left, %d are under way", works, left, q.running)
		}
	})
}

// A panic reaches whom it hit, the others learn of it, and the place is free again.
func TestBatches_APanicLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewBatches[tally](1, 1, "too many")
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

// Ten thousand schedules of callers who come, stay or hang up, and of works that take their time: whoever stays is given what was
// done after he came and with what he wanted, or is refused for the crowd; nobody is held longer than he stays, never are more
// at work than may be, and in the end nobody is.
func TestBatches_AnySchedule(t *testing.T) {
	type wishes struct {
		ids  []int
		seen int
	}
	var shared, refused, left atomic.Int64
	for seed := range uint64(10_000) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			atOnce := 1 + random.IntN(3)
			q := NewBatches[wishes](atOnce, 1+random.IntN(4), "too many")
			var mu sync.Mutex // guards what follows
			now, busy := 0, 0
			var wg sync.WaitGroup
			for id := range 1 + random.IntN(12) {
				comes, stays := time.Duration(random.IntN(20)), time.Duration(random.IntN(30))
				takes, most, patient := time.Duration(random.IntN(10)), 1+random.IntN(4), random.IntN(3) == 0
				wg.Go(func() {
					time.Sleep(comes)
					ctx, cancel := t.Context(), func() {}
					if !patient {
						ctx, cancel = context.WithTimeout(ctx, stays)
					}
					defer cancel()
					mu.Lock()
					now++
					came, began := now, time.Now()
					mu.Unlock()
					got, err := q.Do(ctx, func(n *wishes) bool {
						if len(n.ids) >= most {
							return false
						}
						n.ids = append(n.ids, id)
						return true
					}, func(ctx context.Context, n *wishes) error {
						mu.Lock()
						n.seen = now
						if busy++; busy > atOnce {
							t.Errorf("seed %d: %d are at work", seed, busy)
						}
						mu.Unlock()
						defer func() {
							mu.Lock()
							busy--
							mu.Unlock()
						}()
						select {
						case <-time.After(takes):
							return nil
						case <-ctx.Done():
							return ctx.Err()
						}
					})
					switch held := time.Since(began); {
					case !patient && held > stays:
						t.Errorf("seed %d: who stays for %d was held for %d", seed, stays, held)
					case err == nil && (got.seen < came || !slices.Contains(got.ids, id)):
						t.Errorf("seed %d: %d, who came at %d, was given %+v", seed, id, came, *got)
					case err == nil && len(got.ids) > 1:
						shared.Add(1)
					case chat.CodeOf(err) == chat.CodeOverloaded:
						refused.Add(1)
					case err != nil && patient:
						t.Errorf("seed %d: who stays was given %v", seed, err)
					case err != nil:
						left.Add(1)
					}
				})
			}
			wg.Wait()
			if q.running != 0 || len(q.waiting) != 0 {
				t.Fatalf("seed %d: %d are at work and %d wait in the end", seed, q.running, len(q.waiting))
			}
		})
	}
	if shared.Load() < 1000 || refused.Load() < 1000 || left.Load() < 1000 {
		t.Errorf("%d were answered with others, %d refused, %d left: that looks at too little", shared.Load(), refused.Load(), left.Load())
	}
}
