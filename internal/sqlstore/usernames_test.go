package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"tideline/pkg/chat"
)

// spellings are usernames with their normal form, "" where they have none.
var spellings = map[string]string{
	"ada": "ada", "Ada": "ada", "ADA": "ada", "ａｄａ": "ada", "Ａda": "ada", "ada.l-9_x": "ada.l-9_x", "Straße": "strasse", "STRASSE": "strasse", "ﬁn": "fin", "Σίσυφος": "σίσυφοσ", "\u212aelvin": "kelvin",
	"é": "é", "e\u0301": "é", "a b": "a b",
	"": "", "ada ": "", " ada": "", "ada  ": "", "ada\u00a0": "", "\u3000ada": "", "ada\t": "", "ada\n": "", "a\x00da": "", "\x01ada": "", "ada\u200b": "", "\u200dada": "", "a\u2060da": "", "\ufeffada": "",
	"ada\u202e": "", "\u202dada": "", "\u2067ada\u2069": "", "ada\u200e": "", "ada\u00ad": "", "ada\ufe0f": "", "\u3164": "", "\xff": "", "ada\xc3": "", strings.Repeat("a", 257): "", strings.Repeat("\ufdfa", 60): "",
}

func TestNormalUsername_IsOneFormOfAName(t *testing.T) {
	for name, want := range spellings {
		if got, ok := NormalUsername(name); got != want || ok != (want != "") {
			t.Errorf("%q becomes %q (%t), want %q", name, got, ok, want)
		}
	}
}

// FuzzNormalUsername: a normal form is its own normal form, whatever it was made of.
func FuzzNormalUsername(f *testing.F) {
	for name := range spellings {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		form, ok := NormalUsername(name)
		if !ok {
			return
		}
		if again, ok := NormalUsername(form); !ok || again != form {
			t.Fatalf("%q becomes %q, and that becomes %q (%t)", name, form, again, ok)
		}
		if strings.HasPrefix(form, keptMark) {
			t.Fatalf("%q becomes %q, which looks like a name that was kept", name, form)
		}
	})
}

// Every character alone: what a round brings about must be at rest after the last one.
func TestNormalUsername_IsAtRestForEveryCharacter(t *testing.T) {
	for r := rune(0); r <= 0x10ffff; r++ {
		name := "a" + string(r) + "b"
		form, ok := NormalUsername(name)
		if !ok {
			continue
		}
		if again, ok := NormalUsername(form); !ok || again != form {
			t.Fatalf("%U becomes %q, and that becomes %q (%t)", r, form, again, ok)
		}
	}
}

func TestUserByName_TakesTheNormalFormAndNothingElse(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		if err := s.CreateUser(t.Context(), User{ID: 1, Username: "Ada", Nickname: "x"}); err != nil {
			t.Fatal(err)
		}
		for name, form := range spellings {
			u, found, err := s.UserByName(t.Context(), name)
			if err != nil || found != (form == "ada") || found && u.ID != 1 {
				t.Errorf("%q finds %+v (%t), %v", name, u, found, err)
			}
			if form == "" {
				if err := s.CreateUser(t.Context(), User{ID: 9, Username: name, Nickname: "x"}); !errors.Is(err, errNoForm) {
					t.Errorf("%q is created: %v", name, err)
				}
			} else if form == "ada" {
				if err := s.CreateUser(t.Context(), User{ID: 9, Username: name, Nickname: "x"}); !errors.Is(err, ErrTaken) {
					t.Errorf("%q beside Ada: %v", name, err)
				}
			}
			if list, err := s.SearchUsers(t.Context(), name, 5); err != nil || form == "" && len(list) > 0 {
				t.Errorf("searching %q: %v, %v", name, list, err)
			}
		}
		if list, err := s.SearchUsers(t.Context(), "ＡD", 5); err != nil || len(list) != 1 || list[0].ID != 1 {
			t.Errorf("%v, %v", list, err)
		}
	})
}

// older stores people as older versions did: the key is the name in lower case.
func older(t *testing.T, s *Store, names ...string) {
	t.Helper()
	for i, name := range names {
		if _, err := s.writer.Exec("INSERT INTO users (user_id, username, username_key, nickname, password_hash, created_at, updated_at) VALUES (?, ?, ?, 'x', '', 0, 0)",
			100+i, name, strings.ToLower(name)); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
	}
}

func TestMigrate_BringsOldUsernamesToTheNormalForm(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		// 100 collides with nothing; 101 with 102, which has the form already; 103 and 104 with each other; the rest have none.
		names := []string{"Zoë", "ＢＯＢ", "bob", "ＥＶＥ", "ｅVｅ", "mia\u200b", "kim\u202e", "Plain.Name-1"}
		older(t, s, names...)
		if err := s.CreateUser(t.Context(), User{ID: 1, Username: "new", Nickname: "x"}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.UpsertExternal(t.Context(), []ExternalUser{{ExternalID: "crm", Nickname: "x", ID: 2}}, 1); err != nil {
			t.Fatal(err)
		}
		for range 3 { // again and again changes nothing more
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					if err := s.Migrate(context.Background()); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			for i, name := range names {
				if u, found, err := s.UserByName(t.Context(), name); err != nil || !found || u.ID != chat.UserID(100+i) {
					t.Errorf("%q finds %+v (%t), %v; its owner cannot log in by the exact old form", name, u, found, err)
				}
			}
			for name, want := range map[string]chat.UserID{"ZOË": 100, "zoe\u0308": 100, "BOB": 102, "eve": 103, "EVE": 103, "ｅｖｅ": 103, "plain.name-1": 107, "NEW": 1} {
				if u, found, err := s.UserByName(t.Context(), name); err != nil || !found || u.ID != want {
					t.Errorf("%q finds %+v (%t), %v; want %d", name, u, found, err, want)
				}
			}
			kept, err := s.KeptUsernames(t.Context(), 100)
			if err != nil {
				t.Fatal(err)
			}
			got := map[chat.UserID]bool{}
			for _, u := range kept {
				got[u.ID] = true
			}
			if len(kept) != 4 || !got[101] || !got[104] || !got[105] || !got[106] {
				t.Errorf("kept are %+v", kept)
			}
		}
		if err := s.CreateUser(t.Context(), User{ID: 9, Username: "BOB", Nickname: "x"}); !errors.Is(err, ErrTaken) {
			t.Errorf("a name that was kept beside another: %v", err)
		}
		if list, err := s.KeptUsernames(t.Context(), 2); err != nil || len(list) != 2 {
			t.Errorf("%v, %v", list, err)
		}
	})
}

// One that ends in the middle, at any name, goes on where it was.
func TestMigrate_OfUsernamesGoesOnAfterItWasEnded(t *testing.T) {
	s := newSQLite(t)
	var names []string
	for i := range normalizeBatch + 7 { // more than a page
		names = append(names, fmt.Sprintf("Ｎａｍｅ%d", i))
	}
	older(t, s, names...)
	for _, i := range []int{0, 1, 500, normalizeBatch} { // as if it had done these
		if err := s.normalizeUsername(t.Context(), s.writer, int64(100+i), names[i], strings.ToLower(names[i])); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.normalizeUsernames(ctx, s.writer); err == nil {
		t.Fatal("it does not end with its context")
	}
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range names {
		if u, found, err := s.UserByName(t.Context(), fmt.Sprintf("name%d", i)); err != nil || !found || u.ID != chat.UserID(100+i) {
			t.Fatalf("name%d finds %+v (%t), %v", i, u, found, err)
		}
	}
}

func TestChangePassword_IsByCompareAndSetAndEndsOtherSessions(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		for id := int64(1); id <= 2; id++ {
			if err := s.CreateUser(t.Context(), User{ID: chat.UserID(id), Username: fmt.Sprint("user", id), Nickname: "x", PasswordHash: "old"}); err != nil {
				t.Fatal(err)
			}
		}
		for i := int64(1); i <= 6; i++ { // of user 1: 1, 2, 3, 5 (revoked), 6 (expired); of user 2: 4
			v := Session{ID: i, User: 1, Platform: "bot", RefreshHash: [32]byte{byte(i)}, CreatedAt: 10, RefreshedAt: 10 + i, ExpiresAt: 1000}
			if i == 4 {
				v.User = 2
			}
			if i == 6 {
				v.ExpiresAt = 50
			}
			if err := s.CreateSession(t.Context(), v); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.RevokeSession(t.Context(), 5, 20); err != nil {
			t.Fatal(err)
		}
		ids := func(user chat.UserID, limit int) (out []int64) {
			list, err := s.SessionsOf(t.Context(), user, 50, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range list {
				out = append(out, v.ID)
			}
			return out
		}
		if got := fmt.Sprint(ids(1, 10), ids(1, 2), ids(2, 10), ids(3, 10)); got != "[3 2 1] [3 2] [4] []" {
			t.Errorf("sessions are %s", got)
		}
		if ended, err := s.ChangePassword(t.Context(), 1, "another", "new", 2, 100); !errors.Is(err, ErrChanged) || len(ended) > 0 {
			t.Fatalf("%v, %v", ended, err)
		}
		if got := fmt.Sprint(ids(1, 10)); got != "[3 2 1]" {
			t.Errorf("a change that was refused left %s", got)
		}
		ended, err := s.ChangePassword(t.Context(), 1, "old", "new", 2, 100)
		if err != nil || len(ended) != 3 { // 1, 3, and 6, which has only expired
			t.Fatalf("%v, %v", ended, err)
		}
		if got := fmt.Sprint(ids(1, 10), ids(2, 10)); got != "[2] [4]" {
			t.Errorf("sessions are %s", got)
		}
		users, err := s.Users(t.Context(), []chat.UserID{1, 2})
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range users {
			if want := map[chat.UserID]string{1: "new", 2: "old"}[u.ID]; u.PasswordHash != want {
				t.Errorf("%d has %q", u.ID, u.PasswordHash)
			}
		}
	})
}
