package sqlstore

import (
	"context"
	"database/sql"

	"tideline/pkg/chat"
)

// Session is a login of a person on a device.
type Session struct {
	ID           int64
	User         chat.UserID
	DeviceID     string
	Platform     string
	RefreshHash  [32]byte // SHA-256 of the refresh token
	PreviousHash [32]byte // of the one before; zero at first
	CreatedAt    int64
	RefreshedAt  int64
	ExpiresAt    int64
	RevokedAt    int64 // 0 while it stands
}

const sessionColumns = "session_id, user_id, device_id, platform, refresh_hash, previous_hash, created_at, refreshed_at, expires_at, revoked_at"

// CreateSession stores a login; ErrTaken where there is a session with this id.
func (s *Store) CreateSession(ctx context.Context, v Session) error {
	_, err := s.exec(ctx, "creating a session",
		"INSERT INTO sessions (session_id, user_id, device_id, platform, refresh_hash, created_at, refreshed_at, expires_at) VALUES "+rowsOf(1, 8),
		v.ID, int64(v.User), v.DeviceID, v.Platform, v.RefreshHash[:], v.CreatedAt, v.RefreshedAt, v.ExpiresAt)
	if s.dialect.duplicate(err) {
		return ErrTaken
	}
	return err
}

// SessionByID gives a session, or false.
func (s *Store) SessionByID(ctx context.Context, id int64) (Session, bool, error) {
	if s.crowds != nil {
		return s.crowds.sessions.Get(ctx, id)
	}
	got, err := s.sessions(ctx, []int64{id})
	v, ok := got[id]
	return v, ok, err
}

func (s *Store) sessions(ctx context.Context, ids []int64) (map[int64]Session, error) {
	out := make(map[int64]Session, len(ids))
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id
	}
	err := s.query(ctx, "reading sessions", "SELECT "+sessionColumns+" FROM sessions WHERE session_id IN ("+placeholders(len(ids))+")", args, func(r *sql.Rows) error {
		v, err := scanSession(r)
		out[v.ID] = v
		return err
	})
	return out, err
}

func scanSession(r scanner) (Session, error) {
	var v Session
	var hash, previous []byte
	err := r.Scan(&v.ID, &v.User, &v.DeviceID, &v.Platform, &hash, &previous, &v.CreatedAt, &v.RefreshedAt, &v.ExpiresAt, &v.RevokedAt)
	copy(v.RefreshHash[:], hash)
	copy(v.PreviousHash[:], previous)
	return v, err
}

// RotateRefresh replaces a session's refresh token by compare-and-set; ErrChanged where the old one is not the present
// one any more, or the session is revoked.
func (s *Store) RotateRefresh(ctx context.Context, id int64, old, fresh [32]byte, at, expiresAt int64) error {
	r, err := s.exec(ctx, "rotating a refresh token",
		"UPDATE sessions SET previous_hash = refresh_hash, refresh_hash = ?, refreshed_at = ?, expires_at = ? WHERE session_id = ? AND refresh_hash = ? AND revoked_at = 0",
		fresh[:], at, expiresAt, id, old[:])
	if err != nil {
		return err
	}
	if n, err := r.RowsAffected(); err != nil || n == 1 {
		return err
	}
	return ErrChanged
}

// RevokeSession ends a session; ending it twice changes nothing.
func (s *Store) RevokeSession(ctx context.Context, id, at int64) error {
	_, err := s.exec(ctx, "revoking a session", "UPDATE sessions SET revoked_at = ? WHERE session_id = ? AND revoked_at = 0", at, id)
	return err
}

// SessionsOf returns at most limit sessions of a person that have not ended at a time, the one that was begun or
// refreshed last first.
func (s *Store) SessionsOf(ctx context.Context, user chat.UserID, at int64, limit int) ([]Session, error) {
	var out []Session
	err := s.query(ctx, "reading the sessions of a user",
		"SELECT "+sessionColumns+" FROM sessions WHERE user_id = ? AND revoked_at = 0 AND expires_at > ? ORDER BY refreshed_at DESC, session_id DESC LIMIT ?",
		[]any{int64(user), at, limit}, func(r *sql.Rows) error {
			v, err := scanSession(r)
			out = append(out, v)
			return err
		})
	return out, err
}

// ChangePassword replaces a person's password hash by compare-and-set, ErrChanged where the old one is not the present one
// any more, and ends all of their sessions but one in the same transaction. It returns the ids of those that it ended.
func (s *Store) ChangePassword(ctx context.Context, user chat.UserID, old, fresh string, except, at int64) ([]int64, error) {
	var ended []int64
	err := s.inTx(ctx, "changing a password", func(ctx context.Context, tx *sql.Tx) error {
		n, err := execTx(ctx, tx, "changing a password", "UPDATE users SET password_hash = ?, updated_at = ? WHERE user_id = ? AND password_hash = ?", fresh, at, int64(user), old)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrChanged
		}
		ended, err = revokeSessions(ctx, tx, user, except, at)
		return err
	})
	return ended, err
}

// RevokeSessions ends all sessions of a person but one (0: all), and gives the ids of those that it ended.
func (s *Store) RevokeSessions(ctx context.Context, user chat.UserID, except, at int64) ([]int64, error) {
	var ended []int64
	err := s.inTx(ctx, "revoking the sessions of a user", func(ctx context.Context, tx *sql.Tx) (err error) {
		ended, err = revokeSessions(ctx, tx, user, except, at)
		return err
	})
	return ended, err
}

func revokeSessions(ctx context.Context, tx *sql.Tx, user chat.UserID, except, at int64) ([]int64, error) {
	var ended []int64
	err := queryOn(ctx, tx, "reading sessions", "SELECT session_id FROM sessions WHERE user_id = ? AND revoked_at = 0 AND session_id <> ?", []any{int64(user), except},
		func(r *sql.Rows) error {
			var id int64
			err := r.Scan(&id)
			ended = append(ended, id)
			return err
		})
	if err != nil {
		return nil, err
	}
	return ended, chunks(ended, maxTerms, func(part []int64) error {
		args := []any{at}
		for _, id := range part {
			args = append(args, id)
		}
		_, err := execTx(ctx, tx, "revoking sessions", "UPDATE sessions SET revoked_at = ? WHERE revoked_at = 0 AND session_id IN ("+placeholders(len(part))+")", args...)
		return err
	})
}
