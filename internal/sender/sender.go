// Package sender produces commands to im.inbound and waits for what becomes of them.
package sender

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"tideline/internal/ingest"
	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/seq"
)

// Config says how much is taken on. Keys begin with send.
type Config struct {
	MaxInFlight int           `conf:"max-in-flight" help:"commands of this process whose outcome is awaited at most; beyond that senders are told to come back"`
	MaxLag      int64         `conf:"max-lag" help:"commands of a partition that may wait for the store before senders are told to come back"`
	Wait        time.Duration `conf:"wait" help:"how long an outcome is awaited before the answer is: accepted"`
}

// DefaultConfig is for a cluster.
func DefaultConfig() Config {
	return Config{
		MaxInFlight: 10_000,
		MaxLag:      50_000,          // half of what makes a partition pause: senders hear of it first
		Wait:        2 * time.Second, // longer than a hiccup, shorter than a person's patience
	}
}

// Validate lists every fault.
func (c *Config) Validate() error {
	var faults []error
	if c.MaxInFlight < 1 {
		faults = append(faults, fmt.Errorf("send.max-in-flight is %d", c.MaxInFlight))
	}
	if c.MaxLag < 1 {
		faults = append(faults, fmt.Errorf("send.max-lag is %d", c.MaxLag))
	}
	if c.Wait < 100*time.Millisecond || c.Wait > time.Minute {
		faults = append(faults, fmt.Errorf("send.wait is %s, 100ms to 1m are possible", c.Wait))
	}
	return errors.Join(faults...)
}

// Store tells outcomes to those who were not told over Redis, and how far each partition is.
type Store interface {
	Outcome(ctx context.Context, c chat.ConversationID, sender chat.UserID, clientMsgID string) (*seq.Numbered, *chat.Rejection, error)
	Checkpoints(ctx context.Context, partitions []int32) (map[int32]seq.Checkpoint, error)
}

// Sender sends commands. It is safe for concurrent use.
type Sender struct {
	cfg      Config
	kafka    kafka.Config
	producer *kgo.Client
	redis    redis.UniversalClient
	store    Store
	hasher   *chat.Hasher
	log      *slog.Logger
	metrics  *Metrics
	instance string

	next    atomic.Uint64
	mu      sync.Mutex // guards waiting
	waiting map[uint64]*Pending

	lag []atomic.Int64 // by partition
}

// New makes a sender; Run must be running. The instance is this process's own name, unique and without a colon.
func New(cfg Config, kc kafka.Config, producer *kgo.Client, client redis.UniversalClient, store Store, hasher *chat.Hasher, log *slog.Logger, metrics *Metrics, instance string) *Sender {
	return &Sender{
		cfg: cfg, kafka: kc, producer: producer, redis: client, store: store, hasher: hasher, log: log, metrics: metrics, instance: instance,
		waiting: map[uint64]*Pending{}, lag: make([]atomic.Int64, kc.Partitions),
	}
}

// Outcome is what became of a command that was not refused.
type Outcome struct {
	// Numbered tells that the event, or for a Duplicate the first one, is known. Otherwise the command is accepted: it is
	// durable, and its number is not known yet.
	Numbered  bool
	Duplicate bool
	First     chat.FirstEvent
}

// storeEvery is how often the store is asked while nothing was told.
const storeEvery = 300 * time.Millisecond

// Pending is a command on its way.
type Pending struct {
	s       *Sender
	command *chat.Command
	request uint64
	key     uint64 // of the record, see wire.CommandKey
	outcome chan wire.Outcome
	written chan error
	at      chat.Position // of the record in im.inbound, once it is written
	begun   time.Time
	span    trace.Span
}

// Send produces a valid command and waits for its outcome. The error is a *chat.Error: why it was refused, or that more is
// in flight than is taken on, or that Kafka does not take it; then the outcome is unknown and a retry is safe.
func (s *Sender) Send(ctx context.Context, c *chat.Command) (Outcome, error) {
	p, err := s.Begin(ctx, c)
	if err != nil {
		return Outcome{}, err
	}
	return p.Wait(ctx)
}

// Begin produces a valid command. Commands of one conversation keep the order of the calls.
func (s *Sender) Begin(ctx context.Context, c *chat.Command) (*Pending, error) {
	key := c.Conversation.String()
	partition := chat.Partition(key, int32(s.kafka.Partitions))
	if lag := s.lag[partition].Load(); lag > s.cfg.MaxLag {
		return nil, chat.Refuse(chat.CodeOverloaded, "too much waits to be stored").After(2 * time.Second)
	}
	value := wire.EncodeCommand(c)
	p := &Pending{s: s, command: c, request: s.next.Add(1), key: wire.CommandKey(value), outcome: make(chan wire.Outcome, 1), written: make(chan error, 1), begun: time.Now()}
	s.mu.Lock()
	if len(s.waiting) >= s.cfg.MaxInFlight {
		s.mu.Unlock()
		return nil, chat.Refuse(chat.CodeOverloaded, "too many commands are in flight").After(time.Second)
	}
	s.waiting[p.request] = p
	s.mu.Unlock()
	s.metrics.inFlight.Inc()
	r := &kgo.Record{
		Topic: kafka.TopicInbound, Key: []byte(key), Value: value,
		Headers: []kgo.RecordHeader{
			{Key: kafka.HeaderContentType, Value: []byte(wire.ContentTypeProtobuf)},
			{Key: kafka.HeaderProducer, Value: []byte(kafka.ProducerAPI)},
			{Key: kafka.HeaderReplyTo, Value: []byte(s.instance + ":" + strconv.FormatUint(p.request, 10))},
		},
	}
	// The span lasts until the outcome, so that a trace shows what the sender waited for.
	ctx, p.span = startSpan(ctx, c, partition)
	r.Headers = kafka.WithTrace(ctx, r.Headers)
	// What was begun is finished even when the client hangs up: it may have been written already. Where Kafka is so far
	// behind that the buffer is full it fails at once: who waited for a place would wait past every deadline of ours.
	s.producer.TryProduce(context.WithoutCancel(ctx), r, func(r *kgo.Record, err error) {
		if err == nil {
			p.at = chat.Position{Partition: r.Partition, Offset: r.Offset}
			s.metrics.produce.Observe(time.Since(p.begun).Seconds())
		}
		p.written <- err
	})
	return p, nil
}

// Wait waits for the outcome; see Send.
func (p *Pending) Wait(ctx context.Context) (Outcome, error) {
	o, err := p.wait(ctx)
	p.s.metrics.inFlight.Dec()
	p.s.metrics.observe(p.begun, o, err)
	endSpan(p.span, o, err)
	return o, err
}

func (p *Pending) wait(ctx context.Context) (Outcome, error) {
	s := p.s
	defer func() {
		s.mu.Lock()
		delete(s.waiting, p.request)
		s.mu.Unlock()
	}()
	deadline := time.NewTimer(s.cfg.Wait)
	defer deadline.Stop()
	// A store that hangs must not hold the answer back past the deadline.
	asking, cancel := context.WithTimeout(ctx, s.cfg.Wait)
	defer cancel()
	ask := time.NewTicker(storeEvery)
	defer ask.Stop()
	accepted := false
	written := p.written
	for {
		select {
		case o := <-p.outcome:
			return outcomeOf(o)
		case err := <-written:
			if err != nil {
				s.log.Warn("a command was not taken by Kafka", "err", err, "conversation", p.command.Conversation.String())
				return Outcome{}, chat.Refuse(chat.CodeUnavailable, "the log does not take commands for now").After(2 * time.Second).Because(err)
			}
			accepted, written = true, nil
		case <-ask.C:
			if o, known, err := p.ask(asking, accepted); known {
				return o, err
			}
		case <-deadline.C:
			if accepted {
				return Outcome{}, nil
			}
			return Outcome{}, chat.Refuse(chat.CodeTimeout, "the log did not take the command in time; it may still").After(2 * time.Second)
		case <-ctx.Done():
			return Outcome{}, chat.Refuse(chat.CodeTimeout, "the request ended before its outcome").Because(ctx.Err())
		}
	}
}

// ask asks the store, for the case that nobody told us. A rejection is believed once Kafka has told where our record stands, and
// if it is of that one: others are of other tries with the same id, whatever clocks say.
func (p *Pending) ask(ctx context.Context, written bool) (Outcome, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, storeEvery)
	defer cancel()
	p.s.metrics.asked.Inc()
	c, begun := p.command, p.begun.UnixMilli()
	numbered, rejection, err := p.s.store.Outcome(ctx, c.Conversation, c.Sender, c.ClientMsgID)
	switch {
	case err != nil:
		return Outcome{}, false, nil
	case numbered != nil && numbered.Hash != p.s.hasher.Hash(c):
		return Outcome{First: numbered.FirstEvent}, true, chat.RefuseField(chat.CodeConflict, "client_msg_id", "was used before for number %d with another body", numbered.Seq)
	case numbered != nil:
		// An event that was numbered before we began is an earlier try of ours.
		return Outcome{Numbered: true, Duplicate: numbered.SentAt < begun, First: numbered.FirstEvent}, true, nil
	case rejection != nil && written && rejection.Inbound == p.at:
		refusal := chat.Refuse(rejection.Code, "%s", rejection.Message)
		refusal.Field = rejection.Field
		return Outcome{}, true, refusal
	}
	return Outcome{}, false, nil
}

func outcomeOf(o wire.Outcome) (Outcome, error) {
	if o.Refused == "" {
		return Outcome{Numbered: true, Duplicate: o.Duplicate, First: o.First}, nil
	}
	refusal := chat.Refuse(o.Refused, "%s", o.Message)
	refusal.Field = o.Field
	return Outcome{First: o.First}, refusal
}

// Run listens for outcomes and watches how far the partitions are, until the context ends.
func (s *Sender) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { s.watchLag(ctx) })
	defer wg.Wait()
	for ctx.Err() == nil {
		s.listen(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(storeEvery):
		}
	}
	return nil
}

func (s *Sender) listen(ctx context.Context) {
	sub := s.redis.Subscribe(ctx, ingest.OutcomeChannel(s.instance))
	defer func() { _ = sub.Close() }()
	messages := sub.Channel(redis.WithChannelSize(1024))
	for {
		select {
		case <-ctx.Done():
			return
		case m, open := <-messages:
			if !open {
				return
			}
			outcomes, err := wire.DecodeOutcomes([]byte(m.Payload))
			if err != nil {
				s.log.Error("outcomes are not readable", "err", err)
				continue
			}
			s.tell(outcomes)
		}
	}
}

// tell passes outcomes on to those who wait for them. Any producer can name a request of ours, by copying a record with its
// headers or on purpose: only the outcome of what was sent is taken.
func (s *Sender) tell(outcomes []wire.Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range outcomes {
		p := s.waiting[o.Request]
		if p == nil {
			continue
		}
		if o.Command != 0 && o.Command != p.key {
			s.log.Warn("a record of somebody else carries a request of this process, and is not taken for it", "conversation", p.command.Conversation.String())
			continue
		}
		delete(s.waiting, o.Request)
		p.outcome <- o
	}
}

// watchLag compares the end of im.inbound with what the store has.
func (s *Sender) watchLag(ctx context.Context) {
	adm := kadm.NewClient(s.producer)
	partitions := make([]int32, s.kafka.Partitions)
	for i := range partitions {
		partitions[i] = int32(i)
	}
	// What the store said last counts on while it says nothing: it cannot have come further without being there, and
	// that is when the bound is needed.
	stored := map[int32]int64{}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		once, cancel := context.WithTimeout(ctx, 2*time.Second)
		ends, err := adm.ListEndOffsets(once, kafka.TopicInbound)
		if err == nil {
			var checkpoints map[int32]seq.Checkpoint
			if checkpoints, err = s.store.Checkpoints(once, partitions); err == nil {
				for _, p := range partitions {
					stored[p] = checkpoints[p].InboundNext
				}
			}
			ends.Each(func(o kadm.ListedOffset) {
				if from, known := stored[o.Partition]; known && o.Err == nil && int(o.Partition) < len(s.lag) {
					s.lag[o.Partition].Store(max(o.Offset-from, 0))
				}
			})
		}
		cancel()
		if err != nil && ctx.Err() == nil {
			s.log.Debug("how far partitions lag is not known for now", "err", err)
		}
	}
}
