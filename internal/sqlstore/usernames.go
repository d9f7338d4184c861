package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"tideline/pkg/chat"
)

// A username is compared by its key, byte for byte on both stores: its normal form, or, for an older name that has none
// of its own, keptMark and the name as it is. No normal form begins with the mark, which is a control character.
const keptMark = "\x01"

// maxNormalBytes bounds a normal form: 64 characters of four bytes, the longest name. Compatibility forms can be longer
// than what they stand for; such a name keeps its own.
const maxNormalBytes = 256

// NormalUsername returns the form in which usernames are compared: NFKC with case folded. A name that has bytes which
// are no UTF-8, white space at an end, control characters or characters that cannot be seen has none.
func NormalUsername(name string) (string, bool) {
	if !utf8.ValidString(name) || len(name) > maxNormalBytes {
		return "", false
	}
	// Folding can bring about what composes again, and composing what folds again. All of Unicode is at rest after the
	// second round.
	const rounds = 3
	form := name
	for i := 0; ; i++ {
		next := norm.NFKC.String(cases.Fold().String(norm.NFKC.String(form)))
		if next == form {
			break
		}
		if form = next; i == rounds {
			return "", false
		}
	}
	if form == "" || len(form) > maxNormalBytes || strings.TrimSpace(form) != form || strings.ContainsFunc(form, func(r rune) bool {
		return unicode.IsControl(r) || chat.IsInvisible(r)
	}) {
		return "", false
	}
	return form, true
}

// usernameKeys returns the keys by which a name may be found: its own, if it was kept, comes first.
func usernameKeys(name string) []any {
	keys := []any{keptMark + name}
	if form, ok := NormalUsername(name); ok {
		keys = append(keys, form)
	}
	return keys
}

// KeptUsernames returns names that have no normal form of their own, in the order of their keys: what they would be
// is another person's name, or no name at all. Their owners log in with exactly what is listed. The limit bounds them.
func (s *Store) KeptUsernames(ctx context.Context, limit int) ([]User, error) {
	return s.users(ctx, "username_key >= ? AND username_key < ? ORDER BY username_key LIMIT ?", keptMark, "\x02", limit)
}

// normalizeBatch is how many names are read at a time: a page is far below a second, on MySQL as well.
const normalizeBatch = 1000

// normalizeUsernames brings keys of older versions to the normal form. Each name is changed by compare-and-set, so that
// it may be ended at any place and begun again, also while processes of older versions register people. The unique
// index decides between names that collide: the one that has the form already keeps it, or else the one with the lowest
// id, and every other is found by its exact form.
func (s *Store) normalizeUsernames(ctx context.Context, db *sql.DB) error {
	type row struct {
		id        int64
		name, key string
	}
	for after := int64(0); ; {
		var page []row
		err := queryOn(ctx, db, "reading usernames",
			"SELECT user_id, username, username_key FROM users WHERE user_id > ? AND "+s.dialect.unusual("username")+" ORDER BY user_id LIMIT ?", []any{after, normalizeBatch},
			func(r *sql.Rows) error {
				var v row
				err := r.Scan(&v.id, &v.name, &v.key)
				page = append(page, v)
				return err
			})
		if err != nil {
			return err
		}
		for _, v := range page {
			after = v.id
			if err := s.normalizeUsername(ctx, db, v.id, v.name, v.key); err != nil {
				return err
			}
		}
		if len(page) < normalizeBatch {
			return nil
		}
	}
}

func (s *Store) normalizeUsername(ctx context.Context, db *sql.DB, id int64, name, key string) error {
	kept := keptMark + name
	if key == kept {
		return nil
	}
	set := func(to string) error {
		_, err := db.ExecContext(ctx, "UPDATE users SET username_key = ? WHERE user_id = ? AND username_key = ?", to, id, key)
		if s.dialect.duplicate(err) {
			return ErrTaken
		}
		if err != nil {
			return fmt.Errorf("bringing a username to its normal form: %w", err)
		}
		return nil
	}
	if form, ok := NormalUsername(name); ok {
		if form == key {
			return nil
		}
		if err := set(form); !errors.Is(err, ErrTaken) {
			return err
		}
	}
	return set(kept)
}
