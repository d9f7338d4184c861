package marks

import (
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"tideline/pkg/chat"
)

func TestMoves_ASetThatVanishedWhileMembersAreAddedDoesNotStay(t *testing.T) {
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	c := chat.GroupConversation(7)
	var m moves
	m.add(&chat.Event{Conversation: c, Seq: 5, Kind: chat.KindJoin, Sender: 1, Join: &chat.Join{Users: []chat.UserID{2, 3}}})
	there := map[string]bool{}
	for _, k := range m.grown() {
		there[k] = true // it was, when it was looked for
	}
	if err := (&Marks{client: client}).send(t.Context(), m.commands(there)); err != nil {
		t.Fatal(err)
	}
	keys := server.Keys()
	if len(keys) != 3 {
		t.Fatalf("there are %v", keys)
	}
	for _, k := range keys {
		if ttl := server.TTL(k); ttl != keep {
			t.Errorf("%s ends in %s, want %s", k, ttl, keep)
		}
	}
}
