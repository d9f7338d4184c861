package marks

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/internal/schedules"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// plainStore is the store as somebody naive would have it: it reads the logs up to where the writers are, each time.
type plainStore struct{ w *world }

func (s plainStore) Apply(_ context.Context, _, _ timeline.Position, _ []timeline.Entry) (timeline.Applied, error) {
	return timeline.Applied{}, nil // the world knows how far it is
}

func (s plainStore) ApplyMarks(context.Context, int32, int64, int64, []timeline.MarkEntry) error {
	return nil
}

// rows gives the memberships with their marks.
func (s plainStore) rows() map[timeline.MemberKey]timeline.MemberMark {
	rows := map[timeline.MemberKey]timeline.MemberMark{}
	for k, m := range s.w.model(s.w.at.MessagesNext) {
		rows[k] = timeline.MemberMark{User: k.User, JoinSeq: m.join, Seq: m.spoke}
	}
	for _, r := range s.w.receipts[:s.w.marksAt] {
		k := timeline.MemberKey{Conversation: r.Conversation, User: r.User}
		if row, there := rows[k]; there {
			row.Seq = max(row.Seq, r.Seq)
			rows[k] = row
		}
	}
	for k, row := range rows {
		row.Ordinal = s.w.ordinal(k.Conversation, row.Seq)
		rows[k] = row
	}
	return rows
}

func (s plainStore) Memberships(_ context.Context, u chat.UserID, _ bool) (out []timeline.Membership, err error) {
	for k, row := range s.rows() {
		if k.User == u {
			out = append(out, timeline.Membership{Member: timeline.Member{Conversation: k.Conversation, User: u, JoinSeq: row.JoinSeq, ReadSeq: row.Seq, ReadOrdinal: row.Ordinal}})
		}
	}
	return out, nil
}

func (s plainStore) Marks(_ context.Context, c chat.ConversationID) (out []timeline.MemberMark, err error) {
	for k, row := range s.rows() {
		if k.Conversation == c {
			out = append(out, row)
		}
	}
	return out, nil
}

func (s plainStore) ReadCounts(context.Context, chat.ConversationID, []timeline.ReceiptQuestion) ([]timeline.ReceiptCount, error) {
	return nil, nil // what is not ready is not looked at here
}

func (s plainStore) Positions(context.Context, []int32) ([]timeline.Position, error) {
	return []timeline.Position{s.w.at}, nil
}

func (s plainStore) MarkPositions(context.Context, []int32) (map[int32]int64, error) {
	return map[int32]int64{0: s.w.marksAt}, nil
}

func (s plainStore) Conversations(_ context.Context, ids []chat.ConversationID) (out []timeline.Conversation, err error) {
	for i := s.w.at.MessagesNext - 1; i >= 0 && len(out) == 0; i-- {
		if e := &s.w.messages[i]; slices.Contains(ids, e.Conversation) {
			out = append(out, timeline.Conversation{ID: e.Conversation, MaxSeq: e.Seq, Ordinal: e.Ordinal})
		}
	}
	return out, nil
}

// TestMerge_IsNeverPartialNeverGoesBackAndIsExactAtRest holds over every schedule of speakers, readers, joins, leaves, losses and
// new epochs, with the writers of both logs at any speed and a fill between any two steps of theirs: whatever says that it is
// ready tells what the logs say; the mark of a member never goes back, whatever was lost in between; and when the writers have
// come to the end, every set is filled and is what is counted by hand.
func TestMerge_IsNeverPartialNeverGoesBackAndIsExactAtRest(t *testing.T) {
	checked, rests := 0, 0
	metrics := NewMetrics(prometheus.NewRegistry())
	schedules.Run(t, func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			redis := newSets()
			w := &world{
				t: t, ctx: ctx, rnd: rand.New(rand.NewPCG(seed, 5)), raw: redis.client(), acked: map[timeline.MemberKey]int64{}, all: map[timeline.MemberKey]int64{},
				head: map[chat.ConversationID]*chat.Event{}, present: map[timeline.MemberKey]bool{}, people: []chat.UserID{1, 2, 3, 4, 5}, heard: map[timeline.MemberKey]int64{}, hasty: true,
			}
			w.store = plainStore{w}
			// The speeds of the two writers: out of forty steps.
			w.messagesSpeed, w.marksSpeed = 4+w.rnd.IntN(12), 1+w.rnd.IntN(8)
			log := slog.New(slog.DiscardHandler)
			w.fast = New(w.raw, w.store, w, 1, log, metrics)
			w.begin()
			// The meddler stands before the sets, so that something happens before each command of a fill.
			m := meddler{w.store, w}
			client := redis.client(m)
			defer func() { _, _ = client.Close(), w.raw.Close() }()
			f := New(client, m, m, 1, log, metrics)
			subjects := []subject{{conversation: groups[0]}, {conversation: groups[1]}}
			for _, u := range w.people {
				subjects = append(subjects, subject{user: u})
			}
			for range 10 {
				w.step()
			}
			for i := range 3 {
				w.calm = i%2 == 0
				s := subjects[w.rnd.IntN(len(subjects))]
				if f.fill(ctx, s) != nil {
					w.raw.Del(ctx, s.key()+lockTail)
				}
				for range 3 {
					w.step()
				}
			}
			w.rest(subjects)
			checked += w.checked
			rests++
		})
	})
	t.Logf("%d answers of ready sets were right, and %d worlds at rest", checked, rests)
	if !t.Failed() && checked < 3*rests {
		t.Error("that is too few to mean anything")
	}
}

// rest lets the writers come to the end, fills everything, and counts.
func (w *world) rest(subjects []subject) {
	w.calm = true
	for w.pending != nil || w.at.MessagesNext < int64(len(w.messages)) {
		w.write()
	}
	w.writeMarks()
	for _, s := range subjects {
		w.raw.Del(w.ctx, s.key()+lockTail)
		w.must(w.fast.fill(w.ctx, s))
	}
	before := w.checked
	for range 10 {
		w.check()
	}
	if w.checked-before != 10*(len(groups)+1) {
		w.t.Fatalf("%d of %d answers are ready at rest", w.checked-before, 10*(len(groups)+1))
	}
}
