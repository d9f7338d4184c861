package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// oneConversation is a store with one conversation.
type oneConversation struct{ rows []timeline.Row }

func (s oneConversation) Conversations(_ context.Context, ids []chat.ConversationID) ([]timeline.Conversation, error) {
	if ids[0].String() != "g-1" {
		return nil, nil
	}
	return []timeline.Conversation{{ID: ids[0], MaxSeq: int64(len(s.rows))}}, nil
}

func (s oneConversation) Rows(_ context.Context, _ chat.ConversationID, first, last int64) ([]timeline.Row, error) {
	return s.rows[first-1 : last], nil
}

func (s oneConversation) Users(_ context.Context, ids []chat.UserID) ([]sqlstore.User, error) {
	var out []sqlstore.User
	for _, id := range ids {
		if id == 1 {
			out = append(out, sqlstore.User{ID: 1, Nickname: "Ada"})
		}
	}
	return out, nil
}

func TestTail_PrintsTheLastTenMessages(t *testing.T) {
	var s oneConversation
	add := func(r timeline.Row) {
		r.Seq = int64(len(s.rows) + 1)
		s.rows = append(s.rows, r)
	}
	for n := range 20 {
		add(timeline.Row{Kind: chat.KindMessage, Type: chat.TypeText, Sender: 1, Content: []byte(fmt.Sprintf(`{"text":"line %d"}`, n))})
	}
	add(timeline.Row{Kind: chat.KindMessage, Type: chat.TypeText, Sender: 2, Content: []byte(`{"text":"a\u001b[2Jb\nc"}`)})
	add(timeline.Row{Kind: chat.KindMessage, Type: chat.TypeText, Sender: 1, RecalledAt: 5})
	add(timeline.Row{Kind: chat.KindMessage, Type: chat.TypeCustom, Sender: 1, Content: []byte(`{"kind":"action"}`)})
	for range 2 * tailWindow {
		add(timeline.Row{Kind: chat.KindJoin, Sender: 1})
	}
	var out strings.Builder
	id, err := chat.ParseConversationID("g-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := printTail(t.Context(), s, id, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	const at = "  1970-01-01 00:00  "
	if len(lines) != tailMessages || lines[0] != "14"+at+"Ada: line 13" || lines[7] != "21"+at+"2: a\ufffd[2Jb c" || lines[8] != "22"+at+"Ada: (recalled)" || lines[9] != "23"+at+`Ada: {"kind":"action"}` {
		t.Errorf("%q", lines)
	}
	if id, err = chat.ParseConversationID("g-2"); err != nil {
		t.Fatal(err)
	}
	if err := printTail(t.Context(), s, id, &out); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("an unknown conversation: %v", err)
	}
}
