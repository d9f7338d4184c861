package accounts

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/crypto/argon2"

	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
)

// cheap is the hash of a password with parameters that cost microseconds; tests with hundreds of tries need it.
func cheap(password string) string {
	salt := []byte("sixteen bytes...")
	enc := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=19$m=64,t=1,p=1$%s$%s", enc(salt), enc(argon2.IDKey([]byte(password), salt, 1, 64, 1, 32)))
}

// people creates people with a cheap hash of "correct horse".
func (d *door) people(names ...string) {
	d.t.Helper()
	for _, name := range names {
		id, _ := d.ids.NextID()
		if err := d.store.CreateUser(d.t.Context(), sqlstore.User{ID: chat.UserID(id), Username: name, Nickname: name, PasswordHash: cheap("correct horse")}); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *door) tryLogin(address, username, password string) error {
	_, err := d.Login(d.t.Context(), Login{Address: address, Username: username, Password: password, Platform: "bot"})
	return err
}

func (d *door) mustLogin(address, username string) {
	d.t.Helper()
	if err := d.tryLogin(address, username, "correct horse"); err != nil {
		d.t.Errorf("%s logs in from %s: %v", username, address, err)
	}
}

// One address must not lock others out: while it is refused, nothing is taken from the names that it tries.
func TestLogin_ARefusedAddressTakesNothingFromNames(t *testing.T) {
	d := newWorld(t).door(nil)
	d.people("mallory")
	var owners []string
	for i := range 100 {
		owners = append(owners, fmt.Sprintf("owner%d", i))
	}
	d.people(owners...)
	for i := range 3 {
		for range 10 {
			refused(t, d.tryLogin("bad", fmt.Sprintf("owner%d", i), "wrong word"), chat.CodeInvalidCredentials)
		}
	}
	for range 50 {
		for _, name := range owners {
			refused(t, d.tryLogin("bad", name, "wrong word"), chat.CodeRateLimited)
		}
	}
	for _, name := range owners {
		d.mustLogin("home of "+name, name)
	}
	if got := testutil.ToFloat64(d.metrics.Throttled.WithLabelValues(byAddress)); got != 5000 {
		t.Errorf("%g refused by address were counted, want 5000", got)
	}
	refused(t, d.tryLogin("bad", "mallory", "correct horse"), chat.CodeRateLimited)
	d.clock = d.clock.Add(time.Minute)
	d.mustLogin("bad", "mallory")
}

func TestLogin_TenFailuresInTenMinutesForANameAtAnAddress(t *testing.T) {
	d := newWorld(t).door(func(c *Config) { c.Logins = 1000 })
	d.people("ada", "bob")
	// Every spelling is the same name.
	for i, spelled := range []string{"ada", "Ada", "ADA", "aDa", "ａｄａ", "ada", "ada", "ada", "ada", "ada"} {
		if err := d.tryLogin("here", spelled, "wrong word"); chat.CodeOf(err) != chat.CodeInvalidCredentials {
			t.Fatalf("try %d: %v", i+1, err)
		}
	}
	for _, spelled := range []string{"ada", "ADA", "ａｄａ"} {
		err := d.tryLogin("here", spelled, "correct horse")
		refused(t, err, chat.CodeRateLimited)
		var refusal *chat.Error
		if errors.As(err, &refusal) && (refusal.RetryAfter <= 0 || refusal.RetryAfter > time.Minute) {
			t.Errorf("retry after %s, want at most a minute", refusal.RetryAfter)
		}
	}
	d.mustLogin("here", "bob")
	d.mustLogin("there", "ada")
	d.clock = d.clock.Add(time.Minute)
	refused(t, d.tryLogin("here", "ada", "wrong word"), chat.CodeInvalidCredentials)
	refused(t, d.tryLogin("here", "ada", "correct horse"), chat.CodeRateLimited)
	d.clock = d.clock.Add(10 * time.Minute)
	for range 10 {
		refused(t, d.tryLogin("here", "ada", "wrong word"), chat.CodeInvalidCredentials)
	}
	refused(t, d.tryLogin("here", "ada", "correct horse"), chat.CodeRateLimited)
	if got := testutil.ToFloat64(d.metrics.Throttled.WithLabelValues(byPair)); got != 5 {
		t.Errorf("%g refused by name at an address were counted, want 5", got)
	}
}

// A name that is throttled at an address costs that address nothing: one client with an old password behind a shared
// address does not lock its neighbours out.
func TestLogin_ARefusedNameCostsItsAddressNothing(t *testing.T) {
	d := newWorld(t).door(nil)
	d.people("ada", "bob")
	for i := range 1000 {
		want := chat.CodeRateLimited
		if i < 10 {
			want = chat.CodeInvalidCredentials
		}
		refused(t, d.tryLogin("office", "ada", "wrong word"), want)
	}
	for range 10 {
		refused(t, d.tryLogin("office", "bob", "wrong word"), chat.CodeInvalidCredentials)
	}
}

func TestLogin_ThreeHundredFailuresAnHourForANameFromEverywhere(t *testing.T) {
	d := newWorld(t).door(nil)
	d.people("ada", "bob")
	for i := range 300 {
		refused(t, d.tryLogin(fmt.Sprint("bot", i), "ada", "wrong word"), chat.CodeInvalidCredentials)
	}
	refused(t, d.tryLogin("another", "ada", "correct horse"), chat.CodeRateLimited)
	d.mustLogin("another", "bob")
	if got := testutil.ToFloat64(d.metrics.Throttled.WithLabelValues(byName)); got != 1 {
		t.Errorf("%g refused by name were counted, want 1", got)
	}
	d.clock = d.clock.Add(12 * time.Second)
	d.mustLogin("another", "ada")
	d.clock = d.clock.Add(time.Hour)
	for i := range 300 {
		refused(t, d.tryLogin(fmt.Sprint("more", i), "ada", "wrong word"), chat.CodeInvalidCredentials)
	}
	refused(t, d.tryLogin("another", "ada", "correct horse"), chat.CodeRateLimited)
}

func TestLogin_SuccessesCostNothingAlsoAtOnce(t *testing.T) {
	d := newWorld(t).door(func(c *Config) { c.Logins = 3 })
	d.people("ada")
	for range 50 {
		d.mustLogin("campus", "ada")
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { d.mustLogin("campus", "ada") })
	}
	wg.Wait()
	for range 3 {
		refused(t, d.tryLogin("campus", "ada", "wrong word"), chat.CodeInvalidCredentials)
	}
	refused(t, d.tryLogin("campus", "ada", "correct horse"), chat.CodeRateLimited)
}

// However many come at once, no more are judged than the budget has.
func TestLogin_FailuresAtOnceAreBounded(t *testing.T) {
	d := newWorld(t).door(func(c *Config) { c.Logins = 1000 })
	d.people("ada")
	var mu sync.Mutex
	got := map[chat.Code]int{}
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			err := d.tryLogin("here", "ada", "wrong word")
			mu.Lock()
			defer mu.Unlock()
			got[chat.CodeOf(err)]++
		})
	}
	wg.Wait()
	if got[chat.CodeInvalidCredentials] != 10 || got[chat.CodeRateLimited] != 190 {
		t.Errorf("of 200 at once: %v, want 10 judged", got)
	}
}

// failing is a store that does not answer.
type failing struct{ Store }

func (failing) UserByName(context.Context, string) (sqlstore.User, bool, error) {
	return sqlstore.User{}, false, errors.New("no answer")
}

func TestLogin_WhatWasNotJudgedCostsNothing(t *testing.T) {
	d := newWorld(t).door(nil)
	d.people("ada")
	store := d.store
	d.store = failing{store}
	for range 100 {
		if err := d.tryLogin("here", "ada", "correct horse"); chat.CodeOf(err) != chat.CodeInternal {
			t.Fatal(err)
		}
	}
	d.store = store
	d.passwords = NewPasswords(1)
	d.passwords.seats <- struct{}{}
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := d.Login(ctx, Login{Address: "here", Username: "ada", Password: "x", Platform: "bot"})
		if err == nil {
			t.Fatal("a login without a seat succeeds")
		}
	}
	<-d.passwords.seats
	for range 10 {
		refused(t, d.tryLogin("here", "ada", "wrong word"), chat.CodeInvalidCredentials)
	}
}

// Whatever judges a password counts as a login.
func TestAttempts_CountAtEveryEntrance(t *testing.T) {
	for name, try := range map[string]func(d *door, password string) error{
		"login": func(d *door, password string) error { return d.tryLogin("here", "ada", password) },
		"change of the password": func(d *door, password string) error {
			u, _, _ := d.store.UserByName(d.t.Context(), "ada")
			return d.ChangePassword(d.t.Context(), PasswordChange{Address: "here", Caller: Caller{User: u.ID}, Current: password, New: "a longer phrase"})
		},
		"a repeated change": func(d *door, password string) error {
			u, _, _ := d.store.UserByName(d.t.Context(), "ada")
			return d.ChangePassword(d.t.Context(), PasswordChange{Address: "here", Key: "k", Caller: Caller{User: u.ID}, Current: "wrong", New: password})
		},
		"a repeated registration": func(d *door, password string) error {
			d.attempts.registrations.Settle("here", false)
			_, err := d.Register(d.t.Context(), Registration{Address: "here", Key: "k", Username: "ada", Password: password})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newWorld(t).door(nil)
			d.people("ada")
			for range 10 {
				if code := chat.CodeOf(try(d, "wrong word")); code != chat.CodeInvalidCredentials && code != chat.CodeUsernameTaken {
					t.Fatal(code)
				}
			}
			refused(t, try(d, "correct horse"), chat.CodeRateLimited)
			refused(t, d.tryLogin("here", "ada", "correct horse"), chat.CodeRateLimited)
			if got := testutil.ToFloat64(d.metrics.Failed); got != 10 {
				t.Errorf("%g failures were counted, want 10", got)
			}
		})
	}
}

func TestRegister_RefusesTheCommonestPasswordsAndTheUsername(t *testing.T) {
	d := newWorld(t).door(func(c *Config) { c.Logins = 1000 })
	if n := len(common()); n < 10_000 {
		t.Fatalf("the list has %d passwords", n)
	}
	for _, p := range common() {
		if len(p) < minPassword || !isCommon(p) || !isCommon(strings.ToUpper(p)) {
			t.Fatalf("%q is not found", p)
		}
	}
	register := func(username, password string) error {
		_, err := d.Register(t.Context(), Registration{Address: "here", Username: username, Password: password})
		return err
	}
	for _, p := range []string{"password", "PASSWORD", "12345678", "123456789", "qwertyuiop", "iloveyou", "password1", "Password123", "sunshine", "football", "princess", " password ", "letmein1", "1q2w3e4r", "trustno1"} {
		refused(t, register("somebody", p), chat.CodeInvalidField)
	}
	for _, p := range []string{"Grace.Hopper", "grace.hopper", "GRACE.HOPPER", "ｇｒａｃｅ.ｈｏｐｐｅｒ", " grace.hopper"} {
		refused(t, register("Grace.Hopper", p), chat.CodeInvalidField)
	}
	for _, p := range []string{"1234567", "", "\u00e4\u00f6\u00fc\u00df", strings.Repeat("x", 257)} {
		refused(t, register("somebody", p), chat.CodeInvalidField)
	}
	for i, p := range []string{"correct horse", "battery staple", "grace.hopper.2", "\u00e4\u00f6\u00fc\u00df\u00e4\u00f6\u00fc\u00df", strings.Repeat("\u00e4", 256)} {
		if err := register(fmt.Sprint("fine", i), p); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
	// Who has one already goes on with it.
	if err := d.store.CreateUser(t.Context(), sqlstore.User{ID: 1 << 40, Username: "old", Nickname: "old", PasswordHash: cheap("password")}); err != nil {
		t.Fatal(err)
	}
	if err := d.tryLogin("here", "old", "password"); err != nil {
		t.Error(err)
	}
}
