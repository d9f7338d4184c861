package crowd

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"tideline/pkg/chat"
)

// shelf has squares of what is below a hundred. Loads wait at the gate, where there is one.
type shelf struct {
	mu    sync.Mutex // guards what follows
	loads [][]int
	now   int // counts changes: every answer tells which it has seen
	err   error
	gate  chan struct{}
}

type found struct{ square, seen int }

func (s *shelf) load(ctx context.Context, keys []int) (map[int]found, error) {
	s.mu.Lock()
	s.loads = append(s.loads, slices.Clone(keys))
	now, err := s.now, s.err
	s.mu.Unlock()
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	out := map[int]found{}
	for _, k := range keys {
		if k < 100 {
			out[k] = found{k * k, now}
		}
	}
	return out, err
}

func TestLoader_GathersOnlyWhileAllPlacesAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{gate: make(chan struct{})}
		l := New(2, 3, s.load)
		var wg sync.WaitGroup
		for _, k := range []int{1, 2, 3, 4, 4, 3, 5, 6, 100, 6} {
			wg.Go(func() {
				got, there, err := l.Get(t.Context(), k)
				if err != nil || there != (k < 100) || there && got.square != k*k {
					t.Errorf("%d gave %+v, %v, %v", k, got, there, err)
				}
			})
			synctest.Wait()
		}
		if want := [][]int{{1}, {2}}; !slices.EqualFunc(s.loads, want, slices.Equal) {
			t.Fatalf("under way are %v, want %v", s.loads, want)
		}
		for range 4 { // one after the other, so that their order is known
			s.gate <- struct{}{}
			synctest.Wait()
		}
		wg.Wait()
		if want := [][]int{{1}, {2}, {3, 4, 5}, {6, 100}}; !slices.EqualFunc(s.loads, want, slices.Equal) {
			t.Fatalf("loaded were %v, want %v", s.loads, want)
		}
		if l.batches.running != 0 || len(l.batches.waiting) != 0 {
			t.Fatalf("in the end %d are under way and %d wait", l.batches.running, len(l.batches.waiting))
		}
	})
}

// Nobody is answered with what was looked for before the question.
func TestLoader_AnAnswerIsYoungerThanItsQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{gate: make(chan struct{})}
		l := New(1, 10, s.load)
		var wg sync.WaitGroup
		for n := range 50 {
			s.mu.Lock()
			s.now = n
			s.mu.Unlock()
			wg.Go(func() {
				if got, _, err := l.Get(t.Context(), 7); err != nil || got.seen < n {
					t.Errorf("asked after change %d, got %+v, %v", n, got, err)
				}
			})
			synctest.Wait()
			if n%7 == 6 {
				s.gate <- struct{}{}
				synctest.Wait()
			}
		}
		close(s.gate)
		wg.Wait()
	})
}

// One who hangs up takes nobody along; a failure reaches all who wait for it, and nothing of it stays.
func TestLoader_EndsForEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{gate: make(chan struct{}), err: errors.New("the shelf fell over")}
		l := New(1, 10, s.load)
		impatient, hangUp := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		ask := func(ctx context.Context, k int, want error) {
			wg.Go(func() {
				if _, _, err := l.Get(ctx, k); !errors.Is(err, want) {
					t.Errorf("%d gave %v, want %v", k, err, want)
				}
			})
			synctest.Wait()
		}
		ask(t.Context(), 1, s.err)
		ask(impatient, 2, context.Canceled)
		ask(t.Context(), 2, s.err)
		ask(t.Context(), 3, s.err)
		hangUp()
		close(s.gate)
		wg.Wait()
		synctest.Wait()
		s.err = nil
		if got, _, err := l.Get(t.Context(), 3); err != nil || got.square != 9 || l.batches.running != 0 {
			t.Errorf("after the failure: %+v, %v", got, err)
		}
	})
}

// However many ask a store that hangs, a bounded number of loads waits, the others are told to come back, and what nobody waits
// for any more is not loaded.
func TestLoader_IsBoundedAndForgetsThoseWhoHaveGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{gate: make(chan struct{})}
		l := New(1, 1, s.load)
		impatient, hangUp := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		ask := func(ctx context.Context, k int) {
			wg.Go(func() { _, _, _ = l.Get(ctx, k) })
			synctest.Wait()
		}
		ask(t.Context(), 0)
		for k := range mostWaiting - 1 {
			ask(impatient, 1+k)
		}
		ask(t.Context(), 99)
		if _, _, err := l.Get(t.Context(), 98); chat.CodeOf(err) != chat.CodeOverloaded {
			t.Fatalf("one more than may wait got %v", err)
		}
		hangUp()
		synctest.Wait()
		close(s.gate)
		wg.Wait()
		synctest.Wait()
		if want := [][]int{{0}, {99}}; !slices.EqualFunc(s.loads, want, slices.Equal) || l.batches.running != 0 {
			t.Fatalf("loaded were %v, want %v; %d are under way", s.loads, want, l.batches.running)
		}
	})
}
