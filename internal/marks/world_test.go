package marks

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// world is two groups of people who come, go, speak and read, with a writer and a writer of marks who are somewhat
// behind. It is moved in small steps by one goroutine, so that a run is decided by its seed.
type world struct {
	t      *testing.T
	ctx    context.Context
	rnd    *rand.Rand
	store  worldStore
	raw    *redis.Client
	fast   *Marks // the doors' and the writers' view
	people []chat.UserID

	messages []chat.Event
	at       timeline.Position
	pending  []timeline.Entry // committed, not followed
	followed int64
	receipts []chat.ReadMark
	marksAt  int64
	acked    map[timeline.MemberKey]int64 // marks that Redis was told of
	all      map[timeline.MemberKey]int64 // marks that stand in the log
	head     map[chat.ConversationID]*chat.Event
	present  map[timeline.MemberKey]bool // by the log
	calm     bool                        // nobody joins or leaves, and nothing is flushed
	checked  int

	hasty  bool                                    // looks at one thing only, and not after every step
	models map[int64]map[timeline.MemberKey]member // after so many events

	heard                     map[timeline.MemberKey]int64 // marks that were given, of those who are members since
	messagesSpeed, marksSpeed int                          // of the writers, out of forty steps
}

// worldStore is the store behind a world, and its writers' side.
type worldStore interface {
	Store
	Conversations(ctx context.Context, ids []chat.ConversationID) ([]timeline.Conversation, error)
	Apply(ctx context.Context, from, to timeline.Position, entries []timeline.Entry) (timeline.Applied, error)
	ApplyMarks(ctx context.Context, partition int32, from, to int64, entries []timeline.MarkEntry) error
}

func newWorld(t *testing.T, o *redis.Options, seed uint64) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	cfg := sqlstore.DefaultConfig()
	cfg.Driver, cfg.Path = "sqlite", filepath.Join(t.TempDir(), "store.db")
	store, err := sqlstore.Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if err := store.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, ctx: ctx, rnd: rand.New(rand.NewPCG(seed, 1)), store: store, raw: redis.NewClient(o),
		acked: map[timeline.MemberKey]int64{}, all: map[timeline.MemberKey]int64{},
		head: map[chat.ConversationID]*chat.Event{}, present: map[timeline.MemberKey]bool{}, heard: map[timeline.MemberKey]int64{},
		messagesSpeed: 11, marksSpeed: 6,
	}
	t.Cleanup(func() { _ = w.raw.Close() })
	if err := w.raw.FlushAll(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	for u := range chat.UserID(7) {
		w.people = append(w.people, u+1)
	}
	w.fast = New(w.raw, store, w, 1, slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()))
	w.begin()
	return w
}

// begin makes the groups.
func (w *world) begin() {
	for _, c := range groups {
		w.event(c, 1, chat.KindCreate).Create = &chat.Create{Name: "g", Members: []chat.UserID{2, 3}}
		for u := range chat.UserID(3) {
			w.present[timeline.MemberKey{Conversation: c, User: u + 1}] = true
		}
	}
}

var groups = []chat.ConversationID{chat.GroupConversation(11), chat.GroupConversation(12)}

func (w *world) event(c chat.ConversationID, sender chat.UserID, kind chat.Kind) *chat.Event {
	e := chat.Event{Conversation: c, Seq: 1, Kind: kind, Sender: sender, ClientMsgID: fmt.Sprint(len(w.messages)), MessageID: int64(len(w.messages) + 1), SentAt: int64(1000 + len(w.messages))}
	if last := w.head[c]; last != nil {
		e.Seq, e.Ordinal = last.Seq+1, last.Ordinal
	}
	if kind == chat.KindMessage {
		e.Ordinal++
		e.Message = &chat.Message{Type: chat.TypeText, Content: json.RawMessage(`{"text":"x"}`)}
	}
	w.messages = append(w.messages, e)
	w.head[c] = &w.messages[len(w.messages)-1]
	return w.head[c]
}

// Ends implements Logs.
func (w *world) Ends(context.Context) (messages, receipts map[int32]int64, err error) {
	return map[int32]int64{0: int64(len(w.messages))}, map[int32]int64{0: int64(len(w.receipts))}, nil
}

// ReceiptEnds implements Logs.
func (w *world) ReceiptEnds(context.Context) (map[int32]int64, error) {
	return map[int32]int64{0: int64(len(w.receipts))}, nil
}

// Silent implements Logs: there is always a record where the writer is behind.
func (w *world) Silent(context.Context, map[int32]int64, map[int32]int64) (map[int32]bool, error) {
	return map[int32]bool{}, nil
}

// step does something, and looks at everything that says that it is ready.
func (w *world) step() {
	c, u := groups[w.rnd.IntN(len(groups))], w.people[w.rnd.IntN(len(w.people))]
	k := timeline.MemberKey{Conversation: c, User: u}
	switch n := w.rnd.IntN(40); {
	case n < 6 && w.present[k]:
		w.event(c, u, chat.KindMessage)
	case n < 8 && !w.present[k] && !w.calm:
		w.event(c, 1, chat.KindJoin).Join = &chat.Join{Users: []chat.UserID{u}}
		w.present[k] = true
	case n < 10 && w.present[k] && u != 1 && !w.calm:
		w.event(c, u, chat.KindLeave).Leave = &chat.Leave{Users: []chat.UserID{u}}
		w.present[k] = false
		delete(w.heard, k)
	case n < 15:
		w.read(k)
	case n < 15+w.messagesSpeed:
		w.write()
	case n < 15+w.messagesSpeed+w.marksSpeed:
		w.writeMarks()
	case n == 38 && !w.calm:
		w.must(w.raw.FlushAll(w.ctx).Err())
	case n == 39 && !w.calm:
		w.must(w.fast.Invalidate(w.ctx))
	}
	if !w.hasty || w.rnd.IntN(4) == 0 {
		w.check()
	}
}

// read marks something as read by somebody who knows to be a member.
func (w *world) read(k timeline.MemberKey) {
	m, there := w.model(w.followed)[k]
	heads, err := w.store.Conversations(w.ctx, []chat.ConversationID{k.Conversation})
	w.must(err)
	if !there || len(heads) == 0 || heads[0].MaxSeq <= m.join {
		return
	}
	mark := chat.ReadMark{User: k.User, Conversation: k.Conversation, Seq: m.join + w.rnd.Int64N(heads[0].MaxSeq-m.join) + 1, At: 1}
	for i := range w.messages {
		if e := &w.messages[i]; e.Conversation == k.Conversation && e.Seq == mark.Seq {
			mark.Ordinal = e.Ordinal
		}
	}
	w.receipts = append(w.receipts, mark)
	w.all[k] = max(w.all[k], mark.Seq)
	if w.rnd.IntN(5) == 0 {
		return // the api died between the two
	}
	w.must(w.fast.Raise(w.ctx, []chat.ReadMark{mark}))
	w.acked[k] = max(w.acked[k], mark.Seq)
}

// write is half a step of the timeline's writer: the commit, or what follows it.
func (w *world) write() {
	if w.pending != nil {
		w.must(w.fast.Follow(w.ctx, w.pending))
		w.pending, w.followed = nil, w.at.MessagesNext
		return
	}
	n := min(w.rnd.Int64N(4)+1, int64(len(w.messages))-w.at.MessagesNext)
	if n == 0 {
		return
	}
	to := w.at
	to.BatchFrom, to.MessagesNext = w.at.MessagesNext, w.at.MessagesNext+n
	for i := w.at.MessagesNext; i < to.MessagesNext; i++ {
		w.pending = append(w.pending, timeline.Entry{Offset: i, Event: w.messages[i]})
	}
	_, err := w.store.Apply(w.ctx, w.at, to, w.pending)
	w.must(err)
	w.at = to
}

func (w *world) writeMarks() {
	to := int64(len(w.receipts))
	if to == w.marksAt {
		return
	}
	var entries []timeline.MarkEntry
	for i := w.marksAt; i < to; i++ {
		entries = append(entries, timeline.MarkEntry{Offset: i, Mark: w.receipts[i]})
	}
	w.must(w.store.ApplyMarks(w.ctx, 0, w.marksAt, to, entries))
	w.must(w.fast.Raise(w.ctx, w.receipts[w.marksAt:to]))
	for _, m := range w.receipts[w.marksAt:to] {
		k := timeline.MemberKey{Conversation: m.Conversation, User: m.User}
		w.acked[k] = max(w.acked[k], m.Seq)
	}
	w.marksAt = to
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

type member struct{ join, spoke int64 }

// model gives the memberships after some events.
func (w *world) model(events int64) map[timeline.MemberKey]member {
	if known, there := w.models[events]; there { // the log only grows
		return known
	}
	out := map[timeline.MemberKey]member{}
	if w.models == nil {
		w.models = map[int64]map[timeline.MemberKey]member{}
	}
	w.models[events] = out
	for i := range w.messages[:events] {
		e := &w.messages[i]
		for _, j := range timeline.Joined(e, 0, e.Seq == 1) {
			out[timeline.MemberKey{Conversation: e.Conversation, User: j.User}] = member{e.Seq, e.Seq}
		}
		k := timeline.MemberKey{Conversation: e.Conversation, User: e.Sender}
		if e.Kind == chat.KindLeave {
			for _, u := range e.Leave.Users {
				delete(out, timeline.MemberKey{Conversation: e.Conversation, User: u})
			}
		} else if m, ok := out[k]; ok && e.Kind == chat.KindMessage {
			m.spoke = e.Seq
			out[k] = m
		}
	}
	return out
}

// count gives the present members who had joined by a number, and those who have read it, without the sender.
func count(model map[timeline.MemberKey]member, c chat.ConversationID, q timeline.ReceiptQuestion, marks map[timeline.MemberKey]int64) (people, read int64) {
	for k, m := range model {
		if k.Conversation != c || m.join > q.Seq || k.User == q.Sender {
			continue
		}
		people++
		if max(m.spoke, marks[k]) >= q.Seq {
			read++
		}
	}
	return people, read
}

// questions tells how many are asked at once.
func (w *world) questions() int {
	if w.hasty {
		return 1
	}
	return 4
}

// check holds whatever is ready against the log. What was committed and not followed may be in or not; so may marks that
// are in the log and that nobody was told of.
func (w *world) check() {
	w.t.Helper()
	before, after := w.model(w.followed), w.model(w.at.MessagesNext)
	for _, c := range groups {
		var asked []timeline.ReceiptQuestion
		for range w.questions() {
			asked = append(asked, timeline.ReceiptQuestion{Seq: w.rnd.Int64N(w.head[c].Seq) + 1, Sender: w.people[w.rnd.IntN(len(w.people))]})
		}
		got, complete, err := w.fast.fastCounts(w.ctx, c, asked)
		w.must(err)
		if !complete {
			continue
		}
		w.checked++
		w.fast.walked = true
		fetched, complete, err := w.fast.fastCounts(w.ctx, c, asked)
		w.fast.walked = false
		w.must(err)
		if !complete || !slices.Equal(fetched, got) {
			w.t.Fatalf("%s: asked by number %+v, fetched whole %+v (ready: %v)", c, got, fetched, complete)
		}
		for i, q := range asked {
			p1, low1 := count(before, c, q, w.acked)
			p2, low2 := count(after, c, q, w.acked)
			_, high1 := count(before, c, q, w.all)
			_, high2 := count(after, c, q, w.all)
			people := got[i].ReadCount + got[i].UnreadCount
			if people != p1 && people != p2 || got[i].ReadCount < min(low1, low2) || got[i].ReadCount > max(high1, high2) {
				w.t.Fatalf("%s, number %d asked by %s: %+v; by the log %d or %d people, of whom %d..%d or %d..%d have read", c, q.Seq, q.Sender, got[i], p1, p2, low1, high1, low2, high2)
			}
		}
	}
	u := w.people[w.rnd.IntN(len(w.people))]
	marks, complete, err := w.fast.OfUser(w.ctx, u)
	w.must(err)
	if !complete {
		return
	}
	w.checked++
	for _, c := range groups {
		k := timeline.MemberKey{Conversation: c, User: u}
		m1, in1 := before[k]
		m2, in2 := after[k]
		got, in := marks[c]
		if in != in1 && in != in2 {
			w.t.Fatalf("%s is said to be a member of %s: %v; by the log %v, then %v", u, c, in, in1, in2)
		}
		if !in || !in1 || !in2 {
			continue
		}
		low, high := max(min(m1.spoke, m2.spoke), w.acked[k]), max(m1.spoke, m2.spoke, w.all[k])
		if got.Seq < low || got.Seq > high {
			w.t.Fatalf("the mark of %s in %s is at %d; by the log %d to %d", u, c, got.Seq, low, high)
		}
		if w.present[k] {
			if got.Seq < w.heard[k] {
				w.t.Fatalf("the mark of %s in %s was at %d, and is back at %d", u, c, w.heard[k], got.Seq)
			}
			w.heard[k] = got.Seq
		}
		if ordinal := w.ordinal(c, got.Seq); got.Ordinal != ordinal {
			w.t.Fatalf("the mark of %s in %s at %d has the ordinal %d instead of %d", u, c, got.Seq, got.Ordinal, ordinal)
		}
	}
}

func (w *world) ordinal(c chat.ConversationID, seq int64) int64 {
	for i := range w.messages {
		if e := &w.messages[i]; e.Conversation == c && e.Seq == seq {
			return e.Ordinal
		}
	}
	return -1
}

// meddler moves the world before everything that a fill does.
type meddler struct {
	worldStore
	w *world
}

func (m meddler) meddle() {
	for range m.w.rnd.IntN(4) {
		m.w.step()
	}
}

func (m meddler) Memberships(ctx context.Context, u chat.UserID, past bool) ([]timeline.Membership, error) {
	m.meddle()
	return m.worldStore.Memberships(ctx, u, past)
}

func (m meddler) Marks(ctx context.Context, c chat.ConversationID) ([]timeline.MemberMark, error) {
	m.meddle()
	return m.worldStore.Marks(ctx, c)
}

func (m meddler) Positions(ctx context.Context, partitions []int32) ([]timeline.Position, error) {
	m.meddle()
	return m.worldStore.Positions(ctx, partitions)
}

func (m meddler) Ends(ctx context.Context) (messages, receipts map[int32]int64, err error) {
	m.meddle()
	return m.w.Ends(ctx)
}

func (m meddler) ReceiptEnds(ctx context.Context) (map[int32]int64, error) {
	m.meddle()
	return m.w.ReceiptEnds(ctx)
}

func (m meddler) Silent(ctx context.Context, from, to map[int32]int64) (map[int32]bool, error) {
	return m.w.Silent(ctx, from, to)
}

func (m meddler) DialHook(next redis.DialHook) redis.DialHook { return next }

func (m meddler) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { m.meddle(); return next(ctx, cmd) }
}

func (m meddler) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { m.meddle(); return next(ctx, cmds) }
}
