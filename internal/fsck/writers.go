package fsck

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
)

// writer is somebody who follows one partition of a topic.
type writer struct {
	who, topic string
	partition  int32
}

// stand tells the next offset of each writer.
func (c *Checker) stand(ctx context.Context) (map[writer]int64, error) {
	at := map[writer]int64{}
	list, err := c.store.Positions(ctx, c.partitions)
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		at[writer{"timeline", kafka.TopicMessages, p.Partition}] = p.MessagesNext
		at[writer{"numbering", kafka.TopicInbound, p.Partition}] = p.InboundNext
	}
	receipts, err := c.store.MarkPositions(ctx, c.partitions)
	if err != nil {
		return nil, err
	}
	rejected, err := c.store.RejectionPositions(ctx, c.partitions)
	if err != nil {
		return nil, err
	}
	for _, p := range c.partitions {
		at[writer{"marks", kafka.TopicReceipts, p}] = receipts[p]
		at[writer{"rejections", kafka.TopicRejected, p}] = rejected[p]
		if c.archive == nil || c.skipped(PartArchive) {
			continue
		}
		for _, topic := range []string{kafka.TopicMessages, kafka.TopicReceipts} {
			v, err := c.store.ArchivePosition(ctx, topic, p)
			if err != nil {
				return nil, err
			}
			at[writer{"archive", topic, p}] = v.Next
		}
	}
	return at, nil
}

func (c *Checker) skipped(part string) bool {
	_, skipped := c.options.Skip[part]
	return skipped
}

// writersPass waits until every writer has passed what stands in the logs now. It gives up when nothing has moved for a
// while, because the writers are stopped, or when the patience ends; at rest only the latter, because a writer that was
// killed has a successor after the session time-out.
func (c *Checker) writersPass(ctx context.Context, patience time.Duration) error {
	ends := map[string]map[int32]Bounds{}
	if c.logs != nil && !c.skipped(PartLog) {
		for _, topic := range []string{kafka.TopicInbound, kafka.TopicMessages, kafka.TopicReceipts, kafka.TopicRejected} {
			bounds, err := c.logs.Bounds(ctx, topic)
			if err != nil {
				return err
			}
			ends[topic] = bounds
		}
	}
	began, moved := time.Now(), time.Now()
	var last map[writer]int64
	quiet := map[writer]int64{} // nothing lies between this offset and the end
	tick := time.NewTicker(standstill / 10)
	defer tick.Stop()
	for {
		at, err := c.stand(ctx)
		if err != nil {
			return err
		}
		if !maps.Equal(at, last) {
			last, moved = at, time.Now()
		}
		behind := len(ends) == 0
		for w, next := range at {
			b, known := ends[w.topic][w.partition]
			if !known || next >= b.End {
				continue
			}
			if from, silent := quiet[w]; silent && from <= next {
				continue
			}
			behind = true
			// The last offsets of a log may be markers, which move nobody.
			if time.Since(moved) < standstill/4 {
				continue
			}
			first, err := c.firstRecord(ctx, w.topic, w.partition, max(next, b.Start), b.End)
			if err != nil {
				return err
			}
			if first < 0 {
				quiet[w] = next
			}
		}
		if !behind || time.Since(began) > patience || !c.options.AtRest && time.Since(moved) > standstill {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

var errOne = errors.New("one is enough")

// firstRecord gives the offset of the first record of a range, or -1 where there is none.
func (c *Checker) firstRecord(ctx context.Context, topic string, partition int32, from, to int64) (int64, error) {
	first := int64(-1)
	err := c.logs.Read(ctx, topic, partition, from, to, func(r *kgo.Record) error { first = r.Offset; return errOne })
	if err != nil && !errors.Is(err, errOne) {
		return -1, err
	}
	return first, nil
}
