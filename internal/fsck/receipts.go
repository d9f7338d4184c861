package fsck

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// receipts looks whether the store has the read marks that it has passed.
func (c *Checker) receipts(ctx context.Context, p int32) error {
	b, err := c.boundsOf(ctx, kafka.TopicReceipts, p)
	if err != nil {
		return err
	}
	highest := map[timeline.MemberKey]placedMark{}
	flush := func() error {
		list := highest
		highest = map[timeline.MemberKey]placedMark{}
		return c.settle(ctx, func(ctx context.Context, f *found) error { return c.marksOf(ctx, p, list, f) })
	}
	f := newFound()
	err = c.retained(ctx, kafka.TopicReceipts, p, b, func(rec *kgo.Record) error {
		at := atOffset(rec.Topic, rec.Partition, rec.Offset)
		f.count(checkReceipts, 1)
		m, err := wire.DecodeReadMark(rec.Value)
		switch {
		case err != nil:
			f.breach(checkReceipts, at, "%v", err)
			return nil
		case string(rec.Key) != m.User.String() || chat.Partition(m.User.String(), int32(c.options.Partitions)) != p:
			f.breach(checkReceipts, at, "it is of user %s, its key is %q, and the user belongs in partition %d", m.User, rec.Key, chat.Partition(m.User.String(), int32(c.options.Partitions)))
			return nil
		}
		if only := c.options.Conversation; !only.IsZero() && m.Conversation != only {
			return nil
		}
		k := timeline.MemberKey{Conversation: m.Conversation, User: m.User}
		if old, there := highest[k]; !there || m.Seq > old.seq {
			highest[k] = placedMark{m.Seq, rec.Offset}
		}
		if len(highest) < pageRows {
			return nil
		}
		c.say("log: im.receipts/%d at %d of %d", p, rec.Offset, b.End)
		return flush()
	})
	c.note(f)
	if err != nil {
		return err
	}
	return flush()
}

type placedMark struct{ seq, offset int64 }

// marksOf looks whether the store has marks that stand before its position. Who was no member when the mark was stored
// has none; who joined again since has one at the join, which is behind it.
func (c *Checker) marksOf(ctx context.Context, p int32, marks map[timeline.MemberKey]placedMark, f *found) error {
	if len(marks) == 0 {
		return nil
	}
	at, err := c.store.MarkPositions(ctx, []int32{p})
	if err != nil {
		return err
	}
	keys := make([]timeline.MemberKey, 0, len(marks))
	for k := range marks {
		keys = append(keys, k)
	}
	members, err := c.store.Members(ctx, keys)
	if err != nil {
		return err
	}
	heads, err := c.store.Conversations(ctx, conversationsOfMembers(members))
	if err != nil {
		return err
	}
	end := make(map[chat.ConversationID]int64, len(heads))
	for i := range heads {
		end[heads[i].ID] = heads[i].MaxSeq
	}
	for i := range members {
		m := &members[i]
		mark := marks[timeline.MemberKey{Conversation: m.Conversation, User: m.User}]
		if mark.offset < at[p] && m.Present() && m.ReadSeq < min(mark.seq, end[m.Conversation]) {
			place := atOffset(kafka.TopicReceipts, p, mark.offset)
			place.Conversation, place.User = m.Conversation.String(), m.User.String()
			f.breach(checkReceipts, place, "the mark is at number %d, and the store has %d", mark.seq, m.ReadSeq)
		}
	}
	return nil
}

func conversationsOfMembers(members []timeline.Member) []chat.ConversationID {
	seen := map[chat.ConversationID]bool{}
	var ids []chat.ConversationID
	for i := range members {
		if id := members[i].Conversation; !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids
}
