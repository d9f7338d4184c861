package blocks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/internal/crowd/crowdtest"
	"tideline/internal/schedules"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

var group = chat.GroupConversation(1)

// shelf is a store with rows 1 to n, less the numbers that were parked. Where gate is set, a read waits for it after it
// has looked; where slow is, for that long.
type shelf struct {
	mu      sync.Mutex // guards what follows
	n       int64
	parked  map[int64]bool
	changes map[int64]int32
	few     map[int64][]chat.UserID // who numbers are addressed to
	aims    map[int64]int64         // numbers that are recalls by user 9, and what they aim at
	gate    chan struct{}
	slow    func() time.Duration
	err     error

	reads atomic.Int32
}

func (s *shelf) Rows(ctx context.Context, c chat.ConversationID, first, last int64) ([]timeline.Row, error) {
	s.reads.Add(1)
	s.mu.Lock()
	var rows []timeline.Row
	for seq := first; seq <= min(last, s.n); seq++ {
		if !s.parked[seq] {
			r := timeline.Row{
				Conversation: c, Seq: seq, Kind: chat.KindMessage, Type: chat.TypeText, Sender: 7, Ordinal: 10 * seq, Changes: s.changes[seq], Recipients: s.few[seq],
			}
			if s.aims[seq] > 0 {
				r.Kind, r.Type, r.TargetSeq, r.Sender = chat.KindRecall, "", s.aims[seq], 9
			}
			rows = append(rows, r)
		}
	}
	gate, err := s.gate, s.err
	var pause time.Duration
	if s.slow != nil {
		pause = s.slow()
	}
	s.mu.Unlock()
	select {
	case <-time.After(pause):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return rows, err
}

// Receipt knows the messages of the shelf: there are no others.
func (s *shelf) Receipt(_ context.Context, _ chat.ConversationID, seqs []int64) ([]timeline.ReceiptQuestion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []timeline.ReceiptQuestion
	for _, seq := range seqs {
		if seq <= s.n && !s.parked[seq] && s.aims[seq] == 0 {
			out = append(out, timeline.ReceiptQuestion{Seq: seq, Sender: 7, Recipients: s.few[seq]})
		}
	}
	return out, s.err
}

func (s *shelf) change(seq int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes[seq]++
}

func encode(r *timeline.Row) []byte { return fmt.Appendf(nil, "%d after %d changes", r.Seq, r.Changes) }

func newShelf(n int64) (*shelf, *Cache) {
	s := &shelf{n: n, parked: map[int64]bool{}, changes: map[int64]int32{}, few: map[int64][]chat.UserID{}, aims: map[int64]int64{}}
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

// overtaken begins reads up to some numbers, in turn, and changes 5 once all of them have looked. What they give comes when it is let.
func overtaken(t *testing.T, upTo ...int64) (c *Cache, let func()) {
	t.Helper()
	s, c := newShelf(64)
	gate := make(chan struct{})
	s.gate = gate
	var wg sync.WaitGroup
	for _, to := range upTo {
		wg.Go(func() { get(t, c, 0, to) })
		synctest.Wait() // it has read, and not given yet
	}
	s.change(5)
	c.Invalidate(group, []int64{5})
	s.mu.Lock()
	s.gate = nil
	s.mu.Unlock()
	return c, func() { close(gate); wg.Wait() }
}

// seesChange asks for the block and must be given what 5 was changed to.
func seesChange(t *testing.T, c *Cache, upTo int64) {
	t.Helper()
	if b := get(t, c, 0, upTo); string(b.Entries[4].JSON) != "5 after 1 changes" {
		t.Fatalf("given %q", b.Entries[4].JSON)
	}
}

func TestCache_DoesNotKeepALoadThatAnInvalidationOvertook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, let := overtaken(t, 64)
		seesChange(t, c, 64) // who asks after the change reads again, and does not wait for what was read before it
		let()
		seesChange(t, c, 64)
	})
}

func TestCache_DoesNotKeepALoadBesideALongerOneThatAnInvalidationOvertook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, let := overtaken(t, 10, 64)
		let()
		seesChange(t, c, 10)
		seesChange(t, c, 64)
	})
}

// Readers of all kinds, slow reads, and changes that the cache is told of some time after the store has them: who asks once
// the cache was told is given nothing older.
func TestCache_GivesNothingOlderThanWhatItWasTold(t *testing.T) {
	schedules.Run(t, func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 3))
			s, c := newShelf(1 + rnd.Int64N(64))
			s.slow = func() time.Duration { return time.Duration(rnd.Int64N(40)) * time.Millisecond }
			told := map[int64]int32{} // changes by number; guarded by s.mu, as rnd is
			var wg sync.WaitGroup
			for range 40 {
				s.mu.Lock()
				what, pause := rnd.IntN(10), time.Duration(rnd.Int64N(8))*time.Millisecond
				upTo, trust, hangUp := 1+rnd.Int64N(s.n), rnd.IntN(5) > 0, rnd.IntN(8) == 0
				s.mu.Unlock()
				switch what {
				case 0, 1:
					s.mu.Lock()
					s.changes[upTo]++
					changes := s.changes[upTo]
					late := time.Duration(rnd.Int64N(10)) * time.Millisecond
					s.mu.Unlock()
					wg.Go(func() {
						time.Sleep(late)
						c.Invalidate(group, []int64{upTo})
						s.mu.Lock()
						told[upTo] = max(told[upTo], changes)
						s.mu.Unlock()
					})
				case 2:
					s.mu.Lock()
					s.n = min(s.n+rnd.Int64N(4), 64)
					s.mu.Unlock()
				case 3: // something changes, and nobody hears of it
					s.mu.Lock()
					s.changes[upTo]++
					all := maps.Clone(s.changes)
					s.mu.Unlock()
					c.Clear()
					s.mu.Lock()
					for seq, n := range all {
						told[seq] = max(told[seq], n)
					}
					s.mu.Unlock()
				default:
					s.mu.Lock()
					least := maps.Clone(told)
					s.mu.Unlock()
					wg.Go(func() {
						ctx, cancel := context.WithCancel(t.Context())
						defer cancel()
						if hangUp {
							ctx, cancel = context.WithTimeout(ctx, 5*time.Millisecond)
							defer cancel()
						}
						b, err := c.Get(ctx, group, 0, upTo, trust)
						if err != nil {
							if !hangUp {
								t.Errorf("who had time was told %v", err)
							}
							return
						}
						if b.Last() < upTo {
							t.Errorf("asked up to %d, given up to %d", upTo, b.Last())
						}
						for i := range b.Entries {
							e := &b.Entries[i]
							var seq int64
							var changes int32
							if _, err := fmt.Sscanf(string(e.JSON), "%d after %d changes", &seq, &changes); err != nil || seq != b.First+int64(i) {
								t.Errorf("entry %d is %q", i, e.JSON)
							}
							if changes < least[seq] {
								t.Errorf("%d is shown after %d changes, and the cache had been told of %d", seq, changes, least[seq])
							}
						}
					})
				}
				time.Sleep(pause)
			}
			wg.Wait()
			if len(c.loads) != 0 {
				t.Errorf("%d loads are under way, and nobody waits", len(c.loads))
			}
		})
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

func TestCache_GoesOnForOthersWhenTheReaderLeaves(t *testing.T) {
	for name, leaving := range crowdtest.Leaving {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, c := newShelf(64)
				s.gate = make(chan struct{})
				first := make(chan error)
				go func() {
					ctx, cancel := leaving(t.Context())
					defer cancel()
					_, err := c.Get(ctx, group, 0, 64, true)
					if !errors.Is(err, ctx.Err()) {
						t.Errorf("who left was told %v", err)
					}
					first <- err
				}()
				synctest.Wait()
				second := make(chan *Block)
				go func() { second <- get(t, c, 0, 64) }()
				if err := <-first; err == nil {
					t.Error("who left was given a block")
				}
				close(s.gate)
				if b := <-second; b.Last() != 64 {
					t.Fatalf("given up to %d", b.Last())
				}
			})
		})
	}
}

func TestCache_RemembersWhatItReadsWhileTheBlockGrowsFasterThanItIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newShelf(10)
		s.slow = func() time.Duration { return 15 * time.Millisecond }
		var wg sync.WaitGroup
		for n := int64(10); n <= 20; n++ {
			s.mu.Lock()
			s.n = n
			s.mu.Unlock()
			wg.Go(func() { get(t, c, 0, n) })
			time.Sleep(10 * time.Millisecond)
		}
		c.mu.Lock()
		if b := c.items[key{group, 0}]; b == nil || b.Value.(*item).block.Last() < 18 {
			t.Error("nothing is remembered as long as it grows")
		}
		c.mu.Unlock()
		wg.Wait()
		reads := s.reads.Load()
		if get(t, c, 0, 20); s.reads.Load() != reads {
			t.Error("the last that was read is not remembered")
		}
	})
}

func TestCache_GoesOnAfterAReaderThatPanicked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newShelf(64)
		s.gate = make(chan struct{})
		c.encode = func(*timeline.Row) []byte { panic("a fault of ours") }
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() {
				if recover() == nil {
					t.Error("nothing panicked")
				}
			}()
			_, _ = c.Get(t.Context(), group, 0, 64, true)
		})
		synctest.Wait()
		wg.Go(func() {
			if _, err := c.Get(t.Context(), group, 0, 64, true); !errors.Is(err, errDropped) {
				t.Errorf("who waited for it was told %v", err)
			}
		})
		synctest.Wait()
		close(s.gate)
		wg.Wait()
		c.encode = encode
		if b := get(t, c, 0, 64); b == nil || b.Last() != 64 || s.reads.Load() != 2 {
			t.Fatalf("given %+v after %d reads", b, s.reads.Load())
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
	if b := get(t, c, 0, 64); string(b.Entries[0].JSON) != "1 after 0 changes" {
		t.Fatalf("what was read without trust is remembered: %q", b.Entries[0].JSON)
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

func TestCache_GivesTheStoresErrorToAllAndKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newShelf(64)
		s.err = errors.New("the store is away")
		s.gate = make(chan struct{})
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := c.Get(t.Context(), group, 0, 64, true); !errors.Is(err, s.err) {
					t.Errorf("given %v", err)
				}
			})
		}
		synctest.Wait()
		close(s.gate)
		wg.Wait()
		if n := s.reads.Load(); n != 1 {
			t.Errorf("a store that is away was asked %d times for one crowd", n)
		}
		s.err = nil
		get(t, c, 0, 64)
	})
}
