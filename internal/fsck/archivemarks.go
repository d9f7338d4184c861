package fsck

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// archiveMarks compares the marks of a partition with what im.receipts retains of them, up to where the archive is.
func (c *Checker) archiveMarks(ctx context.Context, p int32) error {
	v, err := c.store.ArchivePosition(ctx, kafka.TopicReceipts, p)
	if err != nil {
		return err
	}
	b, err := c.boundsOf(ctx, kafka.TopicReceipts, p)
	if err != nil {
		return err
	}
	end := min(v.Next, b.End)
	from := b.Start
	want := map[int64]chat.ReadMark{}
	flush := func(to int64) error {
		low, list := from, want
		from, want = to, map[int64]chat.ReadMark{}
		return c.settle(ctx, func(ctx context.Context, f *found) error { return c.archiveMarksOf(ctx, p, low, to, list, f) })
	}
	began := false
	err = c.retained(ctx, kafka.TopicReceipts, p, Bounds{b.Start, end}, func(r *kgo.Record) error {
		if !began { // retention may have removed more since
			began, from = true, r.Offset
		}
		if m, err := wire.DecodeReadMark(r.Value); err == nil {
			want[r.Offset] = m
		}
		if len(want) < pageRows {
			return nil
		}
		c.say("archive: read marks of partition %d at %d of %d", p, r.Offset, end)
		return flush(r.Offset + 1)
	})
	if err != nil {
		return err
	}
	if from < end {
		if err := flush(end); err != nil {
			return err
		}
	}
	return c.settle(ctx, func(ctx context.Context, f *found) error {
		list, err := c.archive.Marks(ctx, p, end, 1<<62, listed)
		if err != nil {
			return err
		}
		now, err := c.store.ArchivePosition(ctx, kafka.TopicReceipts, p)
		if err != nil {
			return err
		}
		for i := range list {
			if list[i].Offset >= max(now.Next, now.IntentTo) {
				f.breach(checkArchiveMarks, atOffset(kafka.TopicReceipts, p, list[i].Offset), "the archive stands at %d, and has a row", max(now.Next, now.IntentTo))
			}
		}
		return nil
	})
}

func (c *Checker) archiveMarksOf(ctx context.Context, p int32, from, to int64, want map[int64]chat.ReadMark, f *found) error {
	list, err := c.archive.Marks(ctx, p, from, to, 2*len(want)+listed)
	if err != nil {
		return err
	}
	f.count(checkArchiveMarks, len(want))
	times := map[int64]int{}
	for i := range list {
		m := &list[i]
		at := atOffset(kafka.TopicReceipts, p, m.Offset)
		w, there := want[m.Offset]
		switch times[m.Offset]++; {
		case !there:
			f.breach(checkArchiveMarks, at, "the archive has a row, and there is no such record")
		case times[m.Offset] == 2:
			f.breach(checkArchiveMarks, at, "the archive has more than one row")
		case m.UserID != int64(w.User) || m.ConversationID != w.Conversation.String() || m.Seq != w.Seq:
			f.breach(checkArchiveMarks, at, "the archive says that user %d read %s up to %d, the record is of user %s, %s, %d", m.UserID, m.ConversationID, m.Seq, w.User, w.Conversation, w.Seq)
		}
	}
	for offset := range want {
		if times[offset] == 0 {
			f.breach(checkArchiveMarks, atOffset(kafka.TopicReceipts, p, offset), "the archive has passed the record and has no row")
		}
	}
	return nil
}
