package platform

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

// Person is a client that keeps the contract and nothing else.
type Person struct {
	t testing.TB
	// Base and WS are where the api and the sockets are, as http://host:port.
	Base, WS string
	ID       string
	Name     string
	Token    string
	// HTTP holds every answer against the OpenAPI document.
	HTTP *http.Client
}

// Contractual gives a client that fails the test for every exchange that the OpenAPI document does not allow.
func Contractual(t testing.TB) *http.Client {
	t.Helper()
	return &http.Client{Transport: openapitest.Transport(t, http.DefaultTransport)}
}

// Call sends a request, reads a good answer into a value, and gives the status; 0 where there was no answer.
func (p *Person) Call(method, path string, body, into any) int {
	p.t.Helper()
	status, text := p.Raw(method, path, body)
	if into != nil && status >= 200 && status < 300 {
		if err := json.Unmarshal(text, into); err != nil {
			p.t.Fatalf("%s %s answered %d with %s: %v", method, path, status, text, err)
		}
	}
	return status
}

// Raw sends a request and gives the answer as it is.
func (p *Person) Raw(method, path string, body any) (int, []byte) {
	p.t.Helper()
	var in io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			p.t.Fatal(err)
		}
		in = bytes.NewReader(text)
	}
	r, err := http.NewRequest(method, p.Base+"/v1"+path, in)
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if p.Token != "" {
		r.Header.Set("Authorization", "Bearer "+p.Token)
	}
	res, err := p.HTTP.Do(r)
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

// Must calls and fails where the status is another one.
func (p *Person) Must(want int, method, path string, body, into any) {
	p.t.Helper()
	status, text := p.Raw(method, path, body)
	if status != want {
		p.t.Fatalf("%s %s answered %d, want %d: %s", method, path, status, want, text)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			p.t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
}

// Eventually calls until the status is the one that is wanted: servers may be starting, or taking a partition over.
func (p *Person) Eventually(want int, method, path string, body, into any) {
	p.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		status, text := p.Raw(method, path, body)
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

// Join makes an account and begins a session.
func (pf *Platform) Join(t testing.TB, name string) *Person {
	t.Helper()
	p := &Person{t: t, Base: pf.HTTP, WS: pf.WS, Name: name, HTTP: Contractual(t)}
	var u struct {
		ID string `json:"user_id"`
	}
	p.Eventually(201, "POST", "/users", map[string]string{"username": name, "password": password}, &u)
	p.ID = u.ID
	p.Login()
	return p
}

// As begins a session for somebody who has no password, as a backend does.
func (pf *Platform) As(t testing.TB, id string) *Person {
	t.Helper()
	admin := &Person{t: t, Base: pf.HTTP, HTTP: Contractual(t), Token: pf.Admin()}
	var s struct {
		Token string `json:"access_token"`
	}
	admin.Eventually(201, "POST", "/admin/sessions", map[string]string{"user_id": id, "platform": "bot"}, &s)
	return &Person{t: t, Base: pf.HTTP, WS: pf.WS, ID: id, Name: id, Token: s.Token, HTTP: Contractual(t)}
}

// Login begins another session.
func (p *Person) Login() {
	p.t.Helper()
	p.Token = ""
	var s struct {
		Token string `json:"access_token"`
	}
	p.Eventually(201, "POST", "/sessions", map[string]string{"username": p.Name, "password": password, "platform": "bot"}, &s)
	p.Token = s.Token
}

// Sent is the answer to a send.
type Sent struct {
	Seq       int64  `json:"seq"`
	MessageID string `json:"message_id"`
	Duplicate bool   `json:"duplicate"`
	Status    string `json:"status"`
}

// Text gives the body of a text message.
func Text(s string) map[string]any {
	return map[string]any{"type": "text", "content": map[string]string{"text": s}}
}

// Send says something, again and again with the same id until it is numbered.
func (p *Person) Send(cid, key, words string) Sent {
	p.t.Helper()
	body := Text(words)
	body["client_msg_id"] = key
	var s Sent
	p.Eventually(200, "POST", "/conversations/"+cid+"/messages", body, &s)
	return s
}

// Message is one entry of a pull.
type Message struct {
	Seq      int64           `json:"seq"`
	ToSeq    int64           `json:"to_seq"`
	Type     string          `json:"type"`
	Sender   string          `json:"sender_id"`
	Key      string          `json:"client_msg_id"`
	Content  json.RawMessage `json:"content"`
	Recalled bool            `json:"recalled"`
}

// Page is the answer to a pull.
type Page struct {
	Messages []Message `json:"messages"`
	MinSeq   int64     `json:"min_seq"`
	MaxSeq   int64     `json:"max_seq"`
	HasMore  bool      `json:"has_more"`
}

// History pulls everything that the person may see and checks that no number is missing.
func (p *Person) History(cid string) []Message {
	p.t.Helper()
	var all []Message
	after := int64(0)
	for {
		var page Page
		p.Eventually(200, "GET", fmt.Sprintf("/conversations/%s/messages?after=%d&limit=200", cid, after), nil, &page)
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

// Ear hears hints on a socket.
type Ear struct {
	t     testing.TB
	ws    *websocket.Conn
	mu    sync.Mutex // guards heard
	heard map[string]int64
	more  chan struct{}
}

// Listen opens a socket, and remembers the hints that it hears.
func (p *Person) Listen() *Ear {
	p.t.Helper()
	var e *Ear
	deadline := time.Now().Add(30 * time.Second)
	for e == nil {
		ws, res, err := websocket.DefaultDialer.Dial(strings.Replace(p.WS, "http", "ws", 1)+"/v1/ws", nil) //nolint:bodyclose // gorilla's answer to a handshake needs no closing
		if err == nil {
			if res.Header.Get("X-Request-Id") == "" {
				p.t.Error("a handshake was answered without a request id")
			}
			if err = ws.WriteJSON(map[string]any{"id": 1, "op": "auth", "token": p.Token}); err == nil {
				var a struct {
					Result json.RawMessage `json:"result"`
					Error  json.RawMessage `json:"error"`
				}
				if err = ws.ReadJSON(&a); err == nil && len(a.Result) > 0 {
					e = &Ear{t: p.t, ws: ws, heard: map[string]int64{}, more: make(chan struct{}, 1)}
					break
				}
				err = errors.Join(fmt.Errorf("auth was answered %s", a.Error), err)
			}
			_ = ws.Close()
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s could not connect: %v", p.Name, err)
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

// WaitFor waits until a conversation is told to be at a number, and gives what it was told.
func (e *Ear) WaitFor(cid string, seq int64) int64 {
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
