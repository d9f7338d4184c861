package accounts

import (
	"context"
	"errors"
	"strconv"
	"time"
	"unicode/utf8"

	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
)

// maxListed bounds the sessions of one answer; the ones that were used last come first.
const maxListed = 100

// Sessions returns the caller's sessions that have not ended, at most 100, the one that was begun or refreshed last first.
func (a *Accounts) Sessions(ctx context.Context, c Caller) ([]sqlstore.Session, error) {
	return a.store.SessionsOf(ctx, c.User, a.now().UnixMilli(), maxListed)
}

// EndSession ends one of the caller's sessions. One that is unknown or another person's is not found; ending one twice
// changes nothing.
func (a *Accounts) EndSession(ctx context.Context, c Caller, id int64) error {
	s, found, err := a.store.SessionByID(ctx, id)
	if err != nil {
		return err
	}
	if !found || s.User != c.User {
		return chat.RefuseField(chat.CodeNotFound, "session_id", "session not found")
	}
	if s.RevokedAt > 0 {
		return nil
	}
	return a.revoke(ctx, id, endedByOwner)
}

// Revoke ends a session at its owner's logout, and tells every door.
func (a *Accounts) Revoke(ctx context.Context, session int64) error {
	return a.revoke(ctx, session, endedByLogout)
}

func (a *Accounts) revoke(ctx context.Context, session int64, why string) error {
	if err := a.store.RevokeSession(ctx, session, a.now().UnixMilli()); err != nil {
		return err
	}
	a.ended(ctx, why, session)
	return nil
}

// announceTimeout bounds the announcement of ended sessions; a process that misses it finds out within sessionTTL.
const announceTimeout = 500 * time.Millisecond

// ended makes sessions that were ended in the store end everywhere: here at once, and by Redis in the other processes,
// where their sockets are closed.
func (a *Accounts) ended(ctx context.Context, why string, sessions ...int64) {
	if len(sessions) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), announceTimeout) // the caller may be gone; they have ended
	defer cancel()
	pipe := a.redis.Pipeline()
	for _, id := range sessions {
		a.Forget(id)
		a.metrics.Ended.WithLabelValues(why).Inc()
		a.log.InfoContext(ctx, "session ended", "session", id, "why", why)
		pipe.Publish(ctx, RevokedChannel, strconv.FormatInt(id, 10))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		a.log.WarnContext(ctx, "the end of a session was not told; other doors find out within seconds", "err", err)
	}
}

// PasswordChange is what a person sends to change their password; see Registration for Address and Key.
type PasswordChange struct {
	Address, Key string
	Caller       Caller
	Current, New string
}

// ChangePassword replaces the caller's password, and ends all of their other sessions. The current password is guessed
// at here as at a login, so it has the same budgets. A retry by its name that finds the new password in place is
// answered as the first try was.
func (a *Accounts) ChangePassword(ctx context.Context, p PasswordChange) error {
	users, err := a.store.Users(ctx, []chat.UserID{p.Caller.User})
	switch {
	case err != nil:
		return err
	case len(users) == 0 || users[0].PasswordHash == "":
		return chat.Refuse(chat.CodeForbidden, "this account has no password")
	}
	u := users[0]
	if err := checkPassword("new_password", p.New, u.Username); err != nil {
		return err
	}
	if utf8.RuneCountInString(p.Current) > maxPassword {
		return chat.RefuseField(chat.CodeInvalidCredentials, "current_password", "wrong password")
	}
	end, err := a.attempt(ctx, p.Address, u.Username)
	if err != nil {
		return err
	}
	current, done, err := a.judgeChange(ctx, u.PasswordHash, p)
	failed := err == nil && !current && !done
	end(failed)
	switch {
	case err != nil:
		return err
	case failed:
		a.failed(ctx, p.Address, u.ID)
		return chat.RefuseField(chat.CodeInvalidCredentials, "current_password", "wrong password")
	}
	if current {
		hash, err := a.passwords.Hash(ctx, p.New)
		if err != nil {
			return err
		}
		ended, err := a.store.ChangePassword(ctx, u.ID, u.PasswordHash, hash, p.Caller.Session, a.now().UnixMilli())
		if errors.Is(err, sqlstore.ErrChanged) {
			return chat.Refuse(chat.CodeUnavailable, "the password is being changed by another request").After(time.Second)
		}
		if err != nil {
			return err
		}
		a.ended(ctx, endedByPassword, ended...)
	}
	// A login that had verified the old password as it was replaced may have begun a session since: see Login.
	ended, err := a.store.RevokeSessions(ctx, u.ID, p.Caller.Session, a.now().UnixMilli())
	if err != nil {
		return err
	}
	a.ended(ctx, endedByPassword, ended...)
	return nil
}

// judgeChange reports whether the current password is right, or, for a retry by its name, whether the change was made.
func (a *Accounts) judgeChange(ctx context.Context, hash string, p PasswordChange) (current, done bool, err error) {
	current, err = a.passwords.Matches(ctx, hash, p.Current)
	if err != nil || current || p.Key == "" {
		return current, false, err
	}
	done, err = a.passwords.Matches(ctx, hash, p.New)
	return false, done, err
}
