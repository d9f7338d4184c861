package socket

import (
	"context"
	"encoding/json"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/accounts"
	"tideline/internal/handlers"
	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

var ops = map[string]bool{"auth": true, "ping": true, "send": true, "pull": true, "sync": true, "read": true, "typing": true}

// knownOp gives a label for metrics that clients cannot make up.
func knownOp(op string) string {
	if ops[op] {
		return op
	}
	return "unknown"
}

// operate runs a request.
func (s *Server) operate(ctx context.Context, c *conn, op string, body []byte) (json.RawMessage, error) {
	if op != "typing" {
		return s.requests.Do(ctx, c.caller, op, body)
	}
	var r struct {
		Conversation chat.ConversationID `json:"conversation_id"`
	}
	if err := handlers.Decode(body, &r); err != nil {
		return nil, err
	}
	if !s.hub.isIn(c, r.Conversation) {
		return nil, chat.Refuse(chat.CodeNotAMember, "you are not a member of this conversation")
	}
	s.presence.typing(ctx, r.Conversation, c.caller.User)
	return json.RawMessage(`{}`), nil
}

// followMarks reads im.receipts from its end: what was read before is what clients sync.
func (s *Server) followMarks(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.followMarksOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		s.log.Warn("following im.receipts was interrupted; it begins again from the end", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (s *Server) followMarksOnce(ctx context.Context) error {
	admin, err := s.kafka.NewAdmin(s.id, s.log)
	if err != nil {
		return err
	}
	ends, err := kadm.NewClient(admin).ListEndOffsets(ctx, kafka.TopicReceipts)
	admin.Close()
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return err
	}
	from := map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) { from[o.Partition] = kgo.NewOffset().At(o.Offset) })
	reader, err := s.kafka.NewReader(s.id, s.log, map[string]map[int32]kgo.Offset{kafka.TopicReceipts: from})
	if err != nil {
		return err
	}
	defer reader.Close()
	for {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, e := range fetches.Errors() {
			return e.Err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if m, err := wire.DecodeReadMark(r.Value); err == nil {
				s.hub.marked(m)
			}
		})
	}
}

// presence is who is online and who is typing: leases and messages in Redis, lost without harm. Redis away means that
// nobody hears of either, and nothing else.
type presence struct {
	redis redis.UniversalClient
	log   *slog.Logger
	hub   *hub
	ttl   time.Duration
	work  chan func(ctx context.Context)

	mu      sync.Mutex // guards renewed
	renewed map[*conn]time.Time
}

// LiveChannel is the Redis channel of what is told once and never stored.
const LiveChannel = "tl:live"

// PresenceKey names the sorted set of a user's sessions, by the time (ms) at which each lease ends.
func PresenceKey(u chat.UserID) string { return "tl:presence:" + u.String() }

func newPresence(client redis.UniversalClient, log *slog.Logger, h *hub, ttl time.Duration) *presence {
	return &presence{redis: client, log: log, hub: h, ttl: ttl, work: make(chan func(context.Context), 1024), renewed: map[*conn]time.Time{}}
}

// renew extends the lease of a connection's session, at most every third of its life.
func (p *presence) renew(c *conn) {
	now := time.Now()
	p.mu.Lock()
	due := now.Sub(p.renewed[c]) > p.ttl/3
	if due {
		p.renewed[c] = now
	}
	p.mu.Unlock()
	if !due {
		return
	}
	key, session := PresenceKey(c.caller.User), c.session
	p.later(func(ctx context.Context) {
		pipe := p.redis.Pipeline()
		pipe.ZAdd(ctx, key, redis.Z{Score: float64(now.Add(p.ttl).UnixMilli()), Member: session})
		pipe.ZRemRangeByScore(ctx, key, "-inf", "("+strconv.FormatInt(now.UnixMilli(), 10))
		pipe.PExpire(ctx, key, p.ttl)
		_, _ = pipe.Exec(ctx) // the next heartbeat tries again
	})
}

func (p *presence) drop(c *conn) {
	p.mu.Lock()
	_, leased := p.renewed[c]
	delete(p.renewed, c)
	p.mu.Unlock()
	if !leased {
		return
	}
	key, session := PresenceKey(c.caller.User), c.session
	p.later(func(ctx context.Context) { _ = p.redis.ZRem(ctx, key, session).Err() })
}

// later does something that may be lost: when Redis is slow, it is.
func (p *presence) later(do func(ctx context.Context)) {
	select {
	case p.work <- do:
	default:
	}
}

func (p *presence) typing(ctx context.Context, id chat.ConversationID, u chat.UserID) {
	text := "typing " + id.String() + " " + u.String()
	p.later(func(context.Context) { _ = p.redis.Publish(context.WithoutCancel(ctx), LiveChannel, text).Err() })
}

// run works for presence, and hears of ended sessions, until the context ends.
func (p *presence) run(ctx context.Context, revoked func(session string)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case do := <-p.work:
				once, cancel := context.WithTimeout(ctx, time.Second)
				do(once)
				cancel()
			}
		}
	})
	for ctx.Err() == nil {
		sub := p.redis.Subscribe(ctx, LiveChannel, accounts.RevokedChannel)
		ch := sub.Channel()
		for open := true; open && ctx.Err() == nil; {
			select {
			case <-ctx.Done():
			case m, more := <-ch:
				if open = more; !more {
					break
				}
				if m.Channel == accounts.RevokedChannel {
					revoked(m.Payload)
				} else {
					p.heard(m.Payload)
				}
			}
		}
		_ = sub.Close()
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// heard passes on that somebody is typing.
func (p *presence) heard(text string) {
	words := strings.Fields(text)
	if len(words) != 3 || words[0] != "typing" {
		return
	}
	id, err := chat.ParseConversationID(words[1])
	if err != nil {
		return
	}
	u, err := chat.ParseUserID(words[2])
	if err != nil {
		return
	}
	frame := []byte(`{"op":"typing","conversation_id":"` + id.String() + `","user_id":"` + u.String() + `"}`)
	p.hub.each(id, func(c *conn) {
		if c.caller.User != u {
			go func() { // a slow one holds up nobody
				if err := c.writeText(frame); err != nil {
					c.closeSlow(err)
				}
			}()
		}
	})
}
