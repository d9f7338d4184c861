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

// behind gives a rig that remembers a conversation at 1, of which the store has 3 and nothing was told.
func behind(t *testing.T) (*rig, PullRequest) {
	t.Helper()
	r := newRig(t)
	r.follow()
	after := int64(0)
	all := PullRequest{Conversation: chat.GroupConversation(7), After: &after}
	r.shelf.join(all.Conversation, 1, 1)
	r.shelf.say(all.Conversation, "hello")
	if got := r.pull(1, all); !strings.Contains(got, `"max_seq":1,`) {
		t.Fatalf("at first there is %s", got)
	}
	r.shelf.say(all.Conversation, "to", "you")
	return r, all
}

// Who was told a number before this process was is answered from the store, which may be further still. The next pull does not
// go back behind that: standalone, many clients (seed 4293382002), 190 and then 189.
func TestPull_DoesNotGoBackBehindWhatTheStoreGave(t *testing.T) {
	r, all := behind(t)
	for _, all.Told = range []int64{2, 2, 0} {
		if got := r.pull(1, all); !strings.Contains(got, `"max_seq":3,`) {
			t.Errorf("told of %d, there is %s", all.Told, got)
		}
	}
}

// A sync, or a look at one conversation, is answered from the store too: what it shows can be pulled and asked about from then on.
func TestPull_DoesNotGoBackBehindASync(t *testing.T) {
	for name, look := range map[string]func(r *rig, c chat.ConversationID) (int64, error){
		"sync": func(r *rig, _ chat.ConversationID) (int64, error) {
			v, err := r.Sync(t.Context(), 1, SyncRequest{})
			return v.Conversations[0].MaxSeq, err
		},
		"conversation": func(r *rig, c chat.ConversationID) (int64, error) {
			v, err := r.Conversation(t.Context(), 1, c)
			return v.MaxSeq, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, all := behind(t)
			if end, err := look(r, all.Conversation); err != nil || end != 3 {
				t.Fatalf("it shows %d, %v", end, err)
			}
			if got := r.pull(1, all); !strings.Contains(got, `"max_seq":3,`) {
				t.Errorf("a pull shows %s", got)
			}
		})
	}
}
