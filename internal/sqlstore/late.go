package sqlstore

import (
	"context"
	"database/sql"
	"slices"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// A message that was parked has no row when edits and recalls aim at it. They stand in rows of their own, and when the
// message is put back it gets what they say: a message that was recalled meanwhile must not come back with its content. An
// edit keeps its content in its own row for that time, where no reader sees it.

// keepEdit keeps the content of an edit whose target has no row.
func (b *batch) keepEdit(ctx context.Context, e *chat.Event) error {
	there := false
	err := queryOn(ctx, b.tx, "looking for what an edit aims at", "SELECT 1 FROM timeline WHERE conversation_id = ? AND seq = ?",
		[]any{e.Conversation.Bytes(), e.Edit.TargetSeq}, func(r *sql.Rows) error {
			there = true
			return r.Scan(new(int))
		})
	if err != nil || there {
		return err
	}
	_, err = execTx(ctx, b.tx, "keeping an edit", "UPDATE timeline SET content = ? WHERE conversation_id = ? AND seq = ?", string(e.Edit.Content), e.Conversation.Bytes(), e.Seq)
	return err
}

// dropEdits forgets the contents that edits keep for a target: it was recalled, or has them now.
func (b *batch) dropEdits(ctx context.Context, c chat.ConversationID, target int64) error {
	_, err := execTx(ctx, b.tx, "forgetting edits", "UPDATE timeline SET content = NULL WHERE conversation_id = ? AND seq > ? AND target_seq = ? AND kind = ?",
		c.Bytes(), target, target, int(chat.KindEdit))
	return err
}

// catchUp applies to messages that are put back what has aimed at them since. It reads the rest of their conversations,
// which is long, and happens when an operator mends something. What comes in the same batch is applied behind it.
func (b *batch) catchUp(ctx context.Context, late []timeline.Entry) error {
	type place struct {
		c   chat.ConversationID
		seq int64
	}
	here := map[place]bool{}
	for i := range b.entries {
		here[place{b.entries[i].Event.Conversation, b.entries[i].Event.Seq}] = true
	}
	for i := range late {
		target := &late[i].Event
		if target.Kind != chat.KindMessage {
			continue
		}
		var missed []chat.Event
		err := queryOn(ctx, b.tx, "looking for what has aimed at a message",
			"SELECT seq, kind, sender_id, sent_at, content FROM timeline WHERE conversation_id = ? AND seq > ? AND target_seq = ? AND kind IN (?, ?) ORDER BY seq",
			[]any{target.Conversation.Bytes(), target.Seq, target.Seq, int(chat.KindEdit), int(chat.KindRecall)}, func(r *sql.Rows) error {
				e := chat.Event{Conversation: target.Conversation}
				var kind int
				var content sql.NullString
				if err := r.Scan(&e.Seq, &kind, &e.Sender, &e.SentAt, &content); err != nil {
					return err
				}
				if e.Kind = chat.Kind(kind); e.Kind == chat.KindEdit {
					e.Edit = &chat.Edit{TargetSeq: target.Seq, Content: []byte(content.String)}
				} else {
					e.Recall = &chat.Recall{TargetSeq: target.Seq}
				}
				if !here[place{e.Conversation, e.Seq}] {
					missed = append(missed, e)
				}
				return nil
			})
		if err != nil {
			return err
		}
		if n := slices.IndexFunc(missed, func(e chat.Event) bool { return e.Kind == chat.KindRecall }); n >= 0 {
			missed = missed[n : n+1] // nothing that was said of it before or behind matters
		}
		for i := range missed {
			if err := b.catchUpWith(ctx, &missed[i]); err != nil {
				return err
			}
		}
		if len(missed) > 0 {
			if err := b.dropEdits(ctx, target.Conversation, target.Seq); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *batch) catchUpWith(ctx context.Context, e *chat.Event) error {
	if e.Kind == chat.KindRecall {
		return b.recall(ctx, e)
	}
	if len(e.Edit.Content) == 0 { // stored by a version that kept nothing of it
		b.applied.MissingTargets++
		return nil
	}
	_, err := execTx(ctx, b.tx, "editing a message that was put back",
		"UPDATE timeline SET content = ?, edited_at = ?, changes = changes + 1 WHERE conversation_id = ? AND seq = ? AND recalled_at IS NULL",
		string(e.Edit.Content), e.SentAt, e.Conversation.Bytes(), e.Edit.TargetSeq)
	return err
}
