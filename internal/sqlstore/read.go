package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// PartitionConversations lists the heads of a partition's conversations in the order of their ids, beginning after one;
// the zero id for the first page. It walks the primary key past those of other partitions: it is for a fill, not for a
// request.
func (s *Store) PartitionConversations(ctx context.Context, partition int32, after chat.ConversationID, limit int) ([]timeline.Conversation, error) {
	from := []byte{}
	if !after.IsZero() {
		from = after.Bytes()
	}
	var out []timeline.Conversation
	err := s.query(ctx, "listing the conversations of a partition",
		"SELECT "+conversationColumns+" FROM conversations WHERE conversation_id > ? AND partition_id = ? ORDER BY conversation_id LIMIT ?", []any{from, partition, limit},
		func(r *sql.Rows) error {
			c, err := scanConversation(r)
			out = append(out, c)
			return err
		})
	return out, err
}

const rowColumns = timelineColumns + ", edited_at, recalled_at, recalled_by"

type scanner interface{ Scan(dest ...any) error }

func scanConversation(r scanner) (timeline.Conversation, error) {
	var c timeline.Conversation
	var id []byte
	var owner int64
	err := r.Scan(&id, &c.Partition, &c.MaxSeq, &c.Ordinal, &c.MaxRecalledSeq, &c.MaxAddressedSeq, &c.MaxMentionSeq, &c.Name, &c.AvatarURL, &owner,
		&c.HistoryVisible, &c.MemberCount, &c.DissolvedSeq, &c.CreatedAt, &c.LastAt, &c.LastOffset, &c.HighAt)
	if err != nil {
		return c, err
	}
	c.Owner = chat.UserID(owner)
	c.ID, err = chat.ConversationIDFromBytes(id)
	return c, err
}

func memberInto(m *timeline.Member, id any, role *int) []any {
	return []any{id, &m.User, role, &m.JoinSeq, &m.LeftSeq, &m.MutedUntil, &m.Nickname, &m.ChangedSeq, &m.ChangedOffset, &m.ReadSeq, &m.ReadOrdinal, &m.ReadOffset}
}

func scanMember(r scanner) (timeline.Member, error) {
	var m timeline.Member
	var id []byte
	var role int
	if err := r.Scan(memberInto(&m, &id, &role)...); err != nil {
		return m, err
	}
	m.Role = roleWords[role]
	var err error
	m.Conversation, err = chat.ConversationIDFromBytes(id)
	return m, err
}

func scanRow(r scanner) (timeline.Row, error) {
	var row timeline.Row
	var id, client, hash, lists []byte
	var content sql.NullString
	var kind, msgType, flags int
	var replyTo, target, edited, recalled, recalledBy sql.NullInt64
	err := r.Scan(&id, &row.Seq, &row.Ordinal, &kind, &row.MessageID, &row.Sender, &client, &hash, &row.SentAt, &msgType, &flags, &row.Changes,
		&content, &lists, &replyTo, &target, &edited, &recalled, &recalledBy)
	if err != nil {
		return row, err
	}
	if row.Conversation, err = chat.ConversationIDFromBytes(id); err != nil {
		return row, err
	}
	if row.ClientMsgID, err = unpackClientID(client); err != nil {
		return row, err
	}
	if row.Mentions, row.Recipients, err = unpackLists(lists); err != nil {
		return row, err
	}
	copy(row.BodyHash[:], hash)
	row.Kind, row.Type = chat.Kind(kind), typeWords[msgType]
	if content.Valid && !row.Kind.HasTarget() { // an edit's own is kept for its target only: see late.go
		row.Content = json.RawMessage(content.String)
	}
	row.Receipt, row.Tombstone = flags&flagReceipt != 0, flags&flagTombstone != 0
	row.ReplyTo, row.TargetSeq = replyTo.Int64, target.Int64
	row.EditedAt, row.RecalledAt, row.RecalledBy = edited.Int64, recalled.Int64, chat.UserID(recalledBy.Int64)
	return row, nil
}

// Rows implements timeline.Reader: a range of the primary key.
func (s *Store) Rows(ctx context.Context, c chat.ConversationID, first, last int64) ([]timeline.Row, error) {
	if last < first {
		return nil, nil
	}
	rows := make([]timeline.Row, 0, min(last-first+1, 1024))
	err := s.query(ctx, "reading rows of the timeline",
		"SELECT "+rowColumns+" FROM timeline WHERE conversation_id = ? AND seq BETWEEN ? AND ? ORDER BY seq",
		[]any{c.Bytes(), first, last}, func(r *sql.Rows) error {
			row, err := scanRow(r)
			rows = append(rows, row)
			return err
		})
	return rows, err
}

// SeqAt implements timeline.Reader by halving over the highest sent_at up to each number, which never falls, whatever
// order the times have. A row whose own time is that highest one, as all are but those imported out of order, has no
// high_at, so the column costs nothing. An index on the time would cost every row a tenth of its size, and would have to
// be read to its end where times are not sorted.
func (s *Store) SeqAt(ctx context.Context, c chat.ConversationID, at int64) (int64, error) {
	var last int64
	err := s.query(ctx, "reading the head of a conversation", "SELECT max_seq FROM conversations WHERE conversation_id = ?", []any{c.Bytes()},
		func(r *sql.Rows) error { return r.Scan(&last) })
	if err != nil || last == 0 {
		return 0, err
	}
	// A number may have no row, as its event is parked: then the row below it decides.
	low, high := int64(1), last+1
	for low < high {
		middle := (low + high) / 2
		var seq, time int64
		err := s.query(ctx, "looking for a time",
			"SELECT seq, COALESCE(high_at, sent_at) FROM timeline WHERE conversation_id = ? AND seq <= ? ORDER BY seq DESC LIMIT 1", []any{c.Bytes(), middle},
			func(r *sql.Rows) error { return r.Scan(&seq, &time) })
		if err != nil {
			return 0, err
		}
		if seq > 0 && time >= at {
			high = seq
		} else {
			low = middle + 1
		}
	}
	if low > last {
		return 0, nil
	}
	return low, nil
}

// HighTimes returns, for the rows of a range whose sent_at is not the highest up to their number, that highest one (ms)
// by number: a range of the primary key.
func (s *Store) HighTimes(ctx context.Context, c chat.ConversationID, first, last int64) (map[int64]int64, error) {
	out := map[int64]int64{}
	err := s.query(ctx, "reading times out of order", "SELECT seq, high_at FROM timeline WHERE conversation_id = ? AND seq BETWEEN ? AND ? AND high_at IS NOT NULL",
		[]any{c.Bytes(), first, last}, func(r *sql.Rows) error {
			var seq, high int64
			err := r.Scan(&seq, &high)
			out[seq] = high
			return err
		})
	return out, err
}

// Conversations implements timeline.Reader.
func (s *Store) Conversations(ctx context.Context, ids []chat.ConversationID) ([]timeline.Conversation, error) {
	var out []timeline.Conversation
	err := chunks(ids, maxTerms, func(part []chat.ConversationID) error {
		return s.query(ctx, "reading conversations", "SELECT "+conversationColumns+" FROM conversations WHERE conversation_id IN ("+placeholders(len(part))+")",
			idArgs(part), func(r *sql.Rows) error {
				c, err := scanConversation(r)
				out = append(out, c)
				return err
			})
	})
	return out, err
}

// Members implements timeline.Reader: one statement for up to maxTerms keys, ranges of the primary key.
func (s *Store) Members(ctx context.Context, keys []timeline.MemberKey) ([]timeline.Member, error) {
	var out []timeline.Member
	err := chunks(keys, maxTerms, func(part []timeline.MemberKey) error {
		where, args := wherePairs(part, "user_id", func(k timeline.MemberKey) (chat.ConversationID, int64) { return k.Conversation, int64(k.User) })
		return s.query(ctx, "reading memberships", "SELECT "+memberColumns+" FROM members WHERE "+where, args, func(r *sql.Rows) error {
			m, err := scanMember(r)
			out = append(out, m)
			return err
		})
	})
	return out, err
}

// wherePairs gives "(conversation_id = ? AND x IN (…)) OR …": ranges of an index that begins with both columns.
func wherePairs[T any](keys []T, column string, of func(T) (chat.ConversationID, int64)) (string, []any) {
	byConversation := map[chat.ConversationID][]any{}
	var order []chat.ConversationID
	for _, k := range keys {
		c, v := of(k)
		if byConversation[c] == nil {
			order = append(order, c)
		}
		byConversation[c] = append(byConversation[c], v)
	}
	var parts []string
	var args []any
	for _, c := range order {
		values := byConversation[c]
		parts = append(parts, "(conversation_id = ? AND "+column+" IN ("+placeholders(len(values))+"))")
		args = append(append(args, c.Bytes()), values...)
	}
	return strings.Join(parts, " OR "), args
}

// MembersPage implements timeline.Reader: a range of the primary key.
func (s *Store) MembersPage(ctx context.Context, c chat.ConversationID, after chat.UserID, limit int) ([]timeline.Member, error) {
	var out []timeline.Member
	err := s.query(ctx, "listing members",
		"SELECT "+memberColumns+" FROM members WHERE conversation_id = ? AND user_id > ? AND left_seq = 0 ORDER BY user_id LIMIT ?",
		[]any{c.Bytes(), int64(after), min(limit, 1000)}, func(r *sql.Rows) error {
			m, err := scanMember(r)
			out = append(out, m)
			return err
		})
	return out, err
}

// Memberships implements timeline.Reader: the index members_user, and the primary keys behind it.
func (s *Store) Memberships(ctx context.Context, u chat.UserID, past bool) ([]timeline.Membership, error) {
	if s.crowds != nil {
		list, _, err := s.crowds.memberships[past].Get(ctx, u)
		return list, err
	}
	got, err := s.membershipsOf(ctx, []chat.UserID{u}, past)
	return got[u], err
}

func (s *Store) membershipsOf(ctx context.Context, users []chat.UserID, past bool) (map[chat.UserID][]timeline.Membership, error) {
	text := "SELECT " + prefixed("m.", memberColumns) + ", " + prefixed("c.", conversationColumns) +
		" FROM members m JOIN conversations c ON c.conversation_id = m.conversation_id WHERE m.user_id IN (" + placeholders(len(users)) + ")"
	if !past {
		text += " AND m.left_seq = 0"
	}
	args := make([]any, len(users))
	for i, u := range users {
		args[i] = int64(u)
	}
	out := make(map[chat.UserID][]timeline.Membership, len(users))
	// Somebody may have hundreds: what a row is scanned into is the same for all of them.
	var ms timeline.Membership
	m, c := &ms.Member, &ms.Conversation
	var mid, cid sql.RawBytes
	var role int
	into := append(memberInto(m, &mid, &role), &cid, &c.Partition, &c.MaxSeq, &c.Ordinal, &c.MaxRecalledSeq, &c.MaxAddressedSeq, &c.MaxMentionSeq,
		&c.Name, &c.AvatarURL, &c.Owner, &c.HistoryVisible, &c.MemberCount, &c.DissolvedSeq, &c.CreatedAt, &c.LastAt, &c.LastOffset, &c.HighAt)
	err := s.query(ctx, "reading memberships", text, args, func(r *sql.Rows) error {
		if err := r.Scan(into...); err != nil {
			return err
		}
		m.Role = roleWords[role]
		id, err := chat.ConversationIDFromBytes(cid)
		m.Conversation, c.ID = id, id
		out[m.User] = append(out[m.User], ms)
		return err
	})
	return out, err
}

func prefixed(prefix, columns string) string {
	return prefix + strings.ReplaceAll(columns, ", ", ", "+prefix)
}

// Corrections implements timeline.Reader. The heads tell which marks have something above them; most have nothing.
func (s *Store) Corrections(ctx context.Context, u chat.UserID, at []timeline.MarkAt) (map[chat.ConversationID]timeline.Correction, error) {
	out := map[chat.ConversationID]timeline.Correction{}
	count := func(what, text string, prefix []any, above func(timeline.MarkAt) bool, add func(*timeline.Correction, int64)) error {
		var those []timeline.MarkAt
		for _, m := range at {
			if above(m) {
				those = append(those, m)
			}
		}
		return chunks(those, maxTerms/2, func(part []timeline.MarkAt) error {
			terms := make([]string, len(part))
			args := append([]any{}, prefix...)
			for i, m := range part {
				terms[i] = "(conversation_id = ? AND seq > ?)"
				args = append(args, m.Conversation.ID.Bytes(), m.Seq)
			}
			return s.query(ctx, what, text+"("+strings.Join(terms, " OR ")+") GROUP BY conversation_id", args, func(r *sql.Rows) error {
				var id []byte
				var n int64
				if err := r.Scan(&id, &n); err != nil {
					return err
				}
				c, err := chat.ConversationIDFromBytes(id)
				if err != nil {
					return err
				}
				correction := out[c]
				add(&correction, n)
				out[c] = correction
				return nil
			})
		})
	}
	err := count("counting recalled messages", "SELECT conversation_id, COUNT(*) FROM recalled WHERE ", nil,
		func(m timeline.MarkAt) bool { return m.Conversation.MaxRecalledSeq > m.Seq }, func(c *timeline.Correction, n int64) { c.Recalled += n })
	if err != nil {
		return nil, err
	}
	err = count("counting addressed messages", "SELECT conversation_id, COUNT(*) FROM addressed WHERE user_id = ? AND ", []any{int64(u)},
		func(m timeline.MarkAt) bool { return m.Conversation.MaxAddressedSeq > m.Seq }, func(c *timeline.Correction, n int64) { c.Addressed += n })
	if err != nil {
		return nil, err
	}
	// Whoever is named in a message for everybody is meant once.
	err = count("counting mentions", "SELECT conversation_id, COUNT(DISTINCT seq) FROM mentions WHERE user_id IN (?, 0) AND sender_id <> ? AND ", []any{int64(u), int64(u)},
		func(m timeline.MarkAt) bool { return m.Conversation.MaxMentionSeq > m.Seq }, func(c *timeline.Correction, n int64) { c.Mentions += n })
	return out, err
}

// Marks implements timeline.Reader.
func (s *Store) Marks(ctx context.Context, c chat.ConversationID) ([]timeline.MemberMark, error) {
	return s.memberMarks(ctx, "reading the marks of a conversation", "conversation_id = ? AND left_seq = 0", c.Bytes())
}

// PeerMarks gives how far the others have read in all private conversations of a user: a range of the index members_user,
// and the two rows of each behind it. Naming the conversations instead would take longer to parse than this takes.
func (s *Store) PeerMarks(ctx context.Context, u chat.UserID) (map[chat.ConversationID]int64, error) {
	out := map[chat.ConversationID]int64{}
	err := s.query(ctx, "reading the marks of peers",
		"SELECT p.conversation_id, p.read_seq FROM members m JOIN members p ON p.conversation_id = m.conversation_id AND p.user_id <> m.user_id WHERE m.user_id = ? AND m.conversation_id >= ? AND m.conversation_id < ?",
		[]any{int64(u), []byte{byte(chat.KindPrivate)}, []byte{byte(chat.KindPrivate) + 1}}, func(r *sql.Rows) error {
			var id []byte
			var seq int64
			if err := r.Scan(&id, &seq); err != nil {
				return err
			}
			c, err := chat.ConversationIDFromBytes(id)
			out[c] = seq
			return err
		})
	return out, err
}

// BothSaid returns those of some private conversations in which both people have sent a message: their two rows of members, and for each
// the first entry of the index timeline_client. The inner select is a value and not an EXISTS, which MariaDB may turn into a join that
// reads the whole timeline.
func (s *Store) BothSaid(ctx context.Context, ids []chat.ConversationID) ([]chat.ConversationID, error) {
	said := map[chat.ConversationID]chat.UserID{} // the first sender that was found; 0 once both were
	var both []chat.ConversationID
	err := chunks(ids, maxTerms, func(part []chat.ConversationID) error {
		return s.query(ctx, "looking for who has said something", fmt.Sprintf("SELECT m.conversation_id, m.user_id FROM members m WHERE m.conversation_id IN (%s)"+
			" AND (SELECT t.kind FROM timeline t WHERE t.conversation_id = m.conversation_id AND t.sender_id = m.user_id AND t.kind = %d LIMIT 1) IS NOT NULL",
			placeholders(len(part)), chat.KindMessage), idArgs(part), func(r *sql.Rows) error {
			var id []byte
			var user chat.UserID
			if err := r.Scan(&id, &user); err != nil {
				return err
			}
			c, err := chat.ConversationIDFromBytes(id)
			if err != nil {
				return err
			}
			switch first, there := said[c]; {
			case !there:
				said[c] = user
			case first != user && first != 0 && c.Kind == chat.KindPrivate: // a conversation that is named twice may be in two statements
				said[c] = 0
				both = append(both, c)
			}
			return nil
		})
	})
	return both, err
}

// Readers implements timeline.Reader: a range of the primary key, because pages are in the order of users.
func (s *Store) Readers(ctx context.Context, c chat.ConversationID, seq int64, after chat.UserID, limit int) ([]timeline.MemberMark, error) {
	return s.memberMarks(ctx, "listing readers",
		"conversation_id = ? AND user_id > ? AND left_seq = 0 AND read_seq >= ? AND join_seq <= ? ORDER BY user_id LIMIT ?", c.Bytes(), int64(after), seq, seq, limit)
}

func (s *Store) memberMarks(ctx context.Context, what, where string, args ...any) ([]timeline.MemberMark, error) {
	var out []timeline.MemberMark
	err := s.query(ctx, what, "SELECT user_id, join_seq, read_seq, read_ordinal FROM members WHERE "+where, args, func(r *sql.Rows) error {
		var m timeline.MemberMark
		err := r.Scan(&m.User, &m.JoinSeq, &m.Seq, &m.Ordinal)
		out = append(out, m)
		return err
	})
	return out, err
}

// fewQuestions is up to how many questions about everybody are counted one by one. More are answered by one walk through the
// present members: among 10,000 a count took 1 ms on SQLite and 4 on MariaDB, and a walk 8 on both (BenchmarkReadCounts).
const fewQuestions = 4

// ReadCounts implements timeline.Reader. Questions about a few people look those up by the primary key; those about everybody count in
// the index members_read, or walk through it.
func (s *Store) ReadCounts(ctx context.Context, c chat.ConversationID, asked []timeline.ReceiptQuestion) ([]timeline.ReceiptCount, error) {
	out := make([]timeline.ReceiptCount, len(asked))
	var about []int // everybody: their places
	for i := range asked {
		if out[i].Seq = asked[i].Seq; len(asked[i].Recipients) == 0 {
			about = append(about, i)
		}
	}
	walk := len(about) > fewQuestions
	if walk {
		if err := s.walkReaders(ctx, c, asked, about, out); err != nil {
			return nil, err
		}
	}
	for i := range asked {
		if walk && len(asked[i].Recipients) == 0 {
			continue
		}
		if err := s.countReaders(ctx, c, &asked[i], &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *Store) countReaders(ctx context.Context, c chat.ConversationID, q *timeline.ReceiptQuestion, out *timeline.ReceiptCount) error {
	where, args := "conversation_id = ? AND left_seq = 0 AND join_seq <= ? AND user_id <> ?", []any{q.Seq, c.Bytes(), q.Seq, int64(q.Sender)}
	if len(q.Recipients) > 0 {
		where += " AND user_id IN (" + placeholders(len(q.Recipients)) + ")"
		args = append(args, userArgs(q.Recipients)...)
	}
	return s.query(ctx, "counting readers", "SELECT COUNT(*), COALESCE(SUM(CASE WHEN read_seq >= ? THEN 1 ELSE 0 END), 0) FROM members WHERE "+where, args,
		func(r *sql.Rows) error {
			var all int64
			err := r.Scan(&all, &out.ReadCount)
			out.UnreadCount = all - out.ReadCount
			return err
		})
}

// walkReaders answers questions about everybody, of which it is given the places, from one walk through the present members, of
// whom it keeps none.
func (s *Store) walkReaders(ctx context.Context, c chat.ConversationID, asked []timeline.ReceiptQuestion, about []int, out []timeline.ReceiptCount) error {
	return s.query(ctx, "walking through readers", "SELECT user_id, join_seq, read_seq FROM members WHERE conversation_id = ? AND left_seq = 0", []any{c.Bytes()}, func(r *sql.Rows) error {
		var u chat.UserID
		var joined, read int64
		if err := r.Scan(&u, &joined, &read); err != nil {
			return err
		}
		for _, i := range about {
			q := &asked[i]
			switch {
			case joined > q.Seq || u == q.Sender:
			case read >= q.Seq:
				out[i].ReadCount++
			default:
				out[i].UnreadCount++
			}
		}
		return nil
	})
}

// Receipt gives what questions about receipts need to know of some numbers: of those that are messages, and no tombstones.
func (s *Store) Receipt(ctx context.Context, c chat.ConversationID, seqs []int64) ([]timeline.ReceiptQuestion, error) {
	args := []any{c.Bytes()}
	for _, q := range seqs {
		args = append(args, q)
	}
	var out []timeline.ReceiptQuestion
	err := s.query(ctx, "reading senders", fmt.Sprintf("SELECT seq, sender_id, lists FROM timeline WHERE conversation_id = ? AND kind = %d AND flags & %d = 0 AND seq IN (%s) ORDER BY seq",
		chat.KindMessage, flagTombstone, placeholders(len(seqs))),
		args, func(r *sql.Rows) error {
			var q timeline.ReceiptQuestion
			var lists []byte
			if err := r.Scan(&q.Seq, &q.Sender, &lists); err != nil {
				return err
			}
			var err error
			_, q.Recipients, err = unpackLists(lists)
			out = append(out, q)
			return err
		})
	return out, err
}
