package handlers

import (
	"context"
	"math/rand/v2"
	"testing"

	"tideline/internal/crowd"
	"tideline/internal/kafka"
	"tideline/internal/schedules"
	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// town is a store of three partitions in which things go on between any two reads: people speak, join, leave and read. One of
// them is the client's. It is moved by one goroutine, so that a run is decided by its seed.
type town struct {
	Store
	rnd      *rand.Rand
	heads    map[chat.ConversationID]*timeline.Conversation
	ids      []chat.ConversationID
	mine     map[chat.ConversationID]*timeline.Member
	ordinals map[chat.ConversationID][]int64 // at each number
	next     [townPartitions]int64           // of im.messages, as the store has it
	marks    [townPartitions]int64
	busy     bool
	time     int64
}

const (
	townPartitions = 3
	townClient     = chat.UserID(1)
)

func newTown(seed uint64) *town {
	w := &town{
		rnd: rand.New(rand.NewPCG(seed, 9)), heads: map[chat.ConversationID]*timeline.Conversation{}, mine: map[chat.ConversationID]*timeline.Member{},
		ordinals: map[chat.ConversationID][]int64{}, busy: true,
	}
	for i := range 2 + w.rnd.IntN(12) {
		id := chat.GroupConversation(int64(i + 1))
		w.ids = append(w.ids, id)
		w.heads[id] = &timeline.Conversation{ID: id, Partition: int32(w.rnd.IntN(townPartitions))}
		w.ordinals[id] = []int64{0}
		w.event(id, false)
	}
	return w
}

// event commits an event of a conversation, as the timeline's writer does, and gives its place.
func (w *town) event(id chat.ConversationID, countable bool) (offset int64) {
	c := w.heads[id]
	w.time++
	offset = w.next[c.Partition]
	w.next[c.Partition]++
	c.MaxSeq++
	if countable {
		c.Ordinal++
	}
	c.LastAt, c.LastOffset = w.time, offset
	w.ordinals[id] = append(w.ordinals[id], c.Ordinal)
	return offset
}

func (w *town) step() {
	id := w.ids[w.rnd.IntN(len(w.ids))]
	c, m := w.heads[id], w.mine[id]
	in := m != nil && m.Present()
	switch n := w.rnd.IntN(20); {
	case n < 8: // somebody else speaks
		w.event(id, true)
	case n < 10 && in: // the client does, and has read what it says
		w.event(id, true)
		m.ReadSeq, m.ReadOrdinal = c.MaxSeq, c.Ordinal
	case n < 14 && !in:
		at := w.event(id, false)
		w.mine[id] = &timeline.Member{
			Conversation: id, User: townClient, JoinSeq: c.MaxSeq, ReadSeq: c.MaxSeq, ReadOrdinal: c.Ordinal, ReadOffset: -1, ChangedSeq: c.MaxSeq, ChangedOffset: at,
		}
	case n < 15 && in:
		at := w.event(id, false)
		m.LeftSeq, m.ChangedSeq, m.ChangedOffset = c.MaxSeq, c.MaxSeq, at
	case n < 18 && in && m.ReadSeq < c.MaxSeq: // another device of the client reads
		m.ReadSeq += 1 + w.rnd.Int64N(c.MaxSeq-m.ReadSeq)
		m.ReadOrdinal = w.ordinals[id][m.ReadSeq]
		p := chat.Partition(townClient.String(), townPartitions)
		m.ReadOffset = w.marks[p]
		w.marks[p]++
	}
}

// reading lets something happen before a read.
func (w *town) reading() {
	for w.busy && w.rnd.IntN(2) == 0 {
		w.step()
	}
}

func (w *town) Memberships(_ context.Context, _ chat.UserID, past bool) ([]timeline.Membership, error) {
	w.reading()
	var out []timeline.Membership
	for _, id := range w.ids {
		if m := w.mine[id]; m != nil && (past || m.Present()) {
			out = append(out, timeline.Membership{Member: *m, Conversation: *w.heads[id]})
		}
	}
	w.rnd.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out, nil
}

func (w *town) Positions(context.Context, []int32) ([]timeline.Position, error) {
	w.reading()
	var out []timeline.Position
	for p, next := range w.next {
		out = append(out, timeline.Position{Partition: int32(p), MessagesNext: next})
	}
	return out, nil
}

func (w *town) MarkPositions(context.Context, []int32) (map[int32]int64, error) {
	w.reading()
	out := map[int32]int64{}
	for p, next := range w.marks {
		out[int32(p)] = next
	}
	return out, nil
}

func (w *town) Corrections(context.Context, chat.UserID, []timeline.MarkAt) (map[chat.ConversationID]timeline.Correction, error) {
	w.reading()
	return map[chat.ConversationID]timeline.Correction{}, nil
}

func (w *town) Users(context.Context, []chat.UserID) ([]sqlstore.User, error) { return nil, nil }

// seen is what a client knows of a conversation.
type seen struct{ max, read, unread int64 }

// Whatever goes on while a client pages through its conversations, and between its syncs: what it is given fits into a page,
// never lies ahead of the store, and once all has come to rest the next sync leaves it with exactly what the store has.
func TestSync_PagingMissesNothing(t *testing.T) {
	schedules.Run(t, func(t *testing.T, seed uint64) {
		w := newTown(seed)
		s := &Service{store: w, marks: StoreMarks{}, kafka: kafka.Config{Partitions: townPartitions}, profiles: newProfiles(w), raised: newRaised()}
		s.views = newViews(nil, func() bool { return true })
		s.writers = crowd.New(1, 1, s.writersAt)
		known := map[chat.ConversationID]seen{}
		cursor := ""
		for range w.rnd.IntN(30) {
			w.step()
		}
		for round, rounds := 0, 1+w.rnd.IntN(4); round <= rounds; round++ {
			w.busy = round < rounds // the last one is at rest
			limit := 1 + w.rnd.IntN(4)
			for pages := 0; ; pages++ {
				answer, err := s.Sync(t.Context(), townClient, SyncRequest{Cursor: cursor, Limit: limit})
				if err != nil {
					t.Fatal(err)
				}
				if len(answer.Conversations) > limit || pages > 1000 {
					t.Fatalf("%d conversations in a page of %d, after %d pages", len(answer.Conversations), limit, pages)
				}
				for _, id := range answer.Removed {
					if m := w.mine[id]; m == nil {
						t.Fatalf("%s was taken away, and the client was never in it", id)
					}
					delete(known, id)
				}
				for _, c := range answer.Conversations {
					if at := w.heads[c.ID].MaxSeq; c.MaxSeq > at {
						t.Fatalf("%s is said to be at %d, and is at %d", c.ID, c.MaxSeq, at)
					}
					known[c.ID] = seen{c.MaxSeq, c.ReadSeq, c.Unread}
				}
				cursor = answer.Cursor
				if !answer.HasMore {
					if !w.busy {
						w.compare(t, known, answer.UnreadTotal)
					}
					break
				}
				w.reading()
			}
		}
	})
}

func (w *town) compare(t *testing.T, known map[chat.ConversationID]seen, unread int64) {
	t.Helper()
	total, present := int64(0), 0
	for id, m := range w.mine {
		if !m.Present() {
			continue
		}
		present++
		c := w.heads[id]
		want := seen{c.MaxSeq, m.ReadSeq, c.Ordinal - m.ReadOrdinal}
		total += want.unread
		if got, there := known[id]; !there || got != want {
			t.Fatalf("of %s the client knows %+v (at all: %v), and it is %+v", id, got, there, want)
		}
	}
	if len(known) != present || unread != total {
		t.Fatalf("the client knows %d conversations with %d unread in all, and is in %d with %d", len(known), unread, present, total)
	}
}
