package pusher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"tideline/internal/accounts"
	"tideline/internal/handlers"
	"tideline/internal/presence"
	"tideline/internal/tracing"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// The rig is a pusher behind a real listener. What is behind the pusher is in memory: a token is "<user>" or
// "<user>.<session>", and requests are answered by a function.

const patience = 5 * time.Second

type rig struct {
	t      testing.TB
	p      *Pusher
	door   *door
	store  *store
	live   *live
	server *httptest.Server
	stop   context.CancelFunc
	ended  chan error
}

type door struct {
	mu      sync.Mutex // guards what follows
	expires map[string]time.Time
	fault   error
	do      func(ctx context.Context, c accounts.Caller, op string, body []byte) (json.RawMessage, error)
	outside func(u chat.UserID, id chat.ConversationID) error         // nil: no user was ever a member of anything else
	mayType func(u chat.UserID, id chat.ConversationID) (bool, error) // nil: all users may
	silent  map[chat.ConversationID]bool                              // in which not both have said something
	before  func()                                                    // is called before BothSaid answers; may be nil
}

func (d *door) Authenticate(_ context.Context, token string) (accounts.Caller, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fault != nil {
		return accounts.Caller{}, d.fault
	}
	name, session, _ := strings.Cut(strings.TrimSuffix(token, "+"), ".")
	user, err := chat.ParseUserID(name)
	if err != nil {
		return accounts.Caller{}, chat.Refuse(chat.CodeUnauthenticated, "the access token is not one of ours")
	}
	id, _ := strconv.ParseInt(session, 10, 64)
	expires, there := d.expires[token]
	if !there {
		expires = time.Now().Add(time.Hour)
	}
	if expires.Before(time.Now()) && there && d.expires["strict"] != (time.Time{}) {
		return accounts.Caller{}, chat.Refuse(chat.CodeTokenExpired, "the access token has expired")
	}
	return accounts.Caller{User: user, Session: id, ExpiresAt: expires}, nil
}

func (d *door) Do(ctx context.Context, c accounts.Caller, op string, body []byte) (handlers.Answer, error) {
	d.mu.Lock()
	do := d.do
	d.mu.Unlock()
	text, err := do(ctx, c, op, body)
	return handlers.Answer{JSON: text}, err
}

// Outside refuses as though the user had never been a member of anything else, unless the test says otherwise.
func (d *door) Outside(_ context.Context, u chat.UserID, id chat.ConversationID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.outside == nil {
		return chat.Refuse(chat.CodeConversationUnknown, "there is no such conversation")
	}
	return d.outside(u, id)
}

// MayType lets everyone type, unless the test says otherwise.
func (d *door) MayType(_ context.Context, u chat.UserID, id chat.ConversationID) (bool, error) {
	d.mu.Lock()
	mayType := d.mayType
	d.mu.Unlock()
	if mayType == nil {
		mayType = func(chat.UserID, chat.ConversationID) (bool, error) { return true, nil }
	}
	return mayType(u, id)
}

// BothSaid is true of all conversations that are not silent.
func (d *door) BothSaid(_ context.Context, ids []chat.ConversationID) ([]chat.ConversationID, error) {
	d.mu.Lock()
	before := d.before
	d.mu.Unlock()
	if before != nil {
		before()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(ids), func(id chat.ConversationID) bool { return d.silent[id] }), nil
}

type store struct {
	mu    sync.Mutex // guards what follows
	lists map[chat.UserID][]timeline.Membership
	fault error
	asked func(chat.UserID) // called with the store unlocked, before it answers
}

func (s *store) Memberships(_ context.Context, u chat.UserID, past bool) ([]timeline.Membership, error) {
	s.mu.Lock()
	var list []timeline.Membership
	for _, m := range s.lists[u] {
		if past || m.Member.Present() {
			list = append(list, m)
		}
	}
	fault, asked := s.fault, s.asked
	s.mu.Unlock()
	if asked != nil {
		asked(u)
	}
	return list, fault
}

func (s *store) join(u chat.UserID, c chat.ConversationID, seq, left int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists[u] = append(s.lists[u], timeline.Membership{
		Member:       timeline.Member{Conversation: c, User: u, JoinSeq: seq, LeftSeq: left, ChangedSeq: max(seq, left)},
		Conversation: timeline.Conversation{ID: c, MaxSeq: max(seq, left)},
	})
}

// live is presence without Redis: what is told is heard at once.
type live struct {
	mu     sync.Mutex // guards online
	online map[chat.UserID]map[int64]bool
	hear   func(presence.Signal)
	fault  error
}

func (l *live) set(u chat.UserID, session int64, on bool) {
	l.mu.Lock()
	if l.online[u] == nil {
		l.online[u] = map[int64]bool{}
	}
	before := len(l.online[u])
	if on {
		l.online[u][session] = true
	} else {
		delete(l.online[u], session)
	}
	after := len(l.online[u])
	l.mu.Unlock()
	switch {
	case before == 0 && after == 1:
		l.Tell(presence.Signal{Kind: presence.Online, User: u})
	case before == 1 && after == 0:
		l.Tell(presence.Signal{Kind: presence.Offline, User: u})
	}
}

func (l *live) Renew(u chat.UserID, session int64) { go l.set(u, session, true) }
func (l *live) Drop(u chat.UserID, session int64)  { go l.set(u, session, false) }

func (l *live) Tell(s presence.Signal) {
	if l.hear != nil {
		l.hear(s)
	}
}

func (l *live) Of(_ context.Context, users []chat.UserID) (map[chat.UserID]bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[chat.UserID]bool{}
	for _, u := range users {
		out[u] = len(l.online[u]) > 0
	}
	return out, l.fault
}

// testConfig is quick, and small enough to reach its bounds.
func testConfig() Config {
	c := DefaultConfig()
	c.Window = 30 * time.Millisecond
	c.Drain = time.Second
	c.AuthTimeout = 2 * time.Second
	return c
}

func newRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	cfg := testConfig()
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, door: &door{expires: map[string]time.Time{}}, store: &store{lists: map[chat.UserID][]timeline.Membership{}}, live: &live{online: map[chat.UserID]map[int64]bool{}}, ended: make(chan error, 1)}
	r.door.do = func(_ context.Context, _ accounts.Caller, op string, body []byte) (json.RawMessage, error) {
		return json.Marshal(map[string]any{"op": op, "body": json.RawMessage(body)})
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	r.p = newPusher(cfg, nil, r.door, r.store, r.live, tracing.None(), log, NewMetrics(prometheus.NewRegistry()), "test")
	r.live.hear = r.p.takeSignal
	r.server = httptest.NewServer(r.p)
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.ended <- r.p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-r.ended:
			if err != nil {
				t.Errorf("the pusher ended with %v", err)
			}
		case <-time.After(4 * patience):
			t.Error("the pusher did not end")
		}
		r.server.Close()
	})
	return r
}

func (r *rig) url() string { return "ws" + strings.TrimPrefix(r.server.URL, "http") }

// client is one socket of a test.
type client struct {
	t    testing.TB
	ws   *websocket.Conn
	next int
}

func (r *rig) dial() *client {
	r.t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial(r.url(), nil)
	if err != nil {
		r.t.Fatalf("dialing: %v", err)
	}
	c := &client{t: r.t, ws: ws}
	r.t.Cleanup(func() { _ = ws.Close() })
	return c
}

// login dials and says who it is.
func (r *rig) login(token string) *client {
	r.t.Helper()
	c := r.dial()
	answer := c.ask("auth", map[string]any{"token": token})
	if answer.Error != nil {
		r.t.Fatalf("auth was refused: %+v", answer.Error)
	}
	return c
}

type said struct {
	ID           json.RawMessage     `json:"id"`
	Op           string              `json:"op"`
	Result       json.RawMessage     `json:"result"`
	Error        *refusal            `json:"error"`
	Items        []map[string]any    `json:"items"`
	Conversation chat.ConversationID `json:"conversation_id"`
	ReadSeq      int64               `json:"read_seq"`
	Reason       string              `json:"reason"`
}

func (c *client) send(text string) {
	c.t.Helper()
	if err := c.ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Fatalf("writing: %v", err)
	}
}

func (c *client) request(op string, fields map[string]any) int {
	c.t.Helper()
	c.next++
	m := map[string]any{"id": c.next, "op": op}
	for k, v := range fields {
		m[k] = v
	}
	text, err := json.Marshal(m)
	if err != nil {
		c.t.Fatal(err)
	}
	c.send(string(text))
	return c.next
}

// ask sends a request and gives its answer; what is said unasked before it is dropped.
func (c *client) ask(op string, fields map[string]any) said {
	c.t.Helper()
	id := strconv.Itoa(c.request(op, fields))
	for {
		s := c.hear()
		if string(s.ID) == id {
			return s
		}
	}
}

// hear gives the next frame.
func (c *client) hear() said {
	c.t.Helper()
	s, err := c.tryHear(patience)
	if err != nil {
		c.t.Fatalf("reading: %v", err)
	}
	return s
}

func (c *client) tryHear(within time.Duration) (said, error) {
	_ = c.ws.SetReadDeadline(time.Now().Add(within))
	kind, text, err := c.ws.ReadMessage()
	if err != nil {
		return said{}, err
	}
	if kind != websocket.TextMessage {
		return said{}, fmt.Errorf("a frame of type %d", kind)
	}
	var s said
	if err := json.Unmarshal(text, &s); err != nil {
		return said{}, fmt.Errorf("%w: %s", err, text)
	}
	return s, nil
}

// hearOp gives the next frame of an op.
func (c *client) hearOp(op string) said {
	c.t.Helper()
	for {
		if s := c.hear(); s.Op == op {
			return s
		}
	}
}

// hearHint waits until a conversation is said to be at seq.
func (c *client) hearHint(id chat.ConversationID, seq int64) {
	c.t.Helper()
	for {
		for _, it := range c.hearOp("hint").Items {
			if it["c"] == id.String() {
				if got := int64(it["s"].(float64)); got == seq {
					return
				} else if got > seq {
					c.t.Fatalf("%s is said to be at %d, not %d", id, got, seq)
				}
			}
		}
	}
}

// closed waits for the end of the connection and gives the code and reason that it ended with.
func (c *client) closed() (CloseCode, string) {
	c.t.Helper()
	for {
		_, err := c.tryHear(2 * patience)
		var e *websocket.CloseError
		if errors.As(err, &e) {
			return CloseCode(e.Code), e.Text
		}
		if err != nil {
			c.t.Fatalf("the connection ended without a code: %v", err)
		}
	}
}

func (c *client) mustClose(want CloseCode) string {
	c.t.Helper()
	code, reason := c.closed()
	if code != want {
		c.t.Fatalf("closed with %d (%s), want %d (%s)", code, reason, want, want)
	}
	var r struct {
		Code string `json:"code"`
	}
	if err := json.Unmarshal([]byte(reason), &r); err != nil || r.Code != want.String() {
		c.t.Fatalf("the reason is %q", reason)
	}
	return reason
}

// eventually waits until something holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(time.Millisecond) // between looks, not instead of one
	}
}

func (r *rig) connections() int {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	return len(r.p.all)
}

// unauthenticated counts from the handshake on, so that it is never 0 between a client's first byte and its connection.
func (r *rig) unauthenticated() int {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	return r.p.unauthenticated
}

func group(n int64) chat.ConversationID { return chat.GroupConversation(n) }

func notify(c chat.ConversationID, seq int64, members ...chat.MemberChange) chat.Notify {
	return chat.Notify{Conversation: c, MaxSeq: seq, Members: members}
}

var _ http.Handler = (*Pusher)(nil)
