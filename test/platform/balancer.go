package platform

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// balancer spreads connections over the doors of one kind, as what stands before a cluster does: it asks each of them again
// and again whether it is ready, and gives nothing new to one that says no, or behind which nobody listens. One that is late with its
// answer is left in: on a machine under load that may be the fault of who asks. It does not go to another one where nobody
// listens: a door that closes while it is still believed to be open is what its tests look for.
type balancer struct {
	t    testing.TB
	addr string

	mu    sync.Mutex // guards what follows
	doors []*balanced
	next  int
}

type balanced struct {
	addr, ops string
	ready     bool
}

// How often a balancer asks, and how long it waits for an answer. A process that stops has to linger for longer.
const (
	readinessLook = 50 * time.Millisecond
	readinessWait = 500 * time.Millisecond
	linger        = "3s"
)

// startBalancer starts one, which ends with the test; no door is known to be ready before it was asked.
func startBalancer(t testing.TB, doors ...*balanced) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{t: t, addr: l.Addr().String(), doors: doors}
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
	asker := http.Client{Timeout: readinessWait, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(readinessLook)
	defer tick.Stop()
	for {
		ready, late := false, false
		if r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.ops+"/readyz", nil); err == nil {
			answer, err := asker.Do(r)
			if err == nil {
				_ = answer.Body.Close()
				ready = answer.StatusCode == http.StatusOK
			}
			var network net.Error
			late = errors.As(err, &network) && network.Timeout()
		}
		b.mu.Lock()
		if !late {
			d.ready = ready
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

// pick gives the next door that is ready, or "".
func (b *balancer) pick() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.doors {
		b.next = (b.next + 1) % len(b.doors)
		if d := b.doors[b.next]; d.ready {
			return d.addr
		}
	}
	return ""
}

func (b *balancer) serve(ctx context.Context, client net.Conn) {
	defer func() { _ = client.Close() }()
	addr := b.pick()
	if addr == "" {
		b.t.Logf("%s: a client was turned away, as no door is ready", time.Now().Format(time.RFC3339Nano))
		return
	}
	door, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		b.t.Logf("%s: a client was turned away: %v", time.Now().Format(time.RFC3339Nano), err)
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
