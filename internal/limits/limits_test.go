package limits

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestKeyed_GivesABurstAndThenARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := New[string](2, 5, 10, time.Now)
		for i := range 5 {
			if wait := k.Take("ada"); wait != 0 {
				t.Fatalf("number %d of a burst of 5 has to wait %s", i+1, wait)
			}
		}
		wait := k.Take("ada")
		if wait <= 0 || wait > 500*time.Millisecond {
			t.Fatalf("beyond the burst one has to wait %s, at two a second", wait)
		}
		if k.Take("bob") != 0 {
			t.Fatal("bob pays for ada")
		}
		time.Sleep(wait)
		if k.Take("ada") != 0 || k.Take("ada") == 0 {
			t.Fatal("after the wait there is not exactly one")
		}
		time.Sleep(time.Hour)
		for range 5 {
			if k.Take("ada") != 0 {
				t.Fatal("a rest does not fill the bucket")
			}
		}
		if k.Take("ada") == 0 {
			t.Fatal("a long rest gives more than the burst")
		}
	})
}

// However calls are spread, no window of time sees more than the burst and what the rate gives in it.
func TestKeyed_NeverGivesMoreThanBurstAndRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perSecond, burst = 7.0, 4
		k := New[int](perSecond, burst, 3, time.Now)
		random := rand.New(rand.NewPCG(1, 2))
		var given []time.Time
		for range 5000 {
			time.Sleep(time.Duration(random.Int64N(int64(200 * time.Millisecond))))
			if k.Take(1) == 0 {
				given = append(given, time.Now())
			}
		}
		for i := range given {
			for j := i; j < min(i+100, len(given)); j++ {
				if most := burst + perSecond*given[j].Sub(given[i]).Seconds() + 1e-6; float64(j-i+1) > most {
					t.Fatalf("%d in %s, at most %.2f are allowed", j-i+1, given[j].Sub(given[i]), most)
				}
			}
		}
		if len(given) < 2000 {
			t.Fatalf("only %d of 5000 calls at ten a second were let in, at a rate of seven", len(given))
		}
	})
}

func TestKeyed_RemembersABoundedNumberAndForgetsTheQuietest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := New[string](1, 1, 100, time.Now)
		k.Take("busy")
		for i := range 1000 {
			k.Take(fmt.Sprint(i))
			if k.Take("busy") == 0 {
				t.Fatalf("after %d others the busy one has a full bucket again", i)
			}
		}
		if n := k.Len(); n != 100 {
			t.Fatalf("%d keys are remembered, at most 100 should be", n)
		}
	})
}

func TestKeyed_CountsRightUnderConcurrency(t *testing.T) {
	k := New[int](1e-9, 1000, 4, time.Now)
	var got atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				if k.Take(1) == 0 {
					got.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got.Load() != 1000 {
		t.Fatalf("%d were let in, and the bucket has 1000", got.Load())
	}
}

func TestKeyed_ReturnGivesBackUpToTheBurst(t *testing.T) {
	now := time.Unix(0, 0)
	k := New[string](1, 2, 10, func() time.Time { return now })
	k.Return("unknown")
	for range 100 {
		if k.Take("a") != 0 {
			t.Fatal("one that is returned each time runs out")
		}
		k.Return("a")
	}
	k.Return("a")
	k.Return("a")
	for range 2 {
		if k.Take("a") != 0 {
			t.Error("less came back than the burst")
		}
	}
	if k.Take("a") == 0 {
		t.Error("more came back than the burst")
	}
	if k.Len() != 1 {
		t.Errorf("%d keys are remembered", k.Len())
	}
}

func TestKeyed_ReservationsCostOnlyWhatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := New[string](1, 3, 10, time.Now)
		reserve := func() time.Duration {
			t.Helper()
			wait, err := k.Reserve(t.Context(), "ada")
			if err != nil {
				t.Fatal(err)
			}
			return wait
		}
		for i := range 100 {
			if wait := reserve(); wait != 0 {
				t.Fatalf("after %d successes one has to wait %s", i, wait)
			}
			k.Settle("ada", false)
		}
		for range 3 {
			if reserve() != 0 {
				t.Fatal("successes cost something")
			}
			k.Settle("ada", true)
		}
		if wait := reserve(); wait <= 0 || wait > time.Second {
			t.Fatalf("after three failures of three one has to wait %s, at one a second", wait)
		}
	})
}

// Whatever the outcomes are and however they overlap, no more fail than there are, and a success makes no other fail.
func TestKeyed_ReservationsThatOverlapWaitForEachOther(t *testing.T) {
	for _, fail := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			const burst, tries = 5, 200
			k := New[int](1e-9, burst, 4, time.Now)
			var judged, refused atomic.Int64
			var wg sync.WaitGroup
			for range tries {
				wg.Go(func() {
					wait, err := k.Reserve(t.Context(), 1)
					switch {
					case err != nil:
						t.Error(err)
					case wait > 0:
						refused.Add(1)
					default:
						time.Sleep(time.Millisecond)
						judged.Add(1)
						k.Settle(1, fail)
					}
				})
			}
			wg.Wait()
			want := int64(tries)
			if fail {
				want = burst
			}
			if judged.Load() != want || refused.Load() != tries-want {
				t.Errorf("fail %t: %d were judged and %d refused, want %d judged", fail, judged.Load(), refused.Load(), want)
			}
		})
	}
}

func TestKeyed_AReservationThatWaitsEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := New[int](1e-9, 1, 4, time.Now)
		if wait, err := k.Reserve(t.Context(), 1); wait != 0 || err != nil {
			t.Fatal(wait, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := k.Reserve(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		k.Settle(1, false)
		if wait, err := k.Reserve(t.Context(), 1); wait != 0 || err != nil {
			t.Fatalf("the one that gave up holds something: %s, %v", wait, err)
		}
	})
}

func TestKeyed_KeepsAKeyWhoseOutcomeIsNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := New[string](1e-9, 1, 10, time.Now)
		if wait, err := k.Reserve(t.Context(), "held"); wait != 0 || err != nil {
			t.Fatal(wait, err)
		}
		for i := range 100 {
			k.Take(fmt.Sprint(i))
		}
		k.Settle("held", true)
		if k.Take("held") == 0 {
			t.Error("a failure was forgotten while it was judged")
		}
		if n := k.Len(); n > 10 {
			t.Errorf("%d keys are remembered, at most 10 should be", n)
		}
	})
}
