package sqlstore

import (
	"fmt"
	"slices"
	"testing"

	"tideline/pkg/chat"
)

func TestBothSaid_NamesPrivateConversationsInWhichBothSentAMessage(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		run := func(text string, args ...any) {
			t.Helper()
			if _, err := s.writer.ExecContext(t.Context(), text, args...); err != nil {
				t.Fatal(err)
			}
		}
		type said struct {
			sender chat.UserID
			kind   chat.Kind
		}
		has := func(c chat.ConversationID, members []chat.UserID, events ...said) chat.ConversationID {
			for _, u := range members {
				run("INSERT INTO members (conversation_id, user_id, role, join_seq, left_seq, muted_until, changed_seq, changed_offset) VALUES (?, ?, 1, 1, 0, 0, 1, 1)", c.Bytes(), int64(u))
			}
			for i, e := range events {
				seq := int64(i + 1)
				run("INSERT INTO timeline (conversation_id, seq, ordinal, kind, message_id, sender_id, body_hash, sent_at) VALUES (?, ?, ?, ?, ?, ?, ?, 1)",
					c.Bytes(), seq, seq, int(e.kind), seq, int64(e.sender), fmt.Appendf(nil, "%016d", seq))
			}
			return c
		}
		pair := func(low, high chat.UserID, events ...said) chat.ConversationID {
			return has(chat.PrivateConversation(low, high), []chat.UserID{low, high}, events...)
		}
		talk := []said{{1, chat.KindMessage}, {2, chat.KindMessage}, {1, chat.KindMessage}}
		both := pair(1, 2, talk...)
		answered := pair(2, 3, said{3, chat.KindMessage}, said{3, chat.KindEdit}, said{2, chat.KindMessage})
		ids := []chat.ConversationID{
			both, answered,
			pair(1, 3, said{1, chat.KindMessage}, said{1, chat.KindMessage}), // one alone speaks
			pair(1, 4, said{4, chat.KindMessage}, said{1, chat.KindRecall}),  // the other says nothing
			pair(1, 5, said{5, chat.KindEdit}, said{1, chat.KindEdit}),       // no messages
			pair(1, 6),                     // nothing
			chat.PrivateConversation(1, 7), // not there
			has(chat.GroupConversation(8), []chat.UserID{1, 2}, talk...),             // not private
			has(chat.GroupConversation(9), []chat.UserID{1, 2, 3}, talk[0], talk[1]), // likewise
		}
		check := func(what string, ids []chat.ConversationID, want ...chat.ConversationID) {
			t.Helper()
			got, err := s.BothSaid(t.Context(), ids)
			if err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(got, func(a, b chat.ConversationID) int { return int(a.A - b.A) })
			if !slices.Equal(got, want) {
				t.Errorf("%s: both have spoken in %v, want %v", what, got, want)
			}
		}
		check("all", ids, both, answered)
		check("none", nil)
		check("one", ids[2:3])
		// Named again in another statement, a conversation is counted once.
		alone := ids[2]
		many := []chat.ConversationID{alone}
		for n := range int64(2 * maxTerms) {
			many = append(many, chat.PrivateConversation(chat.UserID(100), chat.UserID(1000+n)))
		}
		check("repeated", append(many, alone, both), both)
		check("named twice", []chat.ConversationID{both, both}, both)
	})
}
