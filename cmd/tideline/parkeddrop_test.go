package main

import (
	"path/filepath"
	"strings"
	"testing"

	"tideline/internal/sqlstore"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

func TestParkedDrop_RemovesOnlyWhatNoVersionApplies(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store.db")
	cfg := sqlstore.DefaultConfig()
	cfg.Driver, cfg.Path = "sqlite", file
	store, err := sqlstore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	group := chat.GroupConversation(7)
	event := func(seq int64) *chat.Event {
		return &chat.Event{
			Conversation: group, Seq: seq, Ordinal: seq, Kind: chat.KindMessage, MessageID: seq, Sender: 1, ClientMsgID: "c", SentAt: 1,
			Message: &chat.Message{Type: chat.TypeText, Content: []byte(`{"text":"x"}`)},
		}
	}
	next := event(3)
	next.Kind, next.Message = 250, nil
	// Number 1 has a row, number 2 was passed.
	entries := []timeline.Entry{{Event: *event(1)}, timeline.PassUnreadable(1, group, 2, 1)}
	if _, err := store.Apply(t.Context(), timeline.Position{}, timeline.Position{MessagesNext: 2}, entries); err != nil {
		t.Fatal(err)
	}
	for _, p := range []sqlstore.Parked{
		{Offset: 10, Record: []byte("garbage"), Key: []byte("k")},
		{Offset: 11},
		{Offset: 12, Record: wire.EncodeEvent(event(4)), Conversation: group, Seq: 4},
		{Offset: 13, Record: wire.EncodeEvent(next), Conversation: group, Seq: 3, Kind: next.Kind},
		{Offset: 14, Record: []byte("garbage"), Conversation: group, Seq: 2},
		{Offset: 15, Record: []byte("garbage"), Conversation: group, Seq: 9},
		{Offset: 16, Record: wire.EncodeEvent(event(1)), Conversation: group, Seq: 1},
	} {
		p.Topic, p.Reason = "im.messages", "why"
		if err := store.Park(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	drop := func(args ...string) said {
		return tideline(t, append([]string{"parked", "drop", "-store.driver", "sqlite", "-store.path", file}, args...)...)
	}
	for _, c := range []struct{ offset, refusal, dropped string }{
		{"10", "", "7 bytes with SHA-256 795b6904e54f82411df4b0e27a373a55eea3f9d66dac5a9bce1dd92f7b401da5"},
		{"11", "", "no key, 0 bytes with SHA-256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"12", "the event g-7/4, which tideline parked replay may still apply", ""},
		{"13", "an event of kind 250, which a newer version applies", ""},
		{"14", "number 2 of g-7 was used by the record and has no row", ""},
		{"15", "", "dropped"},
		{"16", "", "dropped"},
		{"17", "no record of im.messages/0 at 17 is parked", ""},
	} {
		got := drop("im.messages", "0", c.offset)
		if c.refusal == "" {
			if got.code != 0 || !strings.Contains(got.out, c.dropped) {
				t.Errorf("%s: %+v", c.offset, got)
			}
			continue
		}
		if got.code != 1 || !strings.Contains(got.err, c.refusal) {
			t.Errorf("%s: %+v, want %q", c.offset, got, c.refusal)
		}
	}
	list := func() string {
		return tideline(t, "parked", "list", "-store.driver", "sqlite", "-store.path", file).out
	}
	if got := list(); strings.Count(got, "\n") != 3 {
		t.Errorf("the refused ones are still parked, and the list is %q", got)
	}
	for _, offset := range []string{"12", "13", "14"} {
		if got := drop("-anyway", "im.messages", "0", offset); got.code != 0 || !strings.Contains(got.out, "dropped") {
			t.Errorf("%s with -anyway: %+v", offset, got)
		}
	}
	if got := list(); got != "" {
		t.Errorf("nothing is parked any more, and the list is %q", got)
	}
	for _, args := range [][]string{nil, {"im.messages", "0"}, {"im.messages", "x", "1"}, {"im.messages", "0", "-1"}, {"im.messages", "-1", "0"}, {"im.messages", "0", "1", "2"}} {
		if got := drop(args...); got.code != 1 || got.err == "" {
			t.Errorf("%q: %+v", args, got)
		}
	}
}
