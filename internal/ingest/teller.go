package ingest

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/seq"
)

// OutcomeChannel names the Redis channel on which an api instance listens for outcomes.
func OutcomeChannel(instance string) string { return "tl:outcome:" + instance }

// tellQueue bounds the batches that wait for Redis. Who is not told asks the store.
const tellQueue = 256

// tellTimeout is how long one publication may take, so that a Redis that hangs makes the queue overflow, not grow.
const tellTimeout = 500 * time.Millisecond

// Teller tells api instances what became of their commands, in batches, over Redis. It never holds up numbering: what
// cannot be told is counted, and the api finds it in the store.
type Teller struct {
	redis   redis.UniversalClient
	log     *slog.Logger
	metrics *Metrics
	queue   chan map[string][]wire.Outcome
}

// NewTeller makes a teller; Run must be running for it to tell anything.
func NewTeller(client redis.UniversalClient, log *slog.Logger, metrics *Metrics) *Teller {
	return &Teller{redis: client, log: log, metrics: metrics, queue: make(chan map[string][]wire.Outcome, tellQueue)}
}

// Tell queues the outcomes of a batch for those who wait. It does not block.
func (t *Teller) Tell(outcomes []seq.Outcome) {
	byInstance := map[string][]wire.Outcome{}
	for i := range outcomes {
		o := &outcomes[i]
		if o.Moves() {
			continue // its new owner tells
		}
		instance, request, ok := strings.Cut(o.Record.Attached.(*attached).replyTo, ":")
		if !ok || len(instance) > 64 {
			continue // nobody waits
		}
		n, err := strconv.ParseUint(request, 10, 64)
		if err != nil {
			continue
		}
		byInstance[instance] = append(byInstance[instance], outcomeOf(n, o))
	}
	if len(byInstance) == 0 {
		return
	}
	select {
	case t.queue <- byInstance:
	default:
		t.metrics.untold.Inc()
	}
}

func outcomeOf(request uint64, o *seq.Outcome) wire.Outcome {
	out := wire.Outcome{Request: request, Command: wire.CommandKey(o.Record.Value)}
	switch {
	case o.Event != nil:
		out.First = chat.FirstEvent{Seq: o.Event.Seq, MessageID: o.Event.MessageID, SentAt: o.Event.SentAt}
	case o.Rejection.Code == chat.CodeDuplicate:
		out.First, out.Duplicate = *o.Rejection.First, true
	default:
		out.Refused, out.Message, out.Field = o.Rejection.Code, o.Rejection.Message, o.Rejection.Field
		if o.Rejection.First != nil {
			out.First = *o.Rejection.First
		}
	}
	return out
}

// Run publishes until the context ends, and then what is queued.
func (t *Teller) Run(ctx context.Context) error {
	for {
		select {
		case batch := <-t.queue:
			t.publish(ctx, batch)
		case <-ctx.Done():
			for {
				select {
				case batch := <-t.queue:
					t.publish(context.WithoutCancel(ctx), batch)
				default:
					return nil
				}
			}
		}
	}
}

func (t *Teller) publish(ctx context.Context, batch map[string][]wire.Outcome) {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	pipe := t.redis.Pipeline()
	for instance, outcomes := range batch {
		pipe.Publish(ctx, OutcomeChannel(instance), wire.EncodeOutcomes(outcomes))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.metrics.untold.Inc()
		t.log.Debug("outcomes were not told; those who wait ask the store", "err", err)
	}
}
