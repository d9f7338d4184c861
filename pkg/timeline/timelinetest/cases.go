package timelinetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// desk is a store with a writer of partition 0 and a group of three: 1 owns it, 2 and 3 are members.
type desk struct {
	t     *testing.T
	ctx   context.Context
	store Store
	at    timeline.Position
	seq   int64
	said  int64 // countable messages so far
}

var cases = []struct {
	name string
	run  func(*testing.T, *desk)
}{
	{"AnEmptyBatchMovesThePosition", anEmptyBatchMovesThePosition},
	{"OnlyOneOfTwoWritersOfAPartitionWins", onlyOneOfTwoWritersWins},
	{"ATwinBecomesATombstoneThatPointsAtTheFirst", aTwinBecomesATombstone},
	{"TheSameClientIDOfAnotherSenderIsNoTwin", theSameClientIDOfAnotherSender},
	{"ARecallLeavesNothingOfTheContent", aRecallLeavesNothing},
	{"AnEditOfARecalledMessageChangesNothing", anEditOfARecalledMessage},
	{"WhatAimsAtNothingIsCounted", whatAimsAtNothing},
	{"WhatCanNeverBeStoredIsSaidSoAndLeavesNoTrace", whatCanNeverBeStored},
	{"AHoleIsCountedAndFilledLater", aHoleIsFilledLater},
	{"APassedNumberIsUsedAndHasNoRow", aPassedNumber},
	{"APassedNumberThatIsNotTheNextIsNot", aPassedNumberOutOfPlace},
	{"AnEventTakesThePlaceOfWhatCouldNotBeRead", anEventInsteadOfWhatWasPassed},
	{"AConversationBeginsWithAPassedNumber", aConversationBeginsPassed},
	{"WhatWasRecalledWhileItHadNoRowComesBackWithoutItsContent", aRecallOfWhatIsFilledLater},
	{"WhatWasEditedWhileItHadNoRowComesBackAsItWasEdited", anEditOfWhatIsFilledLater},
	{"AMarkIsClampedAndNeverMovesBack", aMarkIsClamped},
	{"AMarkOfAStrangerMakesNoMember", aMarkOfAStranger},
	{"ManyMembersJoinAtOnce", manyMembersJoin},
	{"TheLargestMessageComesBackAsItWas", theLargestMessage},
	{"SeqAtIsExactForTimesOutOfOrder", seqAtIsExact},
	{"SeqAtIsExactAroundARowThatIsFilledLater", seqAtAroundARowFilledLater},
	{"SeqAtIsExactAroundAPassedNumber", seqAtAroundAPassedNumber},
	{"LastAtIsTheTimeOfNumbering", lastAtIsTheTimeOfNumbering},
}

var group = chat.GroupConversation(4711)

func (d *desk) event(kind chat.Kind, sender chat.UserID, client string) *chat.Event {
	d.seq++
	return &chat.Event{Conversation: group, Seq: d.seq, Ordinal: d.said, Kind: kind, MessageID: 1000 + d.seq, Sender: sender, ClientMsgID: client, SentAt: 5000 + d.seq}
}

func (d *desk) create() *chat.Event {
	e := d.event(chat.KindCreate, 1, "create")
	e.Create = &chat.Create{Name: "three", Members: []chat.UserID{2, 3}}
	return e
}

func (d *desk) message(sender chat.UserID, client, said string) *chat.Event {
	d.said++
	e := d.event(chat.KindMessage, sender, client)
	e.Message = &chat.Message{Type: chat.TypeText, Content: text(said)}
	return e
}

func (d *desk) next(events ...*chat.Event) (timeline.Position, []timeline.Entry) {
	to := d.at
	to.BatchFrom = d.at.MessagesNext
	entries := make([]timeline.Entry, len(events))
	for i, e := range events {
		entries[i] = timeline.Entry{Offset: to.MessagesNext, Event: *e}
		to.MessagesNext++
	}
	return to, entries
}

func (d *desk) apply(events ...*chat.Event) timeline.Applied {
	d.t.Helper()
	to, entries := d.next(events...)
	applied, err := d.store.Apply(d.ctx, d.at, to, entries)
	if err != nil {
		d.t.Fatal(err)
	}
	d.at = to
	return applied
}

func (d *desk) rows() []timeline.Row {
	d.t.Helper()
	rows, err := d.store.Rows(d.ctx, group, 1, 1000)
	if err != nil {
		d.t.Fatal(err)
	}
	return rows
}

func (d *desk) head() timeline.Conversation {
	d.t.Helper()
	heads, err := d.store.Conversations(d.ctx, []chat.ConversationID{group})
	if err != nil || len(heads) != 1 {
		d.t.Fatalf("%d heads, %v", len(heads), err)
	}
	return heads[0]
}

func (d *desk) member(u chat.UserID) (timeline.Member, bool) {
	d.t.Helper()
	members, err := d.store.Members(d.ctx, []timeline.MemberKey{{Conversation: group, User: u}})
	if err != nil {
		d.t.Fatal(err)
	}
	if len(members) == 0 {
		return timeline.Member{}, false
	}
	return members[0], true
}

func (d *desk) unread(u chat.UserID) (int64, timeline.Correction) {
	d.t.Helper()
	head := d.head()
	m, _ := d.member(u)
	corrections, err := d.store.Corrections(d.ctx, u, []timeline.MarkAt{{Conversation: &head, Seq: m.ReadSeq}})
	if err != nil {
		d.t.Fatal(err)
	}
	return timeline.Unread(head.Ordinal, m.ReadOrdinal, corrections[group]), corrections[group]
}

func anEmptyBatchMovesThePosition(t *testing.T, d *desk) {
	to := timeline.Position{MessagesNext: 7, InboundNext: 9, RejectedNext: 2, HighestStamp: 11, BatchFrom: 3, MarksDirty: true}
	if _, err := d.store.Apply(d.ctx, timeline.Position{}, to, nil); err != nil {
		t.Fatal(err)
	}
	got, err := d.store.Positions(d.ctx, []int32{0})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "the position", got, []timeline.Position{to})
	// To move to where one is already is no conflict.
	if _, err := d.store.Apply(d.ctx, to, to, nil); err != nil {
		t.Fatal(err)
	}
}

func onlyOneOfTwoWritersWins(t *testing.T, d *desk) {
	for round := range 5 {
		events := []*chat.Event{d.message(1, fmt.Sprint("m", round), "hello")}
		if round == 0 {
			d.seq, d.said = 0, 0
			events = []*chat.Event{d.create()}
		}
		to, entries := d.next(events...)
		var wait sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			wait.Go(func() { _, errs[i] = d.store.Apply(d.ctx, d.at, to, entries) })
		}
		wait.Wait()
		won := 0
		for _, err := range errs {
			switch {
			case err == nil:
				won++
			case !errors.Is(err, timeline.ErrFenced):
				t.Fatalf("a writer that lost got %v", err)
			}
		}
		if won != 1 {
			t.Fatalf("%d of %d writers won", won, len(errs))
		}
		d.at = to
	}
	if n := len(d.rows()); n != 5 {
		t.Fatalf("%d rows stand, 5 were stored", n)
	}
}

func aTwinBecomesATombstone(t *testing.T, d *desk) {
	d.apply(d.create(), d.message(2, "a", "first"))
	between, twin := d.message(2, "b", "between"), d.message(2, "a", "again")
	twin.Message.Mentions = &chat.Mentions{UserIDs: []chat.UserID{3}}
	applied := d.apply(between, twin, d.message(2, "c", "after"))
	same(t, "the twins", applied.Twins, []timeline.Twin{{Conversation: group, Seq: 4, First: 2}})
	rows := d.rows()
	if len(rows) != 5 || !rows[3].Tombstone || rows[3].TargetSeq != 2 || rows[3].Content != nil || rows[3].Mentions != nil || rows[3].ClientMsgID != "" {
		t.Fatalf("the tombstone is %+v", rows[3])
	}
	if rows[1].Tombstone || string(rows[1].Content) != string(text("first")) || rows[4].Tombstone {
		t.Fatalf("the others are %+v", rows)
	}
	if n, c := d.unread(3); n != 3 || c.Mentions != 0 {
		t.Fatalf("of three messages and a tombstone %d are unread, %d mentions", n, c.Mentions)
	}
	// A twin within one batch is one, too.
	applied = d.apply(d.message(3, "x", "one"), d.message(3, "x", "two"))
	same(t, "the twins of one batch", applied.Twins, []timeline.Twin{{Conversation: group, Seq: 7, First: 6}})
}

func theSameClientIDOfAnotherSender(t *testing.T, d *desk) {
	applied := d.apply(d.create(), d.message(1, "same", "a"), d.message(2, "same", "b"), d.message(2, "SAME", "c"), d.message(2, "same ", "d"))
	if len(applied.Twins) != 0 {
		t.Fatalf("twins: %+v", applied.Twins)
	}
	for i, want := range []string{"same", "same", "SAME", "same "} {
		if got := d.rows()[i+1].ClientMsgID; got != want {
			t.Errorf("client id %q came back as %q", want, got)
		}
	}
}

func aRecallLeavesNothing(t *testing.T, d *desk) {
	create := d.create()
	said := d.message(1, "m", "a secret")
	said.Message.Mentions = &chat.Mentions{UserIDs: []chat.UserID{2}, All: true}
	few := d.event(chat.KindMessage, 1, "few")
	few.Message = &chat.Message{Type: chat.TypeText, Content: text("a secret for a few"), Recipients: []chat.UserID{2}, Mentions: &chat.Mentions{All: true}}
	d.apply(create, said, few)
	if n, c := d.unread(2); n != 2 || c.Mentions != 2 {
		t.Fatalf("before: %d unread, %d mentions", n, c.Mentions)
	}
	if n, c := d.unread(3); n != 1 || c.Mentions != 1 {
		t.Fatalf("before, for who is not meant: %d unread, %d mentions", n, c.Mentions)
	}
	first, second := d.event(chat.KindRecall, 1, "r1"), d.event(chat.KindRecall, 1, "r2")
	first.Recall, second.Recall = &chat.Recall{TargetSeq: 2}, &chat.Recall{TargetSeq: 3}
	d.apply(first, second)
	for _, r := range d.rows() {
		if strings.Contains(string(r.Content), "secret") || (r.Seq == 2 || r.Seq == 3) && (r.Mentions != nil || r.RecalledAt == 0 || r.RecalledBy != 1 || r.Changes != 1) {
			t.Errorf("row %d still is %+v", r.Seq, r)
		}
	}
	if got := d.rows()[2].Recipients; len(got) != 1 || got[0] != 2 {
		t.Errorf("who may see that it was taken back: %v", got)
	}
	for _, u := range []chat.UserID{2, 3} {
		if n, c := d.unread(u); n != 0 || c.Mentions != 0 {
			t.Errorf("after, for %s: %d unread, %d mentions", u, n, c.Mentions)
		}
	}
}

func anEditOfARecalledMessage(t *testing.T, d *desk) {
	create, said := d.create(), d.message(1, "m", "gone")
	recall, edit := d.event(chat.KindRecall, 1, "r"), d.event(chat.KindEdit, 1, "e")
	recall.Recall, edit.Edit = &chat.Recall{TargetSeq: 2}, &chat.Edit{TargetSeq: 2, Content: text("back")}
	d.apply(create, said, recall, edit)
	if r := d.rows()[1]; r.Content != nil || r.EditedAt != 0 {
		t.Fatalf("the row is %+v", r)
	}
}

func whatAimsAtNothing(t *testing.T, d *desk) {
	create := d.create()
	recall, edit := d.event(chat.KindRecall, 1, "r"), d.event(chat.KindEdit, 1, "e")
	recall.Recall, edit.Edit = &chat.Recall{TargetSeq: 77}, &chat.Edit{TargetSeq: 78, Content: text("x")}
	if applied := d.apply(create, recall, edit); applied.MissingTargets != 2 {
		t.Fatalf("%d are counted", applied.MissingTargets)
	}
}

func whatCanNeverBeStored(t *testing.T, d *desk) {
	d.apply(d.create())
	bad := d.message(2, strings.Repeat("x", 100), "a client id that is too long")
	to, entries := d.next(d.message(1, "good", "good"), bad)
	entries[0].Event.Seq, entries[0].Event.Ordinal, entries[1].Event.Seq = 2, 1, 3
	if _, err := d.store.Apply(d.ctx, d.at, to, entries); !errors.Is(err, timeline.ErrUnstorable) {
		t.Fatalf("got %v", err)
	}
	if n := len(d.rows()); n != 1 {
		t.Fatalf("%d rows stand, one should", n)
	}
	to, entries = d.next(&entries[0].Event)
	if _, err := d.store.Apply(d.ctx, d.at, to, entries); err != nil {
		t.Fatalf("the good half: %v", err)
	}
}

func aHoleIsFilledLater(t *testing.T, d *desk) {
	create := d.create()
	said, join := d.message(2, "lost", "lost"), d.event(chat.KindJoin, 1, "join")
	join.Join = &chat.Join{Users: []chat.UserID{7}}
	after := d.message(3, "after", "after")
	if applied := d.apply(create); applied.Holes != 0 {
		t.Fatalf("%d holes", applied.Holes)
	}
	if applied := d.apply(after); applied.Holes != 2 {
		t.Fatalf("%d holes, 2 numbers are missing", applied.Holes)
	}
	if head := d.head(); head.MaxSeq != 4 || head.MemberCount != 3 {
		t.Fatalf("the head is %+v", head)
	}
	if applied := d.apply(said, join, after); applied.Skipped != 1 || applied.Holes != 0 {
		t.Fatalf("putting back: %+v", applied)
	}
	rows := d.rows()
	if len(rows) != 4 || string(rows[1].Content) != string(text("lost")) {
		t.Fatalf("the rows are %+v", rows)
	}
	if head := d.head(); head.MaxSeq != 4 || head.MemberCount != 4 || head.Ordinal != 2 {
		t.Fatalf("the head is %+v", head)
	}
	if m, there := d.member(7); !there || m.JoinSeq != 3 {
		t.Fatalf("who joined is %+v", m)
	}
	if n, _ := d.unread(7); n != 1 {
		t.Fatalf("%d unread for who joined", n)
	}
	if applied := d.apply(said, join); applied.Skipped != 2 || d.head().MemberCount != 4 {
		t.Fatalf("putting back twice: %+v", applied)
	}
}

// write applies entries as they are, at the next offsets.
func (d *desk) write(entries ...timeline.Entry) timeline.Applied {
	d.t.Helper()
	to := d.at
	to.BatchFrom = d.at.MessagesNext
	for i := range entries {
		entries[i].Offset = to.MessagesNext
		to.MessagesNext++
	}
	applied, err := d.store.Apply(d.ctx, d.at, to, entries)
	if err != nil {
		d.t.Fatal(err)
	}
	d.at = to
	return applied
}

func aPassedNumber(t *testing.T, d *desk) {
	d.apply(d.create(), d.message(1, "a", "one"))
	parked := d.message(1, "b", "two")
	applied := d.write(timeline.Pass(0, parked))
	if head := d.head(); applied.Holes != 1 || head.MaxSeq != 3 || head.Ordinal != 2 || head.LastAt != parked.SentAt || head.LastOffset != 2 || len(d.rows()) != 2 {
		t.Fatalf("%d holes, the head is %+v, %d rows", applied.Holes, head, len(d.rows()))
	}
	if again := d.write(timeline.Pass(0, parked)); again.Holes != 0 || d.head().LastOffset != 2 {
		t.Errorf("passing it again makes %d holes", again.Holes)
	}
	d.write(timeline.PassUnreadable(0, group, 4, 9999))
	d.seq++
	if head := d.head(); head.MaxSeq != 4 || head.Ordinal != 2 || head.LastAt != 9999 {
		t.Fatalf("after an unreadable record the head is %+v", head)
	}
	d.apply(d.message(2, "c", "three"))
	if n, _ := d.unread(3); n != 3 {
		t.Errorf("unread is %d, want 3", n)
	}
	// It is put back: without moving the position, at its own offset.
	filled, err := d.store.Apply(d.ctx, d.at, d.at, []timeline.Entry{{Offset: 2, Event: *parked}})
	if err != nil || len(filled.Filled) != 1 || filled.Filled[0].Seq != 3 {
		t.Fatalf("%+v, %v", filled, err)
	}
	if rows := d.rows(); len(rows) != 4 || rows[2].Seq != 3 || d.head().MaxSeq != 5 {
		t.Errorf("%d rows, the head is %+v", len(rows), d.head())
	}
}

func aPassedNumberOutOfPlace(t *testing.T, d *desk) {
	d.apply(d.create(), d.message(1, "a", "one"))
	before := d.head()
	other := chat.GroupConversation(4712)
	d.write(timeline.PassUnreadable(0, group, 4, 9999), timeline.PassUnreadable(0, group, 1, 9999), timeline.PassUnreadable(0, other, 2, 9999))
	if head := d.head(); head != before {
		t.Errorf("the head was %+v and is %+v", before, head)
	}
	if heads, err := d.store.Conversations(d.ctx, []chat.ConversationID{other}); err != nil || len(heads) != 0 {
		t.Errorf("%d conversations began, %v", len(heads), err)
	}
}

// An owner at work assigns a number that it does not know to be used; in the same batch or in a later one, and whatever follows.
func anEventInsteadOfWhatWasPassed(t *testing.T, d *desk) {
	d.apply(d.create())
	for i, together := range []bool{true, false} {
		name := fmt.Sprintf("name %d", i)
		pass := timeline.PassUnreadable(0, group, d.seq+1, 9999)
		update := d.event(chat.KindUpdate, 1, fmt.Sprintf("update %d", i))
		update.Update = &chat.Update{Name: &name}
		behind := d.message(1, fmt.Sprintf("behind %d", i), "text")
		events := []timeline.Entry{{Event: *update}, {Event: *behind}}
		var applied timeline.Applied
		if together {
			applied = d.write(append([]timeline.Entry{pass}, events...)...)
		} else {
			d.write(pass)
			applied = d.write(events...)
		}
		if head := d.head(); head.Name != name || head.MaxSeq != d.seq || int64(len(d.rows())) != d.seq || len(applied.Filled) != 1 || applied.Filled[0].Seq != update.Seq {
			t.Errorf("together %t: the head is %+v, %d rows, %+v", together, head, len(d.rows()), applied)
		}
	}
}

func aConversationBeginsPassed(t *testing.T, d *desk) {
	private := chat.PrivateConversation(8, 9)
	d.write(timeline.PassUnreadable(0, private, 1, 9999))
	heads, err := d.store.Conversations(d.ctx, []chat.ConversationID{private})
	if err != nil || len(heads) != 1 || heads[0].MaxSeq != 1 || heads[0].MemberCount != 2 || heads[0].CreatedAt != 9999 {
		t.Fatalf("%+v, %v", heads, err)
	}
	members, err := d.store.Members(d.ctx, []timeline.MemberKey{{Conversation: private, User: 8}, {Conversation: private, User: 9}})
	if err != nil || len(members) != 2 || !members[0].Present() {
		t.Errorf("%+v, %v", members, err)
	}
}

func aRecallOfWhatIsFilledLater(t *testing.T, d *desk) {
	create, said := d.create(), d.message(1, "m", "a secret")
	said.Message.Mentions = &chat.Mentions{UserIDs: []chat.UserID{2}, All: true}
	edit, recall := d.event(chat.KindEdit, 1, "e"), d.event(chat.KindRecall, 1, "r")
	edit.Edit, recall.Recall = &chat.Edit{TargetSeq: 2, Content: text("still a secret")}, &chat.Recall{TargetSeq: 2}
	d.apply(create)
	if applied := d.apply(edit, recall); applied.MissingTargets != 2 || applied.Holes != 1 {
		t.Fatalf("before: %+v", applied)
	}
	if applied := d.apply(said); applied.MissingTargets != 0 {
		t.Fatalf("putting back: %+v", applied)
	}
	for _, r := range d.rows() {
		if strings.Contains(string(r.Content), "secret") {
			t.Errorf("row %d is %s", r.Seq, r.Content)
		}
	}
	if r := d.rows()[1]; r.RecalledAt != recall.SentAt || r.RecalledBy != 1 || r.Mentions != nil || r.Changes != 1 {
		t.Errorf("the row is %+v", r)
	}
	for _, u := range []chat.UserID{2, 3} {
		if n, c := d.unread(u); n != 0 || c.Mentions != 0 {
			t.Errorf("for %s: %d unread, %d mentions", u, n, c.Mentions)
		}
	}
}

func anEditOfWhatIsFilledLater(t *testing.T, d *desk) {
	create, said := d.create(), d.message(1, "m", "first")
	once, twice, again := d.event(chat.KindEdit, 1, "e1"), d.event(chat.KindEdit, 1, "e2"), d.event(chat.KindEdit, 1, "e3")
	once.Edit, twice.Edit = &chat.Edit{TargetSeq: 2, Content: text("once")}, &chat.Edit{TargetSeq: 2, Content: text("twice")}
	again.Edit = &chat.Edit{TargetSeq: 2, Content: text("again")}
	d.apply(create)
	d.apply(once, twice)
	for _, r := range d.rows()[1:] {
		if r.Content != nil {
			t.Errorf("readers see of the edit at %d: %s", r.Seq, r.Content)
		}
	}
	d.apply(said)
	if r := d.rows()[1]; string(r.Content) != string(text("twice")) || r.EditedAt != twice.SentAt || r.Changes != 2 {
		t.Errorf("put back, the row is %+v", r)
	}
	d.apply(said, again)
	if r := d.rows()[1]; string(r.Content) != string(text("again")) || r.Changes != 3 {
		t.Errorf("edited again, the row is %+v", r)
	}
}

func aMarkIsClamped(t *testing.T, d *desk) {
	d.apply(d.create(), d.message(1, "a", "a"), d.message(1, "b", "b"))
	offset := int64(0)
	mark := func(u chat.UserID, seq, ordinal int64) timeline.Member {
		t.Helper()
		m := timeline.MarkEntry{Offset: offset, Mark: chat.ReadMark{User: u, Conversation: group, Seq: seq, Ordinal: ordinal}}
		if err := d.store.ApplyMarks(d.ctx, 3, offset, offset+1, []timeline.MarkEntry{m}); err != nil {
			t.Fatal(err)
		}
		offset++
		got, _ := d.member(u)
		return got
	}
	for _, step := range []struct{ seq, ordinal, wantSeq, wantOrdinal, wantOffset int64 }{
		{2, 1, 2, 1, 0}, {1, 0, 2, 1, 0}, {900, 77, 3, 2, 2}, {2, 1, 3, 2, 2},
	} {
		if got := mark(2, step.seq, step.ordinal); got.ReadSeq != step.wantSeq || got.ReadOrdinal != step.wantOrdinal || got.ReadOffset != step.wantOffset {
			t.Errorf("after %+v the mark is at %d, ordinal %d, by %d", step, got.ReadSeq, got.ReadOrdinal, got.ReadOffset)
		}
	}
	if n, _ := d.unread(2); n != 0 {
		t.Errorf("%d unread at the end", n)
	}
	leave := d.event(chat.KindLeave, 3, "bye")
	leave.Leave = &chat.Leave{Users: []chat.UserID{3}}
	d.apply(leave)
	if got := mark(3, 3, 2); got.ReadSeq != 1 {
		t.Errorf("the mark of who left moved to %d", got.ReadSeq)
	}
}

func aMarkOfAStranger(t *testing.T, d *desk) {
	d.apply(d.create())
	marks := []timeline.MarkEntry{
		{Offset: 0, Mark: chat.ReadMark{User: 99, Conversation: group, Seq: 1}},
		{Offset: 1, Mark: chat.ReadMark{User: 1, Conversation: chat.GroupConversation(5), Seq: 1}},
	}
	if err := d.store.ApplyMarks(d.ctx, 0, 0, 2, marks); err != nil {
		t.Fatal(err)
	}
	if _, there := d.member(99); there {
		t.Fatal("a mark made a member")
	}
}

func manyMembersJoin(t *testing.T, d *desk) {
	d.apply(d.create())
	const total = 2500
	var events []*chat.Event
	for first := 100; first < 100+total; first += chat.MaxMembersPerCommand {
		e := d.event(chat.KindJoin, 1, fmt.Sprint("join", first))
		e.Join = &chat.Join{}
		for u := first; u < first+chat.MaxMembersPerCommand; u++ {
			e.Join.Users = append(e.Join.Users, chat.UserID(u))
		}
		events = append(events, e)
	}
	d.apply(events...)
	leave := d.event(chat.KindLeave, 1, "leave")
	leave.Leave = &chat.Leave{Users: events[1].Join.Users}
	d.apply(leave)
	marks, err := d.store.Marks(d.ctx, group)
	if err != nil {
		t.Fatal(err)
	}
	want := 3 + total - chat.MaxMembersPerCommand
	if n := d.head().MemberCount; n != want || len(marks) != want {
		t.Fatalf("the head counts %d, %d have marks, %d are right", n, len(marks), want)
	}
	counts, err := d.store.ReadCounts(d.ctx, group, []timeline.ReceiptQuestion{{Seq: 2, Sender: 1}})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "the receipts of the first join", counts, []timeline.ReceiptCount{{Seq: 2, ReadCount: 500, UnreadCount: 2}})
}

func theLargestMessage(t *testing.T, d *desk) {
	d.apply(d.create())
	e := d.message(1, strings.Repeat("ü", chat.MaxClientMsgIDBytes/2), strings.Repeat("🙂", (chat.MaxContentBytes-16)/4))
	e.Message.Mentions = &chat.Mentions{}
	for i := range chat.MaxMentions {
		e.Message.Mentions.UserIDs = append(e.Message.Mentions.UserIDs, chat.UserID(1<<62+i))
	}
	for i := range chat.MaxRecipients {
		e.Message.Recipients = append(e.Message.Recipients, chat.UserID(1<<62+i))
	}
	d.apply(e)
	got := d.rows()[1]
	want := timeline.RowOf(e)
	same(t, "the largest message", got, want)
}

// sentAt returns messages of one sender that were sent at these times, the first of them numbered 2.
func (d *desk) sentAt(times ...int64) []*chat.Event {
	var out []*chat.Event
	for i, at := range times {
		e := d.message(2, fmt.Sprintf("at-%d-%d", d.seq, i), "said")
		e.SentAt, e.NumberedAt = at, 9000+e.Seq
		out = append(out, e)
	}
	return out
}

func (d *desk) seqAt(want map[int64]int64) {
	d.t.Helper()
	for at, seq := range want {
		got, err := d.store.SeqAt(d.ctx, group, at)
		if err != nil || got != seq {
			d.t.Errorf("the lowest number sent at %d or later is %d, %v; want %d", at, got, err, seq)
		}
	}
}

func seqAtIsExact(t *testing.T, d *desk) {
	create := d.create()
	create.SentAt = 1
	d.apply(create)
	d.seqAt(map[int64]int64{0: 1, 1: 1, 2: 0})
	d.apply(d.sentAt(50, 10, 40)...) // 2, 3, 4
	d.apply(d.sentAt(70, 60, 70, 5)...)
	d.seqAt(map[int64]int64{1: 1, 2: 2, 10: 2, 40: 2, 50: 2, 51: 5, 60: 5, 70: 5, 71: 0})
	d.apply(d.sentAt(80)...)
	d.seqAt(map[int64]int64{70: 5, 71: 9, 80: 9, 81: 0})
}

func seqAtAroundARowFilledLater(t *testing.T, d *desk) {
	create := d.create()
	create.SentAt = 1
	all := d.sentAt(20, 60, 10, 40, 70, 15) // 2 to 7
	d.apply(create, all[0])
	d.apply(all[3:]...) // without 3 and 4
	d.seqAt(map[int64]int64{20: 2, 21: 5, 40: 5, 41: 6, 70: 6, 71: 0})
	d.apply(all[1:3]...)
	d.seqAt(map[int64]int64{20: 2, 21: 3, 40: 3, 60: 3, 61: 6, 70: 6, 71: 0})
	d.apply(d.sentAt(65, 90)...)
	d.seqAt(map[int64]int64{61: 6, 71: 9, 90: 9, 91: 0})
}

// A number that was passed has no time of its own, whatever its record says. It has one once its event is put back: below the
// head, at the head, or in its place by an owner that did not know the number to be used.
func seqAtAroundAPassedNumber(t *testing.T, d *desk) {
	create := d.create()
	create.SentAt = 1
	all := d.sentAt(20, 60, 10, 40, 30, 90) // 2 to 7
	highAt := func(when string, want int64) {
		t.Helper()
		if head := d.head(); head.HighAt != want {
			t.Errorf("%s the head's highest time is %d, want %d", when, head.HighAt, want)
		}
	}
	putBack := func(offset int64, e *chat.Event) {
		t.Helper()
		if _, err := d.store.Apply(d.ctx, d.at, d.at, []timeline.Entry{{Offset: offset, Event: *e}}); err != nil {
			t.Fatal(err)
		}
	}
	d.apply(create, all[0])
	below := d.at.MessagesNext
	d.write(timeline.Pass(0, all[1]), timeline.PassUnreadable(0, group, 4, 9999))
	highAt("after two passed numbers", 20)
	d.seqAt(map[int64]int64{1: 1, 20: 2, 21: 0, 9999: 0})

	d.apply(all[3])
	highAt("after an event behind them", 40)
	d.seqAt(map[int64]int64{20: 2, 21: 5, 40: 5, 41: 0})

	putBack(below, all[1]) // its time is later than that of the row behind it
	highAt("after the first was put back", 60)
	d.seqAt(map[int64]int64{20: 2, 21: 3, 40: 3, 60: 3, 61: 0})

	atHead := d.at.MessagesNext
	d.write(timeline.Pass(0, all[4]))
	putBack(atHead, all[4])
	highAt("after the head's event was put back", 60)
	d.seqAt(map[int64]int64{21: 3, 60: 3, 61: 0})

	d.write(timeline.PassUnreadable(0, group, 7, 9999), timeline.Entry{Event: *all[5]})
	highAt("after an event in place of a passed number", 90)
	d.seqAt(map[int64]int64{60: 3, 61: 7, 90: 7, 91: 0})

	d.apply(all[2]) // into the gap that is left
	highAt("after the gap was filled", 90)
	d.seqAt(map[int64]int64{1: 1, 2: 2, 20: 2, 21: 3, 60: 3, 61: 7, 90: 7, 91: 0})
}

func lastAtIsTheTimeOfNumbering(t *testing.T, d *desk) {
	d.apply(d.create())
	d.apply(d.sentAt(7)...)
	if head := d.head(); head.LastAt != 9002 || head.HighAt != 5001 {
		t.Fatalf("a message of long ago was numbered at 9002, the head says %d; the highest time is 5001, it says %d", head.LastAt, head.HighAt)
	}
}
