package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Places tells, for topics and partitions, before which offset everything was dealt with.
type Places func(ctx context.Context) (map[string]map[int32]int64, error)

// Retention bounds the bytes of the embedded log in place of the broker, which knows sizes and not who still needs what: a
// backlog of long messages is larger than a partition may be, and the broker would remove what is not numbered yet.
// What was not dealt with stays, whatever it weighs.
type Retention struct {
	client *kgo.Client
	admin  *kadm.Client
	places Places
	log    *slog.Logger
	bound  int64 // bytes of a partition
}

// NewRetention makes the service, which keeps bound bytes of each partition. It closes the client when it ends.
func NewRetention(client *kgo.Client, places Places, bound int64, log *slog.Logger) *Retention {
	return &Retention{client: client, admin: kadm.NewClient(client), places: places, log: log, bound: bound}
}

// TakeOver takes the bound of bytes away from the broker for the topics whose places are known. Time still bounds them.
func (r *Retention) TakeOver(ctx context.Context) error {
	places, err := r.places(ctx)
	if err != nil {
		return err
	}
	topics := make([]string, 0, len(places))
	for t := range places {
		topics = append(topics, t)
	}
	none := "-1"
	answers, err := r.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.bytes", Value: &none}}, topics...)
	if err != nil {
		return fmt.Errorf("setting the retention of topics: %w", err)
	}
	for _, a := range answers {
		if a.Err != nil {
			return fmt.Errorf("setting the retention of %s: %w", a.Name, a.Err)
		}
	}
	return nil
}

// trimEvery is how often the log is trimmed. At the most that one machine takes, a partition grows by some hundred MiB
// between two times.
const trimEvery = 30 * time.Second

// Run trims the log until the context ends.
func (r *Retention) Run(ctx context.Context) error {
	defer r.client.Close()
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		once, cancel := context.WithTimeout(ctx, trimEvery)
		if err := r.trim(once); err != nil && ctx.Err() == nil {
			r.log.Warn("the embedded log was not trimmed; it is tried again", "err", err)
		}
		cancel()
	}
}

// trim removes the oldest records of partitions that are too large, as far as they were dealt with. How many bytes go
// with how many records is not known, so that it takes them to be of one size and comes nearer from time to time.
func (r *Retention) trim(ctx context.Context) error {
	places, err := r.places(ctx)
	if err != nil {
		return err
	}
	dirs, err := r.admin.DescribeAllLogDirs(ctx, nil)
	if err != nil {
		return fmt.Errorf("asking for the sizes of partitions: %w", err)
	}
	offsets, held := kadm.Offsets{}, 0
	var topics []string
	for t := range places {
		topics = append(topics, t)
	}
	starts, err := r.admin.ListStartOffsets(ctx, topics...)
	if err != nil {
		return fmt.Errorf("asking where partitions begin: %w", err)
	}
	ends, err := r.admin.ListEndOffsets(ctx, topics...)
	if err != nil {
		return fmt.Errorf("asking where partitions end: %w", err)
	}
	dirs.Each(func(d kadm.DescribedLogDir) {
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) {
			place, known := places[p.Topic][p.Partition]
			start, began := starts.Lookup(p.Topic, p.Partition)
			end, ended := ends.Lookup(p.Topic, p.Partition)
			if !known || !began || !ended || start.Err != nil || end.Err != nil || p.Size <= r.bound {
				return
			}
			// In floating point: offsets times bytes are more than 64 bits hold.
			surplus := int64(float64(end.Offset-start.Offset)*float64(p.Size-r.bound)/float64(p.Size)) + 1
			to := start.Offset + surplus
			if to > place {
				to = place
				held++
			}
			if to > start.Offset {
				offsets.AddOffset(p.Topic, p.Partition, to, -1)
			}
		})
	})
	if held > 0 {
		r.log.Warn("partitions of the embedded log are larger than they should be, because what they hold was not dealt with yet", "partitions", held)
	}
	if len(offsets) == 0 {
		return nil
	}
	answers, err := r.admin.DeleteRecords(ctx, offsets)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		return fmt.Errorf("trimming partitions: %w", err)
	}
	return nil
}
