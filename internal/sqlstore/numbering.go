package sqlstore

import (
	"context"
	"database/sql"
	"strings"

	"tideline/pkg/chat"
	"tideline/pkg/seq"
	"tideline/pkg/timeline"
)

// Checkpoint implements seq.Store.
func (s *Store) Checkpoint(ctx context.Context, partition int32) (seq.Checkpoint, error) {
	p, err := s.Positions(ctx, []int32{partition})
	if err != nil {
		return seq.Checkpoint{}, err
	}
	return CheckpointOf(p[0]), nil
}

// CheckpointOf gives what numbering needs of a position.
func CheckpointOf(p timeline.Position) seq.Checkpoint {
	return seq.Checkpoint{MessagesNext: p.MessagesNext, InboundNext: p.InboundNext, RejectedNext: p.RejectedNext, HighestStamp: p.HighestStamp}
}

// Load implements seq.Store.
func (s *Store) Load(ctx context.Context, need seq.Need) (seq.Loaded, error) {
	var out seq.Loaded
	conversations, err := s.Conversations(ctx, need.Conversations)
	if err != nil {
		return out, err
	}
	for _, c := range conversations {
		out.Conversations = append(out.Conversations, seq.Conversation{
			ID: c.ID, MaxSeq: c.MaxSeq, Ordinal: c.Ordinal, MemberCount: c.MemberCount, Dissolved: c.DissolvedSeq > 0,
			HistoryVisible: c.HistoryVisible,
		})
	}
	if out.Members, err = s.memberships(ctx, need.Members); err != nil {
		return out, err
	}
	if out.Users, err = s.UsersExist(ctx, need.Users); err != nil {
		return out, err
	}
	if out.Targets, err = s.targets(ctx, need.Targets); err != nil {
		return out, err
	}
	out.ClientIDs, err = s.clientIDs(ctx, need.ClientIDs)
	return out, err
}

// memberships reads memberships with who began and ended them: by primary keys alone, of the memberships, of the events
// that began them, and of those that ended them.
func (s *Store) memberships(ctx context.Context, keys []seq.MemberKey) ([]seq.Member, error) {
	var out []seq.Member
	err := chunks(keys, maxTerms, func(part []seq.MemberKey) error {
		where, args := wherePairs(part, "user_id", func(k seq.MemberKey) (chat.ConversationID, int64) { return k.Conversation, int64(k.User) })
		return s.query(ctx, "reading memberships", "SELECT m.conversation_id, m.user_id, m.role, m.join_seq, m.left_seq, m.muted_until, m.changed_seq, "+
			"COALESCE(begun.sender_id, 0), COALESCE(ended.sender_id, 0), COALESCE(ended.sent_at, 0) FROM "+
			"(SELECT conversation_id, user_id, role, join_seq, left_seq, muted_until, changed_seq FROM members WHERE "+where+") m "+
			"LEFT JOIN timeline begun ON begun.conversation_id = m.conversation_id AND begun.seq = m.join_seq "+
			"LEFT JOIN timeline ended ON m.left_seq > 0 AND ended.conversation_id = m.conversation_id AND ended.seq = m.left_seq", args, func(r *sql.Rows) error {
			var m seq.Member
			var id []byte
			var role int
			var left int64
			if err := r.Scan(&id, &m.User, &role, &m.JoinSeq, &left, &m.MutedUntil, &m.ChangedSeq, &m.AddedBy, &m.LeftBy, &m.LeftAt); err != nil {
				return err
			}
			m.Role, m.Left = roleWords[role], left > 0
			var err error
			m.Conversation, err = chat.ConversationIDFromBytes(id)
			out = append(out, m)
			return err
		})
	})
	return out, err
}

// UsersExist gives those of some users who exist.
func (s *Store) UsersExist(ctx context.Context, users []chat.UserID) ([]chat.UserID, error) {
	var out []chat.UserID
	err := chunks(users, maxTerms, func(part []chat.UserID) error {
		return s.query(ctx, "looking for users", "SELECT user_id FROM users WHERE user_id IN ("+placeholders(len(part))+")", userArgs(part), func(r *sql.Rows) error {
			var u chat.UserID
			err := r.Scan(&u)
			out = append(out, u)
			return err
		})
	})
	return out, err
}

func (s *Store) targets(ctx context.Context, keys []seq.TargetKey) ([]seq.Target, error) {
	var out []seq.Target
	err := chunks(keys, maxTerms, func(part []seq.TargetKey) error {
		where, args := wherePairs(part, "seq", func(k seq.TargetKey) (chat.ConversationID, int64) { return k.Conversation, k.Seq })
		return s.query(ctx, "reading what edits and recalls aim at", "SELECT "+rowColumns+" FROM timeline WHERE "+where, args, func(r *sql.Rows) error {
			row, err := scanRow(r)
			out = append(out, seq.Target{
				TargetKey: seq.TargetKey{Conversation: row.Conversation, Seq: row.Seq}, Kind: row.Kind, Type: row.Type, Sender: row.Sender,
				Recipients: row.Recipients, Recalled: row.RecalledAt > 0 || row.Tombstone,
			})
			return err
		})
	})
	return out, err
}

// clientIDs looks commands up by the index timeline_client.
func (s *Store) clientIDs(ctx context.Context, ids []seq.ClientID) ([]seq.Numbered, error) {
	var out []seq.Numbered
	err := chunks(ids, maxTerms/2, func(part []seq.ClientID) error {
		terms := make([]string, len(part))
		args := make([]any, 0, 3*len(part))
		for i, id := range part {
			terms[i] = "(conversation_id = ? AND sender_id = ? AND client_msg_id = ?)"
			args = append(args, id.Conversation.Bytes(), int64(id.Sender), packClientID(id.ID))
		}
		return s.query(ctx, "looking for client ids",
			"SELECT conversation_id, sender_id, client_msg_id, seq, message_id, sent_at, body_hash FROM timeline WHERE "+strings.Join(terms, " OR "),
			args, func(r *sql.Rows) error {
				var n seq.Numbered
				var id, client, hash []byte
				if err := r.Scan(&id, &n.Sender, &client, &n.Seq, &n.MessageID, &n.SentAt, &hash); err != nil {
					return err
				}
				copy(n.Hash[:], hash)
				var err error
				if n.ID, err = unpackClientID(client); err != nil {
					return err
				}
				n.Conversation, err = chat.ConversationIDFromBytes(id)
				out = append(out, n)
				return err
			})
	})
	return out, err
}

// Checkpoints gives those of several partitions.
func (s *Store) Checkpoints(ctx context.Context, partitions []int32) (map[int32]seq.Checkpoint, error) {
	positions, err := s.Positions(ctx, partitions)
	if err != nil {
		return nil, err
	}
	out := make(map[int32]seq.Checkpoint, len(positions))
	for _, p := range positions {
		out[p.Partition] = CheckpointOf(p)
	}
	return out, nil
}
