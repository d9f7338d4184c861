package sqlstore

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"slices"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// The consumers of consumer_positions.
const (
	consumerMarks      = "receipts"
	consumerRejections = "rejections"
	// Not a consumer: its offset is 1 where the fast marks missed something of a partition of im.receipts.
	consumerMissed = "receipts missed"
)

// MarksMissed tells of which partitions of im.receipts it was noted that the fast marks missed something.
func (s *Store) MarksMissed(ctx context.Context, partitions []int32) (map[int32]bool, error) {
	noted, err := s.consumerPositions(ctx, consumerMissed, partitions)
	out := make(map[int32]bool, len(noted))
	for p, n := range noted {
		out[p] = n > 0
	}
	return out, err
}

// NoteMarksMissed notes it, or that it was made good.
func (s *Store) NoteMarksMissed(ctx context.Context, partition int32, missed bool) error {
	n := 0
	if missed {
		n = 1
	}
	_, err := s.exec(ctx, "noting missed marks", "INSERT INTO consumer_positions (consumer, partition_id, next_offset) VALUES (?, ?, ?)"+
		s.dialect.upsert("consumer, partition_id", "next_offset"), consumerMissed, partition, n)
	return err
}

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
	err := s.query(ctx, "reading positions", "SELECT partition_id, next_offset FROM consumer_positions WHERE consumer = ? AND partition_id IN ("+placeholders(len(partitions))+")",
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

// ApplyMarks implements timeline.MarkWriter: four statements for up to maxTerms marks.
func (s *Store) ApplyMarks(ctx context.Context, partition int32, from, to int64, entries []timeline.MarkEntry) error {
	highest := map[timeline.MemberKey]timeline.MarkEntry{}
	var keys []timeline.MemberKey
	for _, e := range entries {
		k := timeline.MemberKey{Conversation: e.Mark.Conversation, User: e.Mark.User}
		old, there := highest[k]
		if !there {
			keys = append(keys, k)
		}
		if !there || e.Mark.Seq > old.Mark.Seq {
			highest[k] = e
		}
	}
	slices.SortFunc(keys, compareKeys)
	return s.inTx(ctx, "storing read marks", func(ctx context.Context, tx *sql.Tx) error {
		if err := s.moveConsumer(ctx, tx, consumerMarks, partition, from, to); err != nil {
			return err
		}
		return chunks(keys, maxTerms, func(part []timeline.MemberKey) error { return s.raiseMarks(ctx, tx, part, highest) })
	})
}

// compareKeys orders memberships as their primary key does. All writers of marks take the rows in this order, so that
// they wait for one another and do not deadlock.
func compareKeys(a, b timeline.MemberKey) int {
	return cmp.Or(bytes.Compare(a.Conversation.Bytes(), b.Conversation.Bytes()), cmp.Compare(a.User, b.User))
}

func (s *Store) raiseMarks(ctx context.Context, tx *sql.Tx, keys []timeline.MemberKey, marks map[timeline.MemberKey]timeline.MarkEntry) error {
	type end struct{ seq, ordinal int64 }
	ends := map[chat.ConversationID]end{}
	var ids []chat.ConversationID
	for _, k := range keys {
		if _, there := ends[k.Conversation]; !there {
			ends[k.Conversation] = end{}
			ids = append(ids, k.Conversation)
		}
	}
	err := queryOn(ctx, tx, "reading the ends of conversations",
		"SELECT conversation_id, max_seq, ordinal FROM conversations WHERE conversation_id IN ("+placeholders(len(ids))+")", idArgs(ids), func(r *sql.Rows) error {
			var id []byte
			var e end
			if err := r.Scan(&id, &e.seq, &e.ordinal); err != nil {
				return err
			}
			c, err := chat.ConversationIDFromBytes(id)
			ends[c] = e
			return err
		})
	if err != nil {
		return err
	}
	// Only rows that are there are raised. They are never deleted, so that the INSERT below never inserts.
	member := map[timeline.MemberKey]bool{}
	where, args := wherePairs(keys, "user_id", func(k timeline.MemberKey) (chat.ConversationID, int64) { return k.Conversation, int64(k.User) })
	err = queryOn(ctx, tx, "looking for members", "SELECT conversation_id, user_id FROM members WHERE left_seq = 0 AND ("+where+")", args, func(r *sql.Rows) error {
		var id []byte
		var k timeline.MemberKey
		if err := r.Scan(&id, &k.User); err != nil {
			return err
		}
		var err error
		k.Conversation, err = chat.ConversationIDFromBytes(id)
		member[k] = true
		return err
	})
	if err != nil {
		return err
	}
	values := make([]any, 0, 12*len(keys))
	rows := 0
	for _, k := range keys {
		m, end := marks[k], ends[k.Conversation]
		if !member[k] || end.seq == 0 {
			continue
		}
		seq, ordinal := m.Mark.Seq, m.Mark.Ordinal
		if seq > end.seq {
			seq, ordinal = end.seq, end.ordinal
		}
		values = append(values, k.Conversation.Bytes(), int64(k.User), 1, 0, 0, 0, "", 0, 0, seq, min(ordinal, end.ordinal), m.Offset)
		rows++
	}
	if rows == 0 {
		return nil
	}
	d := s.dialect
	raisedTo := func(column, then string) string {
		return column + " = CASE WHEN left_seq = 0 AND " + d.incoming("read_seq") + " > read_seq THEN " + then + " ELSE " + column + " END"
	}
	_, err = execTx(ctx, tx, "raising marks", "INSERT INTO members ("+memberColumns+") VALUES "+rowsOf(rows, 12)+
		d.onDuplicate("conversation_id, user_id", raisedTo("read_offset", d.incoming("read_offset")),
			raisedTo("read_ordinal", d.greatest+"(read_ordinal, "+d.incoming("read_ordinal")+")"), raisedTo("read_seq", d.incoming("read_seq"))), values...)
	return err
}
