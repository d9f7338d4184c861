package blocks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

var group = chat.GroupConversation(1)

// shelf is a store with rows 1 to n, less the numbers that were parked. Where gate is set, a read waits for it after it
// has looked.
type shelf struct {
	mu      sync.Mutex // guards what follows
	n       int64
	parked  map[int64]bool
	changes map[int64]int32
	gate    chan struct{}
	err     error

	reads atomic.Int32
}

func (s *shelf) Rows(ctx context.Context, c chat.ConversationID, first, last int64) ([]timeline.Row, error) {
	s.reads.Add(1)
	s.mu.Lock()
	var rows []timeline.Row
	for seq := first; seq <= min(last, s.n); seq++ {
		if !s.parked[seq] {
			rows = append(rows, timeline.Row{Conversation: c, Seq: seq, Kind: chat.KindMessage, Type: chat.TypeText, Sender: 7, Ordinal: 10 * seq, Changes: s.changes[seq]})
		}
	}
	gate, err := s.gate, s.err
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return rows, err
}

func (s *shelf) change(seq int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes[seq]++
}

func encode(r *timeline.Row) []byte { return fmt.Appendf(nil, "%d after %d changes", r.Seq, r.Changes) }

func newShelf(n int64) (*shelf, *Cache) {
	s := &shelf{n: n, parked: map[int64]bool{}, changes: map[int64]int32{}}
	return s, New(s, 1<<20, encode, NewMetrics(prometheus.NewRegistry()))
}

func get(t *testing.T, c *Cache, block, upTo int64) *Block {
	t.Helper()
	b, err := c.Get(t.Context(), group, block, upTo, true)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBlock_HasAnEntryForEveryNumberAlsoWhereARowIsMissing(t *testing.T) {
	s, c := newShelf(100)
	for _, seq := range []int64{1, 2, 17, 63, 64, 65, 90} {
		s.parked[seq] = true
	}
	for _, want := range []struct{ block, upTo, last int64 }{{0, 64, 64}, {1, 90, 90}, {1, 100, 100}} {
		b := get(t, c, want.block, want.upTo)
		if b.Last() != want.last {
			t.Fatalf("block %d ends at %d, want %d", want.block, b.Last(), want.last)
		}
		for i := range b.Entries {
			e := &b.Entries[i]
			if e.Seq != b.First+int64(i) {
				t.Fatalf("entry %d of block %d has the number %d", i, want.block, e.Seq)
			}
			if e.VisibleTo(7) == s.parked[e.Seq] || e.Shown == s.parked[e.Seq] {
				t.Fatalf("%d is parked: %t, and is shown: %t", e.Seq, s.parked[e.Seq], e.Shown)
			}
			if want := map[bool]int64{false: 10 * e.Seq, true: -1}[s.parked[e.Seq]]; e.Ordinal != want || e.Message == s.parked[e.Seq] {
				t.Fatalf("%d is parked: %t, and has the ordinal %d and is a message: %t", e.Seq, s.parked[e.Seq], e.Ordinal, e.Message)
			}
		}
	}
	before := get(t, c, 0, 64).Version
	s.mu.Lock()
	delete(s.parked, 17)
	s.mu.Unlock()
	c.Invalidate(group, []int64{17})
	if b := get(t, c, 0, 64); !b.Entries[16].VisibleTo(7) || b.Version == before {
		t.Fatal("what was put back is not seen, or the version is the old one")
	}
}

func TestCache_ReadsOnceForACrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newShelf(64)
		s.gate = make(chan struct{})
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				if b := get(t, c, 0, 64); b.Last() != 64 {
					t.Errorf("given up to %d", b.Last())
				}
			})
		}
		synctest.Wait()
		close(s.gate)
		wg.Wait()
		if n := s.reads.Load(); n != 1 {
			t.Fatalf("the store was read %d times", n)
		}
	})
}

func TestCache_DoesNotKeepALoadThatAnInvalidationOvertook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newShelf(64)
		gate := make(chan struct{})
		s.gate = gate
		done := make(chan *Block)
		go func() { done <- get(t, c, 0, 64) }()
		synctest.Wait() // it has read, and not given yet
		s.change(5)
		c.Invalidate(group, []int64{5})
		s.mu.Lock()
		s.gate = nil
		s.mu.Unlock()
		// Who asks after the change reads again, and does not wait for what was read before it.
		if b := get(t, c, 0, 64); string(b.Entries[4].JSON) != "5 after 1 changes" {
			t.Fatalf("given %q", b.Entries[4].JSON)
		}
		close(gate)
		<-done
		if b := get(t, c, 0, 64); string(b.Entries[4].JSON) != "5 after 1 changes" {
			t.Fatalf("the overtaken load was kept: %q", b.Entries[4].JSON)
		}
	})
}

func TestCache_GrowsTheLastBlockByWhatIsNew(t *testing.T) {
	s, c := newShelf(10)
	old := get(t, c, 0, 10)
	s.mu.Lock()
	s.n = 12
	s.mu.Unlock()
	grown := get(t, c, 0, 12)
	if old.Last() != 10 || grown.Last() != 12 || grown.Version == old.Version {
		t.Fatalf("from %d to %d", old.Last(), grown.Last())
	}
	if get(t, c, 0, 11) != grown || s.reads.Load() != 2 {
		t.Fatalf("%d reads", s.reads.Load())
	}
}

func TestCache_GoesOnForOthersWhenTheReaderHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newShelf(64)
		s.gate = make(chan struct{})
		leaving, leave := context.WithCancel(t.Context())
		first := make(chan error)
		go func() { _, err := c.Get(leaving, group, 0, 64, true); first <- err }()
		synctest.Wait()
		second := make(chan *Block)
		go func() { second <- get(t, c, 0, 64) }()
		synctest.Wait()
		leave()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Fatalf("who hung up was told %v", err)
		}
		close(s.gate)
		if b := <-second; b.Last() != 64 {
			t.Fatalf("given up to %d", b.Last())
		}
	})
}

func TestCache_TrustsNothingRememberedWhenToldSo(t *testing.T) {
	s, c := newShelf(64)
	get(t, c, 0, 64)
	s.change(1)
	b, err := c.Get(t.Context(), group, 0, 64, false)
	if err != nil || string(b.Entries[0].JSON) != "1 after 1 changes" {
		t.Fatalf("given %q, %v", b.Entries[0].JSON, err)
	}
}

func TestCache_KeepsWithinItsBytes(t *testing.T) {
	s, _ := newShelf(64 * 100)
	c := New(s, 20_000, encode, NewMetrics(prometheus.NewRegistry()))
	for block := range int64(100) {
		get(t, c, block, 64*100)
	}
	if c.bytes > 20_000 || c.order.Len() != len(c.items) || len(c.items) < 2 {
		t.Fatalf("%d bytes in %d blocks", c.bytes, len(c.items))
	}
	sum := 0
	for _, e := range c.items {
		sum += e.Value.(*item).block.bytes
	}
	if sum != c.bytes {
		t.Fatalf("%d bytes are counted, and %d are there", c.bytes, sum)
	}
	c.Clear()
	if c.bytes != 0 || len(c.items) != 0 {
		t.Fatal("it was not cleared")
	}
}

func TestCache_GivesTheStoresErrorAndKeepsNothing(t *testing.T) {
	s, c := newShelf(64)
	s.err = errors.New("the store is away")
	if _, err := c.Get(t.Context(), group, 0, 64, true); !errors.Is(err, s.err) {
		t.Fatalf("given %v", err)
	}
	s.err = nil
	get(t, c, 0, 64)
}
