package timelinetest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// historySeeds is how many random histories are played.
const historySeeds = 4

func histories(t *testing.T, open func(t *testing.T) Store) {
	for seed := range uint64(historySeeds) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			p := &play{t: t, ctx: ctx, store: open(t), random: rand.New(rand.NewPCG(seed, 7)), m: newModel(), positions: map[int32]timeline.Position{}, told: map[int32]int64{}}
			p.run()
		})
	}
}

// play is one random history on its way: three conversations on two partitions, their events cut into batches of any
// size, read marks between the batches, batches that come again, and writers that were replaced.
type play struct {
	t         *testing.T
	ctx       context.Context
	store     Store
	random    *rand.Rand
	m         *model
	positions map[int32]timeline.Position
	told      map[int32]int64 // next offset of im.receipts
	nextID    int64
	clock     int64
}

var (
	groupA  = chat.GroupConversation(71)
	groupB  = chat.GroupConversation(72)
	private = chat.ConversationID{Kind: chat.KindPrivate, A: 3, B: 9}
	people  = []chat.UserID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
)

func (p *play) run() {
	p.clock = 1_700_000_000_000
	home := map[chat.ConversationID]int32{groupA: 0, groupB: 1, private: 1}
	for round := range 30 {
		partition := int32(p.random.IntN(2))
		var batch []timeline.Entry
		from := p.positions[partition]
		from.Partition = partition
		offset := from.MessagesNext
		for range 1 + p.random.IntN(1+p.random.IntN(30)) {
			c := pick(p.random, []chat.ConversationID{groupA, groupB, private})
			if home[c] != partition {
				continue
			}
			e := p.event(c)
			if e == nil {
				continue
			}
			entry := timeline.Entry{Offset: offset, Event: *e}
			offset += 1 + p.random.Int64N(3) // transactions' markers take offsets too
			batch = append(batch, entry)
			p.m.add(partition, entry) // so that the next event of this batch knows this one
		}
		to := timeline.Position{
			Partition: partition, MessagesNext: offset + 1, InboundNext: offset * 2, RejectedNext: offset / 2, HighestStamp: p.clock,
			BatchFrom: from.MessagesNext, MarksDirty: p.random.IntN(2) == 0,
		}
		p.apply(from, to, batch)
		if p.random.IntN(3) == 0 {
			p.replaced(from, to, batch)
		}
		if p.random.IntN(4) == 0 {
			p.repeat(to, batch)
		}
		p.readSome()
		if round%3 == 2 {
			p.compare()
		}
	}
	p.compare()
}

func (p *play) apply(from, to timeline.Position, batch []timeline.Entry) {
	p.t.Helper()
	applied, err := p.store.Apply(p.ctx, from, to, batch)
	if err != nil {
		p.t.Fatalf("a batch of %d: %v", len(batch), err)
	}
	if applied.Skipped != 0 || len(applied.Twins) != 0 || applied.MissingTargets != 0 {
		p.t.Fatalf("a plain batch gave %+v", applied)
	}
	p.positions[from.Partition] = to
	for _, head := range applied.Heads {
		same(p.t, "the head that a batch gave", head, p.m.conversation(head.ID))
	}
}

// replaced is a writer that slept through the batch of its successor.
func (p *play) replaced(from, to timeline.Position, batch []timeline.Entry) {
	p.t.Helper()
	if _, err := p.store.Apply(p.ctx, from, to, batch); !errors.Is(err, timeline.ErrFenced) {
		p.t.Fatalf("a writer that was replaced got %v", err)
	}
}

// repeat gives the store what it has.
func (p *play) repeat(at timeline.Position, batch []timeline.Entry) {
	p.t.Helper()
	to := at
	to.MessagesNext++
	applied, err := p.store.Apply(p.ctx, at, to, batch)
	if err != nil || applied.Skipped != len(batch) {
		p.t.Fatalf("a repeated batch of %d: %d skipped, %v", len(batch), applied.Skipped, err)
	}
	p.positions[at.Partition] = to
}

// readSome raises some marks: forwards, backwards, beyond the end, of those who left and of strangers.
func (p *play) readSome() {
	p.t.Helper()
	partition := int32(p.random.IntN(2))
	from := p.told[partition]
	to := from
	var marks []timeline.MarkEntry
	for range p.random.IntN(12) {
		c := pick(p.random, []chat.ConversationID{groupA, groupB, private})
		end := int64(len(p.m.logs[c]))
		if end == 0 {
			continue
		}
		seq := 1 + p.random.Int64N(end+2)
		entry := timeline.MarkEntry{Offset: to, Mark: chat.ReadMark{
			User: pick(p.random, people), Conversation: c, Seq: seq, Ordinal: p.m.countable(c, min(seq, end)), At: p.clock,
		}}
		to++
		marks = append(marks, entry)
	}
	if err := p.store.ApplyMarks(p.ctx, partition, from, to, marks); err != nil {
		p.t.Fatalf("applying marks: %v", err)
	}
	// Of the marks of one call the highest counts, and of equal ones the first.
	slices.SortStableFunc(marks, func(a, b timeline.MarkEntry) int { return int(b.Mark.Seq - a.Mark.Seq) })
	for _, m := range marks {
		p.m.mark(m)
	}
	p.told[partition] = to
	if to > from {
		if err := p.store.ApplyMarks(p.ctx, partition, from, to, marks); !errors.Is(err, timeline.ErrFenced) {
			p.t.Fatalf("a writer of marks that was replaced got %v", err)
		}
	}
}

// event makes the next event of a conversation, as ingest would have decided it; nil where the dice fell on nothing.
func (p *play) event(c chat.ConversationID) *chat.Event {
	log := p.m.logs[c]
	if len(log) > 0 && log[len(log)-1].Event.Kind == chat.KindDissolve {
		return nil
	}
	p.clock += p.random.Int64N(5)
	p.nextID++
	e := &chat.Event{Conversation: c, Seq: int64(len(log)) + 1, MessageID: p.nextID, SentAt: p.clock, ClientMsgID: p.clientID()}
	if p.random.IntN(8) == 0 { // imported: said at another time than it was numbered
		e.SentAt, e.NumberedAt = 1+p.clock+p.random.Int64N(200)-150, p.clock
	}
	binary.BigEndian.PutUint64(e.BodyHash[:], p.random.Uint64())
	p.fill(e)
	if e.Kind == 0 {
		return nil
	}
	e.Ordinal = p.m.countable(c, e.Seq)
	if e.Countable() {
		e.Ordinal++
	}
	return e
}

func (p *play) clientID() string {
	if p.random.IntN(3) == 0 {
		return fmt.Sprintf("mine/%d ü", p.nextID)
	}
	return fmt.Sprintf("%08x-0000-7000-8000-%012x", p.nextID, p.nextID)
}

func (p *play) fill(e *chat.Event) {
	c := e.Conversation
	members := p.m.members(c)
	var present, absent []chat.UserID
	var owner chat.UserID
	for _, u := range people {
		switch who := members[u]; {
		case who == nil || who.left > 0:
			absent = append(absent, u)
		default:
			present = append(present, u)
			if who.role == chat.RoleOwner {
				owner = u
			}
		}
	}
	if lower, higher, ok := c.Peers(); ok {
		present, absent = []chat.UserID{lower, higher}, nil
	} else if e.Seq == 1 {
		e.Kind, e.Sender = chat.KindCreate, 1
		e.Create = &chat.Create{Name: "first name", AvatarURL: "https://example.org/a.png", HistoryVisible: p.random.IntN(2) == 0, Members: []chat.UserID{2, 4, 5}}
		return
	}
	e.Sender = pick(p.random, present)
	others := slices.DeleteFunc(slices.Clone(present), func(u chat.UserID) bool { return u == owner })
	group := c.Kind == chat.KindGroup
	switch dice := p.random.IntN(100); {
	case dice < 55 || (!group && dice < 84):
		e.Kind, e.Message = chat.KindMessage, p.message(e.Sender, present)
	case dice < 62 && len(absent) > 0:
		e.Kind, e.Sender = chat.KindJoin, owner
		e.Join = &chat.Join{Users: absent[:1+p.random.IntN(min(3, len(absent)))]}
	case dice < 68 && len(others) > 1:
		e.Kind, e.Sender = chat.KindLeave, pick(p.random, others)
		e.Leave = &chat.Leave{Users: []chat.UserID{e.Sender}}
	case dice < 72 && len(others) > 0:
		e.Kind, e.Sender = chat.KindRole, owner
		e.Role = &chat.SetRole{User: pick(p.random, others), Role: pick(p.random, []chat.Role{chat.RoleAdmin, chat.RoleMember, chat.RoleOwner})}
	case dice < 75 && len(others) > 0:
		e.Kind, e.Sender = chat.KindMute, owner
		e.Mute = &chat.Mute{User: pick(p.random, others), Until: p.clock * p.random.Int64N(2)}
	case dice < 78 && group:
		e.Kind, e.Nickname = chat.KindNickname, &chat.Nickname{User: e.Sender, Nickname: pick(p.random, []string{"", "Åse", "名字 🙂"})}
	case dice < 80 && group:
		name := fmt.Sprintf("name %d", e.Seq)
		e.Kind, e.Update = chat.KindUpdate, &chat.Update{Name: &name}
	case dice < 81 && group && e.Seq > 60:
		e.Kind, e.Sender, e.Dissolve = chat.KindDissolve, owner, &chat.Dissolve{}
	case dice >= 84:
		p.aim(e, dice < 92)
	}
}

func (p *play) message(sender chat.UserID, present []chat.UserID) *chat.Message {
	m := &chat.Message{Type: chat.TypeText, Content: text(fmt.Sprintf("said %d 'quoted' \\ ü 🙂", p.nextID)), Receipt: p.random.IntN(4) == 0}
	if p.random.IntN(4) == 0 {
		m.Mentions = &chat.Mentions{All: p.random.IntN(3) == 0}
		if !m.Mentions.All || p.random.IntN(2) == 0 {
			m.Mentions.UserIDs = some(p.random, people)
		}
	}
	if p.random.IntN(5) == 0 {
		m.Recipients = slices.DeleteFunc(some(p.random, present), func(u chat.UserID) bool { return u == sender })
		if len(m.Recipients) == 0 {
			m.Recipients = nil
		}
	}
	if p.random.IntN(6) == 0 {
		m.ReplyTo = 1
	}
	return m
}

// aim makes an edit or a recall of a message that stands.
func (p *play) aim(e *chat.Event, edit bool) {
	var targets []*chat.Event
	for i := range p.m.logs[e.Conversation] {
		if at := &p.m.logs[e.Conversation][i].Event; at.Kind == chat.KindMessage && p.m.recallOf(e.Conversation, at.Seq) == nil {
			targets = append(targets, at)
		}
	}
	if len(targets) == 0 {
		return
	}
	target := pick(p.random, targets)
	e.Sender = target.Sender
	if edit {
		e.Kind, e.Edit = chat.KindEdit, &chat.Edit{TargetSeq: target.Seq, Content: text("edited")}
	} else {
		e.Kind, e.Recall = chat.KindRecall, &chat.Recall{TargetSeq: target.Seq}
	}
}

// compare asks the store everything and holds it against the model.
func (p *play) compare() {
	p.t.Helper()
	positions, err := p.store.Positions(p.ctx, []int32{0, 1, 5})
	p.must(err)
	for i, id := range []int32{0, 1, 5} {
		want := p.positions[id]
		want.Partition = id
		same(p.t, "a position", positions[i], want)
	}
	told, err := p.store.MarkPositions(p.ctx, []int32{0, 1, 5})
	p.must(err)
	same(p.t, "the positions of marks", told, map[int32]int64{0: p.told[0], 1: p.told[1], 5: 0})
	for _, c := range []chat.ConversationID{groupA, groupB, private} {
		if len(p.m.logs[c]) > 0 {
			p.compareConversation(c)
		}
	}
	for _, u := range people {
		p.compareUser(u)
	}
	p.compareCrowd()
}

// compareCrowd asks for everybody's memberships at once: whoever shares statements with others gets what is his.
func (p *play) compareCrowd() {
	p.t.Helper()
	var wg sync.WaitGroup
	for _, u := range people {
		for _, past := range []bool{true, false} {
			want, err := p.store.Memberships(p.ctx, u, past)
			p.must(err)
			for range 2 {
				wg.Go(func() {
					got, err := p.store.Memberships(p.ctx, u, past)
					if err != nil || !reflect.DeepEqual(byConversation(got), byConversation(want)) {
						p.t.Errorf("beside others %s got %+v, %v; alone %+v", u, got, err, want)
					}
				})
			}
		}
	}
	wg.Wait()
}

func byConversation(list []timeline.Membership) map[chat.ConversationID]timeline.Membership {
	out := make(map[chat.ConversationID]timeline.Membership, len(list))
	for _, m := range list {
		out[m.Conversation.ID] = m
	}
	return out
}

func (p *play) compareConversation(c chat.ConversationID) {
	p.t.Helper()
	end := int64(len(p.m.logs[c]))
	want := p.m.rows(c)
	rows, err := p.store.Rows(p.ctx, c, 1, end+10)
	p.must(err)
	same(p.t, "the rows of "+c.String(), rows, want)
	first := 1 + p.random.Int64N(end)
	last := first + p.random.Int64N(end-first+1)
	rows, err = p.store.Rows(p.ctx, c, first, last)
	p.must(err)
	same(p.t, "a range of rows", rows, want[first-1:last])

	heads, err := p.store.Conversations(p.ctx, []chat.ConversationID{c, chat.GroupConversation(999)})
	p.must(err)
	same(p.t, "the head", heads, []timeline.Conversation{p.m.conversation(c)})

	members := p.m.members(c)
	var wanted, presentOnes []timeline.Member
	var wantedMarks []timeline.MemberMark
	var keys []timeline.MemberKey
	for _, u := range people {
		keys = append(keys, timeline.MemberKey{Conversation: c, User: u})
		if members[u] == nil {
			continue
		}
		m := p.m.memberOf(c, u, members[u])
		wanted = append(wanted, m)
		if m.Present() {
			presentOnes = append(presentOnes, m)
			wantedMarks = append(wantedMarks, timeline.MemberMark{User: u, JoinSeq: m.JoinSeq, Seq: m.ReadSeq, Ordinal: m.ReadOrdinal})
		}
	}
	got, err := p.store.Members(p.ctx, keys)
	p.must(err)
	slices.SortFunc(got, func(a, b timeline.Member) int { return int(a.User - b.User) })
	same(p.t, "the members of "+c.String(), got, wanted)
	var paged []timeline.Member
	for after := chat.UserID(0); ; {
		page, err := p.store.MembersPage(p.ctx, c, after, 3)
		p.must(err)
		paged = append(paged, page...)
		if len(page) < 3 {
			break
		}
		after = page[2].User
	}
	same(p.t, "the pages of members", paged, presentOnes)
	marks, err := p.store.Marks(p.ctx, c)
	p.must(err)
	slices.SortFunc(marks, func(a, b timeline.MemberMark) int { return int(a.User - b.User) })
	same(p.t, "the marks of "+c.String(), marks, wantedMarks)

	p.compareReceipts(c, want, wantedMarks)
	for range 5 {
		at := want[p.random.IntN(len(want))].SentAt + p.random.Int64N(3) - 1
		var first int64
		if i := slices.IndexFunc(want, func(r timeline.Row) bool { return r.SentAt >= at }); i >= 0 {
			first = want[i].Seq
		}
		seq, err := p.store.SeqAt(p.ctx, c, at)
		p.must(err)
		same(p.t, fmt.Sprintf("the lowest number sent at %d or later", at), seq, first)
	}
}

func (p *play) compareReceipts(c chat.ConversationID, rows []timeline.Row, marks []timeline.MemberMark) {
	p.t.Helper()
	var questions []timeline.ReceiptQuestion
	var want []timeline.ReceiptCount
	for _, r := range rows {
		if r.Kind == chat.KindMessage {
			q := timeline.ReceiptQuestion{Seq: r.Seq, Sender: r.Sender, Recipients: r.Recipients}
			questions, want = append(questions, q), append(want, p.m.receipt(c, q))
		}
	}
	got, err := p.store.ReadCounts(p.ctx, c, questions)
	p.must(err)
	if len(questions) > 0 {
		same(p.t, "the receipts of "+c.String(), got, want)
	}
	for i := range questions { // a store may count a few in another way than many
		got, err := p.store.ReadCounts(p.ctx, c, questions[i:i+1])
		p.must(err)
		same(p.t, "the receipt of a message of "+c.String(), got, want[i:i+1])
	}
	seq := rows[p.random.IntN(len(rows))].Seq
	var wanted []timeline.MemberMark
	for _, m := range marks {
		if m.Seq >= seq && m.JoinSeq <= seq {
			wanted = append(wanted, m)
		}
	}
	var readers []timeline.MemberMark
	for after := chat.UserID(0); ; {
		page, err := p.store.Readers(p.ctx, c, seq, after, 2)
		p.must(err)
		readers = append(readers, page...)
		if len(page) < 2 {
			break
		}
		after = page[1].User
	}
	same(p.t, "the readers of a message", readers, wanted)
}

func (p *play) compareUser(u chat.UserID) {
	p.t.Helper()
	all, err := p.store.Memberships(p.ctx, u, true)
	p.must(err)
	presentOnes, err := p.store.Memberships(p.ctx, u, false)
	p.must(err)
	byID := map[chat.ConversationID]timeline.Membership{}
	stand := 0
	for _, ms := range all {
		byID[ms.Conversation.ID] = ms
		if ms.Member.Present() {
			stand++
		}
	}
	if stand != len(presentOnes) {
		p.t.Fatalf("%d memberships of %s stand, %d were given", stand, u, len(presentOnes))
	}
	var marks []timeline.MarkAt
	for c := range p.m.logs {
		who := p.m.members(c)[u]
		got, there := byID[c]
		if there != (who != nil) {
			p.t.Fatalf("a membership of %s in %s: %v, and the model says %v", u, c, there, who != nil)
		}
		if who == nil {
			continue
		}
		same(p.t, "a membership", got, timeline.Membership{Member: p.m.memberOf(c, u, who), Conversation: p.m.conversation(c)})
		if who.left == 0 {
			marks = append(marks, timeline.MarkAt{Conversation: &got.Conversation, Seq: got.Member.ReadSeq})
		}
	}
	corrections, err := p.store.Corrections(p.ctx, u, marks)
	p.must(err)
	for _, at := range marks {
		c, member := at.Conversation.ID, byID[at.Conversation.ID].Member
		unread := timeline.Unread(at.Conversation.Ordinal, member.ReadOrdinal, corrections[c])
		same(p.t, fmt.Sprintf("what %s has not read in %s", u, c), unread, p.m.unread(c, u, at.Seq))
		same(p.t, fmt.Sprintf("mentions of %s in %s", u, c), corrections[c].Mentions, p.m.mentions(c, u, at.Seq))
	}
}

func (p *play) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func pick[T any](random *rand.Rand, list []T) T { return list[random.IntN(len(list))] }

// some gives one to four of a list, sorted.
func some(random *rand.Rand, list []chat.UserID) []chat.UserID {
	chosen := slices.Clone(list)
	random.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	chosen = chosen[:min(len(chosen), 1+random.IntN(4))]
	slices.Sort(chosen)
	return chosen
}

// same fails where two values differ, and shows the first difference of lists.
func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if reflect.DeepEqual(got, want) {
		return
	}
	g, w := reflect.ValueOf(&got).Elem(), reflect.ValueOf(&want).Elem()
	if g.Kind() == reflect.Slice {
		for i := range min(g.Len(), w.Len()) {
			if a, b := g.Index(i).Interface(), w.Index(i).Interface(); !reflect.DeepEqual(a, b) {
				t.Fatalf("%s: number %d of %d/%d\n got %+v\nwant %+v", what, i, g.Len(), w.Len(), a, b)
			}
		}
		t.Fatalf("%s: %d were given, %d are right", what, g.Len(), w.Len())
	}
	t.Fatalf("%s\n got %+v\nwant %+v", what, got, want)
}
