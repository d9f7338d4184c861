package fsck

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// repeat is a refusal that names the event which came first.
type repeat struct {
	offset int64
	r      chat.Rejection
}

// rejected looks at im.rejected. Rejections before early name events that were in the part of im.messages that was read.
func (c *Checker) rejected(ctx context.Context, p int32, v *readPartition, early int64, b Bounds) error {
	f := newFound()
	var repeats []repeat
	err := c.retained(ctx, kafka.TopicRejected, p, b, func(rec *kgo.Record) error {
		at := atOffset(rec.Topic, rec.Partition, rec.Offset)
		f.count(checkRejected, 1)
		r, err := wire.DecodeRejection(rec.Value)
		switch {
		case err != nil:
			f.breach(checkRejected, at, "%v", err)
			return nil
		case r.Inbound.Partition != p:
			f.breach(checkRejected, at, "it refuses a record of im.inbound/%d", r.Inbound.Partition)
			return nil
		case v.inbound.overlaps(stretch(&r)):
			f.breach(checkRejected, at, "it refuses im.inbound/%d at %d, which became an event", p, r.Inbound.Offset)
		case v.refused.addSpan(stretch(&r)):
			f.breach(checkRejected, at, "it refuses im.inbound/%d at %d, which was refused before", p, r.Inbound.Offset)
		}
		if !r.Conversation.IsZero() && string(rec.Key) != r.Conversation.String() {
			f.breach(checkRejected, at, "its key is %q, and it is of %s", rec.Key, r.Conversation)
		}
		if home := chat.Partition(r.Conversation.String(), int32(c.options.Partitions)); r.Code == chat.CodeMoved && r.MovedTo != home {
			f.breach(checkRejected, at, "the record was moved to partition %d, and belongs in %d", r.MovedTo, home)
		}
		if r.First == nil || rec.Offset >= early {
			return nil
		}
		if only := c.options.Conversation; !only.IsZero() && r.Conversation != only {
			return nil
		}
		r.Record = nil
		if repeats = append(repeats, repeat{rec.Offset, r}); len(repeats) < pageRows {
			return nil
		}
		c.say("log: im.rejected/%d at %d of %d", p, rec.Offset, b.End)
		list := repeats
		repeats = nil
		return c.firsts(ctx, p, v, list)
	})
	c.note(f)
	if err != nil {
		return err
	}
	return c.firsts(ctx, p, v, repeats)
}

// stretch returns the offsets of im.inbound that a rejection is of.
func stretch(r *chat.Rejection) span {
	return span{r.Inbound.Offset, max(r.Inbound.Offset, r.InboundLast) + 1}
}

// firsts looks whether what repeats name is there.
func (c *Checker) firsts(ctx context.Context, p int32, v *readPartition, list []repeat) error {
	if len(list) == 0 {
		return nil
	}
	places := make([]sqlstore.Place, len(list))
	for i := range list {
		places[i] = sqlstore.Place{Conversation: list[i].r.Conversation, Seq: list[i].r.First.Seq}
	}
	return c.settle(ctx, func(ctx context.Context, f *found) error {
		all, err := c.stored(ctx, p, v)
		if err != nil {
			return err
		}
		rows, err := c.store.RowsAt(ctx, places)
		if err != nil {
			return err
		}
		for i := range list {
			r := &list[i].r
			at := atOffset(kafka.TopicRejected, p, list[i].offset)
			at.Conversation, at.Seq = r.Conversation.String(), r.First.Seq
			f.count(checkDuplicates, 1)
			row, there := rows[places[i]]
			switch {
			case !there && !all && !c.parked[places[i]]:
				f.undecided[checkDuplicates]++
			case !there && !c.parked[places[i]]:
				f.breach(checkDuplicates, at, "the event that it repeats does not exist")
			case there && (row.MessageID != r.First.MessageID || row.Sender != r.Sender || row.ClientMsgID != r.ClientMsgID && !row.Tombstone):
				f.breach(checkDuplicates, at, "the event that it repeats is another one")
			}
		}
		return nil
	})
}

// outcomes looks whether every inbound record that was dealt with became something. What became of records before the
// first outcome that is retained cannot be known any more.
func (c *Checker) outcomes(ctx context.Context, p int32, v *readPartition, inbound, rejected Bounds) error {
	next := v.next
	if v.last < 0 { // nothing is retained
		at, err := c.store.Positions(ctx, []int32{p})
		if err != nil {
			return err
		}
		if v.bounds.Start > 0 {
			next = at[0].InboundNext
		}
	}
	floor := inbound.Start
	oldest := func(s *spans, start int64) {
		if start == 0 {
			return
		}
		if first, any := s.first(); any {
			floor = max(floor, first)
		} else {
			floor = max(floor, next)
		}
	}
	oldest(&v.inbound, v.bounds.Start)
	oldest(&v.refused, rejected.Start)
	to := min(next, inbound.End)
	if c.options.AtRest {
		to = inbound.End
	}
	f := newFound()
	err := c.retained(ctx, kafka.TopicInbound, p, Bounds{floor, to}, func(r *kgo.Record) error {
		f.count(checkOutcomes, 1)
		if d := kafka.DamageOf(r); d != nil {
			if !v.refused.has(d.First) || !v.refused.has(d.Last) {
				f.breach(checkOutcomes, atOffset(r.Topic, r.Partition, r.Offset), "offsets %d to %d cannot be read, and were not refused: %s", d.First, d.Last, d.Why)
			}
			return nil
		}
		if !v.inbound.has(r.Offset) && !v.refused.has(r.Offset) {
			f.breach(checkOutcomes, atOffset(r.Topic, r.Partition, r.Offset), "it became no event and was not refused; the log is dealt with up to %d", next)
		}
		c.say("log: im.inbound/%d at %d of %d", p, r.Offset, to)
		return nil
	})
	c.note(f)
	return err
}
