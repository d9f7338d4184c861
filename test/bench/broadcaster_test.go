package bench

import (
	"bytes"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// broadcaster is the floor of the sockets: what the library offers and nothing else. The newest frame is prepared once and
// written to every connection in turn, by as many goroutines as there are cores, once a window; without a window at once.
type broadcaster struct {
	pages  *sync.Map
	up     websocket.Upgrader
	window atomic.Int64
	newest atomic.Pointer[string]
	told   chan struct{}

	mu  sync.Mutex // guards all
	all []*websocket.Conn
}

func newBroadcaster(pages *sync.Map) *broadcaster {
	b := &broadcaster{pages: pages, told: make(chan struct{}, 1)}
	go b.run() // it ends with the process
	return b
}

func (b *broadcaster) say(frame string) {
	b.newest.Store(&frame)
	select {
	case b.told <- struct{}{}:
	default:
	}
}

func (b *broadcaster) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ws := range b.all {
		_ = ws.Close()
	}
	b.all = nil
}

func (b *broadcaster) run() {
	for range b.told {
		frame := b.newest.Load()
		message, err := websocket.NewPreparedMessage(websocket.TextMessage, []byte(*frame))
		if err != nil {
			continue // a text is always prepared
		}
		began := time.Now()
		b.mu.Lock()
		all := b.all
		b.mu.Unlock()
		cores := runtime.GOMAXPROCS(0)
		var writers sync.WaitGroup
		for k := range cores {
			writers.Go(func() {
				for i := k; i < len(all); i += cores {
					_ = all[i].SetWriteDeadline(time.Now().Add(10 * time.Second))
					_ = all[i].WritePreparedMessage(message)
				}
			})
		}
		writers.Wait()
		time.Sleep(time.Duration(b.window.Load()) - time.Since(began))
	}
}

// ServeHTTP welcomes whoever sends a frame, and answers each further one with the page whose name stands in it.
func (b *broadcaster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ws, err := b.up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = ws.Close() }()
	if _, _, err = ws.ReadMessage(); err != nil {
		return
	}
	if err = ws.WriteMessage(websocket.TextMessage, []byte(`{"id":1,"op":"auth","result":{"user_id":"1","session_id":"1"}}`)); err != nil {
		return
	}
	b.mu.Lock()
	b.all = append(b.all, ws)
	b.mu.Unlock()
	for {
		_, text, err := ws.ReadMessage()
		if err != nil {
			return
		}
		_, rest, found := strings.Cut(string(text), `"floor":"`)
		name, _, _ := strings.Cut(rest, `"`)
		page, known := b.pages.Load(name)
		if !found || !known {
			return
		}
		answer := bytes.Join([][]byte{[]byte(`{"id":2,"op":"pull","result":`), page.([]byte), []byte("}")}, nil)
		if ws.WriteMessage(websocket.TextMessage, answer) != nil {
			return
		}
	}
}
