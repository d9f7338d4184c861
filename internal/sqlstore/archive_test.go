package sqlstore

import (
	"testing"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

func TestStoredMarks_PagesThroughThoseThatCameByTheLog(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		put := func(c chat.ConversationID, u chat.UserID, read, offset int64) {
			t.Helper()
			_, err := s.writer.ExecContext(t.Context(), "INSERT INTO members (conversation_id, user_id, join_seq, changed_seq, changed_offset, read_seq, read_offset) VALUES (?, ?, 0, 0, 0, ?, ?)",
				c.Bytes(), int64(u), read, offset)
			if err != nil {
				t.Fatal(err)
			}
		}
		want := map[timeline.MemberKey]StoredMark{}
		for c := range int64(3) {
			for u := range int64(4) {
				key := timeline.MemberKey{Conversation: chat.GroupConversation(c + 1), User: chat.UserID(10 - u)}
				put(key.Conversation, key.User, u, u-1) // one of each four never marked anything
				if u > 0 {
					want[key] = StoredMark{key, u, u - 1}
				}
			}
		}
		for limit := 1; limit <= 10; limit++ {
			seen := map[timeline.MemberKey]StoredMark{}
			var after timeline.MemberKey
			for {
				page, err := s.StoredMarks(t.Context(), after, limit)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range page {
					if _, twice := seen[m.MemberKey]; twice || want[m.MemberKey] != m {
						t.Fatalf("pages of %d have %+v, want %+v", limit, m, want[m.MemberKey])
					}
					seen[m.MemberKey], after = m, m.MemberKey
				}
				if len(page) < limit {
					break
				}
			}
			if len(seen) != len(want) {
				t.Fatalf("pages of %d have %d marks, want %d", limit, len(seen), len(want))
			}
		}
	})
}

func TestPartitionEvents_IsTheSumOfTheNumbersLessParkedRecords(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		for id, c := range map[int64][2]int64{1: {3, 5}, 2: {3, 7}, 3: {4, 100}} {
			_, err := s.writer.ExecContext(t.Context(), "INSERT INTO conversations (conversation_id, partition_id, max_seq, ordinal, created_at, last_at, last_offset) VALUES (?, ?, ?, 0, 0, 0, 0)",
				chat.GroupConversation(id).Bytes(), c[0], c[1])
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Park(t.Context(), Parked{Topic: "im.messages", Partition: 3, Offset: 9, Reason: "x", Key: []byte("k"), Record: []byte("r")}); err != nil {
			t.Fatal(err)
		}
		for partition, want := range map[int32]int64{3: 11, 4: 100, 5: 0} {
			if got, err := s.PartitionEvents(t.Context(), "im.messages", partition); err != nil || got != want {
				t.Errorf("partition %d has %d events, want %d: %v", partition, got, want, err)
			}
		}
	})
}
