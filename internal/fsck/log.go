package fsck

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// readPartition is what was found out about a partition by reading im.messages.
type readPartition struct {
	bounds  Bounds
	inbound spans // offsets that became events
	next    int64 // of im.inbound: everything before it has its outcome
	refused spans // offsets that were refused or moved
	last    int64 // offset of the last record; -1 where there is none
}

// lookAtLog goes through the partitions one after the other.
func (c *Checker) lookAtLog(ctx context.Context) error {
	if err := c.settle(ctx, c.positions); err != nil {
		return err
	}
	for _, p := range c.partitions {
		if only := c.options.Conversation; !only.IsZero() && chat.Partition(only.String(), int32(c.options.Partitions)) != p {
			continue
		}
		if err := c.logOf(ctx, p); err != nil {
			return fmt.Errorf("partition %d: %w", p, err)
		}
	}
	if !c.options.Conversation.IsZero() {
		return nil
	}
	if c.options.AtRest {
		if err := c.rest(ctx); err != nil {
			return err
		}
	}
	return nil
}

// logOf looks at one partition of every topic. The order of the bounds is what makes the answers certain: a rejection
// before early names an event before the end of im.messages, and what has become of an inbound record before next was
// written to im.rejected before the end that is asked for last.
func (c *Checker) logOf(ctx context.Context, p int32) error {
	inbound, err := c.boundsOf(ctx, kafka.TopicInbound, p)
	if err != nil {
		return err
	}
	early, err := c.boundsOf(ctx, kafka.TopicRejected, p)
	if err != nil {
		return err
	}
	messages, err := c.boundsOf(ctx, kafka.TopicMessages, p)
	if err != nil {
		return err
	}
	late, err := c.boundsOf(ctx, kafka.TopicRejected, p)
	if err != nil {
		return err
	}
	v := &readPartition{bounds: messages, last: -1}
	if err := c.messages(ctx, p, v); err != nil {
		return err
	}
	if err := c.rejected(ctx, p, v, early.End, late); err != nil {
		return err
	}
	if c.options.Conversation.IsZero() {
		if err := c.outcomes(ctx, p, v, inbound, late); err != nil {
			return err
		}
	}
	return c.receipts(ctx, p)
}

func (c *Checker) boundsOf(ctx context.Context, topic string, p int32) (Bounds, error) {
	all, err := c.logs.Bounds(ctx, topic)
	return all[p], err
}

// retained reads what a partition retains up to an end. Retention may be faster than the reader before it has begun.
func (c *Checker) retained(ctx context.Context, topic string, p int32, b Bounds, each func(*kgo.Record) error) error {
	began := false
	for {
		err := c.logs.Read(ctx, topic, p, b.Start, b.End, func(r *kgo.Record) error { began = true; return each(r) })
		if !errors.Is(err, kafka.ErrTruncated) || began {
			return err
		}
		now, err := c.boundsOf(ctx, topic, p)
		if err != nil {
			return err
		}
		if b.Start = now.Start; b.Start >= b.End {
			return nil
		}
	}
}

// positions looks whether every position lies within its log. Positions are read first, so that an end that is read later
// is behind them.
func (c *Checker) positions(ctx context.Context, f *found) error {
	at, err := c.stand(ctx)
	if err != nil {
		return err
	}
	stored, err := c.store.Positions(ctx, c.partitions)
	if err != nil {
		return err
	}
	for _, p := range stored {
		at[writer{"rejections", kafka.TopicRejected, p.Partition}] = max(at[writer{"rejections", kafka.TopicRejected, p.Partition}], p.RejectedNext)
	}
	bounds := map[string]map[int32]Bounds{}
	for _, topic := range []string{kafka.TopicInbound, kafka.TopicMessages, kafka.TopicRejected, kafka.TopicReceipts} {
		if bounds[topic], err = c.logs.Bounds(ctx, topic); err != nil {
			return err
		}
	}
	for w, next := range at {
		b := bounds[w.topic][w.partition]
		f.count(checkPositions, 1)
		if next > b.End {
			f.breach(checkPositions, atOffset(w.topic, w.partition, next), "the position of %s is behind the log's end, which is %d", w.who, b.End)
		}
		// Marks and rejections go on where retention was faster, and numbering is told by its output.
		if next < b.Start && (w.who == "timeline" || w.who == "archive" && w.topic == kafka.TopicMessages) {
			f.breach(checkPositions, atOffset(w.topic, w.partition, next), "the position of %s is before the log's beginning, which is %d: what lies between is lost to it", w.who, b.Start)
		}
	}
	return nil
}

// rest looks whether anything was left undone.
func (c *Checker) rest(ctx context.Context) error {
	at, err := c.stand(ctx)
	if err != nil {
		return err
	}
	f := newFound()
	for w, next := range at {
		b, err := c.boundsOf(ctx, w.topic, w.partition)
		if err != nil {
			return err
		}
		first, err := c.firstRecord(ctx, w.topic, w.partition, max(next, b.Start), b.End)
		if err != nil {
			return err
		}
		f.count(checkRest, 1)
		if first >= 0 {
			f.breach(checkRest, atOffset(w.topic, w.partition, first), "%s has not come to this record: it stands at %d", w.who, next)
		}
	}
	if c.archive != nil && !c.skipped(PartArchive) {
		for _, p := range c.partitions {
			for _, topic := range []string{kafka.TopicMessages, kafka.TopicReceipts} {
				v, err := c.store.ArchivePosition(ctx, topic, p)
				if err != nil {
					return err
				}
				if v.IntentTo > v.Next {
					f.breach(checkRest, atOffset(topic, p, v.Next), "the archive has noted its intent up to %d and not done it", v.IntentTo)
				}
			}
		}
	}
	c.note(f)
	return nil
}

// stored tells whether the store has everything of a partition that was read.
func (c *Checker) stored(ctx context.Context, p int32, v *readPartition) (bool, error) {
	at, err := c.store.Positions(ctx, []int32{p})
	if err != nil {
		return false, err
	}
	return at[0].MessagesNext > v.last, nil
}

func (c *Checker) isParked(e *timeline.Entry, partition int32) bool {
	return c.parkedAt[chat.Position{Partition: partition, Offset: e.Offset}] || c.parked[sqlstore.Place{Conversation: e.Event.Conversation, Seq: e.Event.Seq}]
}
