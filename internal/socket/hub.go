package socket

import (
	"sync"
	"sync/atomic"

	"github.com/gorilla/websocket"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// hub knows which connections care about which conversation. It is told of every notification and of every read mark.
type hub struct {
	flush   *flusher
	metrics *Metrics

	mu            sync.RWMutex // guards what follows, and conn.conversations and conn.early
	conversations map[chat.ConversationID]*audience
	users         map[chat.UserID]map[*conn]struct{}
}

// audience is who is online in one conversation.
type audience struct {
	conns map[*conn]struct{}
	// asked are the last messages whose senders want receipts, oldest first.
	asked []chat.Asked
}

// maxAsked bounds the messages of a conversation whose senders are told of readers as they read.
const maxAsked = 128

func newHub(f *flusher, m *Metrics) *hub {
	return &hub{flush: f, metrics: m, conversations: map[chat.ConversationID]*audience{}, users: map[chat.UserID]map[*conn]struct{}{}}
}

// listen makes a connection hear of changes of its user's memberships, before these are loaded. It tells how many
// connections the user has with this one.
func (h *hub) listen(c *conn) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.early = map[chat.ConversationID]chat.MemberChange{}
	set := h.users[c.caller.User]
	if set == nil {
		set = map[*conn]struct{}{}
		h.users[c.caller.User] = set
	}
	set[c] = struct{}{}
	return len(set)
}

// enter lets a connection in with the memberships that were loaded; where a change that was heard meanwhile has the
// higher number, that one counts.
func (h *hub) enter(c *conn, list []timeline.Membership) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.left {
		return
	}
	for i := range list {
		m := &list[i].Member
		if change, heard := c.early[m.Conversation]; heard && change.Seq > m.ChangedSeq {
			continue
		}
		delete(c.early, m.Conversation)
		if m.Present() {
			h.add(c, m.Conversation)
		}
	}
	for id, change := range c.early {
		if change.Joined {
			h.add(c, id)
		}
	}
	c.early = nil
}

func (h *hub) add(c *conn, id chat.ConversationID) {
	a := h.conversations[id]
	if a == nil {
		a = &audience{conns: map[*conn]struct{}{}}
		h.conversations[id] = a
	}
	a.conns[c] = struct{}{}
	if c.conversations == nil {
		c.conversations = map[chat.ConversationID]struct{}{}
	}
	c.conversations[id] = struct{}{}
}

func (h *hub) remove(c *conn, id chat.ConversationID) {
	delete(c.conversations, id)
	if a := h.conversations[id]; a != nil {
		delete(a.conns, c)
		if len(a.conns) == 0 {
			delete(h.conversations, id)
		}
	}
}

// leave takes a connection out of everything.
func (h *hub) leave(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.left = true
	for id := range c.conversations {
		h.remove(c, id)
	}
	if set := h.users[c.caller.User]; set != nil {
		delete(set, c)
		if len(set) == 0 {
			delete(h.users, c.caller.User)
		}
	}
}

// notified is told of every notification, in order.
func (h *hub) notified(n chat.Notify) {
	if len(n.Members) > 0 || len(n.Asked) > 0 {
		h.changed(n)
	}
	hint := &hint{c: n.Conversation, seq: n.MaxSeq}
	h.mu.RLock()
	defer h.mu.RUnlock()
	if a := h.conversations[n.Conversation]; a != nil {
		for c := range a.conns {
			h.flush.hint(c, hint)
		}
	}
	// Who has just left is told of that, too: the leave is the last thing that it may see.
	for _, m := range n.Members {
		if m.Left {
			for c := range h.users[m.User] {
				h.flush.hint(c, hint)
			}
		}
	}
}

func (h *hub) changed(n chat.Notify) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range n.Members {
		for c := range h.users[m.User] {
			switch {
			case c.early != nil:
				if (m.Joined || m.Left) && m.Seq > c.early[n.Conversation].Seq {
					c.early[n.Conversation] = m
				}
			case m.Joined:
				h.add(c, n.Conversation)
			case m.Left:
				h.remove(c, n.Conversation)
			}
		}
	}
	if a := h.conversations[n.Conversation]; a != nil && len(n.Asked) > 0 {
		a.asked = append(a.asked, n.Asked...)
		if extra := len(a.asked) - maxAsked; extra > 0 {
			a.asked = append([]chat.Asked(nil), a.asked[extra:]...)
		}
	}
}

// marked is told of every read mark: the reader's other devices hear of it, and the senders who asked.
func (h *hub) marked(m chat.ReadMark) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for c := range h.users[m.User] {
		if c.session != m.Session {
			h.flush.read(c, m.Conversation, m.Seq)
		}
	}
	if low, high, private := m.Conversation.Peers(); private {
		peer := low
		if peer == m.User {
			peer = high
		}
		for c := range h.users[peer] {
			h.flush.receipt(c, m.Conversation, m.Seq)
		}
		return
	}
	a := h.conversations[m.Conversation]
	if a == nil {
		return
	}
	for _, asked := range a.asked {
		if asked.Seq > m.PreviousSeq && asked.Seq <= m.Seq && asked.Sender != m.User {
			for c := range h.users[asked.Sender] {
				h.flush.receipt(c, m.Conversation, asked.Seq)
			}
		}
	}
}

// ofSession gives the connections of a session.
func (h *hub) ofSession(session string) []*conn {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var out []*conn
	for _, set := range h.users {
		for c := range set {
			if c.session == session {
				out = append(out, c)
			}
		}
	}
	return out
}

// each calls do for the connections of the members of a conversation who are online here.
func (h *hub) each(id chat.ConversationID, do func(*conn)) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if a := h.conversations[id]; a != nil {
		for c := range a.conns {
			do(c)
		}
	}
}

// isIn tells whether a connection's user is a member of a conversation, as far as it was told.
func (h *hub) isIn(c *conn, id chat.ConversationID) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	_, in := c.conversations[id]
	return in
}

// hint is one conversation's move, shared by everybody who is told of it. Alone in a frame, it is encoded once for all.
type hint struct {
	c     chat.ConversationID
	seq   int64
	once  sync.Once
	frame *websocket.PreparedMessage
	size  atomic.Int64
}

func (h *hint) prepared() *websocket.PreparedMessage {
	h.once.Do(func() {
		text := append(appendItem([]byte(`{"op":"hint","items":[`), h.c, h.seq), "]}"...)
		h.size.Store(int64(len(text)))
		h.frame, _ = websocket.NewPreparedMessage(websocket.TextMessage, text) // fails for no text frame
	})
	return h.frame
}
