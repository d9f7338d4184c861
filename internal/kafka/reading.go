package kafka

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// begin tells from where to read a partition of which everything before an offset was dealt with.
//
// A log that begins behind that offset has lost what was needed, with one exception that can be proved: where every record
// is written in a transaction, the last offset of what is settled is a marker. If the log is empty, and one offset before
// its end is missing, that marker is all that is missing. Such places were stored by versions that did not count markers.
func (c *Config) begin(topic string, partition int32, from, start, end int64) (int64, error) {
	switch {
	case from > end:
		return 0, fmt.Errorf("reading %s/%d from %d, which ends at %d: the log lost records that were acknowledged, or is another one", topic, partition, from, end)
	case from >= start:
		return from, nil
	case !c.Plain && (topic == TopicMessages || topic == TopicRejected) && start == end && from == end-1:
		return end, nil
	}
	return 0, fmt.Errorf("reading %s/%d from %d, which begins at %d: %w", topic, partition, from, start, ErrTruncated)
}

// Bounds gives the offset of the first record of a partition and the one after its last committed record.
//
// While a transaction is open or being settled the committed end lies before the end. Whoever must know the last record
// fences the writer off first, which is answered only when its transactions are settled.
func Bounds(ctx context.Context, cfg Config, clientID string, log *slog.Logger, topic string, partition int32) (start, end int64, err error) {
	cl, err := cfg.NewAdmin(clientID, log)
	if err != nil {
		return 0, 0, err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	one := func(list kadm.ListedOffsets, err error) (int64, error) {
		if err != nil {
			return 0, fmt.Errorf("asking for the bounds of %s/%d: %w", topic, partition, err)
		}
		o, ok := list.Lookup(topic, partition)
		if !ok {
			return 0, fmt.Errorf("asking for the bounds of %s/%d: no such partition", topic, partition)
		}
		if o.Err != nil {
			return 0, fmt.Errorf("asking for the bounds of %s/%d: %w", topic, partition, o.Err)
		}
		return o.Offset, nil
	}
	if start, err = one(adm.ListStartOffsets(ctx, topic)); err != nil {
		return 0, 0, err
	}
	if end, err = one(adm.ListCommittedOffsets(ctx, topic)); err != nil {
		return 0, 0, err
	}
	return start, end, nil
}

// ReadToEnd gives every committed record of a partition from an offset to the end that the log has when it is called.
// It returns that end, ErrTruncated where the log begins after from, and ErrDamaged where records cannot be read. The writer
// of the partition must be fenced off, or be the caller.
func ReadToEnd(ctx context.Context, cfg Config, clientID string, log *slog.Logger, topic string, partition int32, from int64, each func(*kgo.Record) error) (int64, error) {
	return readToEnd(ctx, &Partition{Topic: topic, ID: partition, cfg: cfg, id: clientID, log: log}, from, each)
}

// ReadOverDamage is ReadToEnd for those that can go on behind what cannot be read: such a stretch is given as a record, see
// DamageOf.
func ReadOverDamage(ctx context.Context, cfg Config, clientID string, log *slog.Logger, topic string, partition int32, from int64, each func(*kgo.Record) error) (int64, error) {
	return readToEnd(ctx, &Partition{Topic: topic, ID: partition, cfg: cfg, id: clientID, log: log, StepOver: true}, from, each)
}

// readAtOnce is how many records are taken from a fetch at once.
const readAtOnce = 1000

func readToEnd(ctx context.Context, p *Partition, from int64, each func(*kgo.Record) error) (int64, error) {
	start, end, err := Bounds(ctx, p.cfg, p.id, p.log, p.Topic, p.ID)
	if err != nil {
		return 0, err
	}
	if from, err = p.cfg.begin(p.Topic, p.ID, from, start, end); err != nil {
		return 0, err
	}
	if from == end {
		return end, nil
	}
	p.next, p.end = from, end
	if err := p.open(); err != nil {
		return 0, err
	}
	defer p.close()
	for p.next < end {
		room := pollBytes
		records, err := p.fetch(ctx, readAtOnce, &room)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return 0, fmt.Errorf("reading %s/%d to its end: %w", p.Topic, p.ID, err)
		}
		for _, r := range records {
			if r.Offset >= end {
				return end, nil
			}
			if err := each(r); err != nil {
				return 0, err
			}
		}
	}
	return end, nil
}
