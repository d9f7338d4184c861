package accounts

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"tideline/internal/config"
	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
)

const key = "a key of at least thirty-two bytes"

type counter struct{ n atomic.Int64 }

func (c *counter) NextID() (int64, error) { return c.n.Add(1), nil }

// door is one process's accounts, on a clock that stands until it is moved.
type door struct {
	*Accounts
	t     *testing.T
	clock time.Time
}

// world is a store and a Redis that several doors share.
type world struct {
	t     *testing.T
	store *sqlstore.Store
	redis *miniredis.Miniredis
	ids   counter
}

func newWorld(t *testing.T) *world {
	t.Helper()
	store, err := sqlstore.Open(t.Context(), sqlstore.Config{Driver: "sqlite", Path: filepath.Join(t.TempDir(), "s.db"), MaxOpen: 4, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &world{t: t, store: store, redis: miniredis.RunT(t)}
}

func (w *world) door(change func(*Config)) *door {
	w.t.Helper()
	cfg := DefaultConfig()
	cfg.TokenKey = config.Secret(key)
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		w.t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: w.redis.Addr(), MaxRetries: -1})
	w.t.Cleanup(func() { _ = client.Close() })
	d := &door{t: w.t, clock: time.UnixMilli(1_700_000_000_000)}
	now := func() time.Time { return d.clock }
	d.Accounts = New(cfg, w.store, &w.ids, client, slog.New(slog.NewTextHandler(io.Discard, nil)), NewMetrics(prometheus.NewRegistry()))
	d.now = now
	return d
}

func (d *door) ada() Tokens {
	d.t.Helper()
	if _, err := d.Register(d.t.Context(), Registration{Address: "here", Username: "ada", Password: "correct horse"}); err != nil {
		d.t.Fatal(err)
	}
	return d.login()
}

func (d *door) login() Tokens {
	d.t.Helper()
	tokens, err := d.Login(d.t.Context(), Login{Address: "here", Username: "ada", Password: "correct horse", Platform: "bot"})
	if err != nil {
		d.t.Fatal(err)
	}
	return tokens
}

// refused tells that an error is a refusal with a code.
func refused(t *testing.T, err error, code chat.Code) {
	t.Helper()
	var refusal *chat.Error
	if !errors.As(err, &refusal) || refusal.Code != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

func (d *door) known(token string) bool {
	d.t.Helper()
	_, err := d.Authenticate(d.t.Context(), token)
	return err == nil
}

func TestConfig_SaysEveryFault(t *testing.T) {
	c := Config{TokenKey: "short", AdminToken: "short", AccessTTL: time.Hour, RefreshTTL: time.Minute}
	err := c.Validate()
	for _, want := range []string{"token-key", "admin-token", "access-ttl", "logins-per-minute"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not speak of %s", err, want)
		}
	}
}

func TestAuthenticate_TakesATokenUntilItEnds(t *testing.T) {
	d := newWorld(t).door(nil)
	tokens := d.ada()
	caller, err := d.Authenticate(t.Context(), tokens.Access)
	if err != nil || caller.User != tokens.User.ID || caller.Session != tokens.Session || !caller.ExpiresAt.Equal(d.clock.Add(15*time.Minute)) {
		t.Fatalf("got %+v, %v", caller, err)
	}
	for _, remembered := range []bool{true, false} {
		d.clock = caller.ExpiresAt.Add(time.Second)
		if !remembered {
			d.Forget(tokens.Session)
		}
		_, err = d.Authenticate(t.Context(), tokens.Access)
		refused(t, err, chat.CodeTokenExpired)
	}
}

// Whoever makes a token without the key, or by another algorithm, is nobody: a token that says of itself that it is not signed is
// the classic of them.
func TestAuthenticate_TakesNoTokenThatIsNotOurs(t *testing.T) {
	d := newWorld(t).door(nil)
	tokens := d.ada()
	good := claims{
		RegisteredClaims: jwt.RegisteredClaims{Subject: tokens.User.ID.String(), ExpiresAt: jwt.NewNumericDate(d.clock.Add(time.Hour))},
		Session:          strconv.FormatInt(tokens.Session, 10),
	}
	signed := func(method jwt.SigningMethod, key any, change func(*claims)) string {
		c := good
		if change != nil {
			change(&c)
		}
		text, err := jwt.NewWithClaims(method, c).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if !d.known(signed(jwt.SigningMethodHS256, []byte(key), nil)) {
		t.Fatal("a token with the key is refused: what follows would prove nothing")
	}
	parts := strings.Split(tokens.Access, ".")
	for name, token := range map[string]string{
		"nothing":           "",
		"a word":            "token",
		"a megabyte":        strings.Repeat("a", 1<<20),
		"another key":       signed(jwt.SigningMethodHS256, []byte(strings.Repeat("x", 40)), nil),
		"no signature":      signed(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil),
		"another algorithm": signed(jwt.SigningMethodHS512, []byte(key), nil),
		"half a signature":  parts[0] + "." + parts[1] + "." + parts[2][:10],
		"no end":            signed(jwt.SigningMethodHS256, []byte(key), func(c *claims) { c.ExpiresAt = nil }),
		"no subject":        signed(jwt.SigningMethodHS256, []byte(key), func(c *claims) { c.Subject = "" }),
		"no session":        signed(jwt.SigningMethodHS256, []byte(key), func(c *claims) { c.Session = "x" }),
	} {
		_, err := d.Authenticate(t.Context(), token)
		t.Log(name)
		refused(t, err, chat.CodeUnauthenticated)
	}
	_, err := d.Authenticate(t.Context(), signed(jwt.SigningMethodHS256, []byte(key), func(c *claims) { c.Subject = "77" }))
	refused(t, err, chat.CodeSessionRevoked) // somebody else's session
	_, err = d.Authenticate(t.Context(), signed(jwt.SigningMethodHS256, []byte(strings.Repeat("x", 40)), func(c *claims) { c.ExpiresAt = jwt.NewNumericDate(d.clock.Add(-time.Hour)) }))
	refused(t, err, chat.CodeUnauthenticated) // that it is expired is ours to say only of our own
}

func TestAuthenticate_TakesTheOldKeyWhileItsTokensLast(t *testing.T) {
	w := newWorld(t)
	tokens := w.door(nil).ada()
	fresh := func(old config.Secret) *door {
		return w.door(func(c *Config) { c.TokenKey, c.OldTokenKey = "another key, of thirty-two bytes or more", old })
	}
	if !fresh(key).known(tokens.Access) {
		t.Error("a token of the key before is refused")
	}
	if _, err := fresh(key).Refresh(t.Context(), "here", tokens.Refresh, ""); err != nil {
		t.Errorf("a refresh token of the key before is refused: %v", err)
	}
	if fresh("").known(tokens.Access) {
		t.Error("a token of a key that was given up is taken")
	}
}

// A session that was ended at one door is unknown at the others at once where Redis tells them, and within seconds where not.
func TestRevoke_ReachesOtherDoors(t *testing.T) {
	w := newWorld(t)
	here, there := w.door(nil), w.door(nil)
	tokens := here.ada()
	stay := here.login()
	if !there.known(tokens.Access) || !there.known(stay.Access) {
		t.Fatal("a token is known at one door only")
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- there.Run(ctx) }()
	for deadline := time.Now().Add(5 * time.Second); len(w.redis.PubSubChannels(RevokedChannel)) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the other door does not listen")
		}
	}
	if err := here.Revoke(t.Context(), tokens.Session); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); there.known(tokens.Access); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the other door was not told; its clock stands, so it does not find out by itself")
		}
	}
	if !there.known(stay.Access) {
		t.Error("another session of the same person ended too")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}

	w.redis.Close()
	if err := here.Revoke(t.Context(), stay.Session); err != nil {
		t.Fatalf("without Redis: %v", err)
	}
	if here.known(stay.Access) {
		t.Error("the door that ended a session still knows it")
	}
	there.clock = there.clock.Add(sessionTTL)
	if there.known(stay.Access) {
		t.Errorf("%s later the other door still knows an ended session", sessionTTL)
	}
}

func TestRefresh_EndsWithItsSession(t *testing.T) {
	d := newWorld(t).door(nil)
	first := d.ada()
	d.clock = d.clock.Add(29 * 24 * time.Hour)
	second, err := d.Refresh(t.Context(), "here", first.Refresh, "")
	if err != nil || second.Refresh == first.Refresh || second.Session != first.Session {
		t.Fatalf("got %+v, %v", second, err)
	}
	d.clock = d.clock.Add(29 * 24 * time.Hour)
	third, err := d.Refresh(t.Context(), "here", second.Refresh, "")
	if err != nil {
		t.Fatalf("a session that is used does not last: %v", err)
	}
	d.clock = d.clock.Add(30*24*time.Hour + time.Second)
	_, err = d.Refresh(t.Context(), "here", third.Refresh, "")
	refused(t, err, chat.CodeSessionRevoked)
}

// A token that differs in one bit is nobody's, and above all no reason to end the session whose id it carries.
func TestRefresh_KnowsAForgedTokenFromASpentOne(t *testing.T) {
	d := newWorld(t).door(nil)
	tokens := d.ada()
	for i := range tokens.Refresh {
		b := []byte(tokens.Refresh)
		if b[i] = 'A'; tokens.Refresh[i] == 'A' {
			b[i] = 'B'
		}
		if id, ours := d.sessionOf(string(b)); ours {
			t.Fatalf("changed at byte %d it is one of ours, of session %d", i, id)
		}
	}
	_, err := d.Refresh(t.Context(), "here", tokens.Refresh+"A", "")
	refused(t, err, chat.CodeSessionRevoked)
	if !d.known(tokens.Access) {
		t.Error("a forged token ended the session")
	}
}

func TestLimits_OnRefreshesAndRegistrations(t *testing.T) {
	d := newWorld(t).door(func(c *Config) { c.Logins = 3 })
	tokens := d.ada()
	for range 10 { // what succeeds costs nothing
		next, err := d.Refresh(t.Context(), "there", tokens.Refresh, "")
		if err != nil {
			t.Fatal(err)
		}
		tokens = next
	}
	for range 3 {
		_, err := d.Refresh(t.Context(), "there", "nonsense", "")
		refused(t, err, chat.CodeSessionRevoked)
	}
	_, err := d.Refresh(t.Context(), "there", "nonsense", "")
	refused(t, err, chat.CodeRateLimited)

	for i := range 3 {
		if _, err := d.Register(t.Context(), Registration{Address: "there", Username: "n" + strconv.Itoa(i), Password: "correct horse"}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = d.Register(t.Context(), Registration{Address: "there", Username: "n3", Password: "correct horse"})
	refused(t, err, chat.CodeRateLimited)
}

func TestRegister_ByThemselvesOnlyWhereThatIsWanted(t *testing.T) {
	d := newWorld(t).door(func(c *Config) { c.Registration = false })
	_, err := d.Register(t.Context(), Registration{Address: "here", Username: "ada", Password: "correct horse"})
	refused(t, err, chat.CodeForbidden)
}

func TestPasswords_BelongToTheirHash(t *testing.T) {
	p := NewPasswords(1)
	hash, err := p.Hash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	matches := func(hash, password string) bool {
		t.Helper()
		ok, err := p.Matches(t.Context(), hash, password)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if !matches(hash, "correct horse") || matches(hash, "correct horsf") || matches(hash, "") {
		t.Error("a password and its hash do not find each other")
	}
	if again, _ := p.Hash(t.Context(), "correct horse"); again == hash {
		t.Error("two hashes of one password are the same: there is no salt")
	}
	if matches("", "") || matches("", "correct horse") {
		t.Error("somebody without a password can log in")
	}
	if parts, ofNobody := strings.Split(hash, "$"), strings.Split(absent, "$"); parts[3] != ofNobody[3] || len(parts[5]) != len(ofNobody[5]) {
		t.Errorf("a name that does not exist costs %s, one that does %s: their times tell them apart", ofNobody[3], parts[3])
	}
	if cheap := "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$" + strings.Split(hash, "$")[5]; matches(cheap, "correct horse") {
		t.Error("the parameters of a hash are not those that it carries")
	}
	for _, damaged := range []string{"$2b$10$abc", "$argon2id$v=19$m=1,t=0,p=1$AA$AA", "$argon2id$v=19$m=99999999,t=1,p=1$AA$AA", "$argon2id$v=19$m=64,t=1,p=1$?$AA", "$argon2id$v=19$m=64,t=1,p=1$AA$"} {
		if ok, err := p.Matches(t.Context(), damaged, "x"); ok || err == nil {
			t.Errorf("%s: %t, %v", damaged, ok, err)
		}
	}
}

// Hashing takes memory and time, so no more than a few are done at once, and who waits gives up with their request.
func TestPasswords_WaitForASeat(t *testing.T) {
	p := NewPasswords(1)
	p.seats <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := p.Hash(ctx, "correct horse")
	refused(t, err, chat.CodeOverloaded)
	_, err = p.Matches(ctx, "", "correct horse")
	refused(t, err, chat.CodeOverloaded)
	<-p.seats
	if _, err := p.Hash(t.Context(), "correct horse"); err != nil {
		t.Errorf("with a seat: %v", err)
	}
}

// leaving is a store in which something happens right after a session was read.
type leaving struct {
	Store
	meanwhile func()
}

func (l *leaving) SessionByID(ctx context.Context, id int64) (sqlstore.Session, bool, error) {
	s, found, err := l.Store.SessionByID(ctx, id)
	if do := l.meanwhile; do != nil {
		l.meanwhile = nil
		do()
	}
	return s, found, err
}

func TestAuthenticate_DoesNotRememberASessionThatEndsAsItIsRead(t *testing.T) {
	w := newWorld(t)
	d := w.door(nil)
	tokens := d.ada()
	d.store = &leaving{Store: w.store, meanwhile: func() {
		if err := d.Revoke(t.Context(), tokens.Session); err != nil {
			t.Fatal(err)
		}
	}}
	if !d.known(tokens.Access) {
		t.Fatal("who came before the end was refused: the test ended the session too early")
	}
	if d.known(tokens.Access) {
		t.Fatal("the session was ended and answered, and its token is taken")
	}
}

func TestAuthenticate_ChecksAudienceAndCriticalHeaders(t *testing.T) {
	d := newWorld(t).door(nil)
	tokens := d.ada()
	token := func(header map[string]any, audience jwt.ClaimStrings, ends time.Time) string {
		t.Helper()
		v := jwt.NewWithClaims(jwt.SigningMethodHS256, claims{
			RegisteredClaims: jwt.RegisteredClaims{Subject: tokens.User.ID.String(), Audience: audience, ExpiresAt: jwt.NewNumericDate(ends)},
			Session:          strconv.FormatInt(tokens.Session, 10),
		})
		for k, x := range header {
			v.Header[k] = x
		}
		text, err := v.SignedString([]byte(key))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	soon := d.clock.Add(time.Minute)
	var issued claims
	if _, _, err := jwt.NewParser().ParseUnverified(tokens.Access, &issued); err != nil || len(issued.Audience) != 1 || issued.Audience[0] != audience {
		t.Errorf("an issued token has the audience %v: %v", issued.Audience, err)
	}
	for name, c := range map[string]struct {
		token string
		code  chat.Code // "" where it is taken
	}{
		"ours":                       {token(nil, jwt.ClaimStrings{audience}, soon), ""},
		"ours among others":          {token(nil, jwt.ClaimStrings{"billing", audience}, soon), ""},
		"another service's":          {token(nil, jwt.ClaimStrings{"billing"}, soon), chat.CodeUnauthenticated},
		"another service's, ended":   {token(nil, jwt.ClaimStrings{"billing"}, d.clock.Add(-time.Hour)), chat.CodeUnauthenticated},
		"nearly ours":                {token(nil, jwt.ClaimStrings{"Tideline"}, soon), chat.CodeUnauthenticated},
		"of a version before aud":    {token(nil, nil, soon), ""},
		"crit":                       {token(map[string]any{"crit": []string{"exp"}}, jwt.ClaimStrings{audience}, soon), chat.CodeUnauthenticated},
		"crit that is empty":         {token(map[string]any{"crit": []string{}}, jwt.ClaimStrings{audience}, soon), chat.CodeUnauthenticated},
		"crit that is null":          {token(map[string]any{"crit": nil}, jwt.ClaimStrings{audience}, soon), chat.CodeUnauthenticated},
		"crit and b64":               {token(map[string]any{"crit": []string{"b64"}, "b64": false}, jwt.ClaimStrings{audience}, soon), chat.CodeUnauthenticated},
		"crit, and ended long since": {token(map[string]any{"crit": []string{"x"}}, jwt.ClaimStrings{audience}, d.clock.Add(-time.Hour)), chat.CodeUnauthenticated},
	} {
		_, err := d.Authenticate(t.Context(), c.token)
		_, signed := d.Signed(c.token)
		switch {
		case c.code == "" && err != nil, c.code == "" && !signed:
			t.Errorf("%s is refused: %v; signed %t", name, err, signed)
		case c.code != "":
			refused(t, err, c.code)
			if signed {
				t.Errorf("%s counts as valid", name)
			}
		}
	}
	// Tokens of a version before aud end two lives of a token after the start, however long they were to last.
	old := token(nil, nil, d.clock.Add(24*time.Hour))
	caller, err := d.Authenticate(t.Context(), old)
	if err != nil || caller.ExpiresAt.After(d.audienceFrom) {
		t.Errorf("a token without aud lasts until %s: %v", caller.ExpiresAt, err)
	}
	d.clock = d.audienceFrom.Add(time.Second)
	_, err = d.Authenticate(t.Context(), old)
	refused(t, err, chat.CodeTokenExpired) // clients refresh, and need not log in
	_, err = d.Authenticate(t.Context(), token(nil, nil, d.clock.Add(time.Hour)))
	refused(t, err, chat.CodeTokenExpired)
	if _, signed := d.Signed(old); signed {
		t.Error("a token without aud counts as valid for ever")
	}
}

func TestPasswords_RefuseBeyondTheirQueue(t *testing.T) {
	p := NewPasswords(1)
	for range cap(p.queue) {
		p.queue <- struct{}{}
	}
	_, err := p.Hash(t.Context(), "correct horse")
	refused(t, err, chat.CodeOverloaded)
	<-p.queue
	if _, err := p.Hash(t.Context(), "correct horse"); err != nil || len(p.queue) != cap(p.queue)-1 || len(p.seats) != 0 {
		t.Errorf("with one place left: %v, %d in the queue", err, len(p.queue))
	}
}
