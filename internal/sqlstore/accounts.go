package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tideline/pkg/chat"
)

// ErrTaken means that a name is somebody else's.
var ErrTaken = errors.New("the name is taken")

// ErrChanged means that what was to be changed had been changed by somebody else meanwhile.
var ErrChanged = errors.New("it was changed meanwhile")

// User is a person, or a bot.
type User struct {
	ID           chat.UserID
	Username     string // "" for those who came from elsewhere
	Nickname     string
	AvatarURL    string
	PasswordHash string // in PHC form; "" for those who cannot log in
	ExternalID   string
	CreatedAt    int64
	UpdatedAt    int64
}

const userColumns = "user_id, username, nickname, avatar_url, password_hash, external_id, created_at, updated_at"

func scanUser(r scanner) (User, error) {
	var u User
	var name, hash sql.NullString
	var external []byte
	err := r.Scan(&u.ID, &name, &u.Nickname, &u.AvatarURL, &hash, &external, &u.CreatedAt, &u.UpdatedAt)
	u.Username, u.PasswordHash, u.ExternalID = name.String, hash.String, string(external)
	return u, err
}

// errNoForm means that a username has no normal form: its caller has not judged it.
var errNoForm = errors.New("creating a user: the username has no normal form")

// CreateUser stores a person whose username has a normal form; ErrTaken where that is in use.
func (s *Store) CreateUser(ctx context.Context, u User) error {
	key, ok := NormalUsername(u.Username)
	if !ok {
		return errNoForm
	}
	_, err := s.exec(ctx, "creating a user",
		"INSERT INTO users (user_id, username, username_key, nickname, avatar_url, password_hash, created_at, updated_at) VALUES "+rowsOf(1, 8),
		int64(u.ID), u.Username, key, u.Nickname, u.AvatarURL, u.PasswordHash, u.CreatedAt, u.UpdatedAt)
	if s.dialect.duplicate(err) {
		return ErrTaken
	}
	return err
}

// UserByName returns the person with a username, or false. One whose exact name this is comes before one with this
// normal form.
func (s *Store) UserByName(ctx context.Context, name string) (User, bool, error) {
	keys := usernameKeys(name)
	users, err := s.users(ctx, "username_key IN ("+placeholders(len(keys))+") ORDER BY username_key", keys...)
	if err != nil || len(users) == 0 {
		return User{}, false, err
	}
	return users[0], true, nil // keptMark is below every other first byte
}

// Users gives people by id, in no order.
func (s *Store) Users(ctx context.Context, ids []chat.UserID) ([]User, error) {
	var out []User
	err := chunks(ids, maxTerms, func(part []chat.UserID) error {
		users, err := s.users(ctx, "user_id IN ("+placeholders(len(part))+")", userArgs(part)...)
		out = append(out, users...)
		return err
	})
	return out, err
}

// SearchUsers returns people whose username begins with a text in its normal form, in order of it. Names that were kept
// as they are (see KeptUsernames) are not found: they look like those of others.
func (s *Store) SearchUsers(ctx context.Context, begins string, limit int) ([]User, error) {
	form, ok := NormalUsername(begins)
	if !ok {
		return nil, nil
	}
	escape := strings.NewReplacer("!", "!!", "%", "!%", "_", "!_")
	return s.users(ctx, "username_key LIKE ? ESCAPE '!' ORDER BY username_key LIMIT ?", escape.Replace(form)+"%", limit)
}

func (s *Store) users(ctx context.Context, where string, args ...any) ([]User, error) {
	var out []User
	err := s.query(ctx, "reading users", "SELECT "+userColumns+" FROM users WHERE "+where, args, func(r *sql.Rows) error {
		u, err := scanUser(r)
		out = append(out, u)
		return err
	})
	return out, err
}

// UpdateUser changes what a person is called and looks like; nil leaves it. It tells whether the person exists.
func (s *Store) UpdateUser(ctx context.Context, id chat.UserID, nickname, avatarURL *string, at int64) (bool, error) {
	sets, args := []string{"updated_at = ?"}, []any{at}
	if nickname != nil {
		sets, args = append(sets, "nickname = ?"), append(args, *nickname)
	}
	if avatarURL != nil {
		sets, args = append(sets, "avatar_url = ?"), append(args, *avatarURL)
	}
	r, err := s.exec(ctx, "changing a user", "UPDATE users SET "+strings.Join(sets, ", ")+" WHERE user_id = ?", append(args, int64(id))...)
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n > 0, err
}

// ExternalUser is a person whose identity comes from elsewhere.
type ExternalUser struct {
	ExternalID string
	Nickname   string
	ID         chat.UserID // to use if the person is new
}

// UpsertExternal gives the ids of people by external id, and creates those who are missing. Nicknames of those who are
// there stay. Where a person without a nickname is missing, no one is created, and that id is not in the answer. At most maxTerms at a time. It is safe against itself: the unique index decides who was first.
func (s *Store) UpsertExternal(ctx context.Context, people []ExternalUser, at int64) (map[string]chat.UserID, error) {
	if len(people) > 500 {
		return nil, fmt.Errorf("creating people: %d at once, 500 are allowed", len(people))
	}
	ids := map[string]chat.UserID{}
	find := func() error {
		return chunks(people, maxTerms, func(part []ExternalUser) error {
			args := make([]any, len(part))
			for i, p := range part {
				args[i] = []byte(p.ExternalID)
			}
			return s.query(ctx, "looking for people", "SELECT user_id, external_id FROM users WHERE external_id IN ("+placeholders(len(part))+")", args, func(r *sql.Rows) error {
				var id chat.UserID
				var external []byte
				err := r.Scan(&id, &external)
				ids[string(external)] = id
				return err
			})
		})
	}
	if err := find(); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var missing []ExternalUser
	nameless := false
	for _, p := range people {
		if _, there := ids[p.ExternalID]; !there && !seen[p.ExternalID] {
			seen[p.ExternalID] = true
			missing = append(missing, p)
			nameless = nameless || p.Nickname == ""
		}
	}
	if len(missing) == 0 || nameless {
		return ids, nil
	}
	// Two who create the same people lock their index entries in the same order, so that one waits for the other and
	// neither is the victim of a deadlock.
	slices.SortFunc(missing, func(a, b ExternalUser) int { return strings.Compare(a.ExternalID, b.ExternalID) })
	// On a conflict nothing changes: the first one stays, and is found below.
	tail := s.dialect.upsert("external_id", "external_id")
	args := make([]any, 0, 5*len(missing))
	for _, p := range missing {
		args = append(args, int64(p.ID), p.Nickname, []byte(p.ExternalID), at, at)
	}
	if _, err := s.exec(ctx, "creating people", "INSERT INTO users (user_id, nickname, external_id, created_at, updated_at) VALUES "+rowsOf(len(missing), 5)+tail, args...); err != nil {
		return nil, err
	}
	return ids, find()
}

// ReserveGroup gives the id of the group that a creator named with a client id: the given one, or the one that was
// reserved before. The hash is of what was reserved for: a different one is told by conflict.
func (s *Store) ReserveGroup(ctx context.Context, creator chat.UserID, clientMsgID string, hash chat.BodyHash, group int64) (id int64, conflict bool, err error) {
	_, err = s.exec(ctx, "reserving a group", "INSERT INTO group_reservations (creator_id, client_msg_id, group_id, body_hash, created_at) VALUES "+rowsOf(1, 5),
		int64(creator), []byte(clientMsgID), group, hash[:], s.now().UnixMilli())
	if err == nil {
		return group, false, nil
	}
	if !s.dialect.duplicate(err) {
		return 0, false, err
	}
	var first []byte
	err = s.query(ctx, "reading a reservation", "SELECT group_id, body_hash FROM group_reservations WHERE creator_id = ? AND client_msg_id = ?",
		[]any{int64(creator), []byte(clientMsgID)}, func(r *sql.Rows) error { return r.Scan(&id, &first) })
	return id, string(first) != string(hash[:]), err
}
