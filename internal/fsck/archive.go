package fsck

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/archive"
	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// archived is how far the archive was when the look at it began.
type archived struct {
	next map[int32]int64
	// first has, for conversations with events that were not archived yet, the number of the first of them.
	first map[chat.ConversationID]int64
	known bool // first is
}

// lookAtArchive compares the archive with the store, and its marks with im.receipts.
func (c *Checker) lookAtArchive(ctx context.Context) error {
	at, err := c.archivedUpTo(ctx)
	if err != nil {
		return err
	}
	look := func(id chat.ConversationID) error {
		err := c.settle(ctx, func(ctx context.Context, f *found) error { return c.archiveOf(ctx, id, at, f) })
		if err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
		return nil
	}
	if only := c.options.Conversation; !only.IsZero() {
		return look(only)
	}
	err = c.eachHead(ctx, func(page []timeline.Conversation) error {
		for i := range page {
			if err := look(page[i].ID); err != nil {
				return err
			}
			c.say("archive: %d rows, up to conversation %s", c.results[checkArchiveRows].Looked, page[i].ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.archiveUnknown(ctx); err != nil {
		return err
	}
	for _, p := range c.partitions {
		if err := c.settle(ctx, func(ctx context.Context, f *found) error { return c.archiveBehind(ctx, p, f) }); err != nil {
			return err
		}
	}
	if c.logs == nil || c.skipped(PartLog) {
		c.unlooked = append(c.unlooked, Unlooked{PartArchive, "read marks are compared with the log, which is not looked at", true})
		return nil
	}
	for _, p := range c.partitions {
		if err := c.archiveMarks(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// archivedUpTo notes where the archive stands, and what lies between that and the end of the log.
func (c *Checker) archivedUpTo(ctx context.Context) (archived, error) {
	at := archived{next: map[int32]int64{}, first: map[chat.ConversationID]int64{}, known: c.logs != nil && !c.skipped(PartLog)}
	for _, p := range c.partitions {
		v, err := c.store.ArchivePosition(ctx, kafka.TopicMessages, p)
		if err != nil {
			return at, err
		}
		at.next[p] = v.Next
		if !at.known {
			continue
		}
		b, err := c.boundsOf(ctx, kafka.TopicMessages, p)
		if err != nil {
			return at, err
		}
		err = c.retained(ctx, kafka.TopicMessages, p, Bounds{max(v.Next, b.Start), b.End}, func(r *kgo.Record) error {
			if e, err := wire.DecodeEvent(r.Value); err == nil && e.Kind.IsCommanded() && at.first[e.Conversation] == 0 {
				at.first[e.Conversation] = e.Seq
			}
			return nil
		})
		if err != nil {
			return at, err
		}
	}
	return at, nil
}

// archiveOf compares what the archive has of a conversation with the rows of the store.
func (c *Checker) archiveOf(ctx context.Context, id chat.ConversationID, at archived, f *found) error {
	head, err := c.headOf(ctx, id)
	if err != nil {
		return err
	}
	upTo := head.MaxSeq // everything up to here has to be there
	if head.LastOffset >= at.next[head.Partition] {
		upTo = 0
		if first := at.first[id]; first > 0 {
			upTo = first - 1
		}
		if !at.known {
			f.undecided[checkArchiveRows]++
		}
	}
	for from := int64(1); from <= head.MaxSeq; from += pageRows {
		to := min(from+pageRows-1, head.MaxSeq)
		rows, err := c.store.Rows(ctx, id, from, to)
		if err != nil {
			return err
		}
		list, err := c.archive.Stored(ctx, id.String(), from, to)
		if err != nil {
			return err
		}
		ahead, err := c.archiveAhead(ctx, head.Partition)
		if err != nil {
			return err
		}
		times := map[int64]int{}
		by := make(map[int64]*archive.Message, len(list))
		for i := range list {
			times[list[i].Seq]++
			by[list[i].Seq] = &list[i]
		}
		f.count(checkArchiveRows, len(list))
		f.count(checkArchiveContent, len(list))
		for i := range rows {
			r := &rows[i]
			switch n := times[r.Seq]; {
			case n == 0 && r.Seq <= upTo:
				f.breach(checkArchiveRows, inArchive(id, r.Seq), "the archive has passed the number and has no row")
			case n > 1:
				f.breach(checkArchiveRows, inArchive(id, r.Seq), "it has %d rows", n)
			case n == 1:
				what, mayMove := unlike(by[r.Seq], r)
				switch {
				case what == "":
				case mayMove && (upTo < head.MaxSeq || ahead):
					f.undecided[checkArchiveContent]++
				default:
					f.breach(checkArchiveContent, inArchive(id, r.Seq), "%s", what)
				}
			}
		}
	}
	// What the store does not have yet is in the archive where the store's writer is behind.
	outside, err := c.archive.Outside(ctx, id.String(), 1, head.MaxSeq, listed)
	if err != nil {
		return err
	}
	now, err := c.headOf(ctx, id)
	if err != nil {
		return err
	}
	stored, err := c.store.Positions(ctx, []int32{head.Partition})
	if err != nil {
		return err
	}
	for i := range outside {
		m := &outside[i]
		if (m.Seq < 1 || m.Seq > now.MaxSeq) && (m.Offset < stored[0].MessagesNext || m.Seq < 1) {
			f.breach(checkArchiveRows, inArchive(id, m.Seq), "the archive has the number, and the conversation ends at %d", now.MaxSeq)
		}
	}
	return nil
}

func inArchive(id chat.ConversationID, seq int64) Place {
	return Place{Table: "clickhouse messages", Conversation: id.String(), Seq: seq}
}

// archiveAhead tells whether the archive has come further than the store.
func (c *Checker) archiveAhead(ctx context.Context, p int32) (bool, error) {
	v, err := c.store.ArchivePosition(ctx, kafka.TopicMessages, p)
	if err != nil {
		return false, err
	}
	stored, err := c.store.Positions(ctx, []int32{p})
	if err != nil {
		return false, err
	}
	return max(v.Next, v.IntentTo) > stored[0].MessagesNext, nil
}

// unlike tells what of a row of the archive is not as the store has it; mayMove tells that an edit or a recall that one of
// them has not come to yet may be the reason.
func unlike(m *archive.Message, r *timeline.Row) (what string, mayMove bool) {
	kept := m.Text != "" || m.Content != "" || len(m.Mentions) > 0
	switch {
	case m.Recalled && kept:
		return "it was recalled, and content or mentions are still there", false
	case m.Kind != r.Kind.String():
		return fmt.Sprintf("its kind is %s, in the store %s", m.Kind, r.Kind), false
	case m.SenderID != int64(r.Sender):
		return fmt.Sprintf("its sender is %d, in the store %d", m.SenderID, r.Sender), false
	case !m.SentAt.IsZero() && m.SentAt.UnixMilli() != r.SentAt:
		return fmt.Sprintf("it was sent at %d, in the store at %d", m.SentAt.UnixMilli(), r.SentAt), false
	case r.Tombstone: // the store keeps no more of it
		return "", false
	case m.ClientMsgID != r.ClientMsgID:
		return fmt.Sprintf("its client id is %q, in the store %q", m.ClientMsgID, r.ClientMsgID), false
	case m.Type != string(r.Type) || m.TargetSeq != r.TargetSeq:
		return "its type or target is another one than in the store", false
	case !slices.EqualFunc(m.Recipients, r.Recipients, func(a int64, b chat.UserID) bool { return a == int64(b) }):
		return "its recipients are others than in the store", false
	case m.Recalled != (r.RecalledAt > 0):
		return fmt.Sprintf("that it was recalled is %v, in the store %v", m.Recalled, r.RecalledAt > 0), true
	case m.Recalled:
		return "", false
	case m.Content != string(r.Content) || m.Text != textOf(r):
		return "its content is another one than in the store", true
	}
	return "", false
}

func textOf(r *timeline.Row) string {
	var c struct {
		Text string `json:"text"`
	}
	if r.Type == chat.TypeText {
		_ = json.Unmarshal(r.Content, &c) // what is no JSON is no text
	}
	return c.Text
}

// archiveUnknown looks for conversations that the store does not know.
func (c *Checker) archiveUnknown(ctx context.Context) error {
	after := ""
	for {
		page, err := c.archive.ConversationsAfter(ctx, after, pageRows)
		if err != nil || len(page) == 0 {
			return err
		}
		after = page[len(page)-1]
		if err := c.settle(ctx, func(ctx context.Context, f *found) error { return c.unknownOf(ctx, page, f) }); err != nil {
			return err
		}
	}
}

func (c *Checker) unknownOf(ctx context.Context, page []string, f *found) error {
	f.count(checkArchiveRows, len(page))
	ids := make([]chat.ConversationID, 0, len(page))
	for _, text := range page {
		id, err := chat.ParseConversationID(text)
		if err != nil {
			f.breach(checkArchiveRows, Place{Table: "clickhouse messages", Conversation: text}, "there are rows, and this is no conversation")
			continue
		}
		ids = append(ids, id)
	}
	heads, err := c.store.Conversations(ctx, ids)
	if err != nil {
		return err
	}
	there := make(map[chat.ConversationID]bool, len(heads))
	for i := range heads {
		there[heads[i].ID] = true
	}
	for _, id := range ids {
		if there[id] {
			continue
		}
		first, err := c.archive.Outside(ctx, id.String(), 1, 0, 1)
		if err != nil {
			return err
		}
		stored, err := c.store.Positions(ctx, []int32{chat.Partition(id.String(), int32(c.options.Partitions))})
		if err != nil {
			return err
		}
		if len(first) > 0 && first[0].Offset < stored[0].MessagesNext {
			f.breach(checkArchiveRows, Place{Table: "clickhouse messages", Conversation: id.String()}, "there are rows, and the store has no such conversation")
		}
	}
	return nil
}

// archiveBehind looks for rows of records that the archiver has not even begun with. The position is read after them.
func (c *Checker) archiveBehind(ctx context.Context, p int32, f *found) error {
	v, err := c.store.ArchivePosition(ctx, kafka.TopicMessages, p)
	if err != nil {
		return err
	}
	list, err := c.archive.Behind(ctx, p, max(v.Next, v.IntentTo), listed)
	if err != nil {
		return err
	}
	if v, err = c.store.ArchivePosition(ctx, kafka.TopicMessages, p); err != nil {
		return err
	}
	f.count(checkArchiveRows, len(list))
	for i := range list {
		if m := &list[i]; m.Offset >= max(v.Next, v.IntentTo) {
			at := atOffset(kafka.TopicMessages, p, m.Offset)
			at.Table, at.Conversation, at.Seq = "clickhouse messages", m.ConversationID, m.Seq
			f.breach(checkArchiveRows, at, "the archive stands at %d", max(v.Next, v.IntentTo))
		}
	}
	return nil
}
