package sqlstore

import (
	"context"
	"database/sql"

	"tideline/pkg/chat"
	"tideline/pkg/seq"
)

// Outcome tells what became of a command: the event that it became, or the newest rejection, or neither where nothing is
// known (yet).
func (s *Store) Outcome(ctx context.Context, c chat.ConversationID, sender chat.UserID, clientMsgID string) (*seq.Numbered, *chat.Rejection, error) {
	numbered, err := s.clientIDs(ctx, []seq.ClientID{{Conversation: c, Sender: sender, ID: clientMsgID}})
	if err != nil {
		return nil, nil, err
	}
	if len(numbered) > 0 {
		return &numbered[0], nil, nil
	}
	var rejection *chat.Rejection
	err = s.query(ctx, "looking for a rejection",
		"SELECT code, message, field, first_seq, inbound_partition, inbound_offset, rejected_at FROM rejections WHERE conversation_id = ? AND sender_id = ? AND client_msg_id = ?",
		[]any{c.Bytes(), int64(sender), packClientID(clientMsgID)}, func(r *sql.Rows) error {
			rejection = &chat.Rejection{Conversation: c, Sender: sender, ClientMsgID: clientMsgID}
			var first int64
			if err := r.Scan(&rejection.Code, &rejection.Message, &rejection.Field, &first, &rejection.Inbound.Partition, &rejection.Inbound.Offset, &rejection.RejectedAt); err != nil {
				return err
			}
			if first > 0 {
				rejection.First = &chat.FirstEvent{Seq: first}
			}
			return nil
		})
	return nil, rejection, err
}

// RejectionPositions tells the next offset of im.rejected for some partitions.
func (s *Store) RejectionPositions(ctx context.Context, partitions []int32) (map[int32]int64, error) {
	return s.consumerPositions(ctx, consumerRejections, partitions)
}

// RecordRejections keeps rejections for those who ask by client id, and moves the position of the partition of
// im.rejected. It keeps those that answer a sender: no moves, no duplicates, and nothing without a name.
func (s *Store) RecordRejections(ctx context.Context, partition int32, from, to int64, rejections []chat.Rejection) error {
	tail := s.dialect.upsert("conversation_id, sender_id, client_msg_id", "code", "message", "field", "first_seq", "inbound_partition", "inbound_offset", "rejected_at")
	return s.inTx(ctx, "recording rejections", func(ctx context.Context, tx *sql.Tx) error {
		if err := s.moveConsumer(ctx, tx, consumerRejections, partition, from, to); err != nil {
			return err
		}
		for i := range rejections {
			r := &rejections[i]
			if r.Code == chat.CodeMoved || r.Code == chat.CodeDuplicate || r.Conversation.IsZero() || r.Sender <= 0 || r.ClientMsgID == "" || len(r.ClientMsgID) > chat.MaxClientMsgIDBytes {
				continue
			}
			var first int64
			if r.First != nil {
				first = r.First.Seq
			}
			_, err := execTx(ctx, tx, "recording a rejection",
				"INSERT INTO rejections (conversation_id, sender_id, client_msg_id, code, message, field, first_seq, inbound_partition, inbound_offset, rejected_at) VALUES "+rowsOf(1, 10)+tail,
				r.Conversation.Bytes(), int64(r.Sender), packClientID(r.ClientMsgID), string(r.Code), cut(r.Message, 512), cut(r.Field, 128), first, r.Inbound.Partition, r.Inbound.Offset, r.RejectedAt)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// PruneRejections forgets rejections of before a time (ms), some at a time; it tells how many went.
func (s *Store) PruneRejections(ctx context.Context, before int64) (int64, error) {
	text := "DELETE FROM rejections WHERE rejected_at < ?"
	if s.dialect == &mysqlDialect {
		text += " LIMIT 10000" // a long DELETE would hold back the replicas
	}
	r, err := s.exec(ctx, "forgetting old rejections", text, before)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func cut(s string, n int) string {
	runes := []rune(s)
	if len(runes) > n {
		return string(runes[:n])
	}
	return s
}
