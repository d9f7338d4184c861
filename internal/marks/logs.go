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
	all, err := k.ends(ctx, kafka.TopicMessages, kafka.TopicReceipts)
	return all[kafka.TopicMessages], all[kafka.TopicReceipts], err
}

// ReceiptEnds implements Logs.
func (k *KafkaLogs) ReceiptEnds(ctx context.Context) (map[int32]int64, error) {
	all, err := k.ends(ctx, kafka.TopicReceipts)
	return all[kafka.TopicReceipts], err
}

func (k *KafkaLogs) ends(ctx context.Context, topics ...string) (map[string]map[int32]int64, error) {
	listed, err := k.admin.ListCommittedOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	all := map[string]map[int32]int64{}
	for _, topic := range topics {
		all[topic] = map[int32]int64{}
	}
	listed.Each(func(o kadm.ListedOffset) {
		if o.Err != nil && err == nil {
			err = fmt.Errorf("%s/%d: %w", o.Topic, o.Partition, o.Err)
		}
		all[o.Topic][o.Partition] = o.Offset
	})
	for _, topic := range topics {
		if n := len(all[topic]); err == nil && n != k.cfg.Partitions {
			err = fmt.Errorf("%d partitions of %s answered instead of %d", n, topic, k.cfg.Partitions)
		}
	}
	return all, err
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
