package handlers

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// views remembers conversations and memberships as pulls need them, and is kept true by im.notify. What is remembered is
// trusted only while the heads are fresh, and only what was read while they were is remembered: what a store told before
// may have changed unheard.
type views struct {
	store timeline.Reader
	fresh func() bool

	mu            sync.Mutex // guards what follows
	conversations map[chat.ConversationID]timeline.Conversation
	members       map[timeline.MemberKey]timeline.Member
	watchers      map[timeline.MemberKey][]chan struct{} // closed when a change of the membership is told
	headLoads     map[chat.ConversationID]*headLoad      // under way
	memberLoads   map[*memberLoad]struct{}               // under way
	waiting       *memberLoad                            // not begun
}

// maxViews bounds each of the maps.
const maxViews = 100_000

func newViews(store timeline.Reader, fresh func() bool) *views {
	return &views{
		store: store, fresh: fresh, conversations: map[chat.ConversationID]timeline.Conversation{}, members: map[timeline.MemberKey]timeline.Member{},
		watchers: map[timeline.MemberKey][]chan struct{}{}, headLoads: map[chat.ConversationID]*headLoad{}, memberLoads: map[*memberLoad]struct{}{},
	}
}

// take enters what was told. A load that is overtaken by it is not remembered, or raised to it; loads of anything else are
// not touched, however much is told.
func (v *views) take(n chat.Notify) {
	v.mu.Lock()
	defer v.mu.Unlock()
	changed := n.Meta || len(n.Members) > 0
	if c, there := v.conversations[n.Conversation]; there {
		if changed {
			delete(v.conversations, n.Conversation)
		} else {
			v.conversations[n.Conversation] = raise(c, n)
		}
	}
	if l := v.headLoads[n.Conversation]; l != nil {
		if changed {
			delete(v.headLoads, n.Conversation) // who asks from now on reads again
		} else if n.MaxSeq > l.told.MaxSeq {
			l.told = n
		}
	}
	for _, m := range n.Members {
		k := timeline.MemberKey{Conversation: n.Conversation, User: m.User}
		delete(v.members, k)
		for l := range v.memberLoads {
			if l.keys[k] {
				l.keys[k] = false
			}
		}
		for _, changed := range v.watchers[k] {
			close(changed)
		}
		delete(v.watchers, k)
	}
}

// watch returns a channel that is closed when a change of a membership is told from now on. The caller calls forget afterwards.
func (v *views) watch(k timeline.MemberKey) (changed <-chan struct{}, forget func()) {
	c := make(chan struct{})
	v.mu.Lock()
	defer v.mu.Unlock()
	v.watchers[k] = append(v.watchers[k], c)
	return c, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		list := v.watchers[k]
		if i := slices.Index(list, c); i >= 0 {
			v.watchers[k] = slices.Delete(list, i, i+1)
		}
		if len(v.watchers[k]) == 0 {
			delete(v.watchers, k)
		}
	}
}

// raise gives a head that is at least where it was told to be.
func raise(c timeline.Conversation, n chat.Notify) timeline.Conversation {
	if n.MaxSeq > c.MaxSeq {
		c.MaxSeq, c.Ordinal = n.MaxSeq, n.Ordinal
	}
	return c
}

// saw notes the head that the store gave to somebody who is answered with it, past what is remembered: of whoever has been told
// a number, none is told a lower one later.
func (v *views) saw(c *timeline.Conversation) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sawLocked(c)
}

// sawAll notes the heads of somebody's conversations.
func (v *views) sawAll(list []timeline.Membership) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range list {
		v.sawLocked(&list[i].Conversation)
	}
}

// sawLocked is saw with v.mu held.
func (v *views) sawLocked(c *timeline.Conversation) {
	n := chat.Notify{Conversation: c.ID, MaxSeq: c.MaxSeq, Ordinal: c.Ordinal}
	if have, there := v.conversations[c.ID]; there {
		v.conversations[c.ID] = raise(have, n)
	}
	if l := v.headLoads[c.ID]; l != nil && n.MaxSeq > l.told.MaxSeq {
		l.told = n
	}
}

// clear drops everything, and what is being read.
func (v *views) clear() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.conversations)
	clear(v.members)
	clear(v.headLoads)
	clear(v.memberLoads)
}

// headLoad is a read of a head under way, that everybody who wants the same waits for. It is remembered if it still
// stands in the map when it ends.
type headLoad struct {
	done  chan struct{}
	told  chat.Notify // the highest that was told meanwhile
	c     timeline.Conversation
	found bool
	err   error
	left  bool // the context of whoever read for all had ended: an error may be his alone
}

// errDropped is what those are told for whom somebody read who never came back.
var errDropped = errors.New("a read of a conversation was dropped half way")

// conversation gives the head of a conversation; false where there is none.
func (v *views) conversation(ctx context.Context, id chat.ConversationID) (timeline.Conversation, bool, error) {
	for {
		if !v.fresh() { // nobody else's read may be shared either: it began before ours
			return v.head(ctx, id)
		}
		v.mu.Lock()
		if c, there := v.conversations[id]; there {
			v.mu.Unlock()
			return c, true, nil
		}
		l := v.headLoads[id]
		if l == nil {
			l = &headLoad{done: make(chan struct{})}
			v.headLoads[id] = l
			v.mu.Unlock()
			v.loadHead(ctx, id, l)
			return l.c, l.found, l.err
		}
		v.mu.Unlock()
		select {
		case <-l.done:
			if l.err == nil || !l.left {
				return l.c, l.found, l.err
			}
		case <-ctx.Done():
			return timeline.Conversation{}, false, ctx.Err()
		}
	}
}

// head asks the store, whatever is remembered.
func (v *views) head(ctx context.Context, id chat.ConversationID) (timeline.Conversation, bool, error) {
	list, err := v.store.Conversations(ctx, []chat.ConversationID{id})
	if err != nil || len(list) == 0 {
		return timeline.Conversation{}, false, err
	}
	v.saw(&list[0])
	return list[0], true, nil
}

// loadHead does a load. Whoever waits for it may have been told a number since the store was read, and before they came to wait:
// they are given no lower one, and not that there is no such conversation.
func (v *views) loadHead(ctx context.Context, id chat.ConversationID, l *headLoad) {
	defer close(l.done)
	read := func() {
		l.err = errDropped // stands if reading panics
		l.c, l.found, l.err = v.head(ctx, id)
		l.left = ctx.Err() != nil
	}
	func() {
		defer v.endHead(id, l)
		read()
	}()
	if l.err == nil && !l.found && l.told.MaxSeq > 0 { // it began meanwhile
		read()
	}
}

// endHead takes a load out of the map, so that nobody else comes to wait for it, and remembers what it gave unless something took it out
// before.
func (v *views) endHead(id chat.ConversationID, l *headLoad) {
	v.mu.Lock()
	defer v.mu.Unlock()
	stands := v.headLoads[id] == l
	if stands {
		delete(v.headLoads, id)
	}
	if l.err != nil || !l.found {
		return
	}
	l.c = raise(l.c, l.told)
	if !stands {
		return
	}
	if len(v.conversations) >= maxViews {
		clear(v.conversations)
	}
	v.conversations[id] = l.c
}

// member gives a membership, present or past; false where there never was one. Misses of many readers at once become
// one statement.
func (v *views) member(ctx context.Context, k timeline.MemberKey) (timeline.Member, bool, error) {
	trust := v.fresh()
	v.mu.Lock()
	if m, there := v.members[k]; there && trust {
		v.mu.Unlock()
		return m, true, nil
	}
	l := v.waiting
	if l == nil {
		l = &memberLoad{done: make(chan struct{}), keys: map[timeline.MemberKey]bool{}}
		v.waiting = l
		go v.loadMembers(context.WithoutCancel(ctx), l)
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
	done  chan struct{}
	keys  map[timeline.MemberKey]bool // false for those that were overtaken
	found map[timeline.MemberKey]timeline.Member
	err   error
}

// A load waits a moment for others, so that a crowd that wakes up together becomes few statements.
const (
	memberLoadWait = time.Millisecond
	maxMemberLoad  = 400
)

func (v *views) loadMembers(ctx context.Context, l *memberLoad) {
	defer close(l.done)
	time.Sleep(memberLoadWait)
	trust := v.fresh() // from here on we are told of what the read does not see
	v.mu.Lock()
	if v.waiting == l {
		v.waiting = nil
	}
	keys := make([]timeline.MemberKey, 0, len(l.keys))
	for k := range l.keys {
		keys = append(keys, k)
	}
	if trust {
		v.memberLoads[l] = struct{}{}
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
	_, stands := v.memberLoads[l]
	delete(v.memberLoads, l)
	if l.err != nil || !stands {
		return
	}
	if len(v.members)+len(keys) > maxViews {
		clear(v.members)
	}
	// A missing membership is not cached: requests of strangers would displace entries that members need, and a new
	// membership must be visible immediately.
	for k, current := range l.keys {
		if m, there := l.found[k]; current && there {
			v.members[k] = m
		}
	}
}
