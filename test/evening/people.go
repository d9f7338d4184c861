package evening

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"tideline/internal/client"
	"tideline/pkg/chat"
	"tideline/pkg/history"
	"tideline/test/platform"
)

// person is somebody who does things. The HTTP door is one run of a client, a socket is another.
type person struct {
	id  chat.UserID
	c   *client.Client
	who history.Who // at the HTTP door

	mu     sync.Mutex // guards what follows
	told   map[chat.ConversationID]int64
	said   map[chat.ConversationID][]int64 // the newest messages of one's own that were numbered and not taken back
	socket *client.Socket
	heard  history.Who // on the socket
}

// mostSaid bounds the messages that somebody remembers to edit, take back or ask about.
const mostSaid = 20

func (p *person) hears(c chat.ConversationID, seq int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told[c] = max(p.told[c], seq)
}

func (p *person) at(c chat.ConversationID) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told[c]
}

func (p *person) says(c chat.ConversationID, seq int64) {
	p.hears(c, seq)
	p.mu.Lock()
	defer p.mu.Unlock()
	list := append(p.said[c], seq)
	p.said[c] = list[max(0, len(list)-mostSaid):]
}

// room is a group with the people who talk in it.
type room struct {
	id      chat.ConversationID
	owner   *person
	talkers []*person

	mu     sync.Mutex           // guards what follows
	guests map[*person]bool     // who comes and goes; true while a member
	moving map[*person]struct{} // whose coming or going is under way
	past   []*person            // who was here for a while; see Guest
}

// admin asks what only administrators may.
func admin(ctx context.Context, pf *platform.Platform, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, pf.HTTP+"/v1/admin"+path, bytes.NewReader(body))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+pf.Admin())
		answer, err := http.DefaultClient.Do(r)
		if err == nil {
			text, readErr := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			switch {
			case readErr == nil && answer.StatusCode < 300:
				return json.Unmarshal(text, out)
			case answer.StatusCode != http.StatusServiceUnavailable && answer.StatusCode != http.StatusTooManyRequests:
				return fmt.Errorf("%s was answered %s: %s", path, answer.Status, text)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond): // it is starting
		}
	}
}

// makePeople makes n people without passwords, a page at a time.
func makePeople(t testing.TB, pf *platform.Platform, prefix string, n int) []chat.UserID {
	t.Helper()
	type user struct {
		External string      `json:"external_id"`
		Nickname string      `json:"nickname,omitempty"`
		ID       chat.UserID `json:"user_id,omitempty"`
	}
	ids := make([]chat.UserID, 0, n)
	for len(ids) < n {
		in := struct {
			Users []user `json:"users"`
		}{}
		for i := len(ids); i < min(n, len(ids)+500); i++ {
			name := fmt.Sprintf("%s-%d", prefix, i)
			in.Users = append(in.Users, user{External: name, Nickname: name})
		}
		out := in
		out.Users = nil
		if err := admin(t.Context(), pf, "/users", in, &out); err != nil {
			t.Fatal(err)
		}
		for _, u := range out.Users {
			ids = append(ids, u.ID)
		}
	}
	return ids
}

// arrive begins a session for somebody.
func (e *Evening) arrive(id chat.UserID) (*person, error) {
	var tokens client.Tokens
	if err := admin(e.t.Context(), e.pf, "/sessions", map[string]string{"user_id": id.String(), "platform": "bot"}, &tokens); err != nil {
		return nil, err
	}
	// Where the address of the sockets is behind a balancer of its own, the api names it; here it is the pusher's.
	tokens.SocketURL = "ws" + strings.TrimPrefix(e.pf.WS, "http") + "/v1/ws"
	return &person{
		id: id, c: client.Resume(e.pf.HTTP, tokens), who: e.w.Opened(id, history.DoorHTTP),
		told: map[chat.ConversationID]int64{}, said: map[chat.ConversationID][]int64{},
	}, nil
}

// arriveAll begins sessions for many, some at a time.
func (e *Evening) arriveAll(ids []chat.UserID) []*person {
	e.t.Helper()
	out := make([]*person, len(ids))
	next := make(chan int)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range next {
				p, err := e.arrive(ids[i])
				if err != nil {
					e.t.Error(err)
					continue
				}
				out[i] = p
			}
		})
	}
	for i := range ids {
		next <- i
	}
	close(next)
	wg.Wait()
	if e.t.Failed() {
		e.t.FailNow()
	}
	return out
}

func texts(ids []chat.UserID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id.String()
	}
	return out
}
