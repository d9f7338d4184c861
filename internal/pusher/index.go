package pusher

import (
	"sync"
	"sync/atomic"

	"tideline/pkg/chat"
)

// index knows the connections of each conversation and of each user. Nobody registers anywhere else: every pusher reads all
// hints and looks here.
//
// Locks are taken in this order: a shard of the index, then a connection, then a flusher.
type index struct {
	conversations [indexShards]conversationShard
	users         [indexShards]userShard
}

const indexShards = 64 // with two locks each; enough that joins of one group do not wait for hints of others

type conversationShard struct {
	mu  sync.RWMutex // guards all, and the members, watchers and asked of its conversations
	all map[chat.ConversationID]*conversation
}

type userShard struct {
	mu  sync.RWMutex // guards all
	all map[chat.UserID][]*conn
}

// conversation is a conversation that a connection here is a member of or watches.
type conversation struct {
	id       chat.ConversationID
	members  []*membership
	watchers map[*conn]struct{}
	asked    []chat.Asked // the newest messages whose senders are here and want receipts, oldest first
	frame    atomic.Pointer[madeFrame]
}

// madeFrame is the frame of a single hint.
type madeFrame struct {
	seq   int64
	bytes []byte
}

// hintFrame gives the frame that says that the conversation is at seq. It is made once for each number; the bytes are
// shared and must not be changed.
func (c *conversation) hintFrame(seq int64) []byte {
	if f := c.frame.Load(); f != nil && f.seq == seq {
		return f.bytes
	}
	f := newFrame(80)
	f.b = appendItems(f.b, "hint", []place{{c.id, seq}})
	made := &madeFrame{seq, f.seal()}
	c.frame.Store(made)
	return made.bytes
}

// membership is a conversation of a connection.
type membership struct {
	conn         *conn
	conversation *conversation
	at           int   // in the conversation's members, or -1; guarded by the conversation's shard
	changed      int64 // the number of the last change of this membership; guarded by the connection
	pending      int64 // the number to be hinted, or 0; guarded by the connection
	told         int64 // the number hinted last; guarded by the connection
}

func newIndex() *index {
	x := &index{}
	for i := range x.conversations {
		x.conversations[i].all = map[chat.ConversationID]*conversation{}
		x.users[i].all = map[chat.UserID][]*conn{}
	}
	return x
}

// mix spreads ids that grow in steps over the shards.
func mix(n int64) uint64 {
	h := uint64(n) * 0x9e3779b97f4a7c15
	return h >> 58 // 6 bits: indexShards
}

func (x *index) ofConversation(id chat.ConversationID) *conversationShard {
	return &x.conversations[mix(id.A^id.B<<1^int64(id.Kind)<<56)]
}

func (x *index) ofUser(u chat.UserID) *userShard { return &x.users[mix(int64(u))] }

// entry gives the conversation, which is made where it is missing. The shard is locked.
func (s *conversationShard) entry(id chat.ConversationID) *conversation {
	c := s.all[id]
	if c == nil {
		c = &conversation{id: id}
		s.all[id] = c
	}
	return c
}

func (s *conversationShard) dropIfEmpty(c *conversation) {
	if len(c.members) == 0 && len(c.watchers) == 0 {
		delete(s.all, c.id)
	}
}

// add makes a membership of a connection known.
func (x *index) add(c *conn, id chat.ConversationID, changed int64) *membership {
	s := x.ofConversation(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entry(id)
	m := &membership{conn: c, conversation: e, at: len(e.members), changed: changed}
	e.members = append(e.members, m)
	return m
}

// remove forgets a membership; it may be called twice.
func (x *index) remove(m *membership) {
	s := x.ofConversation(m.conversation.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.at < 0 {
		return
	}
	e := m.conversation
	last := e.members[len(e.members)-1]
	e.members[m.at], last.at = last, m.at
	e.members[len(e.members)-1] = nil
	e.members = e.members[:len(e.members)-1]
	m.at = -1
	s.dropIfEmpty(e)
}

// watch lets a connection see who types in a conversation, or not any more.
func (x *index) watch(c *conn, id chat.ConversationID, on bool) {
	s := x.ofConversation(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if on {
		e := s.entry(id)
		if e.watchers == nil {
			e.watchers = map[*conn]struct{}{}
		}
		e.watchers[c] = struct{}{}
		return
	}
	if e := s.all[id]; e != nil {
		delete(e.watchers, c)
		s.dropIfEmpty(e)
	}
}

// eachWatcher calls for every connection that watches a conversation.
func (x *index) eachWatcher(id chat.ConversationID, call func(*conn)) {
	s := x.ofConversation(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.all[id]; e != nil {
		for c := range e.watchers {
			call(c)
		}
	}
}

// arrive makes a connection known under its user; false where the user has as many as are allowed.
func (x *index) arrive(c *conn, u chat.UserID, limit int) bool {
	s := x.ofUser(u)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all[u]) >= limit {
		return false
	}
	s.all[u] = append(s.all[u], c)
	return true
}

// leave forgets a connection of a user; it may be called twice.
func (x *index) leave(c *conn, u chat.UserID) {
	s := x.ofUser(u)
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.all[u]
	for i, other := range list {
		if other == c {
			list[i] = list[len(list)-1]
			list[len(list)-1] = nil
			list = list[:len(list)-1]
			break
		}
	}
	if len(list) == 0 {
		delete(s.all, u)
	} else {
		s.all[u] = list
	}
}

// connectionsOf gives the connections of a user.
func (x *index) connectionsOf(u chat.UserID) []*conn {
	s := x.ofUser(u)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append([]*conn(nil), s.all[u]...)
}
