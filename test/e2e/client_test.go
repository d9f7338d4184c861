package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"tideline/schemas/openapi/openapitest"
)

// person is a client that keeps the contract and nothing else.
type person struct {
	t     *testing.T
	base  string // http://host:port
	wsURL string
	id    string
	name  string
	token string
	http  *http.Client // holds every answer against the OpenAPI document
}

// contractual gives a client that fails the test for every exchange that the OpenAPI document does not allow.
func contractual(t *testing.T) *http.Client {
	t.Helper()
	return &http.Client{Transport: openapitest.Transport(t, http.DefaultTransport)}
}

func (p *person) call(method, path string, body, into any) int {
	p.t.Helper()
	status, text := p.raw(method, path, body)
	if into != nil && status >= 200 && status < 300 {
		if err := json.Unmarshal(text, into); err != nil {
			p.t.Fatalf("%s %s answered %d with %s: %v", method, path, status, text, err)
		}
	}
	return status
}

func (p *person) raw(method, path string, body any) (int, []byte) {
	p.t.Helper()
	var in io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			p.t.Fatal(err)
		}
		in = bytes.NewReader(text)
	}
	r, err := http.NewRequest(method, p.base+"/v1"+path, in)
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if p.token != "" {
		r.Header.Set("Authorization", "Bearer "+p.token)
	}
	res, err := p.http.Do(r)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, []byte(err.Error())
	}
	return res.StatusCode, text
}

// must calls and fails where the status is another one.
func (p *person) must(want int, method, path string, body, into any) {
	p.t.Helper()
	status, text := p.raw(method, path, body)
	if status != want {
		p.t.Fatalf("%s %s answered %d, want %d: %s", method, path, status, want, text)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			p.t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
}

// eventually calls until the status is the one that is wanted: servers may be starting, or taking a partition over.
func (p *person) eventually(want int, method, path string, body, into any) {
	p.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		status, text := p.raw(method, path, body)
		if status == want {
			if into != nil {
				if err := json.Unmarshal(text, into); err != nil {
					p.t.Fatalf("%s %s: %v in %s", method, path, err, text)
				}
			}
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s %s answered %d, want %d: %s", method, path, status, want, text)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

const password = "correct horse battery"

func join(t *testing.T, base, wsBase, name string) *person {
	t.Helper()
	p := &person{t: t, base: base, wsURL: wsBase, name: name, http: contractual(t)}
	var u struct {
		ID string `json:"user_id"`
	}
	p.eventually(201, "POST", "/users", map[string]string{"username": name, "password": password}, &u)
	p.id = u.ID
	p.login()
	return p
}

func (p *person) login() {
	p.t.Helper()
	p.token = ""
	var s struct {
		Token string `json:"access_token"`
	}
	p.eventually(201, "POST", "/sessions", map[string]string{"username": p.name, "password": password, "platform": "bot"}, &s)
	p.token = s.Token
}

type sent struct {
	Seq       int64  `json:"seq"`
	MessageID string `json:"message_id"`
	Duplicate bool   `json:"duplicate"`
	Status    string `json:"status"`
}

func text(s string) map[string]any {
	return map[string]any{"type": "text", "content": map[string]string{"text": s}}
}

func (p *person) send(cid, key, words string) sent {
	p.t.Helper()
	body := text(words)
	body["client_msg_id"] = key
	var s sent
	p.eventually(200, "POST", "/conversations/"+cid+"/messages", body, &s)
	return s
}

type message struct {
	Seq      int64           `json:"seq"`
	ToSeq    int64           `json:"to_seq"`
	Type     string          `json:"type"`
	Sender   string          `json:"sender_id"`
	Key      string          `json:"client_msg_id"`
	Content  json.RawMessage `json:"content"`
	Recalled bool            `json:"recalled"`
}

type pulled struct {
	Messages []message `json:"messages"`
	MinSeq   int64     `json:"min_seq"`
	MaxSeq   int64     `json:"max_seq"`
	HasMore  bool      `json:"has_more"`
}

// history pulls everything that the person may see and checks that no number is missing.
func (p *person) history(cid string) []message {
	p.t.Helper()
	var all []message
	after := int64(0)
	for {
		var page pulled
		p.eventually(200, "GET", fmt.Sprintf("/conversations/%s/messages?after=%d&limit=200", cid, after), nil, &page)
		for _, m := range page.Messages {
			if m.Seq != after+1 {
				p.t.Fatalf("%s: number %d follows %d", cid, m.Seq, after)
			}
			after = max(m.Seq, m.ToSeq)
		}
		all = append(all, page.Messages...)
		if !page.HasMore {
			if after != page.MaxSeq {
				p.t.Fatalf("%s ends at %d, and max_seq is %d", cid, after, page.MaxSeq)
			}
			return all
		}
	}
}

// ear hears hints on a socket.
type ear struct {
	t     *testing.T
	ws    *websocket.Conn
	mu    sync.Mutex // guards heard
	heard map[string]int64
	more  chan struct{}
}

func (p *person) listen() *ear {
	p.t.Helper()
	var e *ear
	deadline := time.Now().Add(30 * time.Second)
	for e == nil {
		ws, _, err := websocket.DefaultDialer.Dial(strings.Replace(p.wsURL, "http", "ws", 1)+"/v1/ws", nil)
		if err == nil {
			if err = ws.WriteJSON(map[string]any{"id": 1, "op": "auth", "token": p.token}); err == nil {
				var a struct {
					Result json.RawMessage `json:"result"`
					Error  json.RawMessage `json:"error"`
				}
				if err = ws.ReadJSON(&a); err == nil && len(a.Result) > 0 {
					e = &ear{t: p.t, ws: ws, heard: map[string]int64{}, more: make(chan struct{}, 1)}
					break
				}
				err = errors.Join(fmt.Errorf("auth was answered %s", a.Error), err)
			}
			_ = ws.Close()
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s could not connect: %v", p.name, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	go func() {
		for {
			var f struct {
				Op    string `json:"op"`
				Items []struct {
					C string `json:"c"`
					S int64  `json:"s"`
				} `json:"items"`
			}
			if err := e.ws.ReadJSON(&f); err != nil {
				return
			}
			if f.Op != "hint" {
				continue
			}
			e.mu.Lock()
			for _, i := range f.Items {
				e.heard[i.C] = max(e.heard[i.C], i.S)
			}
			e.mu.Unlock()
			select {
			case e.more <- struct{}{}:
			default:
			}
		}
	}()
	p.t.Cleanup(func() { _ = e.ws.Close() })
	return e
}

// waitFor waits until a conversation is told to be at a number, and gives what it was told.
func (e *ear) waitFor(cid string, seq int64) int64 {
	e.t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		e.mu.Lock()
		at := e.heard[cid]
		e.mu.Unlock()
		if at >= seq {
			return at
		}
		select {
		case <-e.more:
		case <-timeout:
			e.t.Fatalf("nobody told that %s is at %d; the last was %d", cid, seq, at)
		}
	}
}
