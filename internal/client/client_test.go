package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/accounts"
	"tideline/internal/handlers"
	"tideline/internal/kafka"
	"tideline/internal/pusher"
	"tideline/internal/tracing"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

const patience = 10 * time.Second

// world is a server with one conversation of one person, user 7, in memory, and a real pusher on an embedded Kafka and
// Redis before it.
type world struct {
	t       *testing.T
	http    *httptest.Server
	kafka   kafka.Config
	redis   *redis.Client
	restart func() // ends the pusher in order, and starts another one at the same address

	mu       sync.Mutex // guards what follows
	said     []string
	valid    map[string]bool // access tokens
	issued   int
	refreshs int
	tell     func(chat.Notify)
	socket   http.Handler
	refuse   []Error // the next answers to a send
	keys     map[string]int64
}

var room = chat.GroupConversation(1)

func (w *world) OnGap(func()) {}

func (w *world) Subscribe(tell func(chat.Notify)) { w.mu.Lock(); w.tell = tell; w.mu.Unlock() }

func (w *world) Memberships(context.Context, chat.UserID, bool) ([]timeline.Membership, error) {
	return []timeline.Membership{{Member: timeline.Member{Conversation: room, User: 7, JoinSeq: 1, ChangedSeq: 1}, Conversation: timeline.Conversation{ID: room}}}, nil
}

func (w *world) Authenticate(_ context.Context, token string) (accounts.Caller, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.valid[token] {
		return accounts.Caller{}, chat.Refuse(chat.CodeTokenExpired, "the access token has expired")
	}
	return accounts.Caller{User: 7, Session: 42, ExpiresAt: time.Now().Add(time.Hour)}, nil
}

func (w *world) Outside(context.Context, chat.UserID, chat.ConversationID) error {
	return chat.Refuse(chat.CodeConversationUnknown, "there is no such conversation")
}

func (w *world) MayType(context.Context, chat.UserID, chat.ConversationID) (bool, error) {
	return true, nil
}

func (w *world) BothSaid(_ context.Context, ids []chat.ConversationID) ([]chat.ConversationID, error) {
	return ids, nil
}

func (w *world) Do(_ context.Context, _ accounts.Caller, op string, body []byte) (handlers.Answer, error) {
	text, err := w.do(op, body)
	return handlers.Answer{JSON: text}, err
}

func (w *world) do(op string, body []byte) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch op {
	case "sync":
		var r SyncRequest
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, err
		}
		if r.Cursor == "ancient" {
			return nil, chat.RefuseField(chat.CodeInvalidField, "cursor", "is too old")
		}
		return json.Marshal(Sync{Conversations: []Conversation{{ID: room.String(), MaxSeq: int64(len(w.said))}}, Cursor: fmt.Sprint(len(w.said)), HasMore: false})
	case "pull":
		var r PullRequest
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, err
		}
		p := Page{MinSeq: 1, MaxSeq: int64(len(w.said))}
		for i := int(*r.After); i < len(w.said); i++ {
			if len(p.Messages) == 2 { // small pages
				p.HasMore = true
				break
			}
			p.Messages = append(p.Messages, Message{Seq: int64(i + 1), Type: "text"})
		}
		return json.Marshal(p)
	}
	return nil, chat.RefuseField(chat.CodeUnsupported, "op", "not here")
}

// say makes a message that members are told of.
func (w *world) say(text string) int64 {
	w.mu.Lock()
	w.said = append(w.said, text)
	n, tell := int64(len(w.said)), w.tell
	w.mu.Unlock()
	tell(chat.Notify{Conversation: room, MaxSeq: n})
	return n
}

func (w *world) tokens(rw http.ResponseWriter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.issued++
	access := fmt.Sprintf("access-%d", w.issued)
	w.valid[access] = true
	_ = json.NewEncoder(rw).Encode(Tokens{Access: access, Refresh: "refresh", ExpiresIn: 900, SocketURL: "ws" + strings.TrimPrefix(w.http.URL, "http") + "/v1/ws", User: User{ID: "7"}})
}

func (w *world) send(rw http.ResponseWriter, r *http.Request) {
	caller := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	w.mu.Lock()
	defer w.mu.Unlock()
	refuse := func(status int, e Error) {
		rw.WriteHeader(status)
		_ = json.NewEncoder(rw).Encode(map[string]any{"error": e})
	}
	if !w.valid[caller] {
		refuse(401, Error{Code: "token_expired"})
		return
	}
	if len(w.refuse) > 0 {
		e := w.refuse[0]
		w.refuse = w.refuse[1:]
		refuse(max(e.Status, 503), e)
		return
	}
	var in SendRequest
	_ = json.NewDecoder(r.Body).Decode(&in)
	seq, there := w.keys[in.ClientMsgID]
	if !there {
		w.said = append(w.said, "x")
		seq = int64(len(w.said))
		w.keys[in.ClientMsgID] = seq
	}
	_ = json.NewEncoder(rw).Encode(Sent{Seq: seq, Duplicate: there})
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, valid: map[string]bool{}, keys: map[string]int64{}}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, kafka.TopicReceipts))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	w.kafka = kafka.DefaultConfig()
	w.kafka.Brokers = cluster.ListenAddrs()
	m := miniredis.RunT(t)
	w.redis = redis.NewClient(&redis.Options{Addr: m.Addr()})
	t.Cleanup(func() { _ = w.redis.Close() })
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/sessions", func(rw http.ResponseWriter, _ *http.Request) { w.tokens(rw) })
	mux.HandleFunc("POST /v1/sessions/refresh", func(rw http.ResponseWriter, _ *http.Request) {
		w.mu.Lock()
		w.refreshs++
		w.mu.Unlock()
		w.tokens(rw)
	})
	mux.HandleFunc("POST /v1/conversations/{cid}/messages", w.send)
	mux.HandleFunc("GET /v1/ws", func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		h := w.socket
		w.mu.Unlock()
		h.ServeHTTP(rw, r)
	})
	w.http = httptest.NewServer(mux)
	var end func()
	w.restart = func() {
		if end != nil {
			end()
		}
		cfg := pusher.DefaultConfig()
		cfg.Window = 10 * time.Millisecond
		cfg.Drain = 200 * time.Millisecond
		log := slog.New(slog.NewTextHandler(io.Discard, nil))
		p := pusher.New(cfg, nil, w.kafka, w, w, w, w.redis, tracing.None(), log, pusher.NewMetrics(prometheus.NewRegistry()), "pusher-test")
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		w.mu.Lock()
		w.socket = p
		w.mu.Unlock()
		end = func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("the pusher ended with %v", err)
			}
		}
	}
	w.restart()
	t.Cleanup(func() { end(); w.http.Close() })
	return w
}

// live logs in and keeps a connection.
func (w *world) live(opt LiveOptions) (*Client, *Live, <-chan error) {
	w.t.Helper()
	c := New(w.http.URL)
	if err := c.Login(w.t.Context(), "ada", "secret words", "desktop"); err != nil {
		w.t.Fatal(err)
	}
	l := c.Live(opt)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	ended := make(chan error, 1)
	go func() { err := l.Run(ctx); done <- err; ended <- err }()
	w.t.Cleanup(func() { cancel(); _ = <-ended })
	return c, l, done
}

// next gives the next event of a kind.
func next(t *testing.T, l *Live, kind EventKind) Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		e, err := l.Next(ctx)
		if err != nil {
			t.Fatalf("waiting for %s: %v", kind, err)
		}
		if e.Kind == kind {
			return e
		}
	}
}

func TestLive_SyncsIsHintedAndPulls(t *testing.T) {
	w := newWorld(t)
	w.say("before")
	_, l, _ := w.live(LiveOptions{})
	if s := next(t, l, EventSync).Sync; len(s.Conversations) != 1 || s.Conversations[0].MaxSeq != 1 {
		t.Fatalf("synced %+v", s)
	}
	for range 4 {
		w.say("more")
	}
	for {
		if e := next(t, l, EventHint); e.Conversation != room.String() {
			t.Fatalf("hinted %+v", e)
		} else if e.Seq == 5 {
			break
		}
	}
	all, err := l.PullAll(t.Context(), room.String(), 1, 5)
	if err != nil || len(all) != 4 || all[0].Seq != 2 || all[3].Seq != 5 {
		t.Fatalf("pulled %+v, %v", all, err)
	}
}

func TestLive_ComesBackAfterADrainAndCatchesUp(t *testing.T) {
	w := newWorld(t)
	_, l, _ := w.live(LiveOptions{})
	next(t, l, EventSync)
	w.restart()
	var closed *Closed
	if e := next(t, l, EventLost); !errors.As(e.Err, &closed) || closed.Name != "draining" || !closed.ComeBack() {
		t.Fatalf("lost by %v", e.Err)
	}
	n := w.say("meanwhile")
	if s := next(t, l, EventSync).Sync; s.Conversations[0].MaxSeq != n {
		t.Fatalf("synced %+v", s)
	}
	n = w.say("and on")
	if e := next(t, l, EventHint); e.Seq != n {
		t.Fatalf("hinted %+v", e)
	}
}

// Whoever asks on a connection that is being closed hears how it was closed, and so what to do; whether the request could still be
// written is chance.
func TestAsk_TellsHowTheConnectionWasClosed(t *testing.T) {
	for range 30 {
		up := websocket.Upgrader{}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ws, err := up.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer func() { _ = ws.Close() }()
			_, _, _ = ws.ReadMessage()
			_ = ws.WriteMessage(websocket.TextMessage, []byte(`{"id":1,"result":{"heartbeat_ms":30000}}`))
			_, _, _ = ws.ReadMessage()
			_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4001, `{"code":"draining"}`), time.Now().Add(time.Second))
			for err == nil {
				_, _, err = ws.ReadMessage()
			}
		}))
		s, err := Dial(t.Context(), "ws"+strings.TrimPrefix(server.URL, "http"), "token", func(Frame) {})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 { // the first is answered with the close frame; the others meet it at any place
			var closed *Closed
			if err := s.Ask(t.Context(), "sync", nil, nil); !errors.As(err, &closed) || closed.Name != "draining" {
				t.Fatalf("asking gave %v", err)
			}
		}
		s.Close()
		server.Close()
	}
}

func TestLive_RefreshesATokenThatHasExpired(t *testing.T) {
	w := newWorld(t)
	c, l, _ := w.live(LiveOptions{Cursor: "ancient"})
	next(t, l, EventSync) // also without a cursor that the server takes
	w.mu.Lock()
	clear(w.valid)
	w.mu.Unlock()
	w.restart()
	next(t, l, EventSync)
	if got := c.Tokens().Access; got != "access-2" {
		t.Fatalf("the token is %s", got)
	}
}

func TestLive_EndsWithItsSession(t *testing.T) {
	w := newWorld(t)
	_, l, done := w.live(LiveOptions{})
	next(t, l, EventSync)
	for { // the pusher hears of ended sessions once it has subscribed
		if err := w.redis.Publish(t.Context(), accounts.RevokedChannel, "42").Err(); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			var closed *Closed
			if !errors.As(err, &closed) || closed.Name != "session_revoked" || closed.ComeBack() {
				t.Fatalf("ended with %v", err)
			}
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func TestLive_HearsOfReadMarksFromTheLog(t *testing.T) {
	w := newWorld(t)
	_, l, _ := w.live(LiveOptions{})
	next(t, l, EventSync)
	producer, err := w.kafka.NewProducer("test", slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for seq := int64(1); ; seq++ { // the pusher reads from the end, once it has found it
		m := chat.ReadMark{User: 7, Conversation: room, Seq: seq, Session: "1"}
		if err := producer.ProduceSync(ctx, &kgo.Record{Topic: kafka.TopicReceipts, Key: []byte("7"), Value: wire.EncodeReadMark(&m)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		brief, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		e, err := l.Next(brief)
		cancel()
		if err == nil && e.Kind == EventRead && e.Conversation == room.String() && e.Seq > 0 {
			return
		}
		if ctx.Err() != nil {
			t.Fatal("the other device never heard of it")
		}
	}
}

func TestSendSurely_RepeatsWithTheSameID(t *testing.T) {
	w := newWorld(t)
	c := New(w.http.URL)
	if err := c.Login(t.Context(), "ada", "secret words", "desktop"); err != nil {
		t.Fatal(err)
	}
	w.refuse = []Error{{Code: "overloaded", Retryable: true, RetryAfterMS: 1}, {Code: "timeout", Retryable: true}}
	sent, err := c.SendSurely(t.Context(), room.String(), Text("hi"))
	if err != nil || sent.Seq != 1 || len(w.keys) != 1 {
		t.Fatalf("sent %+v, %v, under %v", sent, err, w.keys)
	}
	w.refuse = []Error{{Status: 403, Code: "muted"}}
	var refused *Error
	if _, err := c.SendSurely(t.Context(), room.String(), Text("hi")); !errors.As(err, &refused) || refused.Code != "muted" {
		t.Fatalf("refused with %v", err)
	}
	w.mu.Lock()
	clear(w.valid)
	w.mu.Unlock()
	if _, err := c.Send(t.Context(), room.String(), Text("again")); err != nil || w.refreshs != 1 {
		t.Fatalf("with an expired token: %v, %d refreshs", err, w.refreshs)
	}
}

func TestLive_KeepsTheNewestForASlowReader(t *testing.T) {
	l := New("http://127.0.0.1").Live(LiveOptions{})
	for i := range int64(10_000) {
		l.hear(Frame{Op: "hint", Items: []Item{{C: "g-1", S: i}, {C: "g-2", S: i}}})
	}
	if len(l.pending) != 2 || len(l.order) != 2 {
		t.Fatalf("%d events wait", len(l.pending))
	}
	for _, id := range []string{"g-1", "g-2"} {
		if e := next(t, l, EventHint); e.Conversation != id || e.Seq != 9999 {
			t.Fatalf("got %+v", e)
		}
	}
}

func TestBackoff_GrowsToABoundAndObeysTheServer(t *testing.T) {
	var b backoff
	for i := range 20 {
		pause := b.next(0)
		most := min(leastPause<<min(i, 10), mostPause)
		if pause < most/2 || pause > most {
			t.Fatalf("pause %d is %s, not %s to %s", i, pause, most/2, most)
		}
	}
	if pause := b.next(7 * time.Second); pause < 7*time.Second || pause > 7*time.Second+leastPause {
		t.Fatalf("pause is %s", pause)
	}
}
