package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

const conversationColumns = "conversation_id, partition_id, max_seq, ordinal, max_recalled_seq, max_addressed_seq, max_mention_seq, " +
	"name, avatar_url, owner_id, history_visible, member_count, dissolved_seq, created_at, last_at, last_offset, high_at"

const memberColumns = "conversation_id, user_id, role, join_seq, left_seq, muted_until, nickname, changed_seq, changed_offset, read_seq, read_ordinal, read_offset"

const timelineColumns = "conversation_id, seq, ordinal, kind, message_id, sender_id, client_msg_id, body_hash, sent_at, msg_type, flags, changes, content, lists, reply_to, target_seq"

// insertedColumns are those of a new row. high_at serves SeqAt and is not read with a row.
const insertedColumns = timelineColumns + ", high_at"

const insertedCount = 17

// Positions implements timeline.Writer.
func (s *Store) Positions(ctx context.Context, partitions []int32) ([]timeline.Position, error) {
	byID := map[int32]timeline.Position{}
	args := make([]any, len(partitions))
	for i, p := range partitions {
		args[i] = p
	}
	if len(partitions) > 0 {
		err := s.query(ctx, "reading the timeline's positions",
			"SELECT partition_id, messages_next, inbound_next, rejected_next, highest_stamp, batch_from, marks_dirty FROM timeline_positions WHERE partition_id IN ("+placeholders(len(partitions))+")",
			args, func(r *sql.Rows) error {
				var p timeline.Position
				if err := r.Scan(&p.Partition, &p.MessagesNext, &p.InboundNext, &p.RejectedNext, &p.HighestStamp, &p.BatchFrom, &p.MarksDirty); err != nil {
					return err
				}
				byID[p.Partition] = p
				return nil
			})
		if err != nil {
			return nil, err
		}
	}
	out := make([]timeline.Position, len(partitions))
	for i, id := range partitions {
		out[i] = byID[id]
		out[i].Partition = id
	}
	return out, nil
}

// Apply implements timeline.Writer.
func (s *Store) Apply(ctx context.Context, from, to timeline.Position, entries []timeline.Entry) (timeline.Applied, error) {
	b := &batch{store: s, partition: from.Partition, entries: entries}
	err := s.inTx(ctx, "storing a batch of the timeline", func(ctx context.Context, tx *sql.Tx) error {
		*b = batch{store: s, partition: from.Partition, entries: entries, tx: tx}
		if err := b.movePosition(ctx, from, to); err != nil {
			return err
		}
		if len(entries) == 0 {
			return nil
		}
		return b.apply(ctx)
	})
	if err != nil {
		return timeline.Applied{}, err
	}
	return b.applied, nil
}

// batch is one call of Apply under way.
type batch struct {
	store     *Store
	tx        *sql.Tx
	partition int32
	entries   []timeline.Entry
	applied   timeline.Applied
	heads     map[chat.ConversationID]*timeline.Conversation
	order     []chat.ConversationID // of heads, as they came first
	// highs has the highest sent_at up to a row, for rows that were sent before one that has a lower number.
	highs map[Place]int64
	late  int // so many of the entries that are stored, the first ones, come after their successors
}

// movePosition is the first statement of the transaction: it fences, and it serialises writers of one partition.
func (b *batch) movePosition(ctx context.Context, from, to timeline.Position) error {
	n, err := execTx(ctx, b.tx, "moving the position",
		"UPDATE timeline_positions SET messages_next = ?, inbound_next = ?, rejected_next = ?, highest_stamp = ?, batch_from = ?, marks_dirty = ? WHERE partition_id = ? AND messages_next = ?",
		to.MessagesNext, to.InboundNext, to.RejectedNext, to.HighestStamp, to.BatchFrom, asInt(to.MarksDirty), from.Partition, from.MessagesNext)
	if err != nil || n == 1 {
		return err
	}
	if from.MessagesNext != 0 {
		return timeline.ErrFenced
	}
	_, err = execTx(ctx, b.tx, "making the position",
		"INSERT INTO timeline_positions (partition_id, messages_next, inbound_next, rejected_next, highest_stamp, batch_from, marks_dirty) VALUES (?, ?, ?, ?, ?, ?, ?)",
		from.Partition, to.MessagesNext, to.InboundNext, to.RejectedNext, to.HighestStamp, to.BatchFrom, asInt(to.MarksDirty))
	if b.store.dialect.duplicate(err) {
		return timeline.ErrFenced
	}
	return err
}

func (b *batch) apply(ctx context.Context) error {
	if err := b.loadHeads(ctx); err != nil {
		return err
	}
	fresh := make([]timeline.Entry, 0, len(b.entries))
	b.highs = map[Place]int64{}
	var late []timeline.Entry // at or below the head: of a batch that is repeated, or parked once and put back
	for _, e := range b.entries {
		if e.Passed {
			head := b.heads[e.Event.Conversation]
			before := head.MaxSeq
			if !head.Pass(&e, b.partition) {
				continue
			}
			b.applied.Holes += head.MaxSeq - before
			if joined := timeline.Joined(&e.Event, e.Offset, e.Event.Seq == 1); len(joined) > 0 { // a private conversation begins with it
				if err := b.insertMembers(ctx, joined); err != nil {
					return err
				}
			}
			continue
		}
		if n := len(e.Event.ClientMsgID); n > chat.MaxClientMsgIDBytes {
			// SQLite would take it; what one store can never take, no store does.
			return fmt.Errorf("%w: the client id of %s/%d has %d bytes", timeline.ErrUnstorable, e.Event.Conversation, e.Event.Seq, n)
		}
		head := b.heads[e.Event.Conversation]
		// A record that could not be read may have taken the number of an event that comes behind it: the event is what counts.
		instead := false
		if e.Event.Seq == head.MaxSeq && e.Offset > head.LastOffset {
			free, err := b.missing(ctx, []timeline.Entry{e})
			if err != nil {
				return err
			}
			if instead = len(free) > 0; !instead {
				continue // skipped, and counted as that
			}
			b.applied.Filled = append(b.applied.Filled, timeline.Filled{Conversation: head.ID, Seq: e.Event.Seq})
		}
		if e.Event.Seq <= head.MaxSeq && !instead {
			late = append(late, e)
			continue
		}
		b.applied.Holes += e.Event.Seq - head.MaxSeq - 1
		fresh = append(fresh, e)
		if head.HighAt > e.Event.SentAt {
			b.highs[Place{e.Event.Conversation, e.Event.Seq}] = head.HighAt
		}
		head.Advance(&e.Event, b.partition, e.Offset)
	}
	late, err := b.missing(ctx, late)
	if err != nil {
		return err
	}
	for i := range late {
		e, head := &late[i].Event, b.heads[late[i].Event.Conversation]
		b.applied.Filled = append(b.applied.Filled, timeline.Filled{Conversation: e.Conversation, Seq: e.Seq})
		if e.Seq == head.MaxSeq && late[i].Offset == head.LastOffset { // the head passed its number, and nothing came since
			head.Advance(e, b.partition, late[i].Offset)
			continue
		}
		head.FillIn(e)
	}
	slices.SortStableFunc(late, func(x, y timeline.Entry) int { return cmp.Compare(x.Event.Seq, y.Event.Seq) })
	b.late = len(late)
	fresh = append(late, fresh...)
	if len(fresh) == 0 {
		return b.saveHeads(ctx)
	}
	if err := b.insertRows(ctx, fresh); err != nil {
		return err
	}
	for i := range fresh[:b.late] {
		if err := b.fillTimes(ctx, &fresh[i].Event); err != nil {
			return err
		}
	}
	if err := b.changeMembers(ctx, fresh); err != nil {
		return err
	}
	if err := b.insertMeant(ctx, fresh); err != nil {
		return err
	}
	if err := b.catchUp(ctx, fresh[:b.late]); err != nil {
		return err
	}
	if err := b.changeTargets(ctx, fresh); err != nil {
		return err
	}
	if err := b.raiseSenders(ctx, fresh); err != nil {
		return err
	}
	return b.saveHeads(ctx)
}

// missing gives those of some entries whose rows are not there, and counts the others as skipped.
func (b *batch) missing(ctx context.Context, entries []timeline.Entry) ([]timeline.Entry, error) {
	type key struct {
		c   chat.ConversationID
		seq int64
	}
	there := map[key]bool{}
	err := chunks(entries, maxTerms, func(part []timeline.Entry) error {
		where, args := wherePairs(part, "seq", func(e timeline.Entry) (chat.ConversationID, int64) { return e.Event.Conversation, e.Event.Seq })
		return queryOn(ctx, b.tx, "looking for rows that are there", "SELECT conversation_id, seq FROM timeline WHERE "+where, args, func(r *sql.Rows) error {
			var id []byte
			var k key
			if err := r.Scan(&id, &k.seq); err != nil {
				return err
			}
			var err error
			k.c, err = chat.ConversationIDFromBytes(id)
			there[k] = true
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	var out []timeline.Entry
	for _, e := range entries {
		k := key{e.Event.Conversation, e.Event.Seq}
		if there[k] {
			b.applied.Skipped++
			continue
		}
		there[k] = true // once is enough, should a batch have it twice
		out = append(out, e)
	}
	return out, nil
}

func (b *batch) loadHeads(ctx context.Context) error {
	b.heads = map[chat.ConversationID]*timeline.Conversation{}
	for i := range b.entries {
		id := b.entries[i].Event.Conversation
		if b.heads[id] == nil {
			b.heads[id] = &timeline.Conversation{ID: id}
			b.order = append(b.order, id)
		}
	}
	return chunks(b.order, maxTerms, func(ids []chat.ConversationID) error {
		return queryOn(ctx, b.tx, "reading the heads of conversations",
			"SELECT "+conversationColumns+" FROM conversations WHERE conversation_id IN ("+placeholders(len(ids))+")", idArgs(ids),
			func(r *sql.Rows) error {
				c, err := scanConversation(r)
				if err == nil {
					*b.heads[c.ID] = c
				}
				return err
			})
	})
}

func (b *batch) insertRows(ctx context.Context, entries []timeline.Entry) error {
	return heavyChunks(entries, 250, rowBytes, func(part []timeline.Entry) error {
		args := make([]any, 0, insertedCount*len(part))
		for i := range part {
			row := timeline.RowOf(&part[i].Event)
			args = b.appendRow(args, &row)
		}
		_, err := execTx(ctx, b.tx, "inserting rows", "INSERT INTO timeline ("+insertedColumns+") VALUES "+rowsOf(len(part), insertedCount), args...)
		if err == nil || !b.store.dialect.duplicate(err) {
			return err
		}
		// A failed statement leaves nothing behind; one of the rows has a twin, and that is rare enough to look at each.
		for i := range part {
			if err := b.insertRow(ctx, &part[i].Event); err != nil {
				return err
			}
		}
		return nil
	})
}

// fillTimes keeps high_at exact around a row that was stored after rows with higher numbers. Of several such rows the
// lower number comes first.
func (b *batch) fillTimes(ctx context.Context, e *chat.Event) error {
	c := e.Conversation.Bytes()
	var before int64
	err := queryOn(ctx, b.tx, "reading the time before a row",
		"SELECT COALESCE(high_at, sent_at) FROM timeline WHERE conversation_id = ? AND seq < ? ORDER BY seq DESC LIMIT 1",
		[]any{c, e.Seq}, func(r *sql.Rows) error { return r.Scan(&before) })
	if err != nil {
		return err
	}
	if before > e.SentAt {
		_, err = execTx(ctx, b.tx, "noting the time before a row", "UPDATE timeline SET high_at = ? WHERE conversation_id = ? AND seq = ?", before, c, e.Seq)
		return err
	}
	_, err = execTx(ctx, b.tx, "raising the times after a row",
		"UPDATE timeline SET high_at = ? WHERE conversation_id = ? AND seq > ? AND COALESCE(high_at, sent_at) < ?", e.SentAt, c, e.Seq, e.SentAt)
	return err
}

// rowBytes tells about how much a row weighs in a statement.
func rowBytes(e *timeline.Entry) int {
	const ids = 256 // numbers, ids and the hash, written out
	if m := e.Event.Message; m != nil {
		n := ids + len(m.Content) + 10*len(m.Recipients)
		if m.Mentions != nil {
			n += 10 * len(m.Mentions.UserIDs)
		}
		return n
	}
	return ids + len(timeline.RowOf(&e.Event).Content)
}

// insertRow inserts one row; where its client id is taken, as a tombstone that points at the first.
func (b *batch) insertRow(ctx context.Context, e *chat.Event) error {
	const insert = "INSERT INTO timeline (" + insertedColumns + ") VALUES "
	row := timeline.RowOf(e)
	_, err := execTx(ctx, b.tx, "inserting a row", insert+rowsOf(1, insertedCount), b.appendRow(nil, &row)...)
	if err == nil || !b.store.dialect.duplicate(err) {
		return err
	}
	var first int64
	err = queryOn(ctx, b.tx, "looking for the first of two twins",
		"SELECT seq FROM timeline WHERE conversation_id = ? AND sender_id = ? AND client_msg_id = ?",
		[]any{e.Conversation.Bytes(), int64(e.Sender), packClientID(e.ClientMsgID)}, func(r *sql.Rows) error { return r.Scan(&first) })
	if err != nil {
		return err
	}
	if first == 0 || first == e.Seq {
		return fmt.Errorf("%w: %s/%d is there already, and the conversation's head does not know it", timeline.ErrUnstorable, e.Conversation, e.Seq)
	}
	row.Tombstone, row.TargetSeq, row.ClientMsgID = true, first, ""
	row.Content, row.Mentions, row.Recipients, row.Receipt, row.ReplyTo = nil, nil, nil, false, 0
	if _, err := execTx(ctx, b.tx, "inserting a tombstone", insert+rowsOf(1, insertedCount), b.appendRow(nil, &row)...); err != nil {
		return err
	}
	b.applied.Twins = append(b.applied.Twins, timeline.Twin{Conversation: e.Conversation, Seq: e.Seq, First: first})
	if e.Countable() {
		return b.markRecalled(ctx, e.Conversation, e.Seq) // its ordinal was given: unread must not count it
	}
	return nil
}

func (b *batch) markRecalled(ctx context.Context, c chat.ConversationID, seq int64) error {
	_, err := execTx(ctx, b.tx, "noting a recalled message", "INSERT INTO recalled (conversation_id, seq) VALUES (?, ?)", c.Bytes(), seq)
	if b.store.dialect.duplicate(err) {
		return nil
	}
	head := b.heads[c]
	head.MaxRecalledSeq = max(head.MaxRecalledSeq, seq)
	return err
}

func (b *batch) appendRow(args []any, r *timeline.Row) []any {
	flags := 0
	if r.Receipt {
		flags |= flagReceipt
	}
	if r.Tombstone {
		flags |= flagTombstone
	}
	var clientID, content, lists any
	if r.ClientMsgID != "" {
		clientID = packClientID(r.ClientMsgID)
	}
	if r.Content != nil {
		content = string(r.Content)
	}
	if l := packLists(r.Mentions, r.Recipients); l != nil {
		lists = l
	}
	return append(args, r.Conversation.Bytes(), r.Seq, r.Ordinal, int(r.Kind), r.MessageID, int64(r.Sender), clientID, r.BodyHash[:], r.SentAt,
		typeNumbers[r.Type], flags, int(r.Changes), content, lists, null(r.ReplyTo), null(r.TargetSeq), null(b.highs[Place{r.Conversation, r.Seq}]))
}

func (b *batch) saveHeads(ctx context.Context) error {
	d := b.store.dialect
	tail := d.upsert("conversation_id",
		"max_seq", "ordinal", "max_recalled_seq", "max_addressed_seq", "max_mention_seq", "name", "avatar_url", "owner_id",
		"history_visible", "member_count", "dissolved_seq", "last_at", "last_offset", "high_at")
	// What was passed over without a number of its own begins no conversation.
	begun := slices.DeleteFunc(slices.Clone(b.order), func(id chat.ConversationID) bool { return b.heads[id].MaxSeq == 0 })
	return chunks(begun, maxTerms, func(ids []chat.ConversationID) error {
		args := make([]any, 0, 17*len(ids))
		for _, id := range ids {
			c := b.heads[id]
			b.applied.Heads = append(b.applied.Heads, *c)
			args = append(args, c.ID.Bytes(), c.Partition, c.MaxSeq, c.Ordinal, c.MaxRecalledSeq, c.MaxAddressedSeq, c.MaxMentionSeq,
				c.Name, c.AvatarURL, int64(c.Owner), asInt(c.HistoryVisible), c.MemberCount, c.DissolvedSeq, c.CreatedAt, c.LastAt, c.LastOffset, c.HighAt)
		}
		_, err := execTx(ctx, b.tx, "saving the heads of conversations", "INSERT INTO conversations ("+conversationColumns+") VALUES "+rowsOf(len(ids), 17)+tail, args...)
		return err
	})
}

func asInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func idArgs(ids []chat.ConversationID) []any {
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id.Bytes()
	}
	return args
}

func userArgs(ids []chat.UserID) []any {
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = int64(id)
	}
	return args
}
