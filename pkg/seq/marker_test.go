package seq

import (
	"testing"

	"tideline/pkg/chat"
)

// A log has offsets without a record. Whoever takes over must not need them: the log's output says that they were passed.
func TestMachine_ResumesBehindOffsetsThatAreNoRecords(t *testing.T) {
	hasher, err := chat.NewHasher([]byte("a key for the tests"))
	if err != nil {
		t.Fatal(err)
	}
	var id, offset int64
	config := Config{Hasher: hasher, NextID: func() (int64, error) { id++; return id, nil }, WindowIDs: 10, CacheEntries: 10, MaxMembers: 10}
	m := New(config, Checkpoint{})
	var log []TailRecord
	number := func(next int64, kinds []chat.Kind, rest int, records ...Record) {
		t.Helper()
		b := m.Begin(records, next, 1)
		if err := b.Decide(Loaded{Users: []chat.UserID{1}}); err != nil {
			t.Fatal(err)
		}
		var offsets []int64
		for _, e := range b.Events() {
			log = append(log, TailRecord{Offset: offset, Event: *e})
			offsets = append(offsets, offset)
			offset++
		}
		b.Settle(0, offsets)
		if len(b.Events()) != len(kinds) || len(b.Rest) != rest {
			t.Fatalf("%d events and %d records left, want %d and %d", len(b.Events()), len(b.Rest), len(kinds), rest)
		}
		for i, e := range b.Events() {
			if e.Kind != kinds[i] {
				t.Errorf("event %d is a %s, want %s", i, e.Kind, kinds[i])
			}
		}
		successor := New(config, Checkpoint{})
		for _, r := range log {
			if err := successor.Replay(r.Offset, &r.Event); err != nil {
				t.Fatal(err)
			}
		}
		if successor.Resume() != m.Resume() {
			t.Errorf("the successor goes on from %d, the owner from %d", successor.Resume(), m.Resume())
		}
	}
	create := func(at int64, group int64) Record {
		return Record{Offset: at, Command: &chat.Command{Type: chat.KindCreate, Conversation: chat.GroupConversation(group), Sender: 1, ClientMsgID: "c", Create: &chat.Create{Name: "all"}}}
	}
	number(5, []chat.Kind{chat.KindProgress}, 0)                                                                 // nothing but markers
	number(6, []chat.Kind{chat.KindCreate}, 0, create(5, 1))                                                     // a record and nothing behind it
	number(9, []chat.Kind{chat.KindCreate, chat.KindProgress}, 0, create(6, 2))                                  // markers behind it
	number(12, []chat.Kind{chat.KindProgress}, 0, Record{Offset: 9, Fault: chat.Refuse(chat.CodeMalformed, "")}) // behind a rejection
	number(15, []chat.Kind{chat.KindCreate}, 1, create(12, 3), create(13, 3))                                    // a batch that is cut
	if m.Resume() != 13 {
		t.Errorf("behind a batch that was cut it goes on from %d, want 13", m.Resume())
	}
	number(15, []chat.Kind{chat.KindProgress}, 0, create(13, 3))
	if m.Resume() != 15 {
		t.Errorf("it goes on from %d, want 15", m.Resume())
	}
}
