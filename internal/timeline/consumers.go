package timeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	core "tideline/pkg/timeline"
)

// consumer is a simple road from a topic to the store: its position is kept with its effect.
type consumer struct {
	kafka   kafka.Config
	group   string
	topic   string
	id      string
	log     *slog.Logger
	metrics *Metrics
	// position gives the next offset of a partition.
	position func(ctx context.Context, partition int32) (int64, error)
	// apply stores records and moves the position from one offset to another; core.ErrFenced where it stands elsewhere.
	apply func(ctx context.Context, partition int32, from, to int64, records []*kgo.Record) error
	// rest is the least time between two batches of a partition that keeps up. What comes alone does not wait.
	rest time.Duration
	// letGo is told that a partition is not worked on any more; may be nil.
	letGo func(partition int32)
}

// consumerBatch is how many records are stored together at most.
const consumerBatch = 1000

func (c *consumer) Run(ctx context.Context) error {
	owners := kafka.Owners{Config: c.kafka, ClientID: c.id, Group: c.group, Topic: c.topic, Log: c.log, Own: c.own}
	return owners.Run(ctx)
}

func (c *consumer) own(ctx context.Context, p *kafka.Partition) error {
	if c.letGo != nil {
		defer c.letGo(p.ID)
	}
	at, err := c.position(ctx, p.ID)
	if err != nil {
		return err
	}
	if err := p.Start(ctx, at); err != nil {
		if !errors.Is(err, kafka.ErrTruncated) {
			return err
		}
		// Marks and answers of before retention are lost for the store, not for the people: said loudly, and gone on.
		start, _, boundsErr := kafka.Bounds(ctx, c.kafka, c.id, c.log, c.topic, p.ID)
		if boundsErr != nil {
			return boundsErr
		}
		c.metrics.stuck.Inc()
		c.log.Error("RECORDS WERE LOST to retention before they were stored", "topic", c.topic, "partition", p.ID, "from", at, "to", start)
		if err := c.apply(ctx, p.ID, at, start, nil); err != nil {
			return err
		}
		at = start
		if err := p.Start(ctx, at); err != nil {
			return err
		}
	}
	if p.Next() > at { // a marker was all that retention removed: from now on the position says so
		if err := c.applyPatiently(ctx, p.ID, at, p.Next(), nil); err != nil {
			return err
		}
		at = p.Next()
	}
	var last time.Time
	for {
		if wait := c.rest - time.Since(last); wait > 0 && p.Lag() < consumerBatch {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(wait):
			}
		}
		records, err := p.Poll(ctx, consumerBatch)
		if err != nil {
			return err
		}
		last = time.Now()
		to := p.Next()
		if err := c.applyPatiently(ctx, p.ID, at, to, records); err != nil {
			return err
		}
		at = to
		p.Done(at)
	}
}

func (c *consumer) applyPatiently(ctx context.Context, partition int32, from, to int64, records []*kgo.Record) error {
	for pause := leastPause; ; pause = min(2*pause, mostPause) {
		err := c.apply(context.WithoutCancel(ctx), partition, from, to, records)
		if err == nil {
			return nil
		}
		if errors.Is(err, core.ErrFenced) {
			at, lookErr := c.position(ctx, partition)
			if lookErr == nil && at == to {
				return nil // a commit whose answer was lost
			}
			return fmt.Errorf("%w: %w", kafka.ErrGiveUp, err)
		}
		c.metrics.retries.Inc()
		c.log.Warn("the store did not take a batch; it is tried again", "err", err, "topic", c.topic, "partition", partition)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause + rand.N(pause)):
		}
	}
}

// RejectionStore keeps rejections for those who ask.
type RejectionStore interface {
	RejectionPositions(ctx context.Context, partitions []int32) (map[int32]int64, error)
	RecordRejections(ctx context.Context, partition int32, from, to int64, rejections []chat.Rejection) error
	PruneRejections(ctx context.Context, before int64) (int64, error)
}

// rejectionsKept is how long a rejection can be asked for by client id.
const rejectionsKept = 24 * time.Hour

// NewRejectionRecorder makes the service that keeps rejections for a day.
func NewRejectionRecorder(kc kafka.Config, store RejectionStore, log *slog.Logger, metrics *Metrics, id string) interface{ Run(context.Context) error } {
	c := &consumer{
		kafka: kc, group: kafka.GroupRejections, topic: kafka.TopicRejected, id: id, log: log, metrics: metrics,
		position: func(ctx context.Context, partition int32) (int64, error) {
			at, err := store.RejectionPositions(ctx, []int32{partition})
			return at[partition], err
		},
		apply: func(ctx context.Context, partition int32, from, to int64, records []*kgo.Record) error {
			rejections := make([]chat.Rejection, 0, len(records))
			for _, r := range records {
				rejection, err := wire.DecodeRejection(r.Value)
				if err != nil {
					log.Error("A REJECTION is not readable and is skipped", "partition", r.Partition, "offset", r.Offset, "err", err)
					continue
				}
				rejections = append(rejections, rejection)
			}
			return store.RecordRejections(ctx, partition, from, to, rejections)
		},
	}
	return &recorder{c, store, log}
}

type recorder struct {
	*consumer
	store RejectionStore
	log   *slog.Logger
}

// Run records, and forgets what is older than a day.
func (r *recorder) Run(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Minute)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if _, err := r.store.PruneRejections(ctx, time.Now().Add(-rejectionsKept).UnixMilli()); err != nil && ctx.Err() == nil {
					r.log.Warn("old rejections were not forgotten; it is tried again", "err", err)
				}
			}
		}
	}()
	err := r.consumer.Run(ctx)
	<-done
	return err
}
