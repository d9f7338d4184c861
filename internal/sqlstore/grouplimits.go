package sqlstore

import (
	"context"
	"database/sql"

	"tideline/pkg/chat"
)

// Reservation asks for the id of a group that its creator makes and names with a client id.
type Reservation struct {
	Creator     chat.UserID
	ClientMsgID string
	Hash        chat.BodyHash // of what is reserved for
	Group       int64         // the id to use if there is no reservation yet
	// Most is how many groups a creator may reserve in this manner after Since (ms).
	Most  int
	Since int64
}

// ReserveCounted is ReserveGroup with a limit on the creator's new groups. A repetition returns the former id whatever the
// limit says. Where the limit is reached it returns no id and the time (ms) of the group that must be older than Since
// before there is room. Reservations of one creator take turns at the creator's row, so parallel calls never exceed the limit.
func (s *Store) ReserveCounted(ctx context.Context, r Reservation) (id int64, conflict bool, full int64, err error) {
	key := []any{int64(r.Creator), []byte(r.ClientMsgID)}
	err = s.inTx(ctx, "reserving a group", func(ctx context.Context, tx *sql.Tx) error {
		id, conflict, full = 0, false, 0
		if _, err := execTx(ctx, tx, "locking the creator", "UPDATE users SET updated_at = updated_at WHERE user_id = ?", int64(r.Creator)); err != nil {
			return err
		}
		err := queryOn(ctx, tx, "reading a reservation", "SELECT group_id, body_hash FROM group_reservations WHERE creator_id = ? AND client_msg_id = ?", key,
			func(rows *sql.Rows) error {
				var first []byte
				err := rows.Scan(&id, &first)
				conflict = string(first) != string(r.Hash[:])
				return err
			})
		if err != nil || id != 0 {
			return err
		}
		// The index group_reservations_counted, at most Most entries of it.
		err = queryOn(ctx, tx, "counting a creator's groups",
			"SELECT created_at FROM group_reservations WHERE creator_id = ? AND counted = 1 AND created_at > ? ORDER BY created_at DESC LIMIT 1 OFFSET ?",
			[]any{int64(r.Creator), r.Since, r.Most - 1}, func(rows *sql.Rows) error { return rows.Scan(&full) })
		if err != nil || full != 0 {
			return err
		}
		_, err = execTx(ctx, tx, "reserving a group", "INSERT INTO group_reservations (creator_id, client_msg_id, group_id, body_hash, created_at, counted) VALUES "+rowsOf(1, 6),
			int64(r.Creator), []byte(r.ClientMsgID), r.Group, r.Hash[:], s.now().UnixMilli(), 1)
		id = r.Group
		return err
	})
	if s.dialect.duplicate(err) { // an administrator reserved the same at this moment, without the lock
		id, conflict, err = s.ReserveGroup(ctx, r.Creator, r.ClientMsgID, r.Hash, r.Group)
	}
	return id, conflict, full, err
}

// ReservedGroup returns the id that was reserved for a creator and a client id; 0 where none was.
func (s *Store) ReservedGroup(ctx context.Context, creator chat.UserID, clientMsgID string) (int64, error) {
	var id int64
	err := s.query(ctx, "reading a reservation", "SELECT group_id FROM group_reservations WHERE creator_id = ? AND client_msg_id = ?",
		[]any{int64(creator), []byte(clientMsgID)}, func(r *sql.Rows) error { return r.Scan(&id) })
	return id, err
}

// InGroups returns those of some users who are members of at least so many groups, in no order. Private and system
// conversations do not count. It reads a range of the index members_present for each user, and nothing else.
func (s *Store) InGroups(ctx context.Context, users []chat.UserID, least int) ([]chat.UserID, error) {
	var out []chat.UserID
	err := chunks(users, maxTerms, func(part []chat.UserID) error {
		return s.query(ctx, "counting memberships", inGroups(len(part)), inGroupsArgs(part, least), func(r *sql.Rows) error {
			var u chat.UserID
			err := r.Scan(&u)
			out = append(out, u)
			return err
		})
	})
	return out, err
}

func inGroups(users int) string {
	return "SELECT user_id FROM members WHERE user_id IN (" + placeholders(users) + ") AND left_seq = 0 AND conversation_id > ? AND conversation_id < ? GROUP BY user_id HAVING COUNT(*) >= ?"
}

// inGroupsArgs names the range of the ids of groups, which begin with their kind.
func inGroupsArgs(users []chat.UserID, least int) []any {
	return append(userArgs(users), []byte{byte(chat.KindGroup)}, []byte{byte(chat.KindGroup) + 1}, least)
}
