package pusher

import (
	"sync"
	"testing"

	"tideline/pkg/chat"
)

func watching(ids ...chat.ConversationID) map[string]any {
	return map[string]any{"conversation_ids": ids}
}

// watchers counts the connections that hear who types in a conversation.
func (r *rig) watchers(id chat.ConversationID) int {
	s := r.p.index.ofConversation(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.all[id]; e != nil {
		return len(e.watchers)
	}
	return 0
}

// Where the service says that typing goes no further, as in a conversation of more than 200 members, it reaches no watcher.
func TestLive_TypingGoesNoFurtherWhereTheServiceSaysSo(t *testing.T) {
	r := newRig(t, func(c *Config) { c.TypingEvery = 0 })
	large, small := group(1), group(2)
	for _, u := range []chat.UserID{7, 8} {
		r.store.join(u, large, 1, 0)
		r.store.join(u, small, 1, 0)
	}
	r.door.mayType = func(_ chat.UserID, id chat.ConversationID) (bool, error) { return id != large, nil }
	seven, eight := r.login("7"), r.login("8")
	if s := seven.ask("watch", watching(large, small)); s.Error != nil {
		t.Fatal(s.Error)
	}
	for _, id := range []chat.ConversationID{large, small} {
		if s := eight.ask("typing", map[string]any{"conversation_id": id}); s.Error != nil {
			t.Fatal(s.Error)
		}
	}
	for {
		for _, it := range seven.hearOp("typing").Items {
			switch it["conversation_id"] {
			case large.String():
				t.Fatal("typing in the large conversation was passed on")
			case small.String():
				return
			}
		}
	}
}

func TestMarks_DoNotReachSendersWhoHaveLeft(t *testing.T) {
	r := newRig(t, nil)
	private := chat.PrivateConversation(7, 8)
	for _, u := range []chat.UserID{7, 8} {
		r.store.join(u, group(1), 1, 0)
		r.store.join(u, private, 0, 0)
	}
	r.login("7")
	eight := r.login("8")
	n := notify(group(1), 12)
	n.Asked = []chat.Asked{{Seq: 10, Sender: 8}, {Seq: 11, Sender: 8}, {Seq: 12, Sender: 8}}
	r.p.TakeNotify(n)
	r.p.TakeMark(chat.ReadMark{User: 7, Conversation: group(1), PreviousSeq: 9, Seq: 10})
	if s := eight.hearOp("receipt"); len(s.Items) != 1 || s.Items[0]["c"] != group(1).String() || s.Items[0]["s"].(float64) != 10 {
		t.Fatalf("a member hears %+v", s)
	}
	r.p.TakeNotify(notify(group(1), 13, chat.MemberChange{User: 8, Seq: 13, Left: true}))
	r.p.TakeMark(chat.ReadMark{User: 7, Conversation: group(1), PreviousSeq: 10, Seq: 13})
	r.p.TakeMark(chat.ReadMark{User: 7, Conversation: private, Seq: 4})
	for {
		for _, it := range eight.hearOp("receipt").Items {
			switch it["c"] {
			case group(1).String():
				t.Fatalf("a former member hears %v", it)
			case private.String():
				return
			}
		}
	}
}

// A membership that ends while a watch is under way leaves nothing in the indexes: neither typing nor presence is heard any more.
func TestWatch_OfAMembershipThatEndsMeanwhileIsForgotten(t *testing.T) {
	r := newRig(t, func(c *Config) { c.TypingEvery = 0 })
	private := chat.PrivateConversation(7, 8)
	r.store.join(7, group(1), 1, 0)
	r.store.join(7, private, 1, 0)
	r.door.before = func() {
		for _, id := range []chat.ConversationID{group(1), private} {
			r.p.TakeNotify(notify(id, 5, chat.MemberChange{User: 7, Seq: 5, Left: true}))
		}
	}
	seven := r.login("7")
	if s := seven.ask("watch", watching(group(1), private)); s.Error != nil {
		t.Fatal(s.Error)
	}
	for _, id := range []chat.ConversationID{group(1), private} {
		if n := r.watchers(id); n != 0 {
			t.Errorf("%s has %d watchers", id, n)
		}
	}
	if list := r.p.people.list(); len(list) != 0 {
		t.Errorf("people %v are still watched", list)
	}
	if s := seven.ask("unwatch", watching(group(1))); string(s.Result) != `{"watched":0}` {
		t.Errorf("after the leave the connection watches %s", s.Result)
	}
}

func TestWatch_OfAConnectionThatEndsMeanwhileIsForgotten(t *testing.T) {
	r := newRig(t, nil)
	private := chat.PrivateConversation(7, 8)
	r.store.join(7, group(1), 1, 0)
	r.store.join(7, private, 1, 0)
	asked, ended := make(chan struct{}), make(chan struct{})
	r.door.before = func() { close(asked); <-ended }
	seven := r.login("7")
	seven.request("watch", watching(group(1), private))
	<-asked
	all := r.p.which(func(*conn) bool { return true })
	if len(all) != 1 {
		t.Fatalf("%d connections", len(all))
	}
	_ = seven.ws.Close()
	eventually(t, "the connection is forgotten", func() bool { return r.connections() == 0 })
	close(ended)
	eventually(t, "the watch is over", func() bool {
		all[0].mu.Lock()
		defer all[0].mu.Unlock()
		return all[0].atWork == 0
	})
	if people, g, p := r.p.people.list(), r.watchers(group(1)), r.watchers(private); len(people) != 0 || g != 0 || p != 0 {
		t.Errorf("people %v are still watched, the group by %d and the private conversation by %d", people, g, p)
	}
}

func TestWatch_AndLeavesInAnyInterleavingAgree(t *testing.T) {
	const rounds = 200
	r := newRig(t, func(c *Config) { c.MaxWatched, c.RequestsPerSecond, c.RequestBurst = rounds, 1000, 2*rounds })
	for n := range int64(rounds) {
		r.store.join(7, group(n+1), 1, 0)
	}
	seven := r.login("7")
	for n := range int64(rounds) {
		id := group(n + 1)
		var leave sync.WaitGroup
		leave.Go(func() { r.p.TakeNotify(notify(id, 5, chat.MemberChange{User: 7, Seq: 5, Left: true})) })
		if s := seven.ask("watch", watching(id)); s.Error != nil && s.Error.Code != chat.CodeConversationUnknown {
			t.Fatal(s.Error)
		}
		leave.Wait()
		if r.watchers(id) != 0 {
			t.Fatalf("round %d: a former member watches", n)
		}
	}
}
