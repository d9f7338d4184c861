package fsck

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
)

// Bounds are the offset of the first record that a partition retains and the one after its last committed record.
type Bounds struct{ Start, End int64 }

// KafkaLogs are the logs as Kafka has them. Of Kafka's operations it needs READ, which includes DESCRIBE, on the topics
// im.inbound, im.messages, im.rejected and im.receipts; it joins no group.
type KafkaLogs struct {
	cfg    kafka.Config
	id     string
	log    *slog.Logger
	client *kgo.Client
	admin  *kadm.Client
}

// NewKafkaLogs makes a reader of the logs; it does not connect yet.
func NewKafkaLogs(cfg kafka.Config, clientID string, log *slog.Logger) (*KafkaLogs, error) {
	cl, err := cfg.NewAdmin(clientID, log)
	if err != nil {
		return nil, err
	}
	return &KafkaLogs{cfg: cfg, id: clientID, log: log, client: cl, admin: kadm.NewClient(cl)}, nil
}

// Close ends the connections.
func (k *KafkaLogs) Close() { k.client.Close() }

// Bounds implements Logs.
func (k *KafkaLogs) Bounds(ctx context.Context, topic string) (map[int32]Bounds, error) {
	out := map[int32]Bounds{}
	for _, ask := range []struct {
		list func(context.Context, ...string) (kadm.ListedOffsets, error)
		take func(b *Bounds, offset int64)
	}{
		{k.admin.ListStartOffsets, func(b *Bounds, o int64) { b.Start = o }},
		{k.admin.ListCommittedOffsets, func(b *Bounds, o int64) { b.End = o }},
	} {
		listed, err := ask.list(ctx, topic)
		if err != nil {
			return nil, fmt.Errorf("asking for the bounds of %s: %w", topic, err)
		}
		for _, o := range listed[topic] {
			if o.Err != nil {
				return nil, fmt.Errorf("asking for the bounds of %s/%d: %w", topic, o.Partition, o.Err)
			}
			b := out[o.Partition]
			ask.take(&b, o.Offset)
			out[o.Partition] = b
		}
	}
	if len(out) != k.cfg.Partitions {
		return nil, fmt.Errorf("%s has %d partitions and kafka.partitions is %d", topic, len(out), k.cfg.Partitions)
	}
	return out, nil
}

var (
	errPast    = errors.New("the records that were asked for have passed")
	errStalled = fmt.Errorf("the brokers have given nothing for %s", readPatience)
)

// readPatience is how long a reader waits for the next record. Clients try for ever, and a run that hangs says nothing.
const readPatience = time.Minute

// Read implements Logs.
func (k *KafkaLogs) Read(ctx context.Context, topic string, partition int32, from, to int64, each func(*kgo.Record) error) error {
	if from >= to {
		return nil
	}
	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	stalled := time.AfterFunc(readPatience, func() { stop(errStalled) })
	defer stalled.Stop()
	read := kafka.ReadToEnd
	if topic == kafka.TopicInbound { // anybody may have written it, and what cannot be read must have been refused
		read = kafka.ReadOverDamage
	}
	_, err := read(reading, k.cfg, k.id, k.log, topic, partition, from, func(r *kgo.Record) error {
		if r.Offset >= to {
			return errPast
		}
		stalled.Stop() // what is done with the record may take its time
		defer stalled.Reset(readPatience)
		return each(r)
	})
	switch {
	case errors.Is(err, errPast):
		return nil
	case err != nil && ctx.Err() == nil && reading.Err() != nil:
		return fmt.Errorf("reading %s/%d: %w", topic, partition, context.Cause(reading))
	}
	return err
}
