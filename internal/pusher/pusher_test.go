package pusher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"tideline/internal/accounts"
	"tideline/internal/presence"
	"tideline/pkg/chat"
)

func TestAuth_AnswersWhoTheClientIsAndTheRules(t *testing.T) {
	r := newRig(t, nil)
	var w Welcome
	answer := r.dial().ask("auth", map[string]any{"token": "7.42"})
	if err := json.Unmarshal(answer.Result, &w); err != nil {
		t.Fatal(err)
	}
	if w.User != 7 || w.Session != "42" || w.HeartbeatMS != 30_000 || w.IdleTimeoutMS != 75_000 || w.MaxFrameBytes != 256<<10 || w.ServerTime == 0 {
		t.Fatalf("welcome is %+v", w)
	}
}

func TestAuth_TakesTheTokenAsASubprotocol(t *testing.T) {
	r := newRig(t, nil)
	d := websocket.Dialer{Subprotocols: []string{subprotocol, bearerPrefix + "7.42"}}
	ws, response, err := d.Dial(r.url(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.Close() }()
	if got := response.Header.Get("Sec-Websocket-Protocol"); got != subprotocol {
		t.Fatalf("the subprotocol chosen is %q", got)
	}
	c := &client{t: t, ws: ws}
	if s := c.hear(); s.Op != "auth" || s.ID != nil || s.Error != nil {
		t.Fatalf("said %+v", s)
	}
}

func TestAuth_ClosesWithACodeThatSaysWhatToDo(t *testing.T) {
	for name, v := range map[string]struct {
		fault error
		code  CloseCode
	}{
		"not ours":    {chat.Refuse(chat.CodeUnauthenticated, "no"), CloseUnauthenticated},
		"expired":     {chat.Refuse(chat.CodeTokenExpired, "late"), CloseTokenExpired},
		"revoked":     {chat.Refuse(chat.CodeSessionRevoked, "ended"), CloseSessionRevoked},
		"store away":  {errors.New("dial tcp: refused"), CloseUnavailable},
		"store hangs": {context.DeadlineExceeded, CloseUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.door.fault = v.fault
			c := r.dial()
			answer := c.ask("auth", map[string]any{"token": "7"})
			if answer.Error == nil || answer.Error.RequestID == "" || strings.Contains(answer.Error.Message, "dial") {
				t.Fatalf("answered %+v", answer)
			}
			c.mustClose(v.code)
		})
	}
}

func TestAuth_MustComeFirstAndInTime(t *testing.T) {
	r := newRig(t, func(c *Config) { c.AuthTimeout = 100 * time.Millisecond })
	first := r.dial()
	if s := first.ask("pull", map[string]any{"conversation_id": "g-1"}); s.Error == nil || s.Error.Code != chat.CodeUnauthenticated {
		t.Fatalf("answered %+v", s)
	}
	first.mustClose(CloseBadFrame)

	silent := r.dial()
	silent.mustClose(CloseAuthTimeout)
	eventually(t, "nobody is left", func() bool { return r.connections() == 0 })
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	if r.p.unauthenticated != 0 || len(r.p.addresses) != 0 {
		t.Fatalf("%d unauthenticated of %v are counted after all have gone", r.p.unauthenticated, r.p.addresses)
	}
}

func TestAuth_AgainWithAFreshTokenKeepsTheConnection(t *testing.T) {
	r := newRig(t, func(c *Config) { c.TokenGrace = 0 })
	r.door.expires["7.1"] = time.Now().Add(500 * time.Millisecond)
	r.door.expires["7.2"] = time.Now().Add(500 * time.Millisecond)
	kept, lost := r.login("7.1"), r.login("7.2")
	if s := kept.ask("auth", map[string]any{"token": "7.1+"}); s.Error != nil {
		t.Fatalf("the fresh token was refused: %+v", s.Error)
	}
	lost.mustClose(CloseTokenExpired)
	if s := kept.ask("ping", nil); s.Error != nil {
		t.Fatalf("answered %+v", s)
	}
	if s := kept.ask("auth", map[string]any{"token": "8.1"}); s.Error == nil || s.Error.Code != chat.CodeForbidden {
		t.Fatalf("the token of somebody else was answered %+v", s)
	}
	kept.mustClose(CloseOtherSession)
}

func TestDoor_RefusesForeignOriginsAndFloods(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Origins = []string{"https://chat.example.org"}
		c.MaxUnauthenticatedPerAddress = 3
		c.MaxPerUser = 2
	})
	own := "http" + strings.TrimPrefix(r.url(), "ws")
	for origin, status := range map[string]int{"https://evil.example.org": http.StatusForbidden, "null": http.StatusForbidden, own: 101, "https://chat.example.org": 101} {
		ws, response, err := websocket.DefaultDialer.Dial(r.url(), http.Header{"Origin": {origin}})
		if response == nil || response.StatusCode != status {
			t.Fatalf("origin %s: %v, %v", origin, response, err)
		}
		if ws != nil {
			_ = ws.Close()
		}
	}
	eventually(t, "the first have gone", func() bool { return r.unauthenticated() == 0 })
	silent := []*client{r.dial(), r.dial(), r.dial()}
	_, response, err := websocket.DefaultDialer.Dial(r.url(), nil)
	if err == nil || response.StatusCode != http.StatusTooManyRequests || response.Header.Get("Retry-After") == "" {
		t.Fatalf("the fourth silent connection: %v, %v", response, err)
	}
	var body struct{ Error refusal }
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil || body.Error.Code != chat.CodeRateLimited || body.Error.RetryAfter <= 0 {
		t.Fatalf("refused with %+v, %v", body, err)
	}
	for i, c := range silent {
		answer := c.ask("auth", map[string]any{"token": fmt.Sprintf("7.%d", i)})
		if i < 2 && answer.Error != nil {
			t.Fatalf("refused: %+v", answer.Error)
		}
		if i == 2 {
			c.mustClose(CloseTooManyConnections)
		}
	}
	r.login("8") // the address has room again
}

func TestDoor_RefusesWhatIsNoHandshake(t *testing.T) {
	r := newRig(t, nil)
	for name, header := range map[string]http.Header{
		"plain":   {},
		"half":    {"Connection": {"Upgrade"}, "Upgrade": {"websocket"}},
		"version": {"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"8"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}},
	} {
		request := httptest.NewRequest(http.MethodGet, "/v1/ws", nil)
		request.Header = header
		w := httptest.NewRecorder()
		r.p.ServeHTTP(w, request)
		var body struct{ Error refusal }
		if err := json.Unmarshal(w.Body.Bytes(), &body); w.Code != http.StatusBadRequest || err != nil || body.Error.Code != chat.CodeMalformed {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	if r.p.unauthenticated != 0 {
		t.Fatalf("%d handshakes are still counted", r.p.unauthenticated)
	}
}

func TestHints_ReachMembersWhoAreOnlineAndNobodyElse(t *testing.T) {
	r := newRig(t, nil)
	r.store.join(7, group(1), 1, 0)
	r.store.join(7, group(2), 1, 0)
	r.store.join(8, group(2), 1, 0)
	r.store.join(9, group(1), 1, 5) // has left
	seven, eight, nine := r.login("7"), r.login("8"), r.login("9")
	r.p.TakeNotify(notify(group(1), 17))
	r.p.TakeNotify(notify(group(2), 3))
	seven.hearHint(group(1), 17)
	eight.hearHint(group(2), 3)
	if s := nine.ask("ping", nil); s.Error != nil {
		t.Fatal(s.Error)
	}
	r.p.TakeNotify(notify(group(1), 18))
	seven.hearHint(group(1), 18)
	if s, err := nine.tryHear(50 * time.Millisecond); err == nil {
		t.Fatalf("somebody who has left was told %+v", s)
	}
}

func TestHints_ARepetitionIsNotToldAgain(t *testing.T) {
	r := newRig(t, nil)
	r.store.join(7, group(1), 1, 0)
	c := r.login("7")
	r.p.TakeNotify(notify(group(1), 17))
	c.hearHint(group(1), 17)
	again := notify(group(1), 17)
	again.Repeat = true
	r.p.TakeNotify(again)
	r.p.TakeNotify(notify(group(1), 18))
	s := c.hearOp("hint")
	if len(s.Items) != 1 || s.Items[0]["s"].(float64) != 18 {
		t.Fatalf("told %+v", s)
	}
}

func TestHints_FollowJoinsAndLeavesWhileConnected(t *testing.T) {
	r := newRig(t, nil)
	c := r.login("7")
	r.p.TakeNotify(notify(group(1), 5, chat.MemberChange{User: 7, Seq: 5, Joined: true}))
	c.hearHint(group(1), 5)
	r.p.TakeNotify(notify(group(1), 9))
	c.hearHint(group(1), 9)
	// The leave is number 11, the batch goes on to 15: what comes after the leave is none of the leaver's business.
	r.p.TakeNotify(notify(group(1), 15, chat.MemberChange{User: 7, Seq: 11, Left: true}))
	c.hearHint(group(1), 11)
	// An old join that is told again does not bring the member back, a new one does.
	r.p.TakeNotify(notify(group(1), 16, chat.MemberChange{User: 7, Seq: 5, Joined: true}))
	r.p.TakeNotify(notify(group(1), 20, chat.MemberChange{User: 7, Seq: 20, Joined: true}))
	c.hearHint(group(1), 20)
	eventually(t, "one membership is in the index", func() bool {
		s := r.p.index.ofConversation(group(1))
		s.mu.RLock()
		defer s.mu.RUnlock()
		return s.all[group(1)] != nil && len(s.all[group(1)].members) == 1
	})
}

func TestAuth_MissesNoChangeOfMembershipThatHappensMeanwhile(t *testing.T) {
	r := newRig(t, nil)
	r.store.join(7, group(1), 1, 0)  // leaves while the store is asked
	r.store.join(7, group(2), 30, 0) // joined at 30; the leave at 20 is told late
	r.store.join(7, group(3), 1, 40) // left at 40; the join at 35 is told late
	r.store.asked = func(chat.UserID) {
		r.p.TakeNotify(notify(group(1), 10, chat.MemberChange{User: 7, Seq: 10, Left: true}))
		r.p.TakeNotify(notify(group(2), 30, chat.MemberChange{User: 7, Seq: 20, Left: true}))
		r.p.TakeNotify(notify(group(3), 40, chat.MemberChange{User: 7, Seq: 35, Joined: true}))
		r.p.TakeNotify(notify(group(4), 50, chat.MemberChange{User: 7, Seq: 50, Joined: true}))
		r.p.TakeNotify(notify(group(5), 60, chat.MemberChange{User: 7, Seq: 60, Joined: true}, chat.MemberChange{User: 7, Seq: 61, Left: true}))
	}
	c := r.login("7")
	for n := int64(1); n <= 5; n++ {
		r.p.TakeNotify(notify(group(n), 100))
	}
	told := map[any]bool{}
	for len(told) < 2 {
		for _, it := range c.hearOp("hint").Items {
			told[it["c"]] = true
		}
	}
	if !told["g-2"] || !told["g-4"] {
		t.Fatalf("told of %v, want g-2 and g-4", told)
	}
	if s, err := c.tryHear(100 * time.Millisecond); err == nil {
		t.Fatalf("told of more: %+v", s)
	}
}

func TestAuth_AndJoinsInAnyInterleavingAgree(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Window = 0 })
	for round := range 50 {
		user := chat.UserID(1000 + round)
		id := group(int64(1000 + round))
		var wg sync.WaitGroup
		wg.Go(func() {
			r.store.join(user, id, 3, 0) // committed, then told
			r.p.TakeNotify(notify(id, 3, chat.MemberChange{User: user, Seq: 3, Joined: true}))
		})
		c := r.login(user.String())
		wg.Wait()
		r.p.TakeNotify(notify(id, 4))
		c.hearHint(id, 4)
	}
}

func TestMarks_ReachOtherDevicesAndTheSender(t *testing.T) {
	r := newRig(t, nil)
	private := chat.PrivateConversation(7, 8)
	for _, u := range []chat.UserID{7, 8} {
		r.store.join(u, group(1), 1, 0)
		r.store.join(u, private, 0, 0)
	}
	phone, desk, eight := r.login("7.1"), r.login("7.2"), r.login("8.1")
	n := notify(group(1), 12)
	n.Asked = []chat.Asked{{Seq: 10, Sender: 8}, {Seq: 11, Sender: 8}, {Seq: 12, Sender: 7}}
	r.p.TakeNotify(n)
	eight.hearHint(group(1), 12)
	r.p.TakeMark(chat.ReadMark{User: 7, Conversation: group(1), PreviousSeq: 10, Seq: 12, Session: "1"})
	if s := desk.hearOp("read"); s.Conversation != group(1) || s.ReadSeq != 12 {
		t.Fatalf("the other device was told %+v", s)
	}
	if s := eight.hearOp("receipt"); len(s.Items) != 1 || s.Items[0]["s"].(float64) != 11 {
		t.Fatalf("the sender was told %+v", s)
	}
	r.p.TakeMark(chat.ReadMark{User: 7, Conversation: private, Seq: 4, Session: "1"})
	if s := eight.hearOp("receipt"); s.Items[0]["c"] != private.String() || s.Items[0]["s"].(float64) != 4 {
		t.Fatalf("the peer was told %+v", s)
	}
	phone.request("ping", nil)
	for s := phone.hear(); s.Op != "ping"; s = phone.hear() {
		if s.Op == "read" {
			t.Fatal("the device that read was told of it")
		}
	}
}

func TestLive_TypingAndPresenceReachThoseWhoWatch(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxWatched = 2; c.TypingEvery = time.Hour })
	private := chat.PrivateConversation(7, 8)
	for _, u := range []chat.UserID{7, 8} {
		r.store.join(u, group(1), 1, 0)
		r.store.join(u, private, 0, 0)
	}
	seven := r.login("7")
	s := seven.ask("watch", map[string]any{"conversation_ids": []string{"g-1", private.String()}})
	var w Watching
	if err := json.Unmarshal(s.Result, &w); err != nil || w.Watched != 2 || len(w.Presence) != 1 || w.Presence[0] != (PersonOnline{8, false}) {
		t.Fatalf("watching %s, %v", s.Result, err)
	}
	if s := seven.ask("watch", map[string]any{"conversation_ids": []string{"g-2"}}); s.Error == nil || s.Error.Code != chat.CodeConversationUnknown || s.Error.Field != "conversation_ids" {
		t.Fatalf("watching a foreign group was answered %+v", s)
	}
	r.door.mu.Lock()
	r.door.mayType = func(_ chat.UserID, id chat.ConversationID) (bool, error) {
		if id == group(9) {
			return false, chat.Refuse(chat.CodeConversationUnknown, "there is no such conversation")
		}
		return true, nil
	}
	r.door.mu.Unlock()
	eight := r.login("8")
	if s := seven.hearOp("presence"); s.Items[0]["user_id"] != "8" || s.Items[0]["online"] != true {
		t.Fatalf("told %+v", s)
	}
	for range 3 { // only the first counts
		if s := eight.ask("typing", map[string]any{"conversation_id": "g-1"}); s.Error != nil {
			t.Fatal(s.Error)
		}
	}
	if s := seven.hearOp("typing"); len(s.Items) != 1 || s.Items[0]["conversation_id"] != "g-1" || s.Items[0]["user_id"] != "8" {
		t.Fatalf("told %+v", s)
	}
	if s := eight.ask("typing", map[string]any{"conversation_id": "g-9"}); s.Error == nil || s.Error.Code != chat.CodeConversationUnknown {
		t.Fatalf("typing in a foreign group was answered %+v", s)
	}
	_ = eight.ws.Close()
	if s := seven.hearOp("presence"); s.Items[0]["online"] != false {
		t.Fatalf("told %+v", s)
	}
	if s := seven.ask("unwatch", map[string]any{"conversation_ids": []string{"g-1", private.String()}}); string(s.Result) != `{"watched":0}` {
		t.Fatalf("unwatch was answered %s", s.Result)
	}
	if n := len(r.p.people.list()); n != 0 {
		t.Fatalf("%d people are still watched", n)
	}
}

// signals collects the typing signals of a rig.
func (r *rig) signals() func() int {
	var mu sync.Mutex
	n := 0
	r.live.hear = func(s presence.Signal) {
		if s.Kind == presence.Typing {
			mu.Lock()
			n++
			mu.Unlock()
		}
		r.p.takeSignal(s)
	}
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func TestLive_TypingInPrivateNeedsWordsOfBoth(t *testing.T) {
	r := newRig(t, func(c *Config) { c.TypingEvery = 0 })
	signals := r.signals()
	private := chat.PrivateConversation(7, 8)
	silence := func(silent bool) {
		r.door.mu.Lock()
		defer r.door.mu.Unlock()
		r.door.silent = map[chat.ConversationID]bool{private: silent}
	}
	eight := r.login("8")
	typed := func(want int) {
		t.Helper()
		if s := eight.ask("typing", map[string]any{"conversation_id": private.String()}); s.Error != nil {
			t.Fatal(s.Error)
		}
		if n := signals(); n != want {
			t.Fatalf("%d typing signals, want %d", n, want)
		}
	}

	silence(true)
	typed(0)
	typed(0)
	silence(false)
	typed(1)
	silence(true) // not looked up again
	typed(2)
}

func TestLive_ParallelTypingPassesOnce(t *testing.T) {
	const frames = 8
	for name, member := range map[string]bool{"a member": true, "a member that the connection does not know of": false} {
		r := newRig(t, func(c *Config) { c.TypingEvery = time.Hour })
		signals := r.signals()
		if member {
			r.store.join(8, group(1), 1, 0)
		}
		r.login("8")
		var c *conn
		r.p.mu.Lock()
		for c = range r.p.all {
		}
		r.p.mu.Unlock()
		inside, release := make(chan struct{}, frames), make(chan struct{})
		r.door.mu.Lock()
		r.door.mayType = func(chat.UserID, chat.ConversationID) (bool, error) {
			inside <- struct{}{}
			<-release
			return true, nil
		}
		r.door.mu.Unlock()
		ended := make(chan error, frames)
		for range frames {
			go func() {
				_, err := c.typing(t.Context(), []byte(`{"conversation_id":"g-1"}`))
				ended <- err
			}()
		}
		// Each frame either waits in MayType or has ended before the first is let go.
		out := 0
		for range frames {
			select {
			case <-inside:
			case err := <-ended:
				if out++; err != nil {
					t.Fatal(err)
				}
			case <-time.After(patience):
				t.Fatal("a frame neither asks nor ends")
			}
		}
		close(release)
		for range frames - out {
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
		}
		if n := signals(); n != 1 {
			t.Errorf("%s: %d of %d parallel frames pass, want 1", name, n, frames)
		}
		if member && out != frames-1 {
			t.Errorf("%d frames of a member are dropped before a look-up, want %d", out, frames-1)
		}
	}
}

func TestRequests_GoThroughTheDoorWithTheirIDs(t *testing.T) {
	r := newRig(t, nil)
	c := r.login("7")
	for _, id := range []string{`5`, `"five"`, `-1`} {
		c.send(`{"id":` + id + `,"op":"pull","conversation_id":"g-1","after":16,"limit":50}`)
		s := c.hear()
		if string(s.ID) != id || s.Op != "pull" || string(s.Result) != `{"body":{"conversation_id":"g-1","after":16,"limit":50},"op":"pull"}` {
			t.Fatalf("answered %+v %s", s, s.Result)
		}
	}
	r.door.mu.Lock()
	r.door.do = func(context.Context, accounts.Caller, string, []byte) (json.RawMessage, error) {
		return nil, chat.RefuseField(chat.CodeInvalidField, "limit", "is negative")
	}
	r.door.mu.Unlock()
	if s := c.ask("pull", nil); s.Error == nil || s.Error.Code != chat.CodeInvalidField || s.Error.Field != "limit" || s.Error.Retryable {
		t.Fatalf("answered %+v", s.Error)
	}
	r.door.mu.Lock()
	r.door.do = func(context.Context, accounts.Caller, string, []byte) (json.RawMessage, error) { panic("boom") }
	r.door.mu.Unlock()
	if s := c.ask("sync", nil); s.Error == nil || s.Error.Code != chat.CodeInternal || strings.Contains(s.Error.Message, "boom") {
		t.Fatalf("answered %+v", s.Error)
	}
}

func TestRequests_SlowOnesDoNotHoldUpPings(t *testing.T) {
	r := newRig(t, func(c *Config) { c.InFlight = 2 })
	release := make(chan struct{})
	r.door.do = func(ctx context.Context, _ accounts.Caller, op string, _ []byte) (json.RawMessage, error) {
		<-release
		return json.RawMessage(`{}`), nil
	}
	c := r.login("7")
	first, second := c.request("pull", nil), c.request("pull", nil)
	third := c.request("pull", nil) // more than in-flight: told to come back
	if s := c.hear(); string(s.ID) != fmt.Sprint(third) || s.Error == nil || s.Error.Code != chat.CodeOverloaded || !s.Error.Retryable {
		t.Fatalf("the third was answered %+v", s)
	}
	if s := c.ask("ping", nil); s.Error != nil {
		t.Fatal(s.Error)
	}
	ponged := make(chan struct{})
	c.ws.SetPongHandler(func(data string) error {
		if data == "you there?" {
			close(ponged)
		}
		return nil
	})
	_ = c.ws.WriteControl(websocket.PingMessage, []byte("you there?"), time.Now().Add(patience))
	go func() { <-ponged; close(release) }()
	got := map[string]bool{}
	for range 2 {
		got[string(c.hear().ID)] = true
	}
	if !got[fmt.Sprint(first)] || !got[fmt.Sprint(second)] {
		t.Fatalf("answered %v", got)
	}
}

// Whoever does a send, the goroutine of the connection or another, and however long it takes: the next one waits for it.
func TestRequests_SendsOfAConnectionKeepTheirOrder(t *testing.T) {
	r := newRig(t, func(c *Config) { c.RequestsPerSecond, c.RequestBurst = 1_000_000, 1_000_000 })
	const sends = 3000
	random := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex // guards random, order and busy
	var order []string
	busy := false
	r.door.do = func(_ context.Context, _ accounts.Caller, op string, body []byte) (json.RawMessage, error) {
		if op != "send" {
			return json.RawMessage(`{}`), nil
		}
		mu.Lock()
		if busy {
			t.Error("two sends of one connection are at work")
		}
		busy = true
		order = append(order, string(body))
		yields := random.IntN(20)
		mu.Unlock()
		for range yields {
			runtime.Gosched()
		}
		mu.Lock()
		busy = false
		mu.Unlock()
		return json.RawMessage(`{}`), nil
	}
	c := r.login("7")
	answers := 0
	for i := range sends {
		c.request("send", map[string]any{"client_msg_id": fmt.Sprint(i)})
		// Sometimes the last request of a frame, sometimes with others behind it, and with others between.
		if i%3 == 0 {
			c.request("sync", nil)
			answers++
		}
		for answers++; answers > i%5; answers-- {
			if s := c.hear(); s.Error != nil {
				t.Fatal(s.Error)
			}
		}
	}
	for ; answers > 0; answers-- {
		if s := c.hear(); s.Error != nil {
			t.Fatal(s.Error)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(order) != sends {
		t.Fatalf("%d of %d sends were done", len(order), sends)
	}
	for i, body := range order {
		if body != fmt.Sprintf(`{"client_msg_id":"%d"}`, i) {
			t.Fatalf("at place %d is %s", i, body)
		}
	}
}

func TestRequests_AreLimitedPerConnection(t *testing.T) {
	r := newRig(t, func(c *Config) { c.RequestsPerSecond = 0.5; c.RequestBurst = 3 })
	c := r.login("7") // one of three
	c.ask("ping", nil)
	c.ask("ping", nil)
	s := c.ask("ping", nil)
	if s.Error == nil || s.Error.Code != chat.CodeRateLimited || s.Error.RetryAfter < 1000 {
		t.Fatalf("answered %+v", s.Error)
	}
	for range maxRefusalsInARow + 1 {
		c.request("ping", nil)
	}
	c.mustClose(CloseRateLimited)
}

func TestRequests_BadFramesGetAClearError(t *testing.T) {
	r := newRig(t, nil)
	c := r.login("7")
	for text, code := range map[string]chat.Code{
		`{`:                           chat.CodeMalformed,
		`[]`:                          chat.CodeMalformed,
		`null`:                        chat.CodeMalformed,
		``:                            chat.CodeMalformed,
		`{"id":1,"op":"ping"} {}`:     chat.CodeMalformed,
		`{"id":1,"op":"a","op":"b"}`:  chat.CodeMalformed,
		"{\"id\":1,\"op\":\"p\xff\"}": chat.CodeMalformed,
		`{"op":"ping"}`:               chat.CodeInvalidField,
		`{"id":{},"op":"ping"}`:       chat.CodeInvalidField,
		`{"id":"` + strings.Repeat("x", 80) + `","op":""}`: chat.CodeInvalidField,
		`{"id":1}`:              chat.CodeInvalidField,
		`{"id":1,"op":7}`:       chat.CodeInvalidField,
		`{"id":1,"op":"dance"}`: chat.CodeInvalidField,
		`{"id":1,"op":"watch"}`: chat.CodeInvalidField,
		`{"id":1,"op":"watch","conversation_ids":["x"]}`: chat.CodeInvalidField,
		`{"id":1,"op":"typing","conversation_id":7}`:     chat.CodeInvalidField,
		`{"id":1,"op":"typing","who":7}`:                 chat.CodeUnknownField,
	} {
		c.send(text)
		if s := c.hear(); s.Error == nil || s.Error.Code != code || s.Error.RequestID == "" {
			t.Errorf("%.60q was answered %+v, want %s", text, s.Error, code)
		}
	}
	if s := c.ask("ping", nil); s.Error != nil {
		t.Fatalf("the connection does not go on: %+v", s.Error)
	}
}

func TestRequests_FramesThatCannotBeAnsweredCloseWithACode(t *testing.T) {
	r := newRig(t, nil)
	large := r.login("7")
	go func() { _ = large.ws.WriteMessage(websocket.TextMessage, make([]byte, 1<<20)) }()
	large.mustClose(CloseFrameTooLarge)

	binary := r.login("7")
	_ = binary.ws.WriteMessage(websocket.BinaryMessage, []byte("{}"))
	binary.mustClose(CloseBadFrame)

	// Garbage that is no frame at all: the library's own code of the standard.
	garbage := r.login("7")
	if _, err := garbage.ws.NetConn().Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if code, _ := garbage.closed(); code != websocket.CloseProtocolError {
		t.Fatalf("closed with %d", code)
	}
	eventually(t, "all have gone", func() bool { return r.connections() == 0 })
}
