package sqlstore

import (
	"testing"

	"tideline/pkg/chat"
)

func TestPeerMarks_AreThoseOfTheOthersInPrivateConversations(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		put := func(c chat.ConversationID, u chat.UserID, read int64) {
			_, err := s.writer.ExecContext(t.Context(), "INSERT INTO members (conversation_id, user_id, join_seq, changed_seq, changed_offset, read_seq) VALUES (?, ?, 0, 0, 0, ?)", c.Bytes(), int64(u), read)
			if err != nil {
				t.Fatal(err)
			}
		}
		one, two := chat.PrivateConversation(5, 7), chat.PrivateConversation(7, 9)
		for c, read := range map[chat.ConversationID][2]int64{one: {3, 4}, two: {5, 6}} {
			low, high, _ := c.Peers()
			put(c, low, read[0])
			put(c, high, read[1])
		}
		put(chat.PrivateConversation(5, 9), 5, 8)
		put(chat.PrivateConversation(5, 9), 9, 8)
		put(chat.GroupConversation(1), 7, 1)
		put(chat.GroupConversation(1), 5, 1)
		got, err := s.PeerMarks(t.Context(), 7)
		if err != nil || len(got) != 2 || got[one] != 3 || got[two] != 6 {
			t.Fatalf("%v, %v", got, err)
		}
	})
}
