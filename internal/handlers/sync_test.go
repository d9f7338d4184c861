package handlers

import (
	"strings"
	"testing"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

func TestSync_AsksForTheMarksOfAllPeersAtOnce(t *testing.T) {
	r := newRig(t)
	const many = 200
	for n := range chat.UserID(many) {
		c := chat.PrivateConversation(1000, n+1)
		r.shelf.say(c, "hello", "world")
		r.shelf.join(c, 1000, 0)
		r.shelf.members[timeline.MemberKey{Conversation: c, User: n + 1}] = timeline.Member{Conversation: c, User: n + 1, ReadSeq: int64(n % 3), ReadOffset: -1}
	}
	for _, limit := range []int{many, 3} {
		before := r.shelf.count("peers") + r.shelf.count("members")
		got, err := r.Sync(t.Context(), 1000, SyncRequest{Limit: limit})
		if err != nil || len(got.Conversations) != limit {
			t.Fatalf("%d conversations, %v", len(got.Conversations), err)
		}
		for _, c := range got.Conversations {
			if want := int64(c.Peer-1) % 3; c.PeerReadSeq == nil || *c.PeerReadSeq != want {
				t.Errorf("the peer %s has read up to %v, want %d", c.Peer, c.PeerReadSeq, want)
			}
		}
		if asked := r.shelf.count("peers") + r.shelf.count("members") - before; asked != 1 {
			t.Errorf("a page of %d took %d statements", limit, asked)
		}
	}
}

func TestSync_EndsAPageEarlyWhereItsMessagesAreLarge(t *testing.T) {
	r := newRig(t)
	const many, messages = 20, 16
	large := strings.Repeat("x", 60<<10)
	for n := range int64(many) {
		c := chat.GroupConversation(n + 1)
		r.shelf.join(c, 1000, 1)
		for range messages {
			r.shelf.say(c, large)
		}
	}
	seen := map[chat.ConversationID]int{}
	request := SyncRequest{Newest: messages}
	for pages := 1; ; pages++ {
		got, err := r.Sync(t.Context(), 1000, request)
		if err != nil || len(got.Conversations) == 0 {
			t.Fatalf("%d conversations, %v", len(got.Conversations), err)
		}
		size := 0
		for _, c := range got.Conversations {
			seen[c.ID]++
			if len(c.Newest) != messages {
				t.Errorf("%s brings %d messages", c.ID, len(c.Newest))
			}
			for _, entry := range c.Newest {
				size += len(entry)
			}
		}
		if size > 2*maxSyncBytes+len(large) {
			t.Errorf("page %d has %d bytes of messages", pages, size)
		}
		if request.Cursor = got.Cursor; !got.HasMore {
			break
		}
		if pages > many {
			t.Fatal("the pages do not end")
		}
	}
	for c, times := range seen {
		if times != 1 {
			t.Errorf("%s came %d times, and nothing has moved", c, times)
		}
	}
	if len(seen) != many {
		t.Errorf("%d conversations came, of %d", len(seen), many)
	}
}
