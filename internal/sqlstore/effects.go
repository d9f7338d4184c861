package sqlstore

import (
	"context"
	"database/sql"
	"slices"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

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
				args := append(append([]any{}, values...), e.Seq, offset, c, e.Seq)
				_, err := execTx(ctx, b.tx, what, "UPDATE members SET "+set+", changed_seq = ?, changed_offset = ? WHERE conversation_id = ? AND changed_seq <= ? AND user_id IN ("+placeholders(len(part))+")",
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
	// Who comes back begins anew: nothing of the former membership stays. A row that a newer event changed is left alone:
	// the join was parked and is put back. The column that the condition looks at must come last.
	newer := func(column string) string {
		return column + " = CASE WHEN " + d.incoming("changed_seq") + " >= changed_seq THEN " + d.incoming(column) + " ELSE " + column + " END"
	}
	tail := d.onDuplicate("conversation_id, user_id", newer("role"), newer("join_seq"), newer("left_seq"), newer("muted_until"), newer("nickname"),
		newer("changed_offset"), newer("read_offset"), d.raised("read_seq"), d.raised("read_ordinal"), newer("changed_seq"))
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
			if e.Seq > last[k].seq {
				last[k] = mark{e.Seq, e.Ordinal}
			}
		}
	}
	slices.SortFunc(keys, compareKeys) // the order in which all writers of marks take the rows
	d := b.store.dialect
	tail := d.onDuplicate("conversation_id, user_id", d.raised("read_seq"), d.raised("read_ordinal"))
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
			statement := "UPDATE timeline SET content = ?, edited_at = ?, changes = changes + 1 WHERE conversation_id = ? AND seq = ? AND recalled_at IS NULL"
			args := []any{string(e.Edit.Content), e.SentAt, c, e.Edit.TargetSeq}
			if i < b.late { // a newer edit may stand already
				statement, args = statement+" AND (edited_at IS NULL OR edited_at <= ?)", append(args, e.SentAt)
			}
			n, err := execTx(ctx, b.tx, "editing a message", statement, args...)
			if err != nil {
				return err
			}
			if n == 0 {
				b.applied.MissingTargets++
				if err := b.keepEdit(ctx, e); err != nil {
					return err
				}
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
		return b.dropEdits(ctx, e.Conversation, target)
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
		if _, err = execTx(ctx, b.tx, "removing mentions", "DELETE FROM mentions WHERE conversation_id = ? AND seq = ? AND user_id IN ("+placeholders(len(users))+")",
			append([]any{c, target}, userArgs(users)...)...); err != nil {
			return err
		}
	}
	if len(recipients) > 0 {
		_, err = execTx(ctx, b.tx, "removing addressees", "DELETE FROM addressed WHERE conversation_id = ? AND seq = ? AND user_id IN ("+placeholders(len(recipients))+")",
			append([]any{c, target}, userArgs(recipients)...)...)
		return err
	}
	if chat.Kind(kind) == chat.KindMessage {
		return b.markRecalled(ctx, e.Conversation, target)
	}
	return nil
}
