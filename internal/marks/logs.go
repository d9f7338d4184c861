package marks

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
)

// KafkaLogs are the logs as Kafka has them.
type KafkaLogs struct {
	cfg    kafka.Config
	id     string
	log    *slog.Logger
	client *kgo.Client
	admin  *kadm.Client
}

// NewKafkaLogs connects to Kafka.
func NewKafkaLogs(cfg kafka.Config, clientID string, log *slog.Logger) (*KafkaLogs, error) {
	cl, err := cfg.NewAdmin(clientID, log)
	if err != nil {
		return nil, err
	}
	return &KafkaLogs{cfg: cfg, id: clientID, log: log, client: cl, admin: kadm.NewClient(cl)}, nil
}

// Close ends the connections.
func (k *KafkaLogs) Close() { k.client.Close() }

// Ends implements Logs.
func (k *KafkaLogs) Ends(ctx context.Context) (messages, receipts map[int32]int64, err error) {
	listed, err := k.admin.ListCommittedOffsets(ctx, kafka.TopicMessages, kafka.TopicReceipts)
	if err != nil {
		return nil, nil, err
	}
	messages, receipts = map[int32]int64{}, map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		if o.Err != nil && err == nil {
			err = fmt.Errorf("%s/%d: %w", o.Topic, o.Partition, o.Err)
		}
		if o.Topic == kafka.TopicMessages {
			messages[o.Partition] = o.Offset
		} else {
			receipts[o.Partition] = o.Offset
		}
	})
	if err == nil && (len(messages) != k.cfg.Partitions || len(receipts) != k.cfg.Partitions) {
		err = fmt.Errorf("%d and %d partitions answered instead of %d", len(messages), len(receipts), k.cfg.Partitions)
	}
	return messages, receipts, err
}

// Silent implements Logs. The last offset before a committed end is a record, or the marker of a transaction: markers are
// asked for, so that the end is seen.
func (k *KafkaLogs) Silent(ctx context.Context, from, to map[int32]int64) (map[int32]bool, error) {
	at := map[int32]kgo.Offset{}
	for p, offset := range from {
		at[p] = kgo.NewOffset().At(offset)
	}
	reader, err := k.cfg.NewReader(k.id, k.log, map[string]map[int32]kgo.Offset{kafka.TopicMessages: at}, kgo.KeepControlRecords())
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	silent := map[int32]bool{}
	for len(silent) < len(from) {
		fetches := reader.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for _, f := range fetches.Errors() {
			return nil, fmt.Errorf("reading %s/%d: %w", f.Topic, f.Partition, f.Err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if _, decided := silent[r.Partition]; decided {
				return
			}
			switch {
			case r.Offset >= to[r.Partition]:
				silent[r.Partition] = true
			case !r.Attrs.IsControl():
				silent[r.Partition] = false
			case r.Offset == to[r.Partition]-1:
				silent[r.Partition] = true
			}
		})
	}
	return silent, nil
}
