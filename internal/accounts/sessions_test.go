package accounts

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
)

func (d *door) caller(t Tokens) Caller { return Caller{User: t.User.ID, Session: t.Session} }

func (d *door) change(t Tokens, key, current, fresh string) error {
	return d.ChangePassword(d.t.Context(), PasswordChange{Address: "here", Key: key, Caller: d.caller(t), Current: current, New: fresh})
}

func TestChangePassword_EndsTheOtherSessions(t *testing.T) {
	d := newWorld(t).door(nil)
	first := d.ada()
	second, third := d.login(), d.login()
	heard := d.hear()
	if err := d.change(second, "", "correct horse", "a longer phrase"); err != nil {
		t.Fatal(err)
	}
	if d.known(first.Access) || d.known(third.Access) || !d.known(second.Access) {
		t.Error("other sessions go on, or this one does not")
	}
	for _, other := range []Tokens{first, third} {
		_, err := d.Refresh(t.Context(), "here", other.Refresh, "")
		refused(t, err, chat.CodeSessionRevoked)
	}
	if _, err := d.Refresh(t.Context(), "here", second.Refresh, ""); err != nil {
		t.Error(err)
	}
	if got := heard(2); !slices.Contains(got, first.Session) || !slices.Contains(got, third.Session) {
		t.Errorf("other processes heard of %v", got)
	}
	refused(t, d.tryLogin("here", "ada", "correct horse"), chat.CodeInvalidCredentials)
	if err := d.tryLogin("here", "ada", "a longer phrase"); err != nil {
		t.Error(err)
	}
	if got := testutil.ToFloat64(d.metrics.Ended.WithLabelValues(endedByPassword)); got != 2 {
		t.Errorf("%g ended sessions were counted, want 2", got)
	}
}

// hear returns what is announced of ended sessions from now on, once there are so many.
func (d *door) hear() func(n int) []int64 {
	d.t.Helper()
	sub := d.redis.Subscribe(d.t.Context(), RevokedChannel)
	d.t.Cleanup(func() { _ = sub.Close() })
	if _, err := sub.Receive(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
	return func(n int) []int64 {
		d.t.Helper()
		ctx, cancel := context.WithTimeout(d.t.Context(), 10*time.Second)
		defer cancel()
		var got []int64
		for range n {
			m, err := sub.ReceiveMessage(ctx)
			if err != nil {
				d.t.Fatalf("after %d: %v", len(got), err)
			}
			var id int64
			for _, c := range m.Payload {
				id = id*10 + int64(c-'0')
			}
			got = append(got, id)
		}
		return got
	}
}

func TestChangePassword_NeedsTheCurrentOne(t *testing.T) {
	d := newWorld(t).door(nil)
	tokens, other := d.ada(), d.login()
	for _, current := range []string{"", "wrong word", "Correct horse", "correct horse ", "a longer phrase", strings.Repeat("x", 257)} {
		refused(t, d.change(tokens, "", current, "a longer phrase"), chat.CodeInvalidCredentials)
	}
	for _, fresh := range []string{"", "short", "password1", strings.Repeat("x", 257)} {
		refused(t, d.change(tokens, "", "correct horse", fresh), chat.CodeInvalidField)
	}
	if !d.known(tokens.Access) || !d.known(other.Access) {
		t.Error("a refused change ended a session")
	}
	d.login()
}

func TestChangePassword_IsAnsweredAgainByItsName(t *testing.T) {
	d := newWorld(t).door(nil)
	tokens := d.ada()
	d.login()
	if err := d.change(tokens, "k", "correct horse", "a longer phrase"); err != nil {
		t.Fatal(err)
	}
	if err := d.change(tokens, "k", "correct horse", "a longer phrase"); err != nil {
		t.Errorf("the retry: %v", err)
	}
	refused(t, d.change(tokens, "", "correct horse", "a longer phrase"), chat.CodeInvalidCredentials)
	refused(t, d.change(tokens, "k", "correct horse", "another phrase"), chat.CodeInvalidCredentials)
}

func TestChangePassword_IsNotForPeopleWithoutOne(t *testing.T) {
	w := newWorld(t)
	d := w.door(nil)
	if _, err := w.store.UpsertExternal(t.Context(), []sqlstore.ExternalUser{{ExternalID: "crm:1", Nickname: "Bo", ID: 77}}, 1); err != nil {
		t.Fatal(err)
	}
	refused(t, d.change(Tokens{User: sqlstore.User{ID: 77}, Session: 1}, "", "", "a longer phrase"), chat.CodeForbidden)
	refused(t, d.change(Tokens{User: sqlstore.User{ID: 78}, Session: 1}, "", "", "a longer phrase"), chat.CodeForbidden)
}

// beginning is a store in which something happens right before or after a session is created.
type beginning struct {
	Store
	before, after func()
}

func (b *beginning) CreateSession(ctx context.Context, v sqlstore.Session) error {
	for _, do := range []*func(){&b.before, &b.after} {
		if do == &b.after {
			if err := b.Store.CreateSession(ctx, v); err != nil {
				return err
			}
		}
		if f := *do; f != nil {
			*do = nil
			f()
		}
	}
	return nil
}

// A login that verified the old password just before it was replaced must not leave a session behind.
func TestChangePassword_EndsASessionThatIsJustBegun(t *testing.T) {
	for name, place := range map[string]func(*beginning, func()){
		"before it is stored": func(b *beginning, do func()) { b.before = do },
		"after it is stored":  func(b *beginning, do func()) { b.after = do },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			d, thief := w.door(nil), w.door(nil)
			tokens := d.ada()
			store := &beginning{Store: w.store}
			place(store, func() {
				if err := d.change(tokens, "", "correct horse", "a longer phrase"); err != nil {
					t.Fatal(err)
				}
			})
			thief.store = store
			refused(t, thief.tryLogin("there", "ada", "correct horse"), chat.CodeInvalidCredentials)
			list, err := d.Sessions(t.Context(), d.caller(tokens))
			if err != nil || len(list) != 1 || list[0].ID != tokens.Session {
				t.Errorf("sessions are %+v, %v; want only the one that changed the password", list, err)
			}
		})
	}
}

func TestSessions_AreTheCallersOwnThatHaveNotEnded(t *testing.T) {
	w := newWorld(t)
	d := w.door(nil)
	first := d.ada()
	d.clock = d.clock.Add(time.Second)
	second := d.login()
	d.people("bob")
	bob, err := d.Login(t.Context(), Login{Address: "here", Username: "bob", Password: "correct horse", Platform: "ios", DeviceID: "phone"})
	if err != nil {
		t.Fatal(err)
	}
	ids := func(t Tokens) (out []int64) {
		d.t.Helper()
		list, err := d.Sessions(d.t.Context(), d.caller(t))
		if err != nil {
			d.t.Fatal(err)
		}
		for _, s := range list {
			out = append(out, s.ID)
		}
		return out
	}
	if got := ids(first); !slices.Equal(got, []int64{second.Session, first.Session}) {
		t.Errorf("got %v, want the newest first: %d, %d", got, second.Session, first.Session)
	}
	d.clock = d.clock.Add(time.Second)
	first, err = d.Refresh(t.Context(), "here", first.Refresh, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(first); !slices.Equal(got, []int64{first.Session, second.Session}) {
		t.Errorf("got %v, want the refreshed one first", got)
	}
	if got := ids(bob); !slices.Equal(got, []int64{bob.Session}) {
		t.Errorf("bob has %v", got)
	}

	heard := d.hear()
	if err := d.EndSession(t.Context(), d.caller(first), second.Session); err != nil {
		t.Fatal(err)
	}
	if d.known(second.Access) || !d.known(first.Access) {
		t.Error("another session ended than was named")
	}
	if got := heard(1); got[0] != second.Session {
		t.Errorf("other processes heard of %v", got)
	}
	if err := d.EndSession(t.Context(), d.caller(first), second.Session); err != nil {
		t.Errorf("ending it twice: %v", err)
	}
	unknown, foreign := d.EndSession(t.Context(), d.caller(first), 12345), d.EndSession(t.Context(), d.caller(first), bob.Session)
	refused(t, foreign, chat.CodeNotFound)
	if unknown == nil || foreign == nil || unknown.Error() != foreign.Error() {
		t.Errorf("an unknown session is %v, another person's %v", unknown, foreign)
	}
	if !d.known(bob.Access) {
		t.Error("another person's session ended")
	}
	if got := testutil.ToFloat64(d.metrics.Ended.WithLabelValues(endedByOwner)); got != 1 {
		t.Errorf("%g ended sessions were counted, want 1", got)
	}
	d.clock = d.clock.Add(31 * 24 * time.Hour)
	if got := ids(first); len(got) != 0 {
		t.Errorf("sessions that have expired are listed: %v", got)
	}
}

// An operator who looks for an attack finds it in the log, and no secret with it.
func TestLog_HasWhatAnOperatorAsksForAndNoSecrets(t *testing.T) {
	w := newWorld(t)
	d := w.door(nil)
	var out bytes.Buffer
	d.log = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	tokens := d.ada()
	for range 100 {
		_ = d.tryLogin("10.0.0.9", "ada", "hush-guess")
		_ = d.tryLogin("10.0.0.8", "my-password-typed-as-name", "hush-guess")
	}
	for range 100 {
		d.AdminRefused(t.Context(), "10.0.0.7")
	}
	admitted, err := d.Admit(t.Context(), Admission{User: tokens.User.ID, Platform: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Revoke(t.Context(), admitted.Session); err != nil {
		t.Fatal(err)
	}
	log := out.String()
	for line, want := range map[string]int{
		`msg="login failed" address=10.0.0.9 user=` + tokens.User.ID.String(): 10, `msg="login failed" address=10.0.0.8 user=0`: 10,
		`msg="logins are throttled" by=address_and_name address=10.0.0.9`: 1, `msg="admin token refused" address=10.0.0.7`: 1,
		`msg="admin began a session" user=` + tokens.User.ID.String(): 1, `msg="session ended"`: 1, "why=logout": 1,
	} {
		if got := strings.Count(log, line); got != want {
			t.Errorf("%s: %d lines, want %d", line, got, want)
		}
	}
	for _, secret := range []string{"hush-guess", "my-password-typed-as-name", tokens.Access, tokens.Refresh, "correct horse", "argon2"} {
		if strings.Contains(log, secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
	m := d.metrics
	for name, got := range map[string]float64{
		"failed": testutil.ToFloat64(m.Failed) - 20, "throttled": testutil.ToFloat64(m.Throttled.WithLabelValues(byPair)) - 180,
		"refused admin tokens": testutil.ToFloat64(m.AdminRefused) - 100, "admin sessions": testutil.ToFloat64(m.AdminSessions) - 1,
		"ended": testutil.ToFloat64(m.Ended.WithLabelValues(endedByLogout)) - 1,
	} {
		if got != 0 {
			t.Errorf("%s: the counter is off by %g", name, got)
		}
	}
}
