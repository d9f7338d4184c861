package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"tideline/internal/api"
	"tideline/internal/embedded"
	"tideline/internal/kafka"
	"tideline/internal/ops"
	"tideline/internal/sqlstore"
	"tideline/internal/tracing"
	"tideline/internal/wiring"
	"tideline/schemas/openapi/openapitest"
)

// patience bounds every wait of these tests; none of them takes nearly as long.
const patience = 30 * time.Second

const adminToken = "the administrators of the tests"

// rig is the real thing in this process: an embedded broker, SQLite, a Redis in memory, and all services on them. All
// tests of this binary share it; each makes its own people.
type rig struct {
	base     string // http://host:port/v1
	parts    *wiring.Parts
	requests *wiring.Requests
	stop     func() error
}

var shared struct {
	once sync.Once
	rig  *rig
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.rig != nil {
		if err := shared.rig.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping:", err)
			code = 1
		}
	}
	os.Exit(code)
}

func theRig(t testing.TB) *rig {
	t.Helper()
	shared.once.Do(func() { shared.rig, shared.err = startRig() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.rig
}

func startRig() (_ *rig, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dir, err := os.MkdirTemp("", "tideline-api-")
	if err != nil {
		return nil, err
	}
	s := wiring.Defaults()
	s.HTTP.Addr, s.Ops.Addr = "127.0.0.1:0", "127.0.0.1:0"
	s.HTTP.RatePerUser, s.HTTP.RatePerAddress = 0, 0 // one address and few people do here what thousands do elsewhere
	s.Groups.MaxMemberships = 30                     // enough for the other tests, and few enough to reach
	s.Kafka.Partitions, s.Kafka.Replication, s.Kafka.MinInSync = 2, 1, 1
	s.Kafka.RetentionBytes, s.Kafka.SegmentBytes = embedded.PartitionBytes(s.Kafka.Partitions)
	s.Ingest.Fenced, s.Ingest.HashKey = false, "a hash key of the tests"
	s.Auth.TokenKey, s.Auth.AdminToken, s.Auth.Logins = tokenKey, adminToken, 1_000_000
	s.Store = sqlstore.DefaultConfig()
	s.Store.Driver, s.Store.Path = "sqlite", filepath.Join(dir, "tideline.db")
	log := slog.New(slog.NewTextHandler(io.Discard, nil))

	broker, err := embedded.StartBroker(filepath.Join(dir, "kafka"), "127.0.0.1:0", "secret", kafka.MaxUnpackedBytes, log)
	if err != nil {
		return nil, err
	}
	cache, err := embedded.StartRedis()
	if err != nil {
		return nil, err
	}
	broker.Join(&s.Kafka)
	s.Redis.Addrs, s.Redis.Password = []string{cache.Addr()}, cache.Password()
	admin, err := s.Kafka.NewAdmin("tests", log)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	if err := kafka.EnsureTopics(ctx, admin, s.Kafka); err != nil {
		return nil, err
	}
	store, err := sqlstore.Open(ctx, s.Store)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(store.Migrate(ctx), store.Close()); err != nil {
		return nil, err
	}
	p, err := wiring.NewParts(ctx, s, "test", log)
	if err != nil {
		return nil, err
	}
	numbering, err := p.Ingest()
	if err != nil {
		return nil, err
	}
	storing, err := p.Timeline()
	if err != nil {
		return nil, err
	}
	requests, behind, err := p.Requests()
	if err != nil {
		return nil, err
	}
	socket, sockets := p.Socket(requests)
	door, addr, err := p.Door(requests, socket)
	if err != nil {
		return nil, err
	}
	services := append([]ops.Named{sockets, door}, behind...)
	services = append(append(append(services, numbering...), storing...), p.Base()...)
	services = append(services, ops.Named{Name: "redis", Service: cache}, ops.Named{Name: "kafka", Service: broker})
	running, end := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- (&ops.Group{Log: log, Services: services, Drain: patience}).Run(running) }()
	return &rig{
		base: "http://" + addr.String() + "/v1", parts: p, requests: requests,
		stop: func() error {
			end()
			err := <-ended
			p.Close()
			return errors.Join(err, os.RemoveAll(dir))
		},
	}, nil
}

// door opens another door to the same service, with settings of its own.
func (r *rig) door(t *testing.T, cfg api.Config) string {
	t.Helper()
	cfg.Addr = "127.0.0.1:0"
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	s := api.New(cfg, r.requests.Service, r.requests.Accounts, adminToken, nil, tracing.None(), slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
	addr, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "http://" + addr.(*net.TCPAddr).String() + "/v1"
}

// person is somebody with a session. Every answer it gets is held against the OpenAPI document.
type person struct {
	t       testing.TB
	http    *http.Client
	base    string
	id      string
	name    string
	token   string
	refresh string
}

// answer is what a call was answered with.
type answer struct {
	t      testing.TB
	call   string
	status int
	header http.Header
	body   []byte
}

const password = "correct horse"

// visitor is somebody without a session.
func visitor(t testing.TB) *person {
	t.Helper()
	r := theRig(t)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &person{t: t, base: r.base, http: &http.Client{Transport: openapitest.Transport(t, transport), Timeout: patience}}
}

// join registers somebody and begins a session.
func join(t testing.TB, name string) *person {
	t.Helper()
	p := visitor(t)
	p.name = name + "-" + uuid.NewString()[:8]
	p.id = p.call("POST", "/users", m{"username": p.name, "password": password, "nickname": strings.ToUpper(name[:1]) + name[1:]}).must(201).text("user_id")
	p.login()
	return p
}

func (p *person) login() {
	p.t.Helper()
	p.token = ""
	a := p.call("POST", "/sessions", m{"username": p.name, "password": password, "platform": "bot"}).must(201)
	p.token, p.refresh = a.text("access_token"), a.text("refresh_token")
}

// m is a JSON object.
type m = map[string]any

// raw is a body that is sent as it is.
type raw string

// header sets a header of one call.
type header struct{ name, value string }

// call asks. A body is JSON, or raw.
func (p *person) call(method, path string, body any, headers ...header) *answer {
	p.t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case raw:
		in = strings.NewReader(string(b))
	default:
		text, err := json.Marshal(b)
		if err != nil {
			p.t.Fatal(err)
		}
		in = bytes.NewReader(text)
	}
	r, err := http.NewRequest(method, p.base+path, in)
	if err != nil {
		p.t.Fatal(err)
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if p.token != "" {
		r.Header.Set("Authorization", "Bearer "+p.token)
	}
	for _, h := range headers {
		r.Header.Set(h.name, h.value)
	}
	res, err := p.http.Do(r)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	return &answer{p.t, method + " " + path, res.StatusCode, res.Header, text}
}

// surely asks, with the same body and its client_msg_id, until the outcome is known: as clients do where the machine is
// busy with something else for longer than an answer may take.
func (p *person) surely(method, path string, body m) *answer {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		a := p.call(method, path, body)
		if a.status != http.StatusGatewayTimeout && a.status != http.StatusAccepted || time.Now().After(deadline) {
			return a
		}
	}
}

func (p *person) get(path string, headers ...header) *answer {
	p.t.Helper()
	return p.call("GET", path, nil, headers...)
}

// must fails where the status is another one.
func (a *answer) must(status int) *answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s was answered %d, want %d: %.600s", a.call, a.status, status, a.body)
	}
	return a
}

// refused fails where the answer is not this refusal; the field may be "".
func (a *answer) refused(status int, code, field string) {
	a.t.Helper()
	var v struct {
		Error struct{ Code, Field, Message string } `json:"error"`
	}
	if err := json.Unmarshal(a.body, &v); err != nil || a.status != status || v.Error.Code != code || v.Error.Field != field {
		a.t.Errorf("%.200s was answered %d %s (field %q), want %d %s (field %q): %.300s", a.call, a.status, v.Error.Code, v.Error.Field, status, code, field, a.body)
	}
}

// into reads the body.
// code gives the code of a refusal, or nothing.
func (a *answer) code() string {
	var refusal struct {
		Error struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	_ = json.Unmarshal(a.body, &refusal) // an answer that is no refusal has none
	return refusal.Error.Code
}

func (a *answer) into(v any) {
	a.t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		a.t.Fatalf("%s: %v in %.300s", a.call, err, a.body)
	}
}

func (a *answer) object() m {
	a.t.Helper()
	var v m
	a.into(&v)
	return v
}

// text gives a field that is a string, number one that is a number, both of which must be there.
func (a *answer) text(field string) string {
	a.t.Helper()
	s, ok := a.object()[field].(string)
	if !ok {
		a.t.Fatalf("%s: %s is no string in %.300s", a.call, field, a.body)
	}
	return s
}

func (a *answer) number(field string) int64 {
	a.t.Helper()
	n, ok := a.object()[field].(float64)
	if !ok {
		a.t.Fatalf("%s: %s is no number in %.300s", a.call, field, a.body)
	}
	return int64(n)
}

func key() string { return uuid.Must(uuid.NewV7()).String() }

// group makes a group and gives its address.
func (p *person) group(members ...*person) string {
	p.t.Helper()
	ids := []string{}
	for _, o := range members {
		ids = append(ids, o.id)
	}
	return p.call("POST", "/groups", m{"name": "Harbour", "member_ids": ids, "client_msg_id": key()}).must(201).text("conversation_id")
}

func words(s string) m { return m{"type": "text", "content": m{"text": s}, "client_msg_id": key()} }

// say sends a text and gives its number.
func (p *person) say(cid, s string) int64 {
	p.t.Helper()
	return p.surely("POST", "/conversations/"+cid+"/messages", words(s)).must(200).number("seq")
}

// entry is what stands at a number.
type entry struct {
	Seq, ToSeq, TargetSeq int64
	Type                  string
	Content               json.RawMessage
	Recalled              bool
	EditedAt, SentAt      int64
	SenderID              string
	ClientMsgID           string
}

// UnmarshalJSON reads snake_case names.
func (e *entry) UnmarshalJSON(b []byte) error {
	var v struct {
		Seq         int64           `json:"seq"`
		ToSeq       int64           `json:"to_seq"`
		TargetSeq   int64           `json:"target_seq"`
		Type        string          `json:"type"`
		Content     json.RawMessage `json:"content"`
		Recalled    bool            `json:"recalled"`
		EditedAt    int64           `json:"edited_at"`
		SentAt      int64           `json:"sent_at"`
		SenderID    string          `json:"sender_id"`
		ClientMsgID string          `json:"client_msg_id"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*e = entry(v)
	return nil
}

// text gives the words of a text.
func (e *entry) text() string {
	var c struct {
		Text string `json:"text"`
	}
	if err := json.Unmarshal(e.Content, &c); err != nil {
		return "no text: " + err.Error()
	}
	return c.Text
}

type page struct {
	Messages []entry `json:"messages"`
	Users    map[string]struct {
		Nickname string `json:"nickname"`
	} `json:"users"`
	MinSeq  int64 `json:"min_seq"`
	MaxSeq  int64 `json:"max_seq"`
	HasMore bool  `json:"has_more"`
}

// pull gives a page, after it has looked that no number is missing in it.
func (p *person) pull(cid, query string) page {
	p.t.Helper()
	var v page
	p.get("/conversations/" + cid + "/messages" + query).must(200).into(&v)
	for i, e := range v.Messages {
		if i > 0 {
			if before := v.Messages[i-1]; e.Seq != max(before.Seq, before.ToSeq)+1 {
				p.t.Fatalf("%s%s: number %d follows %d", cid, query, e.Seq, max(before.Seq, before.ToSeq))
			}
		}
	}
	return v
}

// eventually waits until something holds; what it waits for is told by nothing else.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
