package sqlstore

import (
	"slices"
	"testing"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

func TestReceipt_IsOfMessagesThatStand(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		c := chat.GroupConversation(7)
		lists := packLists(nil, []chat.UserID{2, 5})
		for _, r := range []struct {
			seq   int64
			kind  chat.Kind
			flags int
			lists []byte
		}{{1, chat.KindCreate, 0, nil}, {2, chat.KindMessage, 0, nil}, {3, chat.KindMessage, flagTombstone, nil}, {4, chat.KindMessage, flagReceipt, lists}} {
			_, err := s.writer.ExecContext(t.Context(), "INSERT INTO timeline (conversation_id, seq, ordinal, kind, message_id, sender_id, body_hash, sent_at, flags, lists) VALUES (?, ?, 1, ?, ?, 9, ?, 0, ?, ?)",
				c.Bytes(), r.seq, int(r.kind), r.seq, make([]byte, 16), r.flags, r.lists)
			if err != nil {
				t.Fatal(err)
			}
		}
		got, err := s.Receipt(t.Context(), c, []int64{5, 4, 3, 2, 1})
		want := []timeline.ReceiptQuestion{{Seq: 2, Sender: 9}, {Seq: 4, Sender: 9, Recipients: []chat.UserID{2, 5}}}
		if err != nil || !slices.EqualFunc(got, want, func(a, b timeline.ReceiptQuestion) bool {
			return a.Seq == b.Seq && a.Sender == b.Sender && slices.Equal(a.Recipients, b.Recipients)
		}) {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
	})
}
