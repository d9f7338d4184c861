package fsck

import (
	"bytes"
	"context"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// reader goes through one partition of im.messages.
type reader struct {
	*Checker
	p       int32
	v       *readPartition
	f       *found // of the log alone, which does not change
	last    map[chat.ConversationID]number
	batch   []timeline.Entry
	inbound int64 // of the last event; -1 before the first
	// Edits that their rows did not carry when they were looked at: a later one may come over them.
	unseen map[sqlstore.Place]timeline.Entry
}

// number is where a conversation is. Where loose, its record could not be read: only the number is known.
type number struct {
	seq, ordinal int64
	loose        bool
}

// messages looks at im.messages by itself, and compares it with the store.
func (c *Checker) messages(ctx context.Context, p int32, v *readPartition) error {
	m := &reader{Checker: c, p: p, v: v, f: newFound(), last: map[chat.ConversationID]number{}, inbound: -1, unseen: map[sqlstore.Place]timeline.Entry{}}
	err := c.retained(ctx, kafka.TopicMessages, p, v.bounds, func(r *kgo.Record) error {
		m.record(r)
		if len(m.batch) < pageRows {
			return nil
		}
		c.say("log: im.messages/%d at %d of %d", p, r.Offset, v.bounds.End)
		return m.flush(ctx)
	})
	if err == nil {
		err = m.flush(ctx)
	}
	if err == nil {
		err = m.lastEdits(ctx)
	}
	c.note(m.f)
	return err
}

// record looks at a record by itself and after those before it.
func (m *reader) record(r *kgo.Record) {
	at := atOffset(r.Topic, r.Partition, r.Offset)
	m.v.last = r.Offset
	e, err := wire.DecodeEvent(r.Value)
	m.f.count(checkLogForm, 1)
	if err != nil {
		if !m.parkedAt[chat.Position{Partition: m.p, Offset: r.Offset}] {
			m.f.breach(checkLogForm, at, "%v", err)
		}
		if id, seq, ok := kafka.Outside(r, m.options.Partitions); ok { // its number counts as used where it is the next
			if before, seen := m.last[id]; seen && seq == before.seq+1 || !seen && seq == 1 {
				m.last[id] = number{seq, before.ordinal, true}
			}
		}
		return
	}
	m.f.count(checkLogInbound, 1)
	if e.InboundOffset <= m.inbound {
		m.f.breach(checkLogInbound, at, "it is of the inbound record %d, the one before of %d", e.InboundOffset, m.inbound)
	}
	m.inbound = max(m.inbound, e.InboundOffset)
	m.v.next = max(m.v.next, e.InboundOffset+1)
	if e.Kind == chat.KindProgress {
		if kind := kafka.Header(r, kafka.HeaderKind); e.Seq != 0 || !e.Conversation.IsZero() || kafka.Header(r, kafka.HeaderSeq) != "" || kind != e.Kind.String() {
			m.f.breach(checkLogForm, at, "a note of progress carries a number (%d), a conversation, or the kind %q", e.Seq, kind)
		}
		return
	}
	m.v.inbound.add(e.InboundOffset)
	if only := m.options.Conversation; !only.IsZero() && e.Conversation != only {
		return
	}
	at.Conversation, at.Seq = e.Conversation.String(), e.Seq
	m.form(r, &e, at)
	before, seen := m.last[e.Conversation]
	m.f.count(checkLogOrder, 1)
	if before.loose && e.Seq == before.seq { // numbered by an owner that had not seen the record
		before.seq--
	}
	switch {
	case seen && e.Seq != before.seq+1, !seen && m.v.bounds.Start == 0 && e.Seq != 1, e.Seq < 1:
		m.f.breach(checkLogOrder, at, "number %d follows %d", e.Seq, before.seq)
	case seen && !before.loose && e.Ordinal != before.ordinal+one(e.Countable()), e.Seq == 1 && e.Ordinal != one(e.Countable()):
		m.f.breach(checkLogOrder, at, "its ordinal is %d after %d", e.Ordinal, before.ordinal)
	}
	m.last[e.Conversation] = number{e.Seq, e.Ordinal, false}
	m.batch = append(m.batch, timeline.Entry{Offset: r.Offset, Event: e}) // of an unknown kind, too: it has a row or is parked
}

func (m *reader) form(r *kgo.Record, e *chat.Event, at Place) {
	for _, v := range []struct{ what, outside, inside string }{
		{"key", string(r.Key), e.Conversation.String()},
		{"header kind", kafka.Header(r, kafka.HeaderKind), e.Kind.String()},
		{"header seq", kafka.Header(r, kafka.HeaderSeq), strconv.FormatInt(e.Seq, 10)},
		{"header client_msg_id", kafka.Header(r, kafka.HeaderClientMsgID), e.ClientMsgID},
		{"header producer", kafka.Header(r, kafka.HeaderProducer), e.Producer},
	} {
		if v.outside != v.inside && (e.Kind.String() != "unknown" || v.what != "header kind") {
			m.f.breach(checkLogForm, at, "the %s is %q, and the event says %q", v.what, v.outside, v.inside)
			return
		}
	}
	if home := chat.Partition(e.Conversation.String(), int32(m.options.Partitions)); home != r.Partition {
		m.f.breach(checkLogForm, at, "the conversation belongs in partition %d", home)
	}
}

// flush compares what was read with the store.
func (m *reader) flush(ctx context.Context) error {
	m.note(m.f)
	batch := m.batch
	m.batch = nil
	if len(batch) == 0 {
		return nil
	}
	places := make([]sqlstore.Place, 0, len(batch))
	for i := range batch {
		e := &batch[i].Event
		places = append(places, sqlstore.Place{Conversation: e.Conversation, Seq: e.Seq})
		if n := e.TargetSeq(); n > 0 {
			places = append(places, sqlstore.Place{Conversation: e.Conversation, Seq: n})
		}
	}
	return m.settle(ctx, func(ctx context.Context, f *found) error {
		before, err := m.store.Positions(ctx, []int32{m.p})
		if err != nil {
			return err
		}
		rows, err := m.store.RowsAt(ctx, places)
		if err != nil {
			return err
		}
		after, err := m.store.Positions(ctx, []int32{m.p})
		if err != nil {
			return err
		}
		for i := range batch {
			m.compare(&batch[i], rows, before[0].MessagesNext, after[0].MessagesNext, f)
		}
		return nil
	})
}

// compare looks whether the store has an event: it must where the position before the rows were read is past it, and must
// not where the one after is not.
func (m *reader) compare(entry *timeline.Entry, rows map[sqlstore.Place]timeline.Row, before, after int64, f *found) {
	e := &entry.Event
	at := atOffset(kafka.TopicMessages, m.p, entry.Offset)
	at.Conversation, at.Seq = e.Conversation.String(), e.Seq
	f.count(checkLogStore, 1)
	row, there := rows[sqlstore.Place{Conversation: e.Conversation, Seq: e.Seq}]
	switch {
	case !there && entry.Offset < before && !m.isParked(entry, m.p):
		f.breach(checkLogStore, at, "the store stands at %d, and has no row", before)
	case there && entry.Offset >= after:
		f.breach(checkLogStore, at, "the store stands at %d, and has the row", after)
	case there && e.Kind.IsKnown():
		if what := differs(e, &row); what != "" {
			f.breach(checkLogStore, at, "the row has another %s", what)
		}
	}
	if e.TargetSeq() == 0 || !there {
		return
	}
	f.count(checkLogChanges, 1)
	place := sqlstore.Place{Conversation: e.Conversation, Seq: e.TargetSeq()}
	target, found := rows[place]
	switch {
	case !found: // said of the message itself, unless it is not retained any more
		if !m.parked[place] && m.v.bounds.Start > 0 {
			f.breach(checkLogChanges, at, "there is no row of number %d, which it aims at", place.Seq)
		}
	case e.Kind == chat.KindRecall:
		if target.RecalledAt != e.SentAt || target.RecalledBy != e.Sender || target.Content != nil {
			f.breach(checkLogChanges, at, "the row of number %d is not recalled by it", place.Seq)
		}
	case target.RecalledAt > 0 || target.EditedAt == e.SentAt && bytes.Equal(target.Content, e.Edit.Content):
		delete(m.unseen, place)
	default:
		m.unseen[place] = *entry
	}
}

// differs tells what of a row is not what its event says, "" where all is.
func differs(e *chat.Event, row *timeline.Row) string {
	want := timeline.RowOf(e)
	switch {
	case row.MessageID != want.MessageID:
		return "message_id"
	case row.Kind != want.Kind:
		return "kind"
	case row.Sender != want.Sender:
		return "sender_id"
	case row.Ordinal != want.Ordinal:
		return "ordinal"
	case row.SentAt != want.SentAt:
		return "sent_at"
	case row.BodyHash != want.BodyHash:
		return "body_hash"
	case row.Tombstone:
		return "" // its content is its first's
	case row.ClientMsgID != want.ClientMsgID:
		return "client_msg_id"
	case row.Type != want.Type:
		return "msg_type"
	case row.ReplyTo != want.ReplyTo:
		return "reply_to"
	case row.TargetSeq != want.TargetSeq:
		return "target_seq"
	case row.Receipt != want.Receipt:
		return "flags"
	case !slices.Equal(row.Recipients, want.Recipients):
		return "recipients"
	case row.RecalledAt > 0:
		return "" // checked by what recalled it
	case !sameMentions(row.Mentions, want.Mentions):
		return "mentions"
	case row.EditedAt == 0 && !bytes.Equal(row.Content, want.Content):
		return "content"
	}
	return ""
}

func sameMentions(a, b *chat.Mentions) bool {
	none := func(m *chat.Mentions) bool { return m == nil || !m.All && len(m.UserIDs) == 0 }
	if none(a) || none(b) {
		return none(a) && none(b)
	}
	return a.All == b.All && slices.Equal(a.UserIDs, b.UserIDs)
}

// lastEdits looks again at edits that no later one of the log has come over.
func (m *reader) lastEdits(ctx context.Context) error {
	entries := make([]timeline.Entry, 0, len(m.unseen))
	for _, e := range m.unseen {
		entries = append(entries, e)
	}
	for part := range slices.Chunk(entries, pageRows) {
		places := make([]sqlstore.Place, len(part))
		for i := range part {
			places[i] = sqlstore.Place{Conversation: part[i].Event.Conversation, Seq: part[i].Event.TargetSeq()}
		}
		err := m.settle(ctx, func(ctx context.Context, f *found) error {
			rows, err := m.store.RowsAt(ctx, places)
			if err != nil {
				return err
			}
			heads, err := m.store.Conversations(ctx, conversationsOf(places))
			if err != nil {
				return err
			}
			end := map[chat.ConversationID]int64{}
			for i := range heads {
				end[heads[i].ID] = heads[i].MaxSeq
			}
			for i := range part {
				e := &part[i].Event
				row, there := rows[places[i]]
				switch {
				case !there || row.RecalledAt > 0 || row.EditedAt == e.SentAt && bytes.Equal(row.Content, e.Edit.Content):
				case end[e.Conversation] > m.last[e.Conversation].seq: // an edit behind what was read may have come over it
					f.undecided[checkLogChanges]++
				default:
					at := atOffset(kafka.TopicMessages, m.p, part[i].Offset)
					at.Conversation, at.Seq = e.Conversation.String(), e.Seq
					f.breach(checkLogChanges, at, "the row of number %d does not carry the edit", e.Edit.TargetSeq)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func conversationsOf(places []sqlstore.Place) []chat.ConversationID {
	var ids []chat.ConversationID
	for _, p := range places {
		if !slices.Contains(ids, p.Conversation) {
			ids = append(ids, p.Conversation)
		}
	}
	return ids
}
