package sqlstore

import (
	"context"
	"database/sql"

	"tideline/pkg/timeline"
)

// The consumers of consumer_positions.
const (
	consumerMarks      = "receipts"
	consumerRejections = "rejections"
)

// MarkPositions implements timeline.MarkWriter.
func (s *Store) MarkPositions(ctx context.Context, partitions []int32) (map[int32]int64, error) {
	return s.consumerPositions(ctx, consumerMarks, partitions)
}

func (s *Store) consumerPositions(ctx context.Context, consumer string, partitions []int32) (map[int32]int64, error) {
	out := make(map[int32]int64, len(partitions))
	args := []any{consumer}
	for _, p := range partitions {
		out[p] = 0
		args = append(args, p)
	}
	if len(partitions) == 0 {
		return out, nil
	}
	err := s.query(ctx, "reading positions", "SELECT partition_id, next_offset FROM consumer_positions WHERE consumer = ? AND partition_id IN ("+marks(len(partitions))+")",
		args, func(r *sql.Rows) error {
			var p int32
			var next int64
			err := r.Scan(&p, &next)
			out[p] = next
			return err
		})
	return out, err
}

// moveConsumer is the compare-and-set that fences consumers of one partition.
func (s *Store) moveConsumer(ctx context.Context, tx *sql.Tx, consumer string, partition int32, from, to int64) error {
	n, err := execTx(ctx, tx, "moving the position", "UPDATE consumer_positions SET next_offset = ? WHERE consumer = ? AND partition_id = ? AND next_offset = ?", to, consumer, partition, from)
	if err != nil || n == 1 {
		return err
	}
	if from != 0 {
		return timeline.ErrFenced
	}
	_, err = execTx(ctx, tx, "making the position", "INSERT INTO consumer_positions (consumer, partition_id, next_offset) VALUES (?, ?, ?)", consumer, partition, to)
	if s.dialect.duplicate(err) {
		return timeline.ErrFenced
	}
	return err
}

// ApplyMarks implements timeline.MarkWriter.
func (s *Store) ApplyMarks(ctx context.Context, partition int32, from, to int64, entries []timeline.MarkEntry) error {
	highest := map[timeline.MemberKey]timeline.MarkEntry{}
	var keys []timeline.MemberKey
	for _, e := range entries {
		k := timeline.MemberKey{Conversation: e.Mark.Conversation, User: e.Mark.User}
		if old, there := highest[k]; !there || e.Mark.Seq > old.Mark.Seq {
			highest[k] = e
			if !there {
				keys = append(keys, k)
			}
		}
	}
	return s.inTx(ctx, "storing read marks", func(ctx context.Context, tx *sql.Tx) error {
		if err := s.moveConsumer(ctx, tx, consumerMarks, partition, from, to); err != nil {
			return err
		}
		for _, k := range keys {
			e := highest[k]
			// A mark beyond the end cannot come from us; whoever wrote it gets no further than what is there.
			_, err := execTx(ctx, tx, "raising a mark",
				"UPDATE members SET read_seq = ?, read_ordinal = CASE WHEN read_ordinal > ? THEN read_ordinal ELSE ? END, read_offset = ? "+
					"WHERE conversation_id = ? AND user_id = ? AND left_seq = 0 AND read_seq < ? "+
					"AND EXISTS (SELECT 1 FROM conversations c WHERE c.conversation_id = members.conversation_id AND c.max_seq >= ? AND c.ordinal >= ?)",
				e.Mark.Seq, e.Mark.Ordinal, e.Mark.Ordinal, e.Offset, k.Conversation.Bytes(), int64(k.User), e.Mark.Seq, e.Mark.Seq, e.Mark.Ordinal)
			if err != nil {
				return err
			}
		}
		return nil
	})
}
