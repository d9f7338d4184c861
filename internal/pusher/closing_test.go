package pusher

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"tideline/internal/accounts"
	"tideline/pkg/chat"
)

func TestClose_OfTheClientIsAnswered(t *testing.T) {
	r := newRig(t, nil)
	c := r.login("7")
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, "bye"), time.Now().Add(patience))
	if code, _ := c.closed(); code != websocket.CloseGoingAway {
		t.Fatalf("answered with %d", code)
	}
	eventually(t, "it has gone", func() bool { return r.connections() == 0 })
}

func TestIdle_ConnectionsAreClosedAndPingsKeepThem(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Heartbeat = 50 * time.Millisecond; c.IdleTimeout = 400 * time.Millisecond })
	silent, lively := r.login("7"), r.login("8")
	began := time.Now()
	done := make(chan struct{})
	go func() { defer close(done); silent.mustClose(CloseIdle) }()
	for open := true; open; {
		select {
		case <-done:
			open = false
		case <-time.After(50 * time.Millisecond):
			if s := lively.ask("ping", nil); s.Error != nil {
				t.Fatal(s.Error)
			}
		}
	}
	if took := time.Since(began); took < 350*time.Millisecond {
		t.Fatalf("closed after %s", took)
	}
	lively.ask("ping", nil)
}

func TestRevoked_SessionsAreKickedAndOthersStay(t *testing.T) {
	r := newRig(t, nil)
	gone, stays := r.login("7.1"), r.login("7.2")
	r.p.takeRevoked("1")
	if s := gone.hear(); s.Op != "kick" || s.Reason != "session_revoked" {
		t.Fatalf("told %+v", s)
	}
	gone.mustClose(CloseSessionRevoked)
	stays.ask("ping", nil)
	r.p.takeRevoked("what")
}

// A session may end at any moment of a connection's admission: before its token was looked at, while its memberships are
// loaded, and between the answer to auth and its arrival.
func TestRevoked_WhileAConnectionIsAdmitted(t *testing.T) {
	t.Run("before", func(t *testing.T) {
		r := newRig(t, nil)
		r.p.takeRevoked("1")
		c := r.dial() // with a token that an answer kept somewhere still calls good
		if s := c.ask("auth", map[string]any{"token": "7.1"}); s.Error == nil || s.Error.Code != chat.CodeSessionRevoked {
			t.Fatalf("auth was answered %+v", s)
		}
		c.mustClose(CloseSessionRevoked)
		r.login("7.2").ask("ping", nil)
	})
	t.Run("while memberships are loaded", func(t *testing.T) {
		r := newRig(t, nil)
		r.store.asked = func(chat.UserID) { r.p.takeRevoked("1") }
		c := r.dial()
		c.request("auth", map[string]any{"token": "7.1"})
		if s := c.hear(); s.Op != "kick" || s.Reason != "session_revoked" {
			t.Fatalf("told %+v", s)
		}
		c.mustClose(CloseSessionRevoked)
		eventually(t, "nothing is left of it", func() bool { return r.connections() == 0 && len(r.p.index.connectionsOf(7)) == 0 })
	})
	t.Run("right after the answer", func(t *testing.T) {
		r := newRig(t, nil)
		for n := range 50 {
			session := fmt.Sprint(n + 1)
			c := r.login("7." + session)
			r.p.takeRevoked(session)
			c.mustClose(CloseSessionRevoked)
		}
	})
}

func TestRevoked_IsForgottenAfterAWhile(t *testing.T) {
	r := newRig(t, nil)
	r.p.takeRevoked("1")
	r.p.forgetRevoked(time.Now().Add(-revokedKept))
	if !r.p.hasEnded(1) {
		t.Fatal("it was forgotten at once")
	}
	r.p.forgetRevoked(time.Now().Add(time.Second))
	if r.p.hasEnded(1) {
		t.Fatal("it is remembered for ever")
	}
}

func TestSlowConsumer_IsClosedWithACodeAndNobodyElseNotices(t *testing.T) {
	r := newRig(t, func(c *Config) { c.WriteTimeout = 300 * time.Millisecond; c.InFlight = 4 })
	big, err := json.Marshal(strings.Repeat("x", 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	r.door.do = func(_ context.Context, _ accounts.Caller, op string, _ []byte) (json.RawMessage, error) {
		if op == "pull" {
			return big, nil
		}
		return json.RawMessage(`{}`), nil
	}
	for _, u := range []chat.UserID{7, 8} {
		r.store.join(u, group(1), 1, 0)
	}
	slow, quick := r.login("7"), r.login("8")
	for range 60 {
		slow.request("pull", nil) // and read nothing
	}
	eventually(t, "the slow one is given up", func() bool { return len(r.p.index.connectionsOf(7)) == 0 })
	for seq := int64(2); seq < 10; seq++ {
		r.p.TakeNotify(notify(group(1), seq))
		quick.hearHint(group(1), seq)
	}
	slow.mustClose(CloseSlowConsumer) // it reads at last, and hears why
}

func TestDrain_ClosesInWavesAndFinishesWhatWasAccepted(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Drain = 3 * time.Second })
	started, release := make(chan struct{}), make(chan struct{})
	r.door.do = func(ctx context.Context, _ accounts.Caller, _ string, _ []byte) (json.RawMessage, error) {
		close(started)
		<-release
		return json.RawMessage(`{"seq":1}`), nil
	}
	working := r.login("1")
	id := working.request("send", nil)
	<-started
	idle := make([]*client, 40)
	for i := range idle {
		idle[i] = r.login(fmt.Sprint(i + 2))
	}
	r.stop()
	for _, c := range idle {
		reason := c.mustClose(CloseDraining)
		if !strings.Contains(reason, "retry_after_ms") {
			t.Fatalf("the reason is %s", reason)
		}
	}
	if _, response, err := websocket.DefaultDialer.Dial(r.url(), nil); err == nil || response.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("a new connection: %v, %v", response, err)
	}
	close(release)
	if s := working.hear(); string(s.ID) != fmt.Sprint(id) || string(s.Result) != `{"seq":1}` {
		t.Fatalf("the request under way was answered %+v", s)
	}
	working.mustClose(CloseDraining)
}

func TestMissedNotify_SendsEverybodyAwayToComeBack(t *testing.T) {
	r := newRig(t, nil)
	r.store.join(7, group(1), 1, 0)
	clients := []*client{r.login("7"), r.login("8"), r.dial()}
	eventually(t, "all are there", func() bool { return r.connections() == len(clients) }) // the last one said nothing yet
	r.p.MissedNotify()
	for _, c := range clients {
		c.mustClose(CloseUnavailable)
	}
	eventually(t, "all have gone", func() bool { return r.connections() == 0 })
	again := r.login("7")
	r.p.TakeNotify(notify(group(1), 5))
	again.hearHint(group(1), 5)
}
