package socket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"tideline/internal/accounts"
	"tideline/internal/api"
	"tideline/internal/handlers"
	"tideline/pkg/chat"
)

// conn is one socket. One goroutine reads it; everybody may write.
type conn struct {
	s  *Server
	ws *websocket.Conn

	writing sync.Mutex // one frame at a time
	seen    atomic.Int64
	opened  time.Time
	gone    atomic.Bool
	seats   chan struct{}
	stop    context.CancelFunc

	// Set by auth, before ready.
	caller  accounts.Caller
	session string
	expires atomic.Int64 // ms

	// Guarded by hub.mu.
	conversations map[chat.ConversationID]struct{}
	early         map[chat.ConversationID]chat.MemberChange
	left          bool

	mu        sync.Mutex // guards what follows
	pending   pending
	spare     []*hint
	scheduled bool // in the wheel, in the queue, or being written
	ready     bool // auth was answered: hints may follow
	flushedAt time.Time
	tokens    float64 // of requests
	tokensAt  time.Time
}

func (c *conn) writeText(text []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	_ = c.ws.SetWriteDeadline(time.Now().Add(c.s.cfg.WriteTimeout))
	err := c.ws.WriteMessage(websocket.TextMessage, text)
	if err == nil {
		c.s.metrics.frames.Inc()
		c.s.metrics.bytes.Add(float64(len(text)))
	}
	return err
}

func (c *conn) writePrepared(m *websocket.PreparedMessage) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	_ = c.ws.SetWriteDeadline(time.Now().Add(c.s.cfg.WriteTimeout))
	return c.ws.WritePreparedMessage(m)
}

// close tells why and closes. It is safe to call again.
func (c *conn) close(code CloseCode, after time.Duration) {
	if c.gone.Swap(true) {
		return
	}
	c.s.metrics.closed.WithLabelValues(strconv.Itoa(int(code))).Inc()
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(int(code), reasonText(code, after)), time.Now().Add(100*time.Millisecond))
	c.stop()
	_ = c.ws.Close()
}

// closeSlow ends a connection that could not be written to.
func (c *conn) closeSlow(err error) {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		c.s.metrics.slow.Inc()
		c.close(CloseSlowConsumer, time.Second)
		return
	}
	if !c.gone.Swap(true) { // it went away by itself
		c.stop()
		_ = c.ws.Close()
	}
}

// request is a frame of a client: fields of its own, and those of the operation.
type request struct {
	ID json.RawMessage `json:"id"`
	Op string          `json:"op"`
}

type answer struct {
	ID     json.RawMessage `json:"id"`
	Op     string          `json:"op"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *api.ErrorView  `json:"error,omitempty"`
}

// read reads frames until the socket ends.
func (c *conn) read(ctx context.Context) {
	defer c.s.forget(c)
	for {
		kind, frame, err := c.ws.ReadMessage()
		if err != nil {
			c.closeSlow(err)
			return
		}
		c.seen.Store(time.Now().UnixMilli())
		if kind != websocket.TextMessage || !utf8.Valid(frame) {
			c.close(CloseMalformed, 0)
			return
		}
		if !c.allowed() {
			c.close(CloseRateLimited, 5*time.Second)
			return
		}
		r, body, err := split(frame)
		if err != nil {
			c.close(CloseMalformed, 0)
			return
		}
		if c.session == "" || r.Op == "auth" {
			if !c.authenticate(ctx, r, body) {
				return
			}
			continue
		}
		if r.Op == "ping" {
			c.reply(r, json.RawMessage(`{"server_time":`+strconv.FormatInt(time.Now().UnixMilli(), 10)+`}`), nil)
			c.s.presence.renew(c)
			continue
		}
		select {
		case c.seats <- struct{}{}:
			go func() {
				defer func() { <-c.seats }()
				c.do(ctx, r, body)
			}()
		default:
			c.reply(r, nil, chat.Refuse(chat.CodeRateLimited, "%d requests are under way", c.s.cfg.MaxRequests).After(100*time.Millisecond))
		}
	}
}

// split parts a frame into what is every request's and what is the operation's.
func split(frame []byte) (request, []byte, error) {
	var fields map[string]json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(frame))
	if err := dec.Decode(&fields); err != nil || fields == nil || dec.More() {
		return request{}, nil, errors.New("not one JSON object")
	}
	r := request{ID: fields["id"]}
	if err := json.Unmarshal(fields["op"], &r.Op); err != nil || len(r.Op) > 32 || len(r.ID) > 64 {
		return request{}, nil, errors.New("no op")
	}
	delete(fields, "id")
	delete(fields, "op")
	body, err := json.Marshal(fields)
	return r, body, err
}

// allowed takes a token of the connection's bucket; a bucket holds two seconds' worth.
func (c *conn) allowed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	rate := c.s.cfg.RequestRate
	c.tokens = min(2*rate, c.tokens+now.Sub(c.tokensAt).Seconds()*rate)
	c.tokensAt = now
	c.tokens--
	return c.tokens >= -2*rate // a client that overruns its bucket by as much again is broken, or an attacker
}

func (c *conn) reply(r request, result json.RawMessage, err error) {
	a := answer{ID: r.ID, Op: r.Op, Result: result}
	if len(a.ID) == 0 {
		a.ID = json.RawMessage("null")
	}
	label := "ok"
	if err != nil {
		view, ours := api.View(err, c.session)
		if ours {
			c.s.log.Error("a request on a socket failed", "op", r.Op, "request_id", view.RequestID, "err", err)
		}
		a.Error, a.Result, label = &view, nil, string(view.Code)
	}
	c.s.metrics.requests.WithLabelValues(knownOp(r.Op), label).Inc()
	text, err := json.Marshal(a)
	if err != nil {
		c.s.log.Error("an answer could not be encoded", "op", r.Op, "err", err)
		return
	}
	if err := c.writeText(text); err != nil {
		c.closeSlow(err)
	}
}

func (c *conn) do(ctx context.Context, r request, body []byte) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	result, err := c.s.operate(ctx, c, r.Op, body)
	c.reply(r, result, err)
}

const requestTimeout = 15 * time.Second

// authenticate answers auth; it tells whether the connection goes on.
func (c *conn) authenticate(ctx context.Context, r request, body []byte) bool {
	var in struct {
		Token string `json:"token"`
	}
	if r.Op != "auth" {
		c.reply(r, nil, chat.Refuse(chat.CodeUnauthenticated, "the first request is auth"))
		c.close(CloseUnauthenticated, 0)
		return false
	}
	if err := handlers.Decode(body, &in); err != nil {
		c.reply(r, nil, err)
		c.close(CloseMalformed, 0)
		return false
	}
	return c.admit(ctx, in.Token, func(result json.RawMessage, err error) { c.reply(r, result, err) })
}

// admit lets the connection in with a token, or takes a fresh token of the same session.
func (c *conn) admit(ctx context.Context, token string, reply func(json.RawMessage, error)) bool {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	caller, err := c.s.requests.Authenticate(ctx, token)
	if err != nil {
		c.s.metrics.failed.Inc()
		reply(nil, err)
		switch chat.CodeOf(err) {
		case chat.CodeTokenExpired:
			c.close(CloseTokenExpired, 0)
		case chat.CodeSessionRevoked:
			c.close(CloseSessionRevoked, 0)
		case chat.CodeUnauthenticated:
			c.close(CloseUnauthenticated, 0)
		default:
			c.close(CloseUnavailable, 2*time.Second)
		}
		return false
	}
	session := strconv.FormatInt(caller.Session, 10)
	if c.session != "" {
		if session != c.session {
			reply(nil, chat.Refuse(chat.CodeForbidden, "a connection keeps its session"))
			return true
		}
		c.expires.Store(caller.ExpiresAt.UnixMilli())
		reply(c.s.welcome(caller), nil)
		return true
	}
	c.caller, c.session = caller, session
	c.expires.Store(caller.ExpiresAt.UnixMilli())
	if n := c.s.hub.listen(c); n > c.s.cfg.MaxPerUser {
		reply(nil, chat.Refuse(chat.CodeRateLimited, "the user has %d connections", n-1))
		c.close(CloseTooMany, 0)
		return false
	}
	list, err := c.s.store.Memberships(ctx, caller.User, true)
	if err != nil {
		reply(nil, err)
		c.close(CloseUnavailable, 2*time.Second)
		return false
	}
	c.s.hub.enter(c, list)
	c.s.admitted(c)
	reply(c.s.welcome(caller), nil)
	c.mu.Lock()
	c.ready = true
	if c.pending.empty() {
		c.mu.Unlock()
	} else {
		c.s.flush.schedule(c)
	}
	return true
}
