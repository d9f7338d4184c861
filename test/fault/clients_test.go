package fault

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"tideline/test/platform"
)

// mallory is somebody who may connect and behaves badly. Nobody else must notice.
type mallory struct {
	c     *cluster
	p     *platform.Person
	group string
}

func (c *cluster) mallory() *mallory {
	m := &mallory{c: c, p: c.Join(c.t, fmt.Sprintf("mallory%d", c.rng.Uint32()))}
	var g struct {
		ID string `json:"conversation_id"`
	}
	m.p.Eventually(201, "POST", "/groups", map[string]any{"name": "Alone", "client_msg_id": "alone"}, &g)
	m.group = g.ID
	for i := range 8 { // something large to ask for
		m.p.Eventually(200, "POST", "/conversations/"+g.ID+"/messages", map[string]any{
			"client_msg_id": fmt.Sprint("big-", i), "type": "custom", "content": map[string]string{"blob": strings.Repeat("x", 60_000)},
		}, nil)
	}
	return m
}

// dial connects and says who it is; nil where the server has had enough of her.
func (m *mallory) dial(receiveBuffer int) *websocket.Conn {
	dialer := websocket.Dialer{HandshakeTimeout: 5 * time.Second, NetDial: func(network, addr string) (net.Conn, error) {
		conn, err := net.Dial(network, addr)
		if err == nil && receiveBuffer > 0 {
			err = conn.(*net.TCPConn).SetReadBuffer(receiveBuffer)
		}
		return conn, err
	}}
	ws, res, err := dialer.Dial("ws"+strings.TrimPrefix(m.p.WS, "http")+"/v1/ws", nil)
	if res != nil && res.Body != nil {
		_ = res.Body.Close()
	}
	if err != nil {
		return nil
	}
	if err := ws.WriteJSON(map[string]any{"id": 1, "op": "auth", "token": m.p.Token}); err != nil {
		return nil
	}
	return ws
}

// doesNotRead asks for large things and takes none of them, until the server ends it.
func (m *mallory) doesNotRead() (sentAway bool) {
	ws := m.dial(4096)
	if ws == nil {
		return false
	}
	defer func() { _ = ws.Close() }()
	for i := range 400 {
		_ = ws.SetWriteDeadline(time.Now().Add(15 * time.Second))
		if err := ws.WriteJSON(map[string]any{"id": 2 + i, "op": "pull", "conversation_id": m.group, "after": 0, "limit": 200}); err != nil {
			return true
		}
		m.c.For(50 * time.Millisecond)
	}
	return false
}

// readsAByteASecond takes what is said so slowly that nothing ever ends.
func (m *mallory) readsAByteASecond(d time.Duration) {
	ws := m.dial(4096)
	if ws == nil {
		return
	}
	defer func() { _ = ws.Close() }()
	_ = ws.WriteJSON(map[string]any{"id": 2, "op": "pull", "conversation_id": m.group, "after": 0, "limit": 200})
	b := make([]byte, 1)
	for end := time.Now().Add(d); time.Now().Before(end); m.c.For(time.Second) {
		if _, err := io.ReadFull(ws.NetConn(), b); err != nil {
			return
		}
	}
}

// talksGarbage sends what is no frame, no JSON, no request, or too much.
func (m *mallory) talksGarbage(r *rand.Rand) {
	ws := m.dial(0)
	if ws == nil {
		return
	}
	defer func() { _ = ws.Close() }()
	junk := make([]byte, 1+r.IntN(2000))
	for i := range junk {
		junk[i] = byte(r.Uint32())
	}
	switch r.IntN(5) {
	case 0:
		_, _ = ws.NetConn().Write(junk)
	case 1:
		_ = ws.WriteMessage(websocket.BinaryMessage, junk)
	case 2:
		_ = ws.WriteMessage(websocket.TextMessage, junk)
	case 3:
		_ = ws.WriteMessage(websocket.TextMessage, []byte(`{"id":1,"op":"send","content":"`+strings.Repeat("a", 1<<20)+`"}`))
	case 4:
		_ = ws.WriteMessage(websocket.TextMessage, []byte(strings.Repeat(`{"id":`, 5000)))
	}
	_ = ws.SetReadDeadline(time.Now().Add(2 * time.Second))
	for {
		if _, _, err := ws.ReadMessage(); err != nil {
			return
		}
	}
}

// halfHandshakes opens connections and says half of what opens a socket. It gives how many were open at once.
func (m *mallory) halfHandshakes(n int) int {
	var open []net.Conn
	for range n {
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(m.p.WS, "http://"), time.Second)
		if err != nil {
			break // the server has had enough
		}
		_, _ = conn.Write([]byte("GET /v1/ws HTTP/1.1\r\nHost: tideline\r\nUpgrade: websocket\r\nConn"))
		open = append(open, conn)
	}
	m.c.For(2 * time.Second)
	for _, conn := range open {
		_ = conn.Close()
	}
	return len(open)
}

// replays says the same frame again and again, on many connections. It gives the numbers that were answered.
func (m *mallory) replays(sockets []*websocket.Conn) map[int64]bool {
	var mu sync.Mutex
	seqs := map[int64]bool{}
	var wg sync.WaitGroup
	for _, ws := range sockets {
		wg.Go(func() {
			defer func() { _ = ws.Close() }()
			for i := range 20 {
				_ = ws.WriteJSON(map[string]any{"id": 2 + i, "op": "send", "conversation_id": m.group, "client_msg_id": "again", "type": "text", "content": map[string]string{"text": "again"}})
			}
			_ = ws.SetReadDeadline(time.Now().Add(10 * time.Second))
			for {
				var f struct {
					Op     string
					Result struct{ Seq int64 }
				}
				_, text, err := ws.ReadMessage()
				if err != nil {
					return
				}
				if json.Unmarshal(text, &f) == nil && f.Op == "send" && f.Result.Seq > 0 {
					mu.Lock()
					seqs[f.Result.Seq] = true
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return seqs
}

// floods asks as fast as it can; it gives how often it was told to slow down.
func (m *mallory) floods() (limited int) {
	ws := m.dial(0)
	if ws == nil {
		return 0
	}
	defer func() { _ = ws.Close() }()
	go func() {
		for i := range 5000 {
			if ws.WriteJSON(map[string]any{"id": 2 + i, "op": "ping"}) != nil {
				return
			}
		}
	}()
	_ = ws.SetReadDeadline(time.Now().Add(5 * time.Second))
	for {
		_, text, err := ws.ReadMessage()
		if err != nil {
			return limited
		}
		if strings.Contains(string(text), "rate_limited") {
			limited++
		}
	}
}

// Clients that behave badly are held to their limits, and everybody else goes on as if they were not there: the evening's
// history has no fault in it that would excuse anything.
func TestFault_ClientsBehaveBadly(t *testing.T) { misbehave(t, begin(t, platform.Setup{})) }

// So they are where doors, logs and stores are one process.
func TestFault_ClientsBehaveBadlyToStandalone(t *testing.T) {
	onlyInFull(t)
	misbehave(t, alone(t, t.TempDir()))
}

func misbehave(t *testing.T, c *cluster) {
	t.Helper()
	m := c.mallory()
	seed := c.rng.Uint64()
	var replaying []*websocket.Conn // before all the others, as she may have so many at a time
	for range 5 {
		if ws := m.dial(0); ws != nil {
			replaying = append(replaying, ws)
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // guards away
	away := 0
	for range 5 {
		wg.Go(func() {
			if m.doesNotRead() {
				mu.Lock()
				defer mu.Unlock()
				away++
			}
		})
		wg.Go(func() { m.readsAByteASecond(long(20*time.Second, 8*time.Second)) })
	}
	for i := range 60 {
		wg.Go(func() { m.talksGarbage(rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	many := 1000
	if full() {
		many = 10_000
	}
	var half, limited int
	wg.Go(func() { half = m.halfHandshakes(many) })
	wg.Go(func() { limited = m.floods() })
	c.For(2 * time.Second)
	seqs := m.replays(replaying)
	wg.Wait()
	t.Logf("%d of 5 who do not read were sent away, %d half handshakes were open, a flood was told %d times to slow down", away, half, limited)
	if away == 0 {
		t.Error("nobody was sent away for not reading")
	}
	if len(seqs) != 1 {
		t.Errorf("one message that was said a hundred times has the numbers %v", seqs)
	}
	if limited == 0 {
		t.Error("a flood was not limited")
	}
	// The door is still open for whoever knocks.
	res, err := http.Get(m.p.WS + "/v1/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	c.end()
}
