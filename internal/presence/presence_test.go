package presence

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"tideline/pkg/chat"
)

const patience = 5 * time.Second

type pusher struct {
	*Service
	heard chan Signal
	other chan string
	end   func()
}

// start runs one pusher's presence on a Redis.
func start(t *testing.T, address string) *pusher {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: address, MaxRetries: -1, DialTimeout: 200 * time.Millisecond})
	p := &pusher{
		Service: New(client, time.Minute, slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry()),
		heard:   make(chan Signal, 100), other: make(chan string, 100),
	}
	p.Hear(func(s Signal) { p.heard <- s })
	p.HearOn("other", func(payload string) { p.other <- payload })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	p.end = func() {
		if cancel(); done != nil {
			if err := <-done; err != nil {
				t.Errorf("Run ended with %v", err)
			}
			done = nil
			_ = client.Close()
		}
	}
	t.Cleanup(p.end)
	return p
}

// listening waits until all of the pushers hear.
func listening(t *testing.T, m *miniredis.Miniredis, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); m.PubSubNumSub(Channel)[Channel] < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody listens")
		}
	}
}

func (p *pusher) hears(t *testing.T, want Signal) {
	t.Helper()
	select {
	case got := <-p.heard:
		if got.Kind != want.Kind || got.User != want.User {
			t.Fatalf("heard %+v, want %+v", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("did not hear %+v", want)
	}
}

func (p *pusher) online(t *testing.T, u chat.UserID) bool {
	t.Helper()
	m, err := p.Of(context.Background(), []chat.UserID{u})
	if err != nil {
		t.Fatal(err)
	}
	return m[u]
}

func TestPresence_BeginsWithTheFirstSessionAndEndsWithTheLast(t *testing.T) {
	m := miniredis.RunT(t)
	a, b := start(t, m.Addr()), start(t, m.Addr())
	listening(t, m, 2)
	a.Renew(7, 1)
	a.hears(t, Signal{Kind: Online, User: 7})
	b.hears(t, Signal{Kind: Online, User: 7})
	b.Renew(7, 2) // a second device, at another pusher
	b.Renew(8, 3)
	a.hears(t, Signal{Kind: Online, User: 8})
	if !a.online(t, 7) || !b.online(t, 8) || a.online(t, 9) {
		t.Fatal("who is online is wrong")
	}
	a.Drop(7, 1)
	b.Drop(8, 3)
	a.hears(t, Signal{Kind: Offline, User: 8})
	if !a.online(t, 7) {
		t.Fatal("7 went with its first device")
	}
	b.Drop(7, 2)
	a.hears(t, Signal{Kind: Offline, User: 7})
}

func TestPresence_ALeaseThatIsNotRenewedEnds(t *testing.T) {
	m := miniredis.RunT(t)
	a := start(t, m.Addr())
	listening(t, m, 1)
	a.Renew(7, 1)
	a.hears(t, Signal{Kind: Online, User: 7})
	later := start(t, m.Addr())
	later.now = func() time.Time { return time.Now().Add(2 * time.Minute) }
	if later.online(t, 7) {
		t.Fatal("online after the end of the lease")
	}
	m.FastForward(3 * time.Minute)
	if m.Exists(key(7)) {
		t.Fatal("the key outlives its leases")
	}
}

func TestPresence_LeasesDroppedAtTheEndAreSettled(t *testing.T) {
	m := miniredis.RunT(t)
	a := start(t, m.Addr())
	listening(t, m, 1)
	a.Renew(7, 1)
	a.hears(t, Signal{Kind: Online, User: 7})
	a.Drop(7, 1)
	a.end()
	if b := start(t, m.Addr()); b.online(t, 7) {
		t.Fatal("online after an orderly end")
	}
}

func TestPresence_RedisAwayCostsNothingButPresence(t *testing.T) {
	m := miniredis.RunT(t)
	a := start(t, m.Addr())
	listening(t, m, 1)
	m.Close()
	for i := range int64(1000) {
		a.Renew(chat.UserID(i+1), i)
		a.Tell(Signal{Kind: Typing, User: 1})
	}
	began := time.Now()
	var err error
	for range 10 {
		_, err = a.Of(context.Background(), []chat.UserID{1})
		if err == nil {
			t.Fatal("presence is known without Redis")
		}
	}
	if took := time.Since(began); took > 5*commandTimeout {
		t.Fatalf("ten questions took %s: nothing stopped asking", took)
	}
	if err := m.Restart(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * patience); ; {
		a.Renew(5000, 1)
		if known, err := a.Of(context.Background(), []chat.UserID{5000}); err == nil && known[5000] {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("presence does not come back with Redis")
		}
		time.Sleep(20 * time.Millisecond) // between looks
	}
}

func TestPresence_WhoHasNoTimeLeftSaysNothingOfRedis(t *testing.T) {
	m := miniredis.RunT(t)
	a := start(t, m.Addr())
	listening(t, m, 1)
	gone, leave := context.WithCancel(t.Context())
	leave()
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, ctx := range []context.Context{late, gone} {
		for range 5 {
			if _, err := a.Of(ctx, []chat.UserID{1}); !errors.Is(err, ctx.Err()) {
				t.Fatalf("told %v", err)
			}
		}
	}
	if _, err := a.Of(t.Context(), []chat.UserID{1}); err != nil {
		t.Fatalf("Redis answers, and is not asked: %v", err)
	}
}

func TestBus_CarriesSignalsAndOtherChannels(t *testing.T) {
	m := miniredis.RunT(t)
	a, b := start(t, m.Addr()), start(t, m.Addr())
	listening(t, m, 2)
	id := chat.GroupConversation(1)
	a.Tell(Signal{Kind: Typing, User: 7, Conversation: &id})
	select {
	case s := <-b.heard:
		if s.Kind != Typing || s.User != 7 || s.Conversation == nil || *s.Conversation != id {
			t.Fatalf("heard %+v", s)
		}
	case <-time.After(patience):
		t.Fatal("heard nothing")
	}
	m.Publish(Channel, "garbage")
	m.Publish("other", "42")
	select {
	case payload := <-b.other:
		if payload != "42" {
			t.Fatalf("heard %q", payload)
		}
	case <-time.After(patience):
		t.Fatal("heard nothing on the other channel")
	}
}
