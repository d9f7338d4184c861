package platform

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// balancer spreads connections over the doors of one kind, as what stands before a cluster does: it asks each of them again
// and again whether it is ready, gives nothing new to one that says no or has not answered several times, and goes to another one
// where nobody listens.
type balancer struct {
	addr string

	mu    sync.Mutex // guards what follows
	doors []*balanced
	next  int
}

type balanced struct {
	addr, ops string
	ready     bool
	silent    int // how many times in a row there was no answer
}

// readinessLook is how often a balancer asks. A process that stops has to linger for longer.
const readinessLook = 50 * time.Millisecond

// silences is how many times a door must have given no answer until it counts as gone, as in what people use (HAProxy's "fall",
// Kubernetes' failureThreshold): one late answer of a machine under load is no reason to send people away.
const silences = 3

// startBalancer starts one, which ends with the test; no door is known to be ready before it was asked.
func startBalancer(t testing.TB, doors ...*balanced) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{addr: l.Addr().String(), doors: doors}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, d := range doors {
		wg.Go(func() { b.watch(ctx, d) })
	}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { b.serve(ctx, c) })
		}
	})
	t.Cleanup(func() {
		stop()
		_ = l.Close()
		wg.Wait()
	})
	return b
}

func (b *balancer) watch(ctx context.Context, d *balanced) {
	asker := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(readinessLook)
	defer tick.Stop()
	for {
		ready, answered := false, false
		if r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.ops+"/readyz", nil); err == nil {
			if answer, err := asker.Do(r); err == nil {
				_ = answer.Body.Close()
				ready, answered = answer.StatusCode == http.StatusOK, true
			}
		}
		b.mu.Lock()
		if answered {
			d.ready, d.silent = ready, 0
		} else if d.silent++; d.silent >= silences {
			d.ready = false
		}
		b.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ready counts the doors that are.
func (b *balancer) ready() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.doors {
		if d.ready {
			n++
		}
	}
	return n
}

// dial connects to the next door that is ready and takes the connection; nil where there is none.
func (b *balancer) dial(ctx context.Context) net.Conn {
	b.mu.Lock()
	var addrs []string
	b.next = (b.next + 1) % len(b.doors)
	for i := range b.doors {
		if d := b.doors[(b.next+i)%len(b.doors)]; d.ready {
			addrs = append(addrs, d.addr)
		}
	}
	b.mu.Unlock()
	for _, addr := range addrs {
		if door, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr); err == nil {
			return door
		}
	}
	return nil
}

func (b *balancer) serve(ctx context.Context, client net.Conn) {
	defer func() { _ = client.Close() }()
	door := b.dial(ctx)
	if door == nil {
		return
	}
	defer func() { _ = door.Close() }()
	end := context.AfterFunc(ctx, func() {
		_ = client.Close()
		_ = door.Close()
	})
	defer end()
	var wg sync.WaitGroup
	for _, way := range [][2]*net.TCPConn{{door.(*net.TCPConn), client.(*net.TCPConn)}, {client.(*net.TCPConn), door.(*net.TCPConn)}} {
		wg.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = way[0].CloseWrite() // what ends on one side ends on the other, and what is still to be said is said
		})
	}
	wg.Wait()
}
