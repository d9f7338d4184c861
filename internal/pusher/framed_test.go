package pusher

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"

	"tideline/pkg/chat"
)

// Frames that the protocol forbids are answered with the protocol's own code, whatever was sent before them.
func TestFrames_BrokenProtocolClosesWith1002(t *testing.T) {
	length := func(n uint64) []byte {
		return append(binary.BigEndian.AppendUint64([]byte{opText, 0x80 | 127}, n), 0, 0, 0, 0)
	}
	r, user := newRig(t, nil), 100
	for name, frame := range map[string][]byte{
		"close frame of one byte":         masked(opClose, 1, []byte{3}),
		"length of 2^63":                  length(1 << 63),
		"length of 2^64-1":                length(1<<64 - 1),
		"close frame with code 1005":      masked(opClose, 2, []byte{3, 237}),
		"close frame that is no UTF-8":    masked(opClose, 3, []byte{3, 232, 0xff}),
		"close frame of 126 bytes":        masked(opClose, 126, make([]byte, 126)),
		"ping in fragments":               masked(0x09, 0, nil),
		"unknown opcode":                  masked(0x83, 0, nil),
		"frame without a mask":            {opText, 0},
		"continuation without a message":  masked(0x80, 0, nil),
		"compressed frame without leave":  masked(0xc1, 0, nil),
		"long header for a control frame": append(masked(0x89, 200, nil), make([]byte, 200)...),
	} {
		t.Run(name, func(t *testing.T) {
			for i, before := range [][]byte{nil, masked(opText, 300, []byte(fmt.Sprintf("%-300s", `{"id":9,"op":"ping"}`))), masked(0x89, 5, []byte("hello"))} {
				r := &rig{t: t, server: r.server}
				user++
				c := r.login(strconv.Itoa(user))
				for _, b := range append(before, frame...) { // a network may cut anywhere
					c.raw([]byte{b})
				}
				if code, _ := c.closed(); code != websocket.CloseProtocolError {
					t.Errorf("case %d closes with %d", i, code)
				}
			}
		})
	}
}

func TestClose_WithoutABodyIsAnsweredWithoutOne(t *testing.T) {
	c := newRig(t, nil).login("7")
	c.raw(masked(opClose, 0, nil))
	if code, _ := c.closed(); code != websocket.CloseNoStatusReceived {
		t.Errorf("answered with %d", code)
	}
}

// logged keeps what is logged.
type logged struct {
	mu     sync.Mutex // guards what follows
	errors []string
	all    int
}

func (l *logged) Enabled(context.Context, slog.Level) bool { return true }
func (l *logged) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logged) WithGroup(string) slog.Handler            { return l }
func (l *logged) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all++
	if r.Level >= slog.LevelError {
		l.errors = append(l.errors, r.Message)
	}
	return nil
}

func (l *logged) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

// A connection that ends while its auth is under way, from either side, is no fault of the server.
func TestAuth_EndOfTheConnectionMeanwhileIsNoError(t *testing.T) {
	for name, end := range map[string]func(r *rig, c *client){
		"client hangs up":                func(_ *rig, c *client) { _ = c.ws.Close() },
		"client resets":                  func(_ *rig, c *client) { _ = c.ws.NetConn().(*net.TCPConn).SetLinger(0); _ = c.ws.NetConn().Close() },
		"server closes":                  func(r *rig, _ *client) { r.p.takeRevoked("1") },
		"server closes, client hangs up": func(r *rig, c *client) { r.p.takeRevoked("1"); _ = c.ws.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			log := &logged{}
			r := newRig(t, nil)
			r.p.log = slog.New(log)
			asked, goOn := make(chan struct{}), make(chan struct{})
			r.store.asked = func(chat.UserID) { close(asked); <-goOn }
			c := r.dial()
			c.request("auth", map[string]any{"token": "7.1"})
			<-asked
			quiet := log.count()
			end(r, c)
			close(goOn)
			eventually(t, "the connection is forgotten", func() bool { return r.connections() == 0 })
			if strings.HasPrefix(name, "server") { // forgotten before the request has ended
				eventually(t, "the request has ended", func() bool { return log.count() > quiet })
			}
			log.mu.Lock()
			defer log.mu.Unlock()
			if len(log.errors) > 0 {
				t.Errorf("logged as errors: %q", log.errors)
			}
		})
	}
}

// A fault of form says nothing against a session that has authenticated.
func TestAuth_AgainWithAFaultOfFormStaysOpen(t *testing.T) {
	r := newRig(t, nil)
	for name, x := range map[string]struct {
		fields map[string]any
		code   chat.Code
	}{
		"extra field":    {map[string]any{"token": "7", "extra": 1}, chat.CodeUnknownField},
		"no token":       {map[string]any{}, chat.CodeInvalidField},
		"number":         {map[string]any{"token": 7}, chat.CodeInvalidField},
		"null is absent": {map[string]any{"token": nil}, chat.CodeInvalidField},
	} {
		c := r.login("7")
		if a := c.ask("auth", x.fields); a.Error == nil || a.Error.Code != x.code {
			t.Errorf("%s is answered %+v", name, a)
		}
		if a := c.ask("ping", nil); a.Error != nil {
			t.Errorf("%s: a ping afterwards is answered %+v", name, a.Error)
		}
		if a := c.ask("auth", map[string]any{"token": "7"}); a.Error != nil {
			t.Errorf("%s: auth afterwards is answered %+v", name, a.Error)
		}
	}
	c := r.login("7")
	c.request("auth", map[string]any{"token": "nobody's"})
	c.mustClose(CloseUnauthenticated)
}

func TestHandshakes_ThatAreRefusedHaveTheirHeaders(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections = 1 })
	url := "http" + strings.TrimPrefix(r.url(), "ws")
	refused := func(name, method string, status int, headers ...string) {
		t.Helper()
		req, err := http.NewRequest(method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		h := res.Header
		if res.StatusCode != status || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Sec-WebSocket-Version") != "13" || h.Get("X-Request-Id") == "" {
			t.Errorf("%s is answered %d with %v", name, res.StatusCode, h)
		}
		if status == http.StatusMethodNotAllowed && h.Get("Allow") != "GET" {
			t.Errorf("%s: Allow is %q", name, h.Get("Allow"))
		}
	}
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}
	with := func(more ...string) []string { return append(append([]string{}, upgrade...), more...) }
	refused("no handshake", "GET", 400)
	refused("another version", "GET", 400, with("Sec-WebSocket-Version", "8")...)
	refused("another method", "POST", 405, with("Sec-WebSocket-Version", "13")...)
	refused("a foreign page", "GET", 403, with("Sec-WebSocket-Version", "13", "Origin", "https://evil.example")...)
	c := r.login("7")
	refused("a full server", "GET", 503, with("Sec-WebSocket-Version", "13")...)
	_ = c.ws.Close()
}
