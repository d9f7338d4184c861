package pusher

import (
	"strconv"
	"time"

	"tideline/pkg/chat"
)

// keptAsked bounds how many messages of a conversation are remembered whose senders want to hear of readers. Senders of
// older ones ask.
const keptAsked = 64

// TakeNotify passes on what im.notify says: who became or ceased to be a member, and where the conversation is. It does not
// wait for anything but locks that are held briefly.
func (p *Pusher) TakeNotify(n chat.Notify) {
	now := p.clock()
	for _, m := range n.Members {
		if m.Joined || m.Left {
			for _, c := range p.index.connectionsOf(m.User) {
				c.memberChanged(n.Conversation, change{m.Seq, m.Joined}, now)
			}
		}
	}
	if n.Conversation.Kind == chat.KindBroadcast {
		// Everybody is in it without ever having joined.
		for _, c := range p.which(func(c *conn) bool { return c.authed && c.membership(n.Conversation) == nil }) {
			c.memberChanged(n.Conversation, change{1, true}, now)
		}
	}
	s := p.index.ofConversation(n.Conversation)
	if len(n.Asked) > 0 {
		p.remember(s, n)
	}
	hints, coalesced := 0, 0
	s.mu.RLock()
	if e := s.all[n.Conversation]; e != nil {
		hints = len(e.members)
		for _, m := range e.members {
			if m.conn.hint(m, n.MaxSeq, now) {
				coalesced++
			}
		}
	}
	s.mu.RUnlock()
	p.metrics.hints.Add(float64(hints))
	p.metrics.coalesced.Add(float64(coalesced))
}

// remember keeps which messages want receipts, of senders who are here.
func (p *Pusher) remember(s *conversationShard, n chat.Notify) {
	asked := n.Asked[max(0, len(n.Asked)-keptAsked):]
	here := make([]bool, len(asked))
	for i, a := range asked {
		here[i] = len(p.index.connectionsOf(a.Sender)) > 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.all[n.Conversation]
	if e == nil {
		return
	}
	for i, a := range asked {
		if here[i] && (len(e.asked) == 0 || a.Seq > e.asked[len(e.asked)-1].Seq) { // a repetition is known
			e.asked = append(e.asked, a)
		}
	}
	if extra := len(e.asked) - keptAsked; extra > 0 {
		e.asked = append(e.asked[:0], e.asked[extra:]...)
	}
}

// membership gives the membership of a conversation, or nil. c.mu is held.
func (c *conn) membership(id chat.ConversationID) *membership {
	for _, m := range c.subs {
		if m.conversation.id == id {
			return m
		}
	}
	return nil
}

// memberChanged enters a join or a leave that im.notify has told of. It is called from one goroutine.
func (c *conn) memberChanged(id chat.ConversationID, n change, now time.Duration) {
	p := c.p
	c.mu.Lock()
	if c.news != nil { // the memberships are being loaded
		if n.seq > c.news[id].seq {
			c.news[id] = n
		}
		c.mu.Unlock()
		return
	}
	m := c.membership(id)
	switch {
	case c.gone || !c.arrived:
		c.mu.Unlock()
	case m != nil && n.seq <= m.changed, m == nil && n.seq <= c.left[id]:
		c.mu.Unlock() // said before, or said late
	case n.present && m != nil:
		m.changed = n.seq
		c.mu.Unlock()
	case n.present:
		c.mu.Unlock()
		m = p.index.add(c, id, n.seq)
		c.mu.Lock()
		gone := c.gone || !c.arrived
		if !gone {
			c.subs = append(c.subs, m)
			delete(c.left, id)
		}
		c.mu.Unlock()
		if gone {
			p.index.remove(m)
		}
	case m != nil:
		for i := range c.subs {
			if c.subs[i] == m {
				c.subs[i] = c.subs[len(c.subs)-1]
				c.subs[len(c.subs)-1] = nil
				c.subs = c.subs[:len(c.subs)-1]
				break
			}
		}
		if c.left == nil {
			c.left = map[chat.ConversationID]int64{}
		}
		c.left[id] = n.seq
		// The last that is heard of it: one may read up to one's own leave.
		if !c.closing {
			c.out.hint(m, n.seq)
			c.plan(now)
		}
		c.mu.Unlock()
		p.index.remove(m)
		_, _ = c.stopWatching([]chat.ConversationID{id})
	default:
		if c.left == nil {
			c.left = map[chat.ConversationID]int64{}
		}
		c.left[id] = n.seq
		c.mu.Unlock()
	}
}

// TakeMark passes on what im.receipts says: to the reader's other devices, and to those who said what was read.
func (p *Pusher) TakeMark(m chat.ReadMark) {
	at := place{m.Conversation, m.Seq}
	session, _ := strconv.ParseInt(m.Session, 10, 64) // 0 is no session: then all devices are others
	for _, c := range p.index.connectionsOf(m.User) {
		if c.who().Session != session {
			c.unasked(func(o *outbox) { o.read(at) })
		}
	}
	if m.Conversation.Kind == chat.KindPrivate {
		if peer := peerOf(m.Conversation, m.User); peer != 0 {
			for _, c := range p.index.connectionsOf(peer) {
				c.unasked(func(o *outbox) { o.receipt(at) })
			}
		}
		return
	}
	var read []chat.Asked
	s := p.index.ofConversation(m.Conversation)
	s.mu.RLock()
	if e := s.all[m.Conversation]; e != nil {
		for _, a := range e.asked {
			if a.Seq > m.PreviousSeq && a.Seq <= m.Seq && a.Sender != m.User {
				read = append(read, a)
			}
		}
	}
	s.mu.RUnlock()
	for _, a := range read {
		for _, c := range p.index.connectionsOf(a.Sender) {
			c.unasked(func(o *outbox) {
				if c.membership(m.Conversation) != nil { // a former member hears no more
					o.receipt(place{m.Conversation, a.Seq})
				}
			})
		}
	}
}

// peerOf gives the other one of a private conversation, or 0.
func peerOf(id chat.ConversationID, u chat.UserID) chat.UserID {
	low, high, private := id.Peers()
	switch {
	case private && u == low:
		return high
	case private && u == high:
		return low
	}
	return 0
}
