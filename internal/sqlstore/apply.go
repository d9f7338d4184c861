package sqlstore

import (
	"context"
	"database/sql"
	"fmt"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

const conversationColumns = "conversation_id, partition_id, max_seq, ordinal, max_recalled_seq, max_addressed_seq, max_mention_seq, " +
	"name, avatar_url, owner_id, history_visible, member_count, dissolved_seq, created_at, last_at, last_offset"

const memberColumns = "conversation_id, user_id, role, join_seq, left_seq, muted_until, nickname, changed_seq, changed_offset, read_seq, read_ordinal, read_offset"

const timelineColumns = "conversation_id, seq, ordinal, kind, message_id, sender_id, client_msg_id, body_hash, sent_at, msg_type, flags, changes, content, lists, reply_to, target_seq"

// Positions implements timeline.Writer.
func (s *Store) Positions(ctx context.Context, partitions []int32) ([]timeline.Position, error) {
	byID := map[int32]timeline.Position{}
	args := make([]any, len(partitions))
	for i, p := range partitions {
		args[i] = p
	}
	if len(partitions) > 0 {
		err := s.query(ctx, "reading the timeline's positions",
			"SELECT partition_id, messages_next, inbound_next, rejected_next, highest_stamp, batch_from, marks_dirty FROM timeline_positions WHERE partition_id IN ("+marks(len(partitions))+")",
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
	fresh := b.entries[:0:0]
	for _, e := range b.entries {
		head := b.heads[e.Event.Conversation]
		switch {
		case e.Event.Seq <= head.MaxSeq:
			b.applied.Skipped++ // of a batch that is repeated; the numbers below the head are all there
		case e.Event.Seq != head.MaxSeq+1:
			return fmt.Errorf("%w: %s is at %d and the next event is %d", timeline.ErrUnstorable, e.Event.Conversation, head.MaxSeq, e.Event.Seq)
		default:
			fresh = append(fresh, e)
			head.Advance(&e.Event, b.partition, e.Offset)
		}
	}
	if err := b.insertRows(ctx, fresh); err != nil {
		return err
	}
	if err := b.changeMembers(ctx, fresh); err != nil {
		return err
	}
	if err := b.insertMeant(ctx, fresh); err != nil {
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
			"SELECT "+conversationColumns+" FROM conversations WHERE conversation_id IN ("+marks(len(ids))+")", idArgs(ids),
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
	return chunks(entries, 250, func(part []timeline.Entry) error {
		args := make([]any, 0, 16*len(part))
		for i := range part {
			row := timeline.RowOf(&part[i].Event)
			args = appendRow(args, &row)
		}
		_, err := execTx(ctx, b.tx, "inserting rows", "INSERT INTO timeline ("+timelineColumns+") VALUES "+rowsOf(len(part), 16), args...)
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

// insertRow inserts one row; where its client id is taken, as a tombstone that points at the first.
func (b *batch) insertRow(ctx context.Context, e *chat.Event) error {
	const insert = "INSERT INTO timeline (" + timelineColumns + ") VALUES "
	row := timeline.RowOf(e)
	_, err := execTx(ctx, b.tx, "inserting a row", insert+rowsOf(1, 16), appendRow(nil, &row)...)
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
		return fmt.Errorf("%w: %s/%d is there already, above the conversation's head", timeline.ErrUnstorable, e.Conversation, e.Seq)
	}
	row.Tombstone, row.TargetSeq, row.ClientMsgID = true, first, ""
	row.Content, row.Mentions, row.Recipients, row.Receipt, row.ReplyTo = nil, nil, nil, false, 0
	if _, err := execTx(ctx, b.tx, "inserting a tombstone", insert+rowsOf(1, 16), appendRow(nil, &row)...); err != nil {
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

func appendRow(args []any, r *timeline.Row) []any {
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
		typeNumbers[r.Type], flags, int(r.Changes), content, lists, null(r.ReplyTo), null(r.TargetSeq))
}

// changeMembers applies joins, leaves, roles, mutes and nicknames in order.
func (b *batch) changeMembers(ctx context.Context, entries []timeline.Entry) error {
	for i := range entries {
		e, offset := &entries[i].Event, entries[i].Offset
		if joined := timeline.Joined(e, offset, e.Seq == 1); len(joined) > 0 {
			if err := b.insertMembers(ctx, joined); err != nil {
				return err
			}
		}
		c := e.Conversation.Bytes()
		change := func(what, set string, users []chat.UserID, values ...any) error {
			return chunks(users, maxTerms, func(part []chat.UserID) error {
				args := append(append([]any{}, values...), e.Seq, offset, c)
				_, err := execTx(ctx, b.tx, what, "UPDATE members SET "+set+", changed_seq = ?, changed_offset = ? WHERE conversation_id = ? AND user_id IN ("+marks(len(part))+")",
					append(args, userArgs(part)...)...)
				return err
			})
		}
		var err error
		switch e.Kind {
		case chat.KindLeave:
			err = change("ending memberships", "left_seq = ?, role = 1, muted_until = 0", e.Leave.Users, e.Seq)
		case chat.KindRole:
			if e.Role.Role == chat.RoleOwner {
				if err = change("making the owner an admin", "role = ?", []chat.UserID{e.Sender}, roleNumbers[chat.RoleAdmin]); err != nil {
					return err
				}
			}
			err = change("giving a role", "role = ?", []chat.UserID{e.Role.User}, roleNumbers[e.Role.Role])
		case chat.KindMute:
			err = change("muting", "muted_until = ?", []chat.UserID{e.Mute.User}, e.Mute.Until)
		case chat.KindNickname:
			err = change("naming a member", "nickname = ?", []chat.UserID{e.Nickname.User}, e.Nickname.Nickname)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) insertMembers(ctx context.Context, members []timeline.Member) error {
	d := b.store.dialect
	// Who comes back begins anew: nothing of the former membership stays.
	tail := d.upsert("conversation_id, user_id",
		[]string{"role", "join_seq", "left_seq", "muted_until", "nickname", "changed_seq", "changed_offset", "read_offset"}, []string{"read_seq", "read_ordinal"})
	return chunks(members, maxTerms, func(part []timeline.Member) error {
		args := make([]any, 0, 12*len(part))
		for _, m := range part {
			args = append(args, m.Conversation.Bytes(), int64(m.User), roleNumbers[m.Role], m.JoinSeq, m.LeftSeq, m.MutedUntil, m.Nickname,
				m.ChangedSeq, m.ChangedOffset, m.ReadSeq, m.ReadOrdinal, m.ReadOffset)
		}
		_, err := execTx(ctx, b.tx, "beginning memberships", "INSERT INTO members ("+memberColumns+") VALUES "+rowsOf(len(part), 12)+tail, args...)
		return err
	})
}

// raiseSenders raises the mark of everybody who spoke to the last thing they said. Only rows of members are touched.
func (b *batch) raiseSenders(ctx context.Context, entries []timeline.Entry) error {
	type mark struct{ seq, ordinal int64 }
	last := map[timeline.MemberKey]mark{}
	var keys []timeline.MemberKey
	for i := range entries {
		if e := &entries[i].Event; e.Kind == chat.KindMessage {
			k := timeline.MemberKey{Conversation: e.Conversation, User: e.Sender}
			if _, there := last[k]; !there {
				keys = append(keys, k)
			}
			last[k] = mark{e.Seq, e.Ordinal}
		}
	}
	tail := b.store.dialect.upsert("conversation_id, user_id", nil, []string{"read_seq", "read_ordinal"})
	return chunks(keys, maxTerms, func(part []timeline.MemberKey) error {
		args := make([]any, 0, 12*len(part))
		for _, k := range part {
			m := last[k]
			// A sender is always a member, so that only the update happens; should it ever not be, it does not become one.
			args = append(args, k.Conversation.Bytes(), int64(k.User), 1, m.seq, m.seq, 0, "", 0, 0, m.seq, m.ordinal, -1)
		}
		_, err := execTx(ctx, b.tx, "raising the senders' marks", "INSERT INTO members ("+memberColumns+") VALUES "+rowsOf(len(part), 12)+tail, args...)
		return err
	})
}

// insertMeant writes the rows of mentions and addressees.
func (b *batch) insertMeant(ctx context.Context, entries []timeline.Entry) error {
	var mentions, addressed []any
	twin := map[timeline.MemberKey]bool{}
	for _, t := range b.applied.Twins {
		twin[timeline.MemberKey{Conversation: t.Conversation, User: chat.UserID(t.Seq)}] = true
	}
	for i := range entries {
		e := &entries[i].Event
		if e.Kind != chat.KindMessage || twin[timeline.MemberKey{Conversation: e.Conversation, User: chat.UserID(e.Seq)}] {
			continue
		}
		c := e.Conversation.Bytes()
		for _, u := range timeline.Meant(e) {
			mentions = append(mentions, int64(u), c, e.Seq, int64(e.Sender))
		}
		for _, u := range e.Message.Recipients {
			if u != e.Sender {
				addressed = append(addressed, int64(u), c, e.Seq)
			}
		}
	}
	err := chunks(mentions, 4*maxTerms, func(args []any) error {
		_, err := execTx(ctx, b.tx, "inserting mentions", "INSERT INTO mentions (user_id, conversation_id, seq, sender_id) VALUES "+rowsOf(len(args)/4, 4), args...)
		return err
	})
	if err != nil {
		return err
	}
	return chunks(addressed, 3*maxTerms, func(args []any) error {
		_, err := execTx(ctx, b.tx, "inserting addressees", "INSERT INTO addressed (user_id, conversation_id, seq) VALUES "+rowsOf(len(args)/3, 3), args...)
		return err
	})
}

// changeTargets applies edits and recalls to the rows that they aim at.
func (b *batch) changeTargets(ctx context.Context, entries []timeline.Entry) error {
	for i := range entries {
		e := &entries[i].Event
		c := e.Conversation.Bytes()
		switch e.Kind {
		case chat.KindEdit:
			n, err := execTx(ctx, b.tx, "editing a message",
				"UPDATE timeline SET content = ?, edited_at = ?, changes = changes + 1 WHERE conversation_id = ? AND seq = ? AND recalled_at IS NULL",
				string(e.Edit.Content), e.SentAt, c, e.Edit.TargetSeq)
			if err != nil {
				return err
			}
			if n == 0 {
				b.applied.MissingTargets++
			}
		case chat.KindRecall:
			if err := b.recall(ctx, e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *batch) recall(ctx context.Context, e *chat.Event) error {
	c, target := e.Conversation.Bytes(), e.Recall.TargetSeq
	var lists []byte
	var kind, found int
	err := queryOn(ctx, b.tx, "reading the row to recall", "SELECT kind, lists FROM timeline WHERE conversation_id = ? AND seq = ?", []any{c, target},
		func(r *sql.Rows) error { found++; return r.Scan(&kind, &lists) })
	if err != nil {
		return err
	}
	if found == 0 {
		b.applied.MissingTargets++
		return nil
	}
	mentioned, recipients, err := unpackLists(lists)
	if err != nil {
		return err
	}
	// Recipients stay: they say who may see that something was taken back.
	var kept any
	if l := packLists(nil, recipients); l != nil {
		kept = l
	}
	_, err = execTx(ctx, b.tx, "recalling a message",
		"UPDATE timeline SET content = NULL, lists = ?, recalled_at = ?, recalled_by = ?, changes = changes + 1 WHERE conversation_id = ? AND seq = ?",
		kept, e.SentAt, int64(e.Sender), c, target)
	if err != nil {
		return err
	}
	if mentioned != nil {
		users := append([]chat.UserID{0}, mentioned.UserIDs...)
		users = append(users, recipients...)
		if _, err = execTx(ctx, b.tx, "removing mentions", "DELETE FROM mentions WHERE conversation_id = ? AND seq = ? AND user_id IN ("+marks(len(users))+")",
			append([]any{c, target}, userArgs(users)...)...); err != nil {
			return err
		}
	}
	if len(recipients) > 0 {
		_, err = execTx(ctx, b.tx, "removing addressees", "DELETE FROM addressed WHERE conversation_id = ? AND seq = ? AND user_id IN ("+marks(len(recipients))+")",
			append([]any{c, target}, userArgs(recipients)...)...)
		return err
	}
	if chat.Kind(kind) == chat.KindMessage {
		return b.markRecalled(ctx, e.Conversation, target)
	}
	return nil
}

func (b *batch) saveHeads(ctx context.Context) error {
	d := b.store.dialect
	tail := d.upsert("conversation_id", []string{
		"max_seq", "ordinal", "max_recalled_seq", "max_addressed_seq", "max_mention_seq", "name", "avatar_url", "owner_id",
		"history_visible", "member_count", "dissolved_seq", "last_at", "last_offset",
	}, nil)
	return chunks(b.order, maxTerms, func(ids []chat.ConversationID) error {
		args := make([]any, 0, 16*len(ids))
		for _, id := range ids {
			c := b.heads[id]
			b.applied.Heads = append(b.applied.Heads, *c)
			args = append(args, c.ID.Bytes(), c.Partition, c.MaxSeq, c.Ordinal, c.MaxRecalledSeq, c.MaxAddressedSeq, c.MaxMentionSeq,
				c.Name, c.AvatarURL, int64(c.Owner), asInt(c.HistoryVisible), c.MemberCount, c.DissolvedSeq, c.CreatedAt, c.LastAt, c.LastOffset)
		}
		_, err := execTx(ctx, b.tx, "saving the heads of conversations", "INSERT INTO conversations ("+conversationColumns+") VALUES "+rowsOf(len(ids), 16)+tail, args...)
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
