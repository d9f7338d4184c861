package marks

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// abacus counts as long as it is told to, and remembers what it was asked.
type abacus struct {
	mu    sync.Mutex // guards what follows
	asked [][]int64
	n     int64 // what everybody is answered
	err   error
	gate  chan struct{}
}

func (a *abacus) count(ctx context.Context, _ chat.ConversationID, asked []timeline.ReceiptQuestion) ([]timeline.ReceiptCount, error) {
	a.mu.Lock()
	var seqs []int64
	var out []timeline.ReceiptCount
	for _, q := range asked {
		seqs = append(seqs, q.Seq)
		out = append(out, timeline.ReceiptCount{Seq: q.Seq, ReadCount: a.n})
	}
	a.asked = append(a.asked, seqs)
	err, gate := a.err, a.gate
	a.mu.Unlock()
	select {
	case <-gate:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return out, err
}

func questions(seqs ...int64) []timeline.ReceiptQuestion {
	var out []timeline.ReceiptQuestion
	for _, n := range seqs {
		out = append(out, timeline.ReceiptQuestion{Seq: n})
	}
	return out
}

// Who comes while a count is under way is answered by the next one, with all the others who came: once for each message.
func TestCounts_AreSharedAndNoneIsOlderThanTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &abacus{n: 1, gate: make(chan struct{})}
		s := newCounts(a.count)
		var wg sync.WaitGroup
		ask := func(want int64, seqs ...int64) {
			wg.Go(func() {
				got, err := s.of(t.Context(), groups[0], questions(seqs...))
				if err != nil {
					t.Error(err)
				}
				for i, n := range seqs {
					if got[i] != (timeline.ReceiptCount{Seq: n, ReadCount: want}) {
						t.Errorf("asked for %d at place %d, got %+v; want %d readers", n, i, got[i], want)
					}
				}
			})
			synctest.Wait()
		}
		ask(1, 5, 6)
		a.mu.Lock()
		a.n = 2 // somebody reads while the first count is under way
		a.mu.Unlock()
		for range 100 {
			ask(2, 6, 5)
			ask(2, 7)
		}
		close(a.gate)
		wg.Wait()
		synctest.Wait()
		if want := [][]int64{{5, 6}, {6, 5, 7}}; !slices.EqualFunc(a.asked, want, slices.Equal) {
			t.Fatalf("counted %v, want %v", a.asked, want)
		}
		if len(s.lanes) != 0 {
			t.Fatalf("%d conversations are kept that nobody asks about", len(s.lanes))
		}
	})
}

func TestCounts_OneIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &abacus{n: 1, gate: make(chan struct{})}
		s := newCounts(a.count)
		var wg sync.WaitGroup
		for i := range int64(15) {
			wg.Go(func() {
				var seqs []int64
				for n := range int64(100) {
					seqs = append(seqs, 100*i+n)
				}
				if got, err := s.of(t.Context(), groups[0], questions(seqs...)); err != nil || len(got) != 100 || got[99].Seq != seqs[99] {
					t.Errorf("got %d counts, %v", len(got), err)
				}
			})
		}
		synctest.Wait()
		close(a.gate)
		wg.Wait()
		total := 0
		for _, seqs := range a.asked {
			if total += len(seqs); len(seqs) > maxShared {
				t.Errorf("one count answers for %d messages", len(seqs))
			}
		}
		if total != 1500 {
			t.Errorf("%d messages were counted", total)
		}
	})
}

// One who hangs up takes nobody along, a failure reaches everybody who waits for it, and a count that hangs ends.
func TestCounts_EndForEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &abacus{gate: make(chan struct{}), err: errors.New("broken")}
		s := newCounts(a.count)
		impatient, hangUp := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := s.of(impatient, groups[0], questions(1)); !errors.Is(err, context.Canceled) {
				t.Errorf("who hung up got %v", err)
			}
		})
		synctest.Wait()
		for range 3 {
			wg.Go(func() {
				if _, err := s.of(t.Context(), groups[0], questions(1)); !errors.Is(err, a.err) {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		hangUp()
		synctest.Wait()
		a.gate <- struct{}{} // the first count went with whom it was for
		wg.Wait()
		began := time.Now()
		if _, err := s.of(t.Context(), groups[0], questions(1)); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != countTime {
			t.Errorf("a count that hangs ended after %s with %v", time.Since(began), err)
		}
	})
}

// However many ask about one conversation, a bounded number of counts waits, and what nobody waits for any more is not counted.
func TestCounts_AreBoundedAndForgetThoseWhoHaveGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &abacus{gate: make(chan struct{})}
		s := newCounts(a.count)
		impatient, hangUp := context.WithCancel(t.Context())
		screen := func(first int64) []timeline.ReceiptQuestion {
			var seqs []int64
			for n := range int64(maxShared) {
				seqs = append(seqs, first+n)
			}
			return questions(seqs...)
		}
		var wg sync.WaitGroup
		for i := range int64(mostWaiting + 1) {
			wg.Go(func() {
				ctx := impatient
				if i == 0 || i == mostWaiting {
					ctx = t.Context()
				}
				_, _ = s.of(ctx, groups[0], screen(1000*i))
			})
			synctest.Wait()
		}
		if _, err := s.of(t.Context(), groups[0], screen(99_000)); chat.CodeOf(err) != chat.CodeOverloaded {
			t.Fatalf("one more than may wait got %v", err)
		}
		hangUp()
		synctest.Wait()
		close(a.gate)
		wg.Wait()
		synctest.Wait()
		if len(a.asked) != 2 || a.asked[0][0] != 0 || a.asked[1][0] != 1000*mostWaiting || len(s.lanes) != 0 {
			t.Fatalf("%d counts were made, %d lanes are left", len(a.asked), len(s.lanes))
		}
	})
}
