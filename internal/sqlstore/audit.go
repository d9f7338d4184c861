package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strings"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// What follows is for those who go through all of a store to see whether it is sound: pages in the order of a key, each
// one range of the index that is named, so that neither memory nor a statement grows with the store.

// OpenReader connects as Open does and can change nothing: a file of SQLite must be there, and is opened beside whoever
// writes it. On MySQL every statement of the methods of this file is a SELECT.
func OpenReader(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Driver != "sqlite" {
		return Open(ctx, cfg)
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: cfg.Path}).EscapedPath()+"?mode=ro&_pragma=query_only(1)&_pragma=busy_timeout(5000)&_pragma=cache_size(-16000)")
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", cfg.Path, err)
	}
	db.SetMaxOpenConns(min(cfg.MaxOpen, 4))
	s := &Store{db: db, writer: db, dialect: &sqliteDialect, timeout: cfg.Timeout}
	within, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	if err := db.PingContext(within); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("opening %s to read: %w", cfg.Path, err)
	}
	return s, nil
}

// HeadsAfter lists heads in the order of their ids, beginning after one; the zero id for the first page. The primary key.
func (s *Store) HeadsAfter(ctx context.Context, after chat.ConversationID, limit int) ([]timeline.Conversation, error) {
	from := []byte{}
	if !after.IsZero() {
		from = after.Bytes()
	}
	var out []timeline.Conversation
	err := s.query(ctx, "listing conversations", "SELECT "+conversationColumns+" FROM conversations WHERE conversation_id > ? ORDER BY conversation_id LIMIT ?", []any{from, limit},
		func(r *sql.Rows) error {
			c, err := scanConversation(r)
			out = append(out, c)
			return err
		})
	return out, err
}

// ConversationTable is a table whose primary key begins with a conversation.
type ConversationTable string

// The tables that have rows of a conversation beside its head.
const (
	TableTimeline ConversationTable = "timeline"
	TableMembers  ConversationTable = "members"
	TableRecalled ConversationTable = "recalled"
)

// NextIn gives the first conversation after one that has rows in a table, or the zero id: one step in the primary key.
func (s *Store) NextIn(ctx context.Context, table ConversationTable, after chat.ConversationID) (chat.ConversationID, error) {
	text, known := map[ConversationTable]string{
		TableTimeline: "SELECT MIN(conversation_id) FROM timeline WHERE conversation_id > ?",
		TableMembers:  "SELECT MIN(conversation_id) FROM members WHERE conversation_id > ?",
		TableRecalled: "SELECT MIN(conversation_id) FROM recalled WHERE conversation_id > ?",
	}[table]
	if !known {
		return chat.ConversationID{}, fmt.Errorf("looking for a conversation in %s: no such table", table)
	}
	from := []byte{}
	if !after.IsZero() {
		from = after.Bytes()
	}
	var next chat.ConversationID
	err := s.query(ctx, "looking for the next conversation in "+string(table), text, []any{from}, func(r *sql.Rows) error {
		var id []byte
		if err := r.Scan(&id); err != nil || id == nil {
			return err
		}
		var err error
		next, err = chat.ConversationIDFromBytes(id)
		return err
	})
	return next, err
}

// Ends gives the lowest and the highest number that has a row in a conversation, 0 where there is none: both ends of a
// range of the primary key.
func (s *Store) Ends(ctx context.Context, c chat.ConversationID) (first, last int64, err error) {
	err = s.query(ctx, "reading the ends of a conversation", "SELECT COALESCE(MIN(seq), 0), COALESCE(MAX(seq), 0) FROM timeline WHERE conversation_id = ?", []any{c.Bytes()},
		func(r *sql.Rows) error { return r.Scan(&first, &last) })
	return first, last, err
}

// Place names a row of the timeline.
type Place struct {
	Conversation chat.ConversationID
	Seq          int64
}

// RowsAt gives the rows of some places, in no order: points of the primary key.
func (s *Store) RowsAt(ctx context.Context, places []Place) (map[Place]timeline.Row, error) {
	out := make(map[Place]timeline.Row, len(places))
	err := chunks(places, maxTerms, func(part []Place) error {
		where, args := wherePairs(part, "seq", func(p Place) (chat.ConversationID, int64) { return p.Conversation, p.Seq })
		return s.query(ctx, "reading rows of the timeline", "SELECT "+rowColumns+" FROM timeline WHERE "+where, args, func(r *sql.Rows) error {
			row, err := scanRow(r)
			out[Place{row.Conversation, row.Seq}] = row
			return err
		})
	})
	return out, err
}

// OrdinalsAt gives the ordinals of some numbers that have a row: points of the primary key.
func (s *Store) OrdinalsAt(ctx context.Context, c chat.ConversationID, seqs []int64) (map[int64]int64, error) {
	out := make(map[int64]int64, len(seqs))
	err := chunks(seqs, maxTerms, func(part []int64) error {
		args := []any{c.Bytes()}
		for _, n := range part {
			args = append(args, n)
		}
		return s.query(ctx, "reading ordinals", "SELECT seq, ordinal FROM timeline WHERE conversation_id = ? AND seq IN ("+placeholders(len(part))+")", args, func(r *sql.Rows) error {
			var seq, ordinal int64
			err := r.Scan(&seq, &ordinal)
			out[seq] = ordinal
			return err
		})
	})
	return out, err
}

// RecalledIn gives the numbers of a range that stand among the recalled ones, in order: a range of the primary key.
func (s *Store) RecalledIn(ctx context.Context, c chat.ConversationID, first, last int64) ([]int64, error) {
	var out []int64
	err := s.query(ctx, "reading what was recalled", "SELECT seq FROM recalled WHERE conversation_id = ? AND seq BETWEEN ? AND ? ORDER BY seq", []any{c.Bytes(), first, last},
		func(r *sql.Rows) error {
			var n int64
			err := r.Scan(&n)
			out = append(out, n)
			return err
		})
	return out, err
}

// ClientID is a row of the index of client ids.
type ClientID struct {
	Sender chat.UserID
	ID     string
	Seq    int64
}

// ClientIDsFrom walks the index timeline_client of a conversation, beginning with one, which comes again; the zero
// ClientID for the first page. Rows without a client id are left out.
func (s *Store) ClientIDsFrom(ctx context.Context, c chat.ConversationID, from ClientID, limit int) ([]ClientID, error) {
	var out []ClientID
	take := func(r *sql.Rows) error {
		var v ClientID
		var id []byte
		if err := r.Scan(&v.Sender, &id, &v.Seq); err != nil {
			return err
		}
		var err error
		v.ID, err = unpackClientID(id)
		out = append(out, v)
		return err
	}
	if from.ID != "" {
		err := s.query(ctx, "walking client ids", "SELECT sender_id, client_msg_id, seq FROM timeline WHERE conversation_id = ? AND sender_id = ? AND client_msg_id >= ? ORDER BY sender_id, client_msg_id LIMIT ?",
			[]any{c.Bytes(), int64(from.Sender), packClientID(from.ID), limit}, take)
		if err != nil || len(out) == limit {
			return out, err
		}
	}
	after := int64(-1)
	if from.ID != "" {
		after = int64(from.Sender)
	}
	err := s.query(ctx, "walking client ids",
		"SELECT sender_id, client_msg_id, seq FROM timeline WHERE conversation_id = ? AND sender_id > ? AND client_msg_id IS NOT NULL ORDER BY sender_id, client_msg_id LIMIT ?",
		[]any{c.Bytes(), after, limit - len(out)}, take)
	return out, err
}

// MembersAfter lists memberships, present and past, by user id, beginning after one: a range of the primary key.
func (s *Store) MembersAfter(ctx context.Context, c chat.ConversationID, after chat.UserID, limit int) ([]timeline.Member, error) {
	var out []timeline.Member
	err := s.query(ctx, "listing members", "SELECT "+memberColumns+" FROM members WHERE conversation_id = ? AND user_id > ? ORDER BY user_id LIMIT ?", []any{c.Bytes(), int64(after), limit},
		func(r *sql.Rows) error {
			m, err := scanMember(r)
			out = append(out, m)
			return err
		})
	return out, err
}

// CountMembers gives the members that the head of a conversation counts and those who are in, as of one moment: the
// index members_read.
func (s *Store) CountMembers(ctx context.Context, c chat.ConversationID) (head, present int64, err error) {
	err = s.query(ctx, "counting members",
		"SELECT c.member_count, (SELECT COUNT(*) FROM members m WHERE m.conversation_id = c.conversation_id AND m.left_seq = 0) FROM conversations c WHERE c.conversation_id = ?",
		[]any{c.Bytes()}, func(r *sql.Rows) error { return r.Scan(&head, &present) })
	return head, present, err
}

// MeantTable is a table that has a row for each person whom a message is for.
type MeantTable string

// The tables of those who are meant. In both the primary key is (user, conversation, seq).
const (
	TableMentions  MeantTable = "mentions"
	TableAddressed MeantTable = "addressed"
)

// MeantRow is a row of such a table. Sender is 0 in addressed.
type MeantRow struct {
	User   chat.UserID
	Place  Place
	Sender chat.UserID
}

func (t MeantTable) columns() (string, error) {
	switch t {
	case TableMentions:
		return "user_id, conversation_id, seq, sender_id", nil
	case TableAddressed:
		return "user_id, conversation_id, seq, 0", nil
	}
	return "", fmt.Errorf("reading %s: no such table", t)
}

func scanMeant(out *[]MeantRow) func(*sql.Rows) error {
	return func(r *sql.Rows) error {
		var v MeantRow
		var id []byte
		if err := r.Scan(&v.User, &id, &v.Place.Seq, &v.Sender); err != nil {
			return err
		}
		var err error
		v.Place.Conversation, err = chat.ConversationIDFromBytes(id)
		*out = append(*out, v)
		return err
	}
}

// MeantIn lists the rows of one user in one conversation after a number: a range of the primary key.
func (s *Store) MeantIn(ctx context.Context, table MeantTable, u chat.UserID, after Place, limit int) ([]MeantRow, error) {
	columns, err := table.columns()
	if err != nil {
		return nil, err
	}
	var out []MeantRow
	err = s.query(ctx, "reading who is meant", "SELECT "+columns+" FROM "+string(table)+" WHERE user_id = ? AND conversation_id = ? AND seq > ? ORDER BY user_id, conversation_id, seq LIMIT ?",
		[]any{int64(u), after.Conversation.Bytes(), after.Seq, limit}, scanMeant(&out))
	return out, err
}

// MeantAfter walks a table in the order of its primary key, beginning after a row; nil for the first page. A page is up
// to three ranges, because no database of ours takes the comparison of all three columns for one.
func (s *Store) MeantAfter(ctx context.Context, table MeantTable, after *MeantRow, limit int) ([]MeantRow, error) {
	columns, err := table.columns()
	if err != nil {
		return nil, err
	}
	var out []MeantRow
	user := int64(-1)
	if after != nil {
		user = int64(after.User)
		if out, err = s.MeantIn(ctx, table, after.User, after.Place, limit); err != nil || len(out) == limit {
			return out, err
		}
		err = s.query(ctx, "reading who is meant", "SELECT "+columns+" FROM "+string(table)+" WHERE user_id = ? AND conversation_id > ? ORDER BY user_id, conversation_id, seq LIMIT ?",
			[]any{user, after.Place.Conversation.Bytes(), limit - len(out)}, scanMeant(&out))
		if err != nil || len(out) == limit {
			return out, err
		}
	}
	err = s.query(ctx, "reading who is meant", "SELECT "+columns+" FROM "+string(table)+" WHERE user_id > ? ORDER BY user_id, conversation_id, seq LIMIT ?",
		[]any{user, limit - len(out)}, scanMeant(&out))
	return out, err
}

// MeantAt gives those of some rows that are there, without their senders: points of the primary key.
func (s *Store) MeantAt(ctx context.Context, table MeantTable, rows []MeantRow) (map[MeantRow]bool, error) {
	columns, err := table.columns()
	if err != nil {
		return nil, err
	}
	there := make(map[MeantRow]bool, len(rows))
	err = chunks(rows, maxTerms/2, func(part []MeantRow) error {
		terms := make([]string, len(part))
		args := make([]any, 0, 3*len(part))
		for i, v := range part {
			terms[i] = "(user_id = ? AND conversation_id = ? AND seq = ?)"
			args = append(args, int64(v.User), v.Place.Conversation.Bytes(), v.Place.Seq)
		}
		var found []MeantRow
		err := s.query(ctx, "looking for who is meant", "SELECT "+columns+" FROM "+string(table)+" WHERE "+strings.Join(terms, " OR "), args, scanMeant(&found))
		for _, v := range found {
			v.Sender = 0
			there[v] = true
		}
		return err
	})
	return there, err
}
