package pusher

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"tideline/internal/handlers"
	"tideline/internal/presence"
	"tideline/pkg/chat"
)

// What is here is never stored and may be lost: typing, and who is online.

type watchRequest struct {
	Conversations []chat.ConversationID `json:"conversation_ids"`
}

// Watching answers watch and unwatch.
type Watching struct {
	// Watched is how many conversations the connection watches now.
	Watched int `json:"watched"`
	// Presence tells of the peers of the private ones that were asked for; it is missing while nobody knows.
	Presence []PersonOnline `json:"presence,omitempty"`
}

// PersonOnline tells whether somebody is online.
type PersonOnline struct {
	User   chat.UserID `json:"user_id"`
	Online bool        `json:"online"`
}

func (c *conn) watchList(body []byte) ([]chat.ConversationID, error) {
	var r watchRequest
	if err := handlers.Decode(body, &r); err != nil {
		return nil, err
	}
	if len(r.Conversations) == 0 || len(r.Conversations) > c.p.cfg.MaxWatched {
		return nil, chat.RefuseField(chat.CodeInvalidField, "conversation_ids", "does not name 1 to %d conversations", c.p.cfg.MaxWatched)
	}
	return r.Conversations, nil
}

// watch lets the connection hear who types in conversations, and whether the peers of those private ones are online in which both people
// have said something.
func (c *conn) watch(ctx context.Context, body []byte) (any, error) {
	list, err := c.watchList(body)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	user := c.caller.User
	var fresh, begun []chat.ConversationID
	for _, id := range list {
		member := c.membership(id) != nil
		if !member && !id.HasPeer(user) {
			c.mu.Unlock()
			return nil, inList(c.p.door.Outside(ctx, user, id))
		}
		if member && peerOf(id, user) != 0 {
			begun = append(begun, id)
		}
		if !slices.Contains(c.watched, id) && !slices.Contains(fresh, id) {
			fresh = append(fresh, id)
		}
	}
	if len(c.watched)+len(fresh) > c.p.cfg.MaxWatched {
		c.mu.Unlock()
		return nil, chat.RefuseField(chat.CodeTooLarge, "conversation_ids", "more than %d conversations would be watched", c.p.cfg.MaxWatched)
	}
	c.watched = append(c.watched, fresh...)
	out := Watching{Watched: len(c.watched)}
	c.mu.Unlock()
	for _, id := range fresh {
		c.p.index.watch(c, id, true)
	}
	known, err := c.p.door.BothSaid(ctx, begun)
	if err != nil {
		c.p.log.Debug("which peers have said something is not known", "err", err)
		known = nil // as while presence is not known: the client may watch again
	}
	var peers []chat.UserID
	for _, id := range known {
		peers = append(peers, peerOf(id, user))
		c.p.people.watch(c, peerOf(id, user))
	}
	if c.stillWatches(list) != nil {
		return nil, errGone
	}
	if len(peers) == 0 {
		return out, nil
	}
	online, err := c.p.presence.Of(ctx, peers)
	if err != nil {
		c.p.log.Debug("presence is not known", "err", err)
		return out, nil
	}
	for _, u := range peers {
		out.Presence = append(out.Presence, PersonOnline{u, online[u]})
		c.p.people.learn(u, online[u])
	}
	return out, nil
}

// stillWatches takes out of the indexes what ended while a watch entered it there: what forgets connections and memberships may not have
// seen it. The error says that the connection has ended.
func (c *conn) stillWatches(list []chat.ConversationID) error {
	c.mu.Lock()
	user, gone := c.caller.User, c.gone
	ended := slices.DeleteFunc(slices.Clone(list), func(id chat.ConversationID) bool { return !gone && slices.Contains(c.watched, id) })
	c.mu.Unlock()
	for _, id := range ended {
		c.p.index.watch(c, id, false)
		c.p.people.unwatch(c, peerOf(id, user))
	}
	if gone {
		return errGone
	}
	return nil
}

// inList names the field of a refusal about one of the conversations of a watch.
func inList(err error) error {
	var e *chat.Error
	if !errors.As(err, &e) || chat.ReasonFor(e.Code).Retryable {
		return err
	}
	named := *e
	named.Field = "conversation_ids"
	return &named
}

func (c *conn) unwatch(body []byte) (any, error) {
	list, err := c.watchList(body)
	if err != nil {
		return nil, err
	}
	return c.stopWatching(list)
}

func (c *conn) stopWatching(list []chat.ConversationID) (Watching, error) {
	c.mu.Lock()
	user := c.caller.User
	var ended []chat.ConversationID
	for _, id := range list {
		if i := slices.Index(c.watched, id); i >= 0 {
			c.watched = slices.Delete(c.watched, i, i+1)
			ended = append(ended, id)
		}
	}
	out := Watching{Watched: len(c.watched)}
	c.mu.Unlock()
	for _, id := range ended {
		c.p.index.watch(c, id, false)
		c.p.people.unwatch(c, peerOf(id, user))
	}
	return out, nil
}

type typingRequest struct {
	Conversation chat.ConversationID `json:"conversation_id"`
}

// typing passes on to the watchers of a conversation that the user types. A frame is dropped without a refusal when it comes
// too soon after the last one, in a conversation that is too large, from a muted member, or in a private
// conversation in which not both people have said something.
func (c *conn) typing(ctx context.Context, body []byte) (any, error) {
	var r typingRequest
	if err := handlers.Decode(body, &r); err != nil {
		return nil, err
	}
	if r.Conversation.IsZero() {
		return nil, chat.RefuseField(chat.CodeInvalidField, "conversation_id", "is missing")
	}
	now := c.p.clock()
	c.mu.Lock()
	user := c.caller.User
	outside := c.membership(r.Conversation) == nil && !r.Conversation.HasPeer(user)
	passed := !outside && c.passTypingLocked(now)
	c.mu.Unlock()
	if !outside && !passed {
		return nil, nil
	}

	may, err := c.p.door.MayType(ctx, user, r.Conversation)
	if err != nil {
		return nil, err
	}
	if outside { // the membership is newer than what the connection knows
		c.mu.Lock()
		passed = c.passTypingLocked(now)
		c.mu.Unlock()
	}
	if passed && may && c.bothTalk(ctx, user, r.Conversation) {
		c.p.presence.Tell(presence.Signal{Kind: presence.Typing, User: user, Conversation: &r.Conversation})
	}
	return nil, nil
}

// passTypingLocked reports whether TypingEvery has passed since the last typing frame, and starts it again. One of several
// frames at the same time passes. The caller holds c.mu.
func (c *conn) passTypingLocked(now time.Duration) bool {
	if c.lastTyping != 0 && now-c.lastTyping < c.p.cfg.TypingEvery {
		return false
	}
	c.lastTyping = max(now, 1)
	return true
}

// bothTalk reports whether both people of a private conversation have said something, as presence requires; it is true of
// other conversations. The last private conversation found so is remembered: messages are not taken out of the timeline,
// and a user types in one conversation for a while.
func (c *conn) bothTalk(ctx context.Context, user chat.UserID, id chat.ConversationID) bool {
	if peerOf(id, user) == 0 {
		return true
	}
	c.mu.Lock()
	known := c.talks == id
	c.mu.Unlock()
	if known {
		return true
	}
	both, err := c.p.door.BothSaid(ctx, []chat.ConversationID{id})
	if err != nil {
		c.p.log.Debug("typing dropped: looking for messages of both people failed", "err", err)
		return false
	}
	if !slices.Contains(both, id) {
		return false
	}
	c.mu.Lock()
	c.talks = id
	c.mu.Unlock()
	return true
}

// takeSignal passes on what a pusher has told.
func (p *Pusher) takeSignal(s presence.Signal) {
	switch s.Kind {
	case presence.Typing:
		if s.Conversation == nil {
			return
		}
		id := *s.Conversation
		p.index.eachWatcher(id, func(c *conn) {
			c.unasked(func(o *outbox) {
				if c.caller.User != s.User {
					o.types(typing{id, s.User})
				}
			})
		})
	case presence.Online, presence.Offline:
		p.tellPresence(s.User, s.Kind == presence.Online)
	}
}

func (p *Pusher) tellPresence(u chat.UserID, online bool) {
	for _, c := range p.people.learn(u, online) {
		c.unasked(func(o *outbox) { o.online(person{u, online}) })
	}
}

// askPeople asks who of those that are watched is online, because a lease that ends by itself tells nobody.
func (p *Pusher) askPeople(ctx context.Context) {
	users := p.people.list()
	if len(users) == 0 {
		return
	}
	online, err := p.presence.Of(ctx, users)
	if err != nil {
		return // nothing is known, so nothing has changed
	}
	for _, u := range users {
		p.tellPresence(u, online[u])
	}
}

// people are those who are watched by connections here.
type people struct {
	mu  sync.Mutex // guards all
	all map[chat.UserID]*watchedPerson
}

type watchedPerson struct {
	watchers map[*conn]struct{}
	known    bool
	online   bool
}

func newPeople() *people { return &people{all: map[chat.UserID]*watchedPerson{}} }

// watch lets a connection hear of somebody; user 0 is nobody.
func (p *people) watch(c *conn, u chat.UserID) {
	if u == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.all[u]
	if w == nil {
		w = &watchedPerson{watchers: map[*conn]struct{}{}}
		p.all[u] = w
	}
	w.watchers[c] = struct{}{}
}

func (p *people) unwatch(c *conn, u chat.UserID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.all[u]
	if w == nil {
		return
	}
	if delete(w.watchers, c); len(w.watchers) == 0 {
		delete(p.all, u)
	}
}

// learn notes whether somebody is online, and gives the connections to be told: none where that was known.
func (p *people) learn(u chat.UserID, online bool) []*conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.all[u]
	if w == nil || w.known && w.online == online {
		return nil
	}
	w.known, w.online = true, online
	list := make([]*conn, 0, len(w.watchers))
	for c := range w.watchers {
		list = append(list, c)
	}
	return list
}

func (p *people) list() []chat.UserID {
	p.mu.Lock()
	defer p.mu.Unlock()
	users := make([]chat.UserID, 0, len(p.all))
	for u := range p.all {
		users = append(users, u)
	}
	return users
}
