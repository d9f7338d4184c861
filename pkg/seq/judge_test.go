package seq

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"

	"tideline/pkg/chat"
)

func TestMachine_RefusesWhatIsSaidToHaveBeenSaidInTheFuture(t *testing.T) {
	hasher, err := chat.NewHasher([]byte("a key for the tests"))
	if err != nil {
		t.Fatal(err)
	}
	const now = 1_700_000_000_000
	var id int64
	m := New(Config{Hasher: hasher, NextID: func() (int64, error) { id++; return id, nil }, WindowIDs: 10, CacheEntries: 10, MaxMembers: 10}, Checkpoint{})
	for i, c := range []struct {
		at   int64
		sent int64 // 0: refused
	}{{0, now}, {1, 1}, {now + chat.MaxOriginalAheadMS, now + chat.MaxOriginalAheadMS}, {now + chat.MaxOriginalAheadMS + 1, 0}, {math.MaxInt64, 0}} {
		offset, g := int64(i), chat.GroupConversation(int64(i+1))
		command := chat.Command{Type: chat.KindCreate, Conversation: g, Sender: 1, ClientMsgID: "c", OriginalAt: c.at, Create: &chat.Create{Name: "all"}}
		b := m.Begin([]Record{{Offset: offset, Command: &command}}, offset+1, now)
		if err := b.Decide(Loaded{Users: []chat.UserID{1}}); err != nil {
			t.Fatal(err)
		}
		switch o := b.Outcomes[0]; {
		case c.sent > 0 && (o.Event == nil || o.Event.SentAt != c.sent):
			t.Errorf("said at %d: %+v %+v", c.at, o.Event, o.Rejection)
		case c.sent > 0 && o.Event.Numbered() != now:
			t.Errorf("said at %d and numbered at %d, the event says %d", c.at, now, o.Event.Numbered())
		case c.sent == 0 && (o.Rejection == nil || o.Rejection.Code != chat.CodeInvalidField || o.Rejection.Field != "original_at"):
			t.Errorf("said at %d became %+v", c.at, o.Event)
		}
		offsets := make([]int64, len(b.Events()))
		for j := range offsets {
			offsets[j] = offset
		}
		b.Settle(0, offsets)
	}
}

// harbourTest is a machine whose store has nothing but people: everything else is in its tail.
type harbourTest struct {
	t      *testing.T
	m      *Machine
	group  chat.ConversationID
	offset int64
}

func newHarbourTest(t *testing.T) *harbourTest {
	t.Helper()
	hasher, err := chat.NewHasher([]byte("a key for the tests"))
	if err != nil {
		t.Fatal(err)
	}
	var id int64
	m := New(Config{Hasher: hasher, NextID: func() (int64, error) { id++; return id, nil }, WindowIDs: 10, CacheEntries: 10, MaxMembers: 10, ClientProducer: "api"}, Checkpoint{})
	return &harbourTest{t: t, m: m, group: chat.GroupConversation(1)}
}

// number numbers commands of one producer as one batch.
func (h *harbourTest) number(now int64, producer string, commands ...chat.Command) []Outcome {
	h.t.Helper()
	var records []Record
	for i := range commands {
		c := &commands[i]
		c.Conversation, c.ClientMsgID = h.group, fmt.Sprint("c", h.offset)
		records = append(records, Record{Offset: h.offset, Command: c, Producer: producer})
		h.offset++
	}
	b := h.m.Begin(records, h.offset, now)
	if err := b.Decide(Loaded{Users: []chat.UserID{1, 2, 3, 4}}); err != nil {
		h.t.Fatal(err)
	}
	offsets := make([]int64, len(b.Events()))
	for i := range offsets {
		offsets[i] = h.offset + int64(i)
	}
	b.Settle(0, offsets)
	return b.Outcomes
}

func message(m chat.Message) chat.Command {
	m.Type, m.Content = chat.TypeText, json.RawMessage(`{"text":"psst"}`)
	return chat.Command{Type: chat.KindMessage, Sender: 1, Message: &m}
}

func TestMachine_JudgesRecipientsAndMentionsAsOfTheNumberBefore(t *testing.T) {
	h := newHarbourTest(t)
	to2 := func() chat.Command {
		return message(chat.Message{Recipients: []chat.UserID{2}, Mentions: &chat.Mentions{UserIDs: []chat.UserID{2, 3}}})
	}
	got := h.number(1000, "api",
		chat.Command{Type: chat.KindCreate, Sender: 1, Create: &chat.Create{Name: "all"}},
		to2(),
		chat.Command{Type: chat.KindJoin, Sender: 1, Join: &chat.Join{Users: []chat.UserID{2}}},
		to2(),
		chat.Command{Type: chat.KindLeave, Sender: 2, Leave: &chat.Leave{Users: []chat.UserID{2}}},
		to2())
	for i, o := range got {
		switch {
		case i == 1 || i == 5:
			if o.Rejection == nil || o.Rejection.Code != chat.CodeRecipient || o.Rejection.Field != "message.recipients" {
				t.Errorf("%d: %+v, %+v", i, o.Event, o.Rejection)
			}
		case o.Event == nil:
			t.Errorf("%d: %+v", i, o.Rejection)
		case i == 3 && (!slices.Equal(o.Event.Message.Mentions.UserIDs, []chat.UserID{2}) || len(o.Record.Command.Message.Mentions.UserIDs) != 2):
			t.Errorf("the event mentions %v, the command %v", o.Event.Message.Mentions, o.Record.Command.Message.Mentions)
		}
	}
}

func TestMachine_DoesNotRememberStrangers(t *testing.T) {
	h := newHarbourTest(t)
	h.number(1000, "crm", chat.Command{Type: chat.KindCreate, Sender: 1, Create: &chat.Create{Name: "all", Members: []chat.UserID{2}}})
	for i := range chat.UserID(100) {
		h.number(1000, "crm", message(chat.Message{Mentions: &chat.Mentions{UserIDs: []chat.UserID{2, 1000 + i, 2000 + i}}}))
	}
	if n := len(h.m.conversations[h.group].members); n != 2 || h.m.entries != 3 {
		t.Errorf("after 200 strangers it remembers %d memberships, %d entries", n, h.m.entries)
	}
}

func TestMachine_HoldsBackWhoLeftForADay(t *testing.T) {
	const day = 24 * 60 * 60 * 1000
	leave := func(by, u chat.UserID) chat.Command {
		return chat.Command{Type: chat.KindLeave, Sender: by, Leave: &chat.Leave{Users: []chat.UserID{u}}}
	}
	add := func(by, u chat.UserID) chat.Command {
		return chat.Command{Type: chat.KindJoin, Sender: by, Join: &chat.Join{Users: []chat.UserID{u}}}
	}
	for name, c := range map[string]struct {
		leaver, adder chat.UserID
		producer      string
		after         int64
		refused       bool
	}{
		"at once": {3, 1, "api", 0, true}, "just before a day": {3, 1, "api", day - 1, true}, "after a day": {3, 1, "api", day, false},
		"by another": {3, 2, "api", 0, false}, "of a removed person": {1, 1, "api", 0, false}, "by a backend": {3, 1, "crm", 0, false},
	} {
		h := newHarbourTest(t)
		h.number(1000, "api", chat.Command{Type: chat.KindCreate, Sender: 1, Create: &chat.Create{Name: "all", Members: []chat.UserID{2, 3}}},
			chat.Command{Type: chat.KindRole, Sender: 1, Role: &chat.SetRole{User: 2, Role: chat.RoleAdmin}}, leave(c.leaver, 3))
		o := h.number(1000+c.after, c.producer, add(c.adder, 3))[0]
		if refused := o.Rejection != nil && o.Rejection.Code == chat.CodeLeftRecently; refused != c.refused || !refused && o.Event == nil {
			t.Errorf("%s: %+v, %+v", name, o.Event, o.Rejection)
		}
	}
}
