package handlers

import (
	"context"
	"sync"
	"time"

	"tideline/internal/heads"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// views remembers conversations and memberships as pulls need them, and is kept true by im.notify. What is remembered is
// trusted only while the heads are fresh.
type views struct {
	store timeline.Reader
	heads *heads.Follower

	mu            sync.Mutex // guards what follows
	conversations map[chat.ConversationID]timeline.Conversation
	members       map[timeline.MemberKey]timeline.Member // the zero Member for those who are none
	generation    uint64                                 // of invalidations
	waiting       *memberLoad
}

// maxViews bounds each of the maps.
const maxViews = 100_000

func newViews(store timeline.Reader, h *heads.Follower) *views {
	return &views{store: store, heads: h, conversations: map[chat.ConversationID]timeline.Conversation{}, members: map[timeline.MemberKey]timeline.Member{}}
}

func (v *views) take(n chat.Notify) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.generation++
	if c, there := v.conversations[n.Conversation]; there {
		if n.Meta || len(n.Members) > 0 {
			delete(v.conversations, n.Conversation)
		} else if n.MaxSeq > c.MaxSeq {
			c.MaxSeq, c.Ordinal = n.MaxSeq, n.Ordinal
			v.conversations[n.Conversation] = c
		}
	}
	for _, m := range n.Members {
		delete(v.members, timeline.MemberKey{Conversation: n.Conversation, User: m.User})
	}
}

// clear drops everything.
func (v *views) clear() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.generation++
	clear(v.conversations)
	clear(v.members)
}

// conversation gives the head of a conversation; false where there is none.
func (v *views) conversation(ctx context.Context, id chat.ConversationID) (timeline.Conversation, bool, error) {
	trust := v.heads.Fresh()
	v.mu.Lock()
	c, there := v.conversations[id]
	generation := v.generation
	v.mu.Unlock()
	if there && trust {
		return c, true, nil
	}
	list, err := v.store.Conversations(ctx, []chat.ConversationID{id})
	if err != nil || len(list) == 0 {
		return timeline.Conversation{}, false, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.generation == generation { // otherwise what was read may be older than what was told
		if len(v.conversations) >= maxViews {
			clear(v.conversations)
		}
		v.conversations[id] = list[0]
	}
	return list[0], true, nil
}

// member gives a membership, present or past; false where there never was one. Misses of many readers at once become
// one statement.
func (v *views) member(ctx context.Context, k timeline.MemberKey) (timeline.Member, bool, error) {
	trust := v.heads.Fresh()
	v.mu.Lock()
	if m, there := v.members[k]; there && trust {
		v.mu.Unlock()
		return m, m.User != 0, nil
	}
	l := v.waiting
	if l == nil {
		l = &memberLoad{done: make(chan struct{}), keys: map[timeline.MemberKey]bool{}, generation: v.generation}
		v.waiting = l
		go v.load(context.WithoutCancel(ctx), l)
	}
	l.keys[k] = true
	if len(l.keys) >= maxMemberLoad {
		v.waiting = nil
	}
	v.mu.Unlock()
	select {
	case <-l.done:
	case <-ctx.Done():
		return timeline.Member{}, false, ctx.Err()
	}
	m := l.found[k]
	return m, m.User != 0, l.err
}

type memberLoad struct {
	done       chan struct{}
	keys       map[timeline.MemberKey]bool
	generation uint64
	found      map[timeline.MemberKey]timeline.Member
	err        error
}

// A load waits a moment for others, so that a crowd that wakes up together becomes few statements.
const (
	memberLoadWait = time.Millisecond
	maxMemberLoad  = 400
)

func (v *views) load(ctx context.Context, l *memberLoad) {
	defer close(l.done)
	time.Sleep(memberLoadWait)
	v.mu.Lock()
	if v.waiting == l {
		v.waiting = nil
	}
	keys := make([]timeline.MemberKey, 0, len(l.keys))
	for k := range l.keys {
		keys = append(keys, k)
	}
	v.mu.Unlock()
	var members []timeline.Member
	members, l.err = v.store.Members(ctx, keys)
	l.found = make(map[timeline.MemberKey]timeline.Member, len(members))
	for _, m := range members {
		l.found[timeline.MemberKey{Conversation: m.Conversation, User: m.User}] = m
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if l.err != nil || v.generation != l.generation {
		return
	}
	if len(v.members)+len(keys) > maxViews {
		clear(v.members)
	}
	for _, k := range keys {
		v.members[k] = l.found[k]
	}
}
