package pusher

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"tideline/internal/edge"
)

// masked frames what a client sends; n is the length that the header claims, which may be more than the payload.
func masked(first byte, n int, payload []byte) []byte {
	b := []byte{first}
	switch {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	return append(append(b, 0, 0, 0, 0), payload...) // a mask of zeroes changes nothing
}

func (c *client) raw(b []byte) {
	c.t.Helper()
	if _, err := c.ws.NetConn().Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func TestHello_FramesAreSmallUntilAuth(t *testing.T) {
	r := newRig(t, nil)
	token := func(size int) string {
		return fmt.Sprintf(`{"id":1,"op":"auth","token":"7","x":"%s"}`, strings.Repeat("a", size))
	}
	c := r.dial()
	c.send(token(maxHelloFrame))
	c.mustClose(CloseFrameTooLarge)

	c = r.dial() // exactly as large as may be: refused for its field, not for its size
	c.send(token(maxHelloFrame - len(token(0))))
	if s := c.hear(); s.Error == nil || s.Error.Field != "x" {
		t.Errorf("a frame of %d bytes is answered %+v", maxHelloFrame, s)
	}

	c = r.dial() // the header alone claims too much, and what comes goes no further than the limit
	c.raw(masked(opText, 250<<10, bytes.Repeat([]byte("a"), maxHelloFrame+1)))
	c.mustClose(CloseFrameTooLarge)

	c = r.dial() // in fragments
	for i := range 100 {
		first := byte(0)
		if i == 0 {
			first = 1
		}
		c.raw(masked(first, 1000, bytes.Repeat([]byte("a"), 1000)))
		if (i+1)*1000 > maxHelloFrame {
			break
		}
	}
	c.mustClose(CloseFrameTooLarge)
}

// A client may send its first large request without waiting for the answer to auth.
func TestHello_LargeFramesWaitForAuth(t *testing.T) {
	r := newRig(t, nil)
	large := fmt.Sprintf(`{"id":2,"op":"send","text":"%s"}`, strings.Repeat("a", 100<<10))
	for range 20 {
		c := r.dial()
		c.send(`{"id":1,"op":"auth","token":"7"}`)
		c.send(large)
		if s := c.hear(); s.Op != "auth" || s.Error != nil {
			t.Fatalf("%+v", s)
		}
		if s := c.hearOp("send"); s.Error != nil {
			t.Fatalf("%+v", s.Error)
		}
		_ = c.ws.Close()

		ws, _, err := (&websocket.Dialer{Subprotocols: []string{subprotocol, bearerPrefix + "7"}}).Dial(r.url(), nil)
		if err != nil {
			t.Fatal(err)
		}
		c = &client{t: t, ws: ws}
		c.send(large)
		if s := c.hearOp("send"); s.Error != nil {
			t.Fatalf("%+v", s.Error)
		}
		_ = ws.Close()
	}
}

// What a connection keeps in this process before auth does not depend on what it claims to send.
func TestHello_MemoryOfAConnectionIsBounded(t *testing.T) {
	n := 200
	if text := os.Getenv("TIDELINE_HELLO_CONNECTIONS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	r := newRig(t, func(c *Config) {
		c.MaxUnauthenticatedPerAddress, c.HandshakesPerSecond, c.AuthTimeout = n, 0, time.Minute
	})
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}
	before := heap()
	list := make([]*client, n)
	for i := range list {
		list[i] = r.dial()
	}
	quiet := heap() - before // clients of this process included
	// A message of the largest size that is not refused, without an end. The answer to a ping says that all of it was read.
	payload := bytes.Repeat([]byte("a"), maxHelloFrame)
	errPong := errors.New("pong")
	for _, c := range list {
		c.ws.SetPongHandler(func(string) error { return errPong })
		c.raw(append(masked(1, len(payload), payload), masked(0x89, 0, nil)...))
	}
	for _, c := range list {
		if _, err := c.tryHear(patience); !errors.Is(err, errPong) {
			t.Fatal(err)
		}
	}
	full := heap() - before - quiet
	t.Logf("%d connections: %d bytes each while quiet (both ends), %d more with a frame that does not end", n, quiet/int64(n), full/int64(n))
	if each := full / int64(n); each > 16<<10 {
		t.Errorf("a frame that does not end keeps %d bytes", each)
	}
	if r.unauthenticated() != n {
		t.Errorf("%d of %d connections are left", r.unauthenticated(), n)
	}
}

func TestPings_CountAsRequests(t *testing.T) {
	for name, op := range map[string]int{"ping": websocket.PingMessage, "pong": websocket.PongMessage} {
		r := newRig(t, func(c *Config) { c.RequestsPerSecond, c.RequestBurst = 0.1, 10 })
		for _, c := range []*client{r.dial(), r.login("7")} {
			for range 10 + maxRefusalsInARow + 1 {
				_ = c.ws.WriteControl(op, []byte("x"), time.Now().Add(patience)) // fails once it is closed
			}
			c.mustClose(CloseRateLimited)
		}
		// Fragments of a message do not hide them.
		c := r.login("8")
		c.raw(masked(1, 1, []byte("{")))
		for range 10 + maxRefusalsInARow + 1 {
			_ = c.ws.WriteControl(op, nil, time.Now().Add(patience))
		}
		c.mustClose(CloseRateLimited)
		if t.Failed() {
			t.Errorf("it was %s", name)
		}
	}
	// A heartbeat is far from the limit, and is answered.
	r := newRig(t, nil)
	c := r.login("7")
	ponged := make(chan struct{}, 1)
	c.ws.SetPongHandler(func(string) error { ponged <- struct{}{}; return nil })
	go func() { _, _ = c.tryHear(patience) }()
	if err := c.ws.WriteControl(websocket.PingMessage, []byte("x"), time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ponged:
	case <-time.After(patience):
		t.Error("a ping is not answered")
	}
}

func TestFrames_CompressionIsNeitherOfferedNorTaken(t *testing.T) {
	r := newRig(t, nil)
	ws, res, err := (&websocket.Dialer{EnableCompression: true}).Dial(r.url(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.Close() }()
	if got := res.Header.Get("Sec-WebSocket-Extensions"); got != "" {
		t.Errorf("the server agrees to %s", got)
	}
	c := r.login("7")
	c.raw(masked(0xc1, 4, []byte("bomb"))) // RSV1
	if code, _ := c.closed(); code != websocket.CloseProtocolError {
		t.Errorf("a compressed frame closes with %d", code)
	}
}

func TestHandshakes_AreLimitedByAddress(t *testing.T) {
	r := newRig(t, func(c *Config) { c.HandshakesPerSecond, c.HandshakeBurst = 0.01, 5 })
	proxies, err := edge.ParseProxies([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	r.p.proxies = proxies
	dial := func(address string) (*client, int) {
		t.Helper()
		ws, res, err := websocket.DefaultDialer.Dial(r.url(), http.Header{"X-Forwarded-For": {address}})
		if err != nil {
			if res == nil {
				t.Fatal(err)
			}
			if res.Header.Get("Retry-After") == "" {
				t.Error("a refused handshake does not say when to come back")
			}
			return nil, res.StatusCode
		}
		t.Cleanup(func() { _ = ws.Close() })
		return &client{t: t, ws: ws}, res.StatusCode
	}
	// A campus: many people behind one address, all of whom have a token.
	for i := range 50 {
		c, status := dial("203.0.113.1")
		if c == nil {
			t.Fatalf("person %d of a campus is answered %d", i+1, status)
		}
		if a := c.ask("auth", map[string]any{"token": strconv.Itoa(i + 1)}); a.Error != nil {
			t.Fatalf("%+v", a.Error)
		}
		eventually(t, "the handshake is returned", func() bool { return r.unauthenticated() == 0 })
	}
	// One that connects and goes, with a bad token or none.
	for i := range 5 {
		c, status := dial(fmt.Sprintf("2001:db8:1:2::%d", i+1))
		if c == nil {
			t.Fatalf("handshake %d of 5 is answered %d", i+1, status)
		}
		if i%2 == 0 {
			c.request("auth", map[string]any{"token": "guess"})
			c.mustClose(CloseUnauthenticated)
		}
	}
	if _, status := dial("2001:db8:1:2:ffff::1"); status != http.StatusTooManyRequests {
		t.Errorf("the sixth handshake of a /64 is answered %d", status)
	}
	if c, status := dial("2001:db8:1:3::1"); c == nil {
		t.Errorf("the network beside it is answered %d", status)
	}
	if c, status := dial("203.0.113.1"); c == nil {
		t.Errorf("the campus is answered %d", status)
	}
}
