package servers

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy stands before a server and can be told to hang: it then takes connections and passes nothing on, as a machine
// does whose network was cut.
type Proxy struct {
	// Addr is host:port.
	Addr string

	server string
	listen net.Listener

	mu     sync.Mutex // guards what follows
	gate   chan struct{}
	away   bool
	conns  map[net.Conn]bool
	meddle func(said []byte) Answer
}

// Answer is what becomes of the answer to something that a client has said. The zero value lets it through.
type Answer struct {
	// Lost ends the connection when the answer comes: it was done, and the client does not know.
	Lost bool
	// Late holds the answer back for a while.
	Late time.Duration
}

// Meddle lets a function look at what clients say, as it comes from their connections, and decide about the answer. It is
// called from many goroutines; nil ends it.
func (p *Proxy) Meddle(look func(said []byte) Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.meddle = look
}

func (p *Proxy) look(said []byte) Answer {
	p.mu.Lock()
	look := p.meddle
	p.mu.Unlock()
	if look == nil {
		return Answer{}
	}
	return look(said)
}

// NewProxy starts a proxy that ends with the test.
func NewProxy(t testing.TB, server string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), server: server, listen: l, gate: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(p.gate)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.Go()
		p.cut()
		wg.Wait()
	})
	return p
}

// Hang lets nothing through from now on; what is under way stays open.
func (p *Proxy) Hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate = make(chan struct{})
}

// Refuse ends all connections, and every new one at once.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	p.away = true
	p.mu.Unlock()
	p.cut()
}

// Go lets everything through again.
func (p *Proxy) Go() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = false
	select {
	case <-p.gate:
	default:
		close(p.gate)
	}
}

func (p *Proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// wait waits until something may go through.
func (p *Proxy) wait() {
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	<-gate
}

func (p *Proxy) serve(client net.Conn) {
	p.mu.Lock()
	away := p.away
	p.conns[client] = true
	p.mu.Unlock()
	defer func() {
		_ = client.Close()
		p.mu.Lock()
		delete(p.conns, client)
		p.mu.Unlock()
	}()
	if away {
		return
	}
	p.wait()
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	var wg sync.WaitGroup
	answers := make(chan Answer, 1) // what becomes of the next one
	wg.Go(func() {
		p.pass(server, client, func(said []byte) bool {
			if a := p.look(said); a != (Answer{}) {
				select {
				case answers <- a:
				default: // one at a time
				}
			}
			return true
		})
		_ = server.Close()
	})
	wg.Go(func() {
		p.pass(client, server, func([]byte) bool {
			select {
			case a := <-answers:
				time.Sleep(a.Late)
				return !a.Lost
			default:
				return true
			}
		})
		_ = client.Close()
	})
	wg.Wait()
}

// pass passes on what comes, for as long as before lets it.
func (p *Proxy) pass(to io.Writer, from io.Reader, before func([]byte) bool) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		p.wait()
		if n > 0 {
			if !before(b[:n]) {
				return
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
