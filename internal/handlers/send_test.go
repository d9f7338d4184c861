package handlers

import (
	"strings"
	"testing"

	"tideline/pkg/chat"
	"tideline/pkg/seq"
)

func TestRecall_IsNotAnsweredWhileOthersMayNotHaveBeenTold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.follow()
	c := chat.GroupConversation(7)
	r.shelf.join(c, 1, 1)
	r.shelf.say(c, "a secret", "something else")
	if got := r.pull(1, PullRequest{Conversation: c}); !strings.Contains(got, "a secret") {
		t.Fatalf("it is not there before: %s", got)
	}
	// The writer stores the recall, and does not come to tell of it.
	r.shelf.change(func() {
		h := r.shelf.heads[c]
		h.MaxSeq, h.LastOffset = 3, 70
		r.shelf.heads[c] = h
		r.shelf.rows[c][0].Content, r.shelf.rows[c][0].RecalledAt, r.shelf.rows[c][0].Changes = nil, 1, 1
		r.shelf.position.BatchFrom, r.shelf.position.MessagesNext = 68, 71
		recall := &chat.Command{Type: chat.KindRecall, Conversation: c, Sender: 1, ClientMsgID: "r", Recall: &chat.Recall{TargetSeq: 1}}
		r.shelf.numbered = &seq.Numbered{FirstEvent: chat.FirstEvent{Seq: 3}, Hash: r.hasher.Hash(recall)}
	})
	if change, err := r.Recall(t.Context(), 1, c, 1, "r"); chat.CodeOf(err) != chat.CodeTimeout {
		t.Fatalf("nobody has been told, and the answer is %+v, %v", change, err)
	}
	// Another try leaves a record behind the recall: the writer stores it, so it must have told.
	r.shelf.change(func() { r.shelf.position.BatchFrom, r.shelf.position.MessagesNext = 71, 72 })
	if change, err := r.Recall(t.Context(), 1, c, 1, "r"); err != nil || change.Seq != 3 {
		t.Fatalf("everybody has been told, and the answer is %+v, %v", change, err)
	}
	if got := r.pull(1, PullRequest{Conversation: c}); strings.Contains(got, "a secret") || !strings.Contains(got, "recalled") {
		t.Fatalf("it was answered, and can still be read: %s", got)
	}
}
