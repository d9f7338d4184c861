package handlers

import (
	"math"
	"strings"
	"testing"

	"tideline/pkg/chat"
)

func TestPull_GivesNothingBehindTheEndHoweverFar(t *testing.T) {
	r := newRig(t)
	c := chat.GroupConversation(7)
	r.shelf.join(c, 1, 1)
	r.shelf.say(c, "hello", "world")
	for _, after := range []int64{2, 3, math.MaxInt64 - 1, math.MaxInt64} {
		if got := r.pull(1, PullRequest{Conversation: c, After: &after}); !strings.Contains(got, `"messages":[]`) || !strings.Contains(got, `"has_more":false`) {
			t.Errorf("after %d there is %s", after, got)
		}
	}
	before := int64(math.MaxInt64)
	if got := r.pull(1, PullRequest{Conversation: c, Before: &before}); !strings.Contains(got, "world") {
		t.Errorf("before the last number that there can be is %s", got)
	}
}
