package api_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
)

// BenchmarkPull compares a cached pull of 50 messages with what net/http alone makes of the same bytes in memory. Both are
// asked by the same bare client, so that the ratio of the two is that of the servers and the wire.
func BenchmarkPull(b *testing.B) {
	ada := join(b, "ada")
	cid := ada.group()
	var last int64
	for n := range 60 {
		last = ada.say(cid, fmt.Sprintf("message %d: about as long as what people write to one another, most of the time", n))
	}
	path := fmt.Sprintf("/conversations/%s/messages?after=5&limit=50&told=%d", cid, last)
	body := ada.get(path).must(200).body
	floor := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	}))
	defer floor.Close()
	ask := func(b *testing.B, base, path string) {
		host := strings.TrimPrefix(base, "http://")
		host, prefix, _ := strings.Cut(host, "/")
		request := fmt.Appendf(nil, "GET /%s%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", prefix, path, host, ada.token)
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			conn, err := net.Dial("tcp", host)
			if err != nil {
				b.Error(err)
				return
			}
			defer func() { _ = conn.Close() }()
			r := bufio.NewReaderSize(conn, 64<<10)
			for pb.Next() {
				if _, err := conn.Write(request); err != nil {
					b.Error(err)
					return
				}
				answer, err := http.ReadResponse(r, nil)
				if err != nil || answer.StatusCode != http.StatusOK {
					b.Errorf("answered %v, %v", answer, err)
					return
				}
				if n, err := io.Copy(io.Discard, answer.Body); err != nil || n != int64(len(body)) {
					b.Errorf("%d bytes, %v", n, err)
					return
				}
			}
		})
	}
	for range 3 {
		b.Run("floor", func(b *testing.B) { ask(b, floor.URL, "/") })
		b.Run("pull", func(b *testing.B) { ask(b, ada.base, path) })
	}
}

// BenchmarkSync asks for the summary of everything that somebody with 500 conversations has: heads, marks, unread, and of private
// ones how far the other has read.
func BenchmarkSync(b *testing.B) {
	const many = 500
	b.Run("groups", func(b *testing.B) {
		ada, bob := join(b, "ada"), join(b, "bob")
		for n := range many {
			cid := ada.group(bob)
			if n%5 == 0 {
				ada.pull(cid, fmt.Sprintf("?after=0&told=%d", bob.say(cid, "unread"))) // it is stored
			}
		}
		syncing(b, ada, many, many/5)
	})
	b.Run("private", func(b *testing.B) {
		ada := join(b, "ada")
		var peers []sqlstore.ExternalUser
		for n := range many {
			peers = append(peers, sqlstore.ExternalUser{ExternalID: ada.name + strconv.Itoa(n), Nickname: "Peer", ID: chat.UserID(n + 1)})
		}
		ids, err := theRig(b).parts.Store.UpsertExternal(b.Context(), peers, 1)
		if err != nil {
			b.Fatal(err)
		}
		for _, id := range ids {
			cid := between(ada, &person{id: id.String()})
			ada.pull(cid, fmt.Sprintf("?after=0&told=%d", ada.say(cid, "said"))) // it is stored
		}
		syncing(b, ada, many, 0)
	})
}

// syncing asks for the summary again and again, after a look at what it says.
func syncing(b *testing.B, who *person, conversations, unread int) {
	ask := func() []byte {
		r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, who.base+"/sync", strings.NewReader(`{"limit":500}`))
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+who.token)
		r.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		text, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK {
			b.Fatalf("%d, %v: %.300s", answer.StatusCode, err, text)
		}
		return text
	}
	var first struct {
		Conversations []struct{ Unread int }
		UnreadTotal   int `json:"unread_total"`
	}
	if err := json.Unmarshal(ask(), &first); err != nil || len(first.Conversations) != conversations || first.UnreadTotal != unread {
		b.Fatalf("%d conversations with %d unread, %v", len(first.Conversations), first.UnreadTotal, err)
	}
	b.ReportAllocs()
	for b.Loop() {
		ask()
	}
}
