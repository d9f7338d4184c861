package handlers

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"tideline/internal/accounts"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// waiting counts the pulls that wait for a membership.
func (o *outsiders) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.total
}

// A member that was added at n and told so gets the page, also from a process that has not heard of it: as soon as the notification comes,
// or from the store when the second is over.
func TestPull_WaitsForAMembershipThatWasTold(t *testing.T) {
	for _, notified := range []bool{true, false} {
		t.Run(fmt.Sprintf("notified %t", notified), func(t *testing.T) {
			r := newRig(t)
			c := chat.GroupConversation(7)
			r.shelf.join(c, 1, 1)
			r.shelf.say(c, "one", "two", "three")
			after := int64(0)
			answered := make(chan error, 1)
			go func() {
				_, err := r.Pull(t.Context(), accounts.Caller{User: 2, Address: "a"}, PullRequest{Conversation: c, After: &after, Told: 3})
				answered <- err
			}()
			r.until("the pull waits", func() bool { return r.outsiders.waiting() == 1 })
			r.shelf.join(c, 2, 3)
			if notified {
				r.views.take(chat.Notify{Conversation: c, MaxSeq: 3, Members: []chat.MemberChange{{User: 2, Seq: 3, Joined: true}}})
			}
			if err := <-answered; err != nil {
				t.Fatalf("the new member is answered %v", err)
			}
			if n := r.outsiders.waiting(); n != 0 {
				t.Errorf("%d still wait", n)
			}
			if n := len(r.views.watchers); n != 0 {
				t.Errorf("%d memberships are still watched", n)
			}
		})
	}
}

func TestPull_BoundsThoseWhoWaitForAMembershipByAddress(t *testing.T) {
	r := newRig(t)
	ask := func(ctx context.Context, address string) error {
		_, err := r.Pull(ctx, accounts.Caller{User: 2, Address: address}, PullRequest{Conversation: chat.GroupConversation(9), Told: 3})
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range maxOutsidersPerAddress {
		wg.Go(func() { _ = ask(ctx, "a") })
	}
	r.until("as many wait as may", func() bool { return r.outsiders.waiting() == maxOutsidersPerAddress })
	if err := ask(t.Context(), "a"); chat.CodeOf(err) != chat.CodeRateLimited {
		t.Errorf("one more is answered %v", err)
	}
	if err := ask(t.Context(), "b"); chat.CodeOf(err) != chat.CodeConversationUnknown {
		t.Errorf("one of another address is answered %v", err)
	}
	cancel()
	wg.Wait()
	if n := len(r.outsiders.addresses); n != 0 {
		t.Errorf("%d addresses are still counted", n)
	}
}

func TestMayType_IsForMembersOfSmallConversationsWhoMaySpeak(t *testing.T) {
	r := newRig(t)
	c, now := chat.GroupConversation(7), time.Now().UnixMilli()
	r.shelf.say(c, "one", "two")
	key := timeline.MemberKey{Conversation: c, User: 1}
	for _, x := range []struct {
		what    string
		members int
		change  func(m *timeline.Member, head *timeline.Conversation)
		may     bool
		code    chat.Code
	}{
		{"in a small conversation", 2, nil, true, ""},
		{"among 200", maxTypedMembers, nil, true, ""},
		{"among 201", maxTypedMembers + 1, nil, false, ""},
		{"muted", 2, func(m *timeline.Member, _ *timeline.Conversation) { m.MutedUntil = now + time.Hour.Milliseconds() }, false, ""},
		{"no longer muted", 2, func(m *timeline.Member, _ *timeline.Conversation) { m.MutedUntil = now - 1 }, true, ""},
		{"in a dissolved group", 2, func(_ *timeline.Member, head *timeline.Conversation) { head.DissolvedSeq = 2 }, false, ""},
		{"after a leave", 2, func(m *timeline.Member, _ *timeline.Conversation) { m.LeftSeq = 2 }, false, chat.CodeNotAMember},
	} {
		r.shelf.change(func() {
			m, head := timeline.Member{Conversation: c, User: 1, JoinSeq: 1, ReadOffset: -1}, r.shelf.heads[c]
			head.MemberCount, head.DissolvedSeq = x.members, 0
			if x.change != nil {
				x.change(&m, &head)
			}
			r.shelf.members[key], r.shelf.heads[c] = m, head
		})
		if may, err := r.MayType(t.Context(), 1, c); may != x.may || chat.CodeOf(err) != x.code {
			t.Errorf("%s: %t, %v", x.what, may, err)
		}
	}
	if may, err := r.MayType(t.Context(), 2, c); may || chat.CodeOf(err) != chat.CodeConversationUnknown {
		t.Errorf("a stranger: %t, %v", may, err)
	}
	if may, err := r.MayType(t.Context(), 2, chat.PrivateConversation(3, 4)); may || chat.CodeOf(err) != chat.CodeConversationUnknown {
		t.Errorf("in a private conversation of others: %t, %v", may, err)
	}
	if may, err := r.MayType(t.Context(), 3, chat.PrivateConversation(3, 4)); !may || err != nil {
		t.Errorf("before the first message of a private conversation: %t, %v", may, err)
	}
}
