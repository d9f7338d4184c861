package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// EventKind says what an Event is.
type EventKind string

// The kinds of events.
const (
	EventSync     EventKind = "sync"     // connected, first or again: Sync has what moved meanwhile, in pages
	EventHint     EventKind = "hint"     // Conversation is at Seq: pull
	EventRead     EventKind = "read"     // another device has read Conversation up to Seq
	EventReceipt  EventKind = "receipt"  // somebody has read message Seq of mine, or in a private conversation up to it
	EventPresence EventKind = "presence" // User came (Online) or went
	EventTyping   EventKind = "typing"   // User types in Conversation
	EventLost     EventKind = "lost"     // the connection ended (Err); it comes back by itself
)

// Event is what a person's client has to know.
type Event struct {
	Kind         EventKind
	Conversation string
	Seq          int64
	User         string
	Online       bool
	Sync         *Sync
	Err          error
}

// LiveOptions say how a Live behaves; the zero value is good.
type LiveOptions struct {
	// Cursor is that of the last sync of an earlier run.
	Cursor string
	// Newest is how many of the newest messages of each conversation a sync brings along.
	Newest int
}

// Live keeps a connection: it authenticates, syncs, pings, brings fresh tokens in time, and comes back after an end whose
// code allows it. Run does the work, Next gives what happens. It is safe for concurrent use.
//
// What is not fetched with Next is coalesced: of hints, reads and receipts only the newest of each conversation is kept, so
// that a slow reader costs memory by its conversations.
type Live struct {
	c   *Client
	opt LiveOptions

	mu      sync.Mutex // guards what follows
	socket  *Socket
	up      chan struct{} // closed while there is a socket
	cursor  string
	order   []eventKey
	pending map[eventKey]Event
	wake    chan struct{} // one place: something happened
	room    chan struct{} // one place: a page of a sync was fetched
}

type eventKey struct {
	kind         EventKind
	conversation string
	user         string
	n            int
}

// maxSyncsKept bounds the pages of syncs that wait to be fetched; the connection waits for them.
const maxSyncsKept = 4

// Live makes a Live of the session. Run must be called once.
func (c *Client) Live(opt LiveOptions) *Live {
	return &Live{c: c, opt: opt, cursor: opt.Cursor, up: make(chan struct{}), pending: map[eventKey]Event{}, wake: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// Run keeps the connection until the context ends (then it returns nil), or until coming back makes no sense: the
// session was ended or the client is at fault.
func (l *Live) Run(ctx context.Context) error {
	var pause backoff
	for {
		began := time.Now()
		err := l.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		wait, back := comeBack(err)
		if !back {
			l.push(Event{Kind: EventLost, Err: err})
			return err
		}
		l.push(Event{Kind: EventLost, Err: err})
		if time.Since(began) > time.Minute {
			pause = backoff{}
		}
		if needsToken(err) {
			if err := l.c.Refresh(ctx); err != nil && !retryable(err) {
				return fmt.Errorf("refreshing the session: %w", err)
			}
		}
		if pause.wait(ctx, wait) != nil {
			return nil
		}
	}
}

// comeBack tells whether to connect again after an error, and when where the server said so.
func comeBack(err error) (time.Duration, bool) {
	var closed *Closed
	if errors.As(err, &closed) {
		return closed.RetryAfter, closed.ComeBack()
	}
	var refused *Error
	if errors.As(err, &refused) {
		return refused.RetryAfter(), refused.Retryable || refused.Code == "token_expired"
	}
	return 0, true
}

func needsToken(err error) bool {
	var closed *Closed
	var refused *Error
	return errors.As(err, &closed) && closed.Name == "token_expired" || errors.As(err, &refused) && refused.Code == "token_expired"
}

func retryable(err error) bool {
	var refused *Error
	return !errors.As(err, &refused) || refused.Retryable
}

// once is one connection, from its beginning to its end.
func (l *Live) once(ctx context.Context) error {
	tokens := l.c.Tokens()
	s, err := Dial(ctx, tokens.SocketURL, tokens.Access, l.hear)
	if err != nil {
		return err
	}
	defer s.Close()
	l.set(s)
	defer l.set(nil)
	// Hints flow from here on. What moved before is in the sync.
	caught := make(chan error, 1)
	syncing, stop := context.WithCancel(ctx)
	defer stop()
	go func() { caught <- l.catchUp(syncing, s) }()
	defer func() {
		if stop(); caught != nil {
			_ = <-caught // whatever it ended with, it has ended
		}
	}()
	heartbeat := time.NewTicker(time.Duration(max(s.Welcome.HeartbeatMS, 100)) * time.Millisecond)
	defer heartbeat.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.Ended():
			return s.Err()
		case err := <-caught:
			caught = nil
			if err != nil {
				return err
			}
		case <-heartbeat.C:
			if err := s.Ask(ctx, "ping", nil, nil); err != nil && !retryable(err) {
				return err
			}
			if now := l.c.Tokens(); !now.ExpiresAt.IsZero() && time.Until(now.ExpiresAt) < 2*time.Duration(s.Welcome.HeartbeatMS)*time.Millisecond {
				if err := l.c.Refresh(ctx); err != nil {
					continue // the next heartbeat tries again, and the server has patience
				}
				if err := s.Ask(ctx, "auth", map[string]string{"token": l.c.Tokens().Access}, nil); err != nil {
					return err
				}
			}
		}
	}
}

// catchUp syncs until there is no more.
func (l *Live) catchUp(ctx context.Context, s *Socket) error {
	for {
		if err := l.waitForRoom(ctx); err != nil {
			return err
		}
		l.mu.Lock()
		r := SyncRequest{Cursor: l.cursor, Newest: l.opt.Newest}
		l.mu.Unlock()
		var page Sync
		if err := s.Ask(ctx, "sync", r, &page); err != nil {
			var refused *Error
			if errors.As(err, &refused) && refused.Field == "cursor" && r.Cursor != "" {
				l.mu.Lock()
				l.cursor = "" // it is too old: all anew
				l.mu.Unlock()
				continue
			}
			return fmt.Errorf("syncing: %w", err)
		}
		l.mu.Lock()
		l.cursor = page.Cursor
		l.mu.Unlock()
		l.push(Event{Kind: EventSync, Sync: &page})
		if !page.HasMore {
			return nil
		}
	}
}

// waitForRoom waits while as many pages as are kept wait to be fetched.
func (l *Live) waitForRoom(ctx context.Context) error {
	for {
		l.mu.Lock()
		n := 0
		for k := range l.pending {
			if k.kind == EventSync {
				n++
			}
		}
		l.mu.Unlock()
		if n < maxSyncsKept {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.room:
		}
	}
}

func (l *Live) set(s *Socket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.socket = s
	if s != nil {
		close(l.up)
	} else {
		l.up = make(chan struct{})
	}
}

// Socket waits for a connection and gives it.
func (l *Live) Socket(ctx context.Context) (*Socket, error) {
	for {
		l.mu.Lock()
		s, up := l.socket, l.up
		l.mu.Unlock()
		if s != nil {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-up:
		}
	}
}

// Cursor gives that of the last sync whose event was made, to go on from after a restart.
func (l *Live) Cursor() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cursor
}

// Pull gives a part of a conversation, over the socket while there is one.
func (l *Live) Pull(ctx context.Context, r PullRequest) (Page, error) {
	l.mu.Lock()
	s := l.socket
	l.mu.Unlock()
	if s == nil {
		return l.c.Pull(ctx, r)
	}
	var p Page
	err := s.Ask(ctx, "pull", r, &p)
	var closed *Closed
	if errors.As(err, &closed) {
		return l.c.Pull(ctx, r)
	}
	return p, err
}

// PullAll gives everything after a number up to where the conversation is said to be, in order.
func (l *Live) PullAll(ctx context.Context, conversation string, after, told int64) ([]Message, error) {
	var all []Message
	for {
		p, err := l.Pull(ctx, PullRequest{Conversation: conversation, After: &after, Told: told})
		if err != nil {
			return all, err
		}
		all = append(all, p.Messages...)
		if n := len(p.Messages); n > 0 {
			after = p.Messages[n-1].Last()
		}
		if !p.HasMore || len(p.Messages) == 0 {
			return all, nil
		}
	}
}

// Watch lets typing and presence of conversations come, on this connection: after EventLost and EventSync call it again.
func (l *Live) Watch(ctx context.Context, conversations ...string) error {
	s, err := l.Socket(ctx)
	if err != nil {
		return err
	}
	return s.Ask(ctx, "watch", map[string]any{"conversation_ids": conversations}, nil)
}

// Typing tells others that the user types.
func (l *Live) Typing(ctx context.Context, conversation string) error {
	s, err := l.Socket(ctx)
	if err != nil {
		return err
	}
	return s.Ask(ctx, "typing", map[string]any{"conversation_id": conversation}, nil)
}

// hear takes what the server says unasked.
func (l *Live) hear(f Frame) {
	for _, it := range f.Items {
		switch f.Op {
		case "hint":
			l.push(Event{Kind: EventHint, Conversation: it.C, Seq: it.S})
		case "receipt":
			l.push(Event{Kind: EventReceipt, Conversation: it.C, Seq: it.S})
		case "presence":
			l.push(Event{Kind: EventPresence, User: it.User, Online: it.Online})
		case "typing":
			l.push(Event{Kind: EventTyping, Conversation: it.Conversation, User: it.User})
		}
	}
	if f.Op == "read" {
		l.push(Event{Kind: EventRead, Conversation: f.Conversation, Seq: f.ReadSeq})
	}
}

func (l *Live) push(e Event) {
	k := eventKey{kind: e.Kind, conversation: e.Conversation, user: e.User}
	l.mu.Lock()
	if e.Kind == EventSync {
		for l.pending[k].Kind != "" {
			k.n++ // pages are kept, each
		}
	}
	if old, there := l.pending[k]; there {
		e.Seq = max(e.Seq, old.Seq)
	} else {
		l.order = append(l.order, k)
	}
	l.pending[k] = e
	l.mu.Unlock()
	signal(l.wake)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Next waits for what happens next. Only one goroutine may wait.
func (l *Live) Next(ctx context.Context) (Event, error) {
	for {
		l.mu.Lock()
		if len(l.order) > 0 {
			k := l.order[0]
			if l.order = l.order[1:]; len(l.order) == 0 {
				l.order = nil
			}
			e := l.pending[k]
			delete(l.pending, k)
			l.mu.Unlock()
			if k.kind == EventSync {
				signal(l.room)
			}
			return e, nil
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-l.wake:
		}
	}
}
