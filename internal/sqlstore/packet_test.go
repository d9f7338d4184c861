package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"tideline/internal/config"
	"tideline/internal/servers"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// Every byte of the longest content may take two in a statement, and a batch has hundreds of them.
func TestApply_StoresABatchOfTheLongestMessages(t *testing.T) {
	s := openStore(t, Config{Driver: "mysql", DSN: config.Secret(servers.MySQL(t)), MaxOpen: 2, Timeout: 2 * time.Minute})
	content, err := json.Marshal(map[string]string{"text": strings.Repeat(`"`, 32_700)})
	if err != nil || len(content) > chat.MaxContentBytes {
		t.Fatal(len(content), err)
	}
	const n = 250
	c := chat.GroupConversation(7)
	var entries []timeline.Entry
	for i := range int64(n) {
		entries = append(entries, timeline.Entry{Offset: i, Event: chat.Event{
			Conversation: c, Seq: i + 1, Ordinal: i + 1, Kind: chat.KindMessage, MessageID: i + 1, Sender: 1, ClientMsgID: fmt.Sprint("c", i), SentAt: 1,
			Message: &chat.Message{Type: chat.TypeText, Content: content},
		}})
	}
	if _, err := s.Apply(context.Background(), timeline.Position{}, timeline.Position{MessagesNext: n}, entries); err != nil {
		t.Fatalf("%.300v", err)
	}
	rows, err := s.Rows(context.Background(), c, n, n)
	if err != nil || len(rows) != 1 || string(rows[0].Content) != string(content) {
		t.Fatalf("%d rows of the last message: %v", len(rows), err)
	}
}

func TestHeavyChunks_BoundBothNumberAndWeight(t *testing.T) {
	weights := []int{1, maxStatementBytes, maxStatementBytes + 1, 1, 1, 1, 1}
	var got []int
	err := heavyChunks(weights, 3, func(w *int) int { return *w }, func(part []int) error {
		got = append(got, len(part))
		return nil
	})
	if want := "[1 1 1 3 1]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("pieces of %v, want %s: %v", got, want, err)
	}
}
