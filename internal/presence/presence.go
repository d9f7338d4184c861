// Package presence knows who is online, and carries what pushers tell one another: who came and went, who types, which
// sessions ended. All of it lives in Redis and may be lost without harm: while Redis is away nobody comes or goes, and
// everything else works.
//
// A lease is an entry of a session in the sorted set of its user, with the time when it ends as its score. Pings renew it;
// a pusher that dies leaves leases that end by themselves.
package presence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"

	"tideline/pkg/chat"
)

// Channel is where pushers tell one another things that are not stored.
const Channel = "tl:live"

// Signal is what pushers tell one another.
type Signal struct {
	Kind         string               `json:"kind"` // typing, online, offline
	User         chat.UserID          `json:"user"`
	Conversation *chat.ConversationID `json:"conversation,omitempty"` // of typing
}

// The kinds of signals.
const (
	Typing  = "typing"
	Online  = "online"
	Offline = "offline"
)

// Times and bounds. What does not fit is dropped: it would be late anyway.
const (
	commandTimeout = 500 * time.Millisecond
	gather         = 200 * time.Millisecond // renewals of this long make one round trip
	maxPending     = 100_000                // leases that wait for a round trip
	maxPipeline    = 500                    // leases in one round trip
	maxTold        = 1024                   // signals that wait to be told
	maxAsked       = 1000                   // users in one question
)

// Service keeps leases and carries signals. It is safe for concurrent use. Methods without a context never wait.
type Service struct {
	client  redis.UniversalClient
	lease   time.Duration
	log     *slog.Logger
	breaker *gobreaker.CircuitBreaker[any]
	dropped prometheus.Counter
	now     func() time.Time

	wake chan struct{}
	tell chan Signal

	mu      sync.Mutex // guards pending, hearers and others
	pending map[session]bool
	hearers []func(Signal)
	others  map[string][]func(payload string)
}

type session struct {
	user chat.UserID
	id   int64
}

// New makes the service; leases last for the given time when they are not renewed. Run must be running.
func New(client redis.UniversalClient, lease time.Duration, log *slog.Logger, registry prometheus.Registerer) *Service {
	return &Service{
		client: client, lease: lease, log: log, now: time.Now, wake: make(chan struct{}, 1), tell: make(chan Signal, maxTold),
		pending: map[session]bool{}, others: map[string][]func(string){},
		breaker: gobreaker.NewCircuitBreaker[any](gobreaker.Settings{
			Name: "presence", Timeout: 2 * time.Second, // how long Redis is left alone once it does not answer
			ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 3 },
			IsExcluded:  func(err error) bool { return errors.Is(err, context.Canceled) }, // whoever asked went away
		}),
		dropped: promauto.With(registry).NewCounter(prometheus.CounterOpts{
			Name: "tideline_presence_dropped_total", Help: "Leases and signals that did not reach Redis. When it rises: look at Redis; nothing but presence and typing suffers.",
		}),
	}
}

// Hear adds somebody who hears every signal, of this pusher and of others, in the service's goroutine: it must not block.
// Call it before Run.
func (s *Service) Hear(hear func(Signal)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hearers = append(s.hearers, hear)
}

// HearOn adds somebody who hears what is said on another channel, by the same connection to Redis. Call it before Run.
func (s *Service) HearOn(channel string, hear func(payload string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.others[channel] = append(s.others[channel], hear)
}

// Renew makes or prolongs the lease of a session.
func (s *Service) Renew(u chat.UserID, id int64) { s.note(session{u, id}, true) }

// Drop ends the lease of a session.
func (s *Service) Drop(u chat.UserID, id int64) { s.note(session{u, id}, false) }

func (s *Service) note(v session, stands bool) {
	s.mu.Lock()
	if _, there := s.pending[v]; !there && len(s.pending) >= maxPending {
		s.mu.Unlock()
		s.dropped.Inc()
		return
	}
	s.pending[v] = stands
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Tell passes a signal on to all pushers, this one included.
func (s *Service) Tell(v Signal) {
	select {
	case s.tell <- v:
	default:
		s.dropped.Inc()
	}
}

func key(u chat.UserID) string { return "tl:online:" + u.String() }

// Of tells which of some users are online. With an error nothing is known.
func (s *Service) Of(ctx context.Context, users []chat.UserID) (map[chat.UserID]bool, error) {
	online := make(map[chat.UserID]bool, len(users))
	for len(users) > 0 {
		part := users[:min(len(users), maxAsked)]
		users = users[len(part):]
		now := strconv.FormatInt(s.now().UnixMilli(), 10)
		counts := make([]*redis.IntCmd, len(part))
		err := s.do(ctx, func(ctx context.Context) error {
			_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
				for i, u := range part {
					counts[i] = p.ZCount(ctx, key(u), now, "+inf")
				}
				return nil
			})
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("asking who is online: %w", err)
		}
		for i, u := range part {
			online[u] = counts[i].Val() > 0
		}
	}
	return online, nil
}

// do asks Redis for something, briefly, and not at all for a while after it has not answered.
func (s *Service) do(ctx context.Context, ask func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err // which says nothing of Redis
	}
	_, err := s.breaker.Execute(func() (any, error) {
		ctx, cancel := context.WithTimeout(ctx, commandTimeout)
		defer cancel()
		return nil, ask(ctx)
	})
	return err
}

// Run works until the context ends, and then ends what leases were dropped by then.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.hear(ctx) })
	wg.Go(func() { s.tellAll(ctx) })
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*commandTimeout)
			defer cancel()
			s.settle(last)
			return nil
		case <-s.wake:
		}
		s.settle(context.WithoutCancel(ctx)) // what was begun as the end came is finished; each command has its time-out
		select {
		case <-ctx.Done():
		case <-time.After(gather):
		}
	}
}

// settle brings what was noted to Redis. What does not arrive is forgotten: the next ping renews.
func (s *Service) settle(ctx context.Context) {
	s.mu.Lock()
	pending := s.pending
	s.pending = map[session]bool{}
	s.mu.Unlock()
	var part []session
	for v := range pending {
		part = append(part, v)
		if len(part) == maxPipeline {
			s.settlePart(ctx, part, pending)
			part = part[:0]
		}
	}
	s.settlePart(ctx, part, pending)
}

func (s *Service) settlePart(ctx context.Context, part []session, stands map[session]bool) {
	if len(part) == 0 {
		return
	}
	now := s.now()
	ends := now.Add(s.lease)
	type outcome struct{ changed, left *redis.IntCmd }
	outcomes := make([]outcome, len(part))
	err := s.do(ctx, func(ctx context.Context) error {
		_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, v := range part {
				k, id := key(v.user), strconv.FormatInt(v.id, 10)
				p.ZRemRangeByScore(ctx, k, "-inf", "("+strconv.FormatInt(now.UnixMilli(), 10))
				if stands[v] {
					outcomes[i].changed = p.ZAdd(ctx, k, redis.Z{Score: float64(ends.UnixMilli()), Member: id})
					p.PExpireAt(ctx, k, ends.Add(time.Minute))
				} else {
					outcomes[i].changed = p.ZRem(ctx, k, id)
				}
				outcomes[i].left = p.ZCard(ctx, k)
			}
			return nil
		})
		return err
	})
	if err != nil {
		s.dropped.Add(float64(len(part)))
		s.log.Warn("presence did not reach Redis", "leases", len(part), "err", err)
		return
	}
	for i, v := range part {
		switch changed := outcomes[i].changed.Val() == 1; {
		case changed && stands[v] && outcomes[i].left.Val() == 1:
			s.Tell(Signal{Kind: Online, User: v.user})
		case changed && !stands[v] && outcomes[i].left.Val() == 0:
			s.Tell(Signal{Kind: Offline, User: v.user})
		}
	}
}

func (s *Service) tellAll(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case v := <-s.tell:
			text, err := json.Marshal(v)
			if err == nil {
				err = s.do(ctx, func(ctx context.Context) error { return s.client.Publish(ctx, Channel, text).Err() })
			}
			if err != nil {
				s.dropped.Inc()
			}
		}
	}
}

func (s *Service) hear(ctx context.Context) {
	s.mu.Lock()
	channels := []string{Channel}
	for c := range s.others {
		channels = append(channels, c)
	}
	s.mu.Unlock()
	sub := s.client.Subscribe(ctx, channels...) // it connects again by itself
	defer func() { _ = sub.Close() }()
	messages := sub.Channel(redis.WithChannelSize(maxTold))
	for {
		select {
		case <-ctx.Done():
			return
		case m, open := <-messages:
			if !open {
				return
			}
			s.heard(m)
		}
	}
}

func (s *Service) heard(m *redis.Message) {
	s.mu.Lock()
	hearers, others := s.hearers, s.others[m.Channel]
	s.mu.Unlock()
	if m.Channel != Channel {
		for _, hear := range others {
			hear(m.Payload)
		}
		return
	}
	var v Signal
	if err := json.Unmarshal([]byte(m.Payload), &v); err != nil {
		s.log.Warn("a signal is not readable", "err", err)
		return
	}
	for _, hear := range hearers {
		hear(v)
	}
}
