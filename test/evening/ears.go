package evening

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"tideline/internal/client"
	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// listenAs keeps a socket open for somebody, as the contract says: who is sent away comes back, unless the code says not
// to. Each connection begins with a sync, as what was said before it is not told again.
func (e *Evening) listenAs(p *person, gate chan struct{}, connected func()) {
	defer connected() // whatever happens, nobody waits for it for ever
	for pause := 250 * time.Millisecond; e.listen.Err() == nil; {
		gate <- struct{}{}
		ended, wait, err := e.connect(p, connected)
		<-gate
		if err == nil {
			pause = 250 * time.Millisecond
			wait, err = ended()
		}
		var closed *client.Closed
		if errors.As(err, &closed) && !closed.ComeBack() {
			e.t.Errorf("%s was sent away for good: %v", p.id, err)
			return
		}
		wait = max(wait, pause)
		pause = min(2*pause, 4*time.Second)
		select {
		case <-e.listen.Done():
		case <-time.After(wait/2 + rand.N(wait)):
		}
	}
}

// connect makes a connection; the function that it gives waits for its end.
func (e *Evening) connect(p *person, connected func()) (ended func() (time.Duration, error), wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(e.listen, attemptTime)
	defer cancel()
	var run history.Who
	began := make(chan struct{}) // what is heard is written down after the beginning
	tokens := p.c.Tokens()
	s, err := client.Dial(ctx, tokens.SocketURL, tokens.Access, func(f client.Frame) {
		<-began
		if f.Op != "hint" {
			return
		}
		for _, it := range f.Items {
			id, err := chat.ParseConversationID(it.C)
			if err != nil {
				e.t.Errorf("a hint names the conversation %q: %v", it.C, err)
				continue
			}
			e.w.Heard(run, id, it.S)
			p.hears(id, it.S)
		}
	})
	if err != nil {
		close(began)
		e.minds(err)
		var refused *client.Error
		if errors.As(err, &refused) {
			wait = refused.RetryAfter()
		}
		return nil, wait, err
	}
	run = e.w.Opened(p.id, history.DoorSocket)
	p.mu.Lock()
	p.socket, p.heard = s, run
	p.mu.Unlock()
	close(began)
	op := e.w.Begin(run, chat.ConversationID{}, history.Begin{Call: history.CallSync, Door: history.DoorSocket})
	var page client.Sync
	err = s.Ask(ctx, "sync", client.SyncRequest{Limit: 100}, &page)
	end := e.answered(err)
	end.Sync = synced(e, page)
	e.w.End(op, end)
	for _, v := range end.Sync {
		p.hears(v.Conversation, v.MaxSeq)
	}
	connected()
	return func() (time.Duration, error) { return e.hearOut(p, s, run) }, 0, nil
}

// hearOut pings until the connection ends or the evening does.
func (e *Evening) hearOut(p *person, s *client.Socket, run history.Who) (time.Duration, error) {
	heartbeat := time.NewTicker(time.Duration(s.Welcome.HeartbeatMS) * time.Millisecond / 2)
	defer heartbeat.Stop()
	for {
		select {
		case <-e.listen.Done():
			s.Close()
		case <-s.Ended():
			p.mu.Lock()
			p.socket = nil
			p.mu.Unlock()
			err := s.Err()
			e.minds(err)
			var closed *client.Closed
			if errors.As(err, &closed) {
				e.w.Closed(run, closed.Code, closed.Name)
				return closed.RetryAfter, err
			}
			e.w.Closed(run, 0, "")
			return 0, err
		case <-heartbeat.C:
			ctx, cancel := context.WithTimeout(e.listen, attemptTime)
			_ = s.Ask(ctx, "ping", nil, nil) // a connection that does not answer ends by itself
			cancel()
		}
	}
}
