package handlers

import (
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
