package pusher

import (
	"context"
	"errors"
	"strconv"
	"time"

	"tideline/internal/accounts"
	"tideline/internal/handlers"
	"tideline/internal/presence"
	"tideline/pkg/chat"
)

type authRequest struct {
	Token string `json:"token"`
}

// Welcome answers auth: who the client is, and the rules of this server.
type Welcome struct {
	User          chat.UserID `json:"user_id"`
	Session       string      `json:"session_id"`
	HeartbeatMS   int64       `json:"heartbeat_ms"`
	IdleTimeoutMS int64       `json:"idle_timeout_ms"`
	MaxFrameBytes int         `json:"max_frame_bytes"`
	ServerTime    int64       `json:"server_time"`
}

// auth says who the client is, first or again with a fresh token. Whoever is refused is told why and closed.
func (c *conn) auth(r *request) {
	ctx, cancel := context.WithTimeout(c.p.base, c.p.cfg.AuthTimeout)
	defer cancel()
	var caller accounts.Caller
	unreadable := true
	_, err := c.p.guard(func() (any, error) {
		var body authRequest
		if err := handlers.Decode(r.body, &body); err != nil {
			return nil, err
		}
		if body.Token == "" {
			return nil, chat.RefuseField(chat.CodeInvalidField, "token", "is missing")
		}
		unreadable = false
		var err error
		caller, err = c.p.door.Authenticate(ctx, body.Token)
		return nil, err
	})
	if err != nil {
		if unreadable && c.isAuthed() { // a fault of form, which says nothing against the session
			c.p.metrics.authFailures.WithLabelValues(string(chat.CodeOf(err))).Inc()
			c.reply(r, nil, err)
			return
		}
		c.refuseAuth(r, err, closeFor(err))
		return
	}
	c.mu.Lock()
	again, before := c.authed, c.caller
	if c.hello != nil {
		caller.Address = c.hello.address
	}
	if again && before.User == caller.User && before.Session == caller.Session {
		c.caller.ExpiresAt = caller.ExpiresAt
	}
	c.mu.Unlock()
	switch {
	case !again:
		if code, err := c.admit(ctx, caller); err != nil {
			c.refuseAuth(r, err, code)
			return
		}
	case before.User != caller.User || before.Session != caller.Session:
		c.refuseAuth(r, chat.Refuse(chat.CodeForbidden, "the token is that of another session"), CloseOtherSession)
		return
	}
	c.reply(r, Welcome{
		User: caller.User, Session: strconv.FormatInt(caller.Session, 10), HeartbeatMS: c.p.cfg.Heartbeat.Milliseconds(),
		IdleTimeoutMS: c.p.cfg.IdleTimeout.Milliseconds(), MaxFrameBytes: c.p.cfg.MaxFrameBytes, ServerTime: time.Now().UnixMilli(),
	}, nil)
	if !again {
		c.welcome()
	}
}

func (c *conn) isAuthed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.authed
}

func (c *conn) refuseAuth(r *request, err error, code CloseCode) {
	if errors.Is(err, errGone) {
		c.reply(r, nil, err)
		return
	}
	c.p.metrics.authFailures.WithLabelValues(string(chat.CodeOf(err))).Inc()
	c.reply(r, nil, err)
	wait := time.Duration(0)
	if code.ComeBack() && code != CloseTokenExpired {
		wait = c.p.retryAfter()
	}
	c.shut(code, wait)
}

// admit enters a connection into the index. It first listens to changes of membership, then loads the memberships from the
// store; of the two, what has the higher number is right. So a join or a leave that happens meanwhile is not missed,
// whichever way it becomes known first.
func (c *conn) admit(ctx context.Context, caller accounts.Caller) (CloseCode, error) {
	p := c.p
	c.mu.Lock()
	c.caller = caller
	c.news = map[chat.ConversationID]change{}
	c.mu.Unlock()
	if p.hasEnded(caller.Session) { // looked at only now that takeRevoked finds the connection by its caller
		return CloseSessionRevoked, chat.Refuse(chat.CodeSessionRevoked, "the session has ended")
	}
	if !p.index.arrive(c, caller.User, p.cfg.MaxPerUser) {
		return CloseTooManyConnections, chat.Refuse(chat.CodeRateLimited, "the user has %d connections, more are not allowed", p.cfg.MaxPerUser)
	}
	known := map[chat.ConversationID]change{}
	subs := map[chat.ConversationID]*membership{}
	undo := func() {
		for _, m := range subs {
			p.index.remove(m)
		}
		p.index.leave(c, caller.User)
	}
	select {
	case p.loads <- struct{}{}:
	case <-ctx.Done():
		undo()
		return CloseUnavailable, ctx.Err()
	}
	list, err := p.store.Memberships(ctx, caller.User, true)
	<-p.loads
	if err != nil {
		undo()
		return CloseUnavailable, err
	}
	for i := range list {
		m := &list[i].Member
		known[m.Conversation] = change{m.ChangedSeq, m.Present()}
	}
	first := true
	for {
		// What was heard while the store was asked, or while what was heard before was entered.
		c.mu.Lock()
		news := c.news
		c.news = map[chat.ConversationID]change{}
		if len(news) == 0 && !first {
			gone := c.gone || c.closing
			if !gone {
				c.news = nil
				c.arrived = true
				c.subs = make([]*membership, 0, len(subs))
				for _, m := range subs {
					c.subs = append(c.subs, m)
				}
			}
			c.mu.Unlock()
			if gone {
				undo()
				return CloseUnavailable, errGone
			}
			return 0, nil
		}
		c.mu.Unlock()
		for id, n := range news {
			if k, there := known[id]; !there || n.seq > k.seq {
				known[id] = n
			} else {
				delete(news, id)
			}
		}
		enter := news
		if first {
			enter, first = known, false
		}
		for id, k := range enter {
			switch m := subs[id]; {
			case k.present && m == nil:
				subs[id] = p.index.add(c, id, k.seq)
			case k.present:
				m.changed = k.seq // nobody else knows of it yet
			case m != nil:
				p.index.remove(m)
				delete(subs, id)
			}
		}
	}
}

// welcome lets hints flow, once the answer to auth is on its way.
func (c *conn) welcome() {
	now := c.p.clock()
	c.mu.Lock()
	h, caller := c.hello, c.caller
	gone := c.gone
	if gone {
		c.mu.Unlock()
		return
	}
	c.hello = nil
	c.authed = true
	if !c.closing {
		c.lastDeadline = now
		_ = c.net.SetReadDeadline(time.Now().Add(c.p.cfg.IdleTimeout))
	}
	c.plan(now)
	c.mu.Unlock()
	c.p.leaveHello(h)
	if h != nil && c.p.handshakes != nil {
		c.p.handshakes.Return(h.address)
	}
	c.p.presence.Renew(caller.User, caller.Session)
}

var _ Presence = (*presence.Service)(nil)
