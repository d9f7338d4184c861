package client

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
)

// asked is what a request said of its name.
type asked struct{ header, body string }

// hasty answers the first request of a connection and hangs up on the second, as a door does that stops at that moment.
func hasty(t *testing.T) (base string, seen func() []asked) {
	t.Helper()
	var mu sync.Mutex // guards what follows: the next connection may be answered while one hangs up
	var list []asked
	connections := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		var body struct {
			ClientMsgID string `json:"client_msg_id"`
		}
		_ = json.Unmarshal(text, &body)
		mu.Lock()
		defer mu.Unlock()
		list = append(list, asked{r.Header.Get("Idempotency-Key"), body.ClientMsgID})
		if connections[r.RemoteAddr]++; connections[r.RemoteAddr] > 1 {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "{}")
	}))
	t.Cleanup(server.Close)
	return server.URL, func() []asked {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(list)
	}
}

func TestClient_RepeatsByItsNameWhatADoorThatStopsDidNotAnswer(t *testing.T) {
	for name, call := range map[string]func(c *Client) error{
		"a message": func(c *Client) error {
			_, err := c.Send(t.Context(), "g-1", SendRequest{Type: "text", ClientMsgID: "mine"})
			return err
		},
		"a login":         func(c *Client) error { return c.Login(t.Context(), "ada", "correct horse", "bot") },
		"a fresh session": func(c *Client) error { return c.Refresh(t.Context()) },
		"a leave":         func(c *Client) error { return c.RemoveMember(t.Context(), "g-1", "me") },
	} {
		t.Run(name, func(t *testing.T) {
			base, seen := hasty(t)
			c := New(base)
			if _, err := c.Sync(t.Context(), SyncRequest{}); err != nil { // makes the connection
				t.Fatal(err)
			}
			if err := call(c); err != nil {
				t.Fatalf("it was not repeated: %v", err)
			}
			list := seen()
			if len(list) != 3 || list[1] != list[2] {
				t.Fatalf("the door saw %v", list)
			}
			if a := list[1]; (a.header == "") == (a.body == "") {
				t.Errorf("its name is %q in the header and %q in the body; one of them is wanted", a.header, a.body)
			}
		})
	}
}
