package seq

import (
	"math"
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
