package timeline

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/internal/tracing"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	core "tideline/pkg/timeline"
)

// crowd gives a batch in which many people join a group, with a message behind each join.
func crowd(joins, each int) []core.Entry {
	var entries []core.Entry
	add := func(e chat.Event) {
		e.Conversation, e.Seq, e.Ordinal, e.Sender = group, int64(len(entries)+2), int64(len(entries)/2), 1
		entries = append(entries, core.Entry{Offset: int64(len(entries)), Event: e})
	}
	for i := range joins {
		var users []chat.UserID
		for j := range each {
			users = append(users, chat.UserID(153520647367032832+int64(i*each+j)*65536))
		}
		add(chat.Event{Kind: chat.KindJoin, Join: &chat.Join{Users: users}})
		add(chat.Event{Kind: chat.KindMessage, Message: &chat.Message{Type: chat.TypeText, Content: []byte(`{}`), Receipt: true}})
	}
	return entries
}

func TestHints_OfACrowdThatJoinsAreSeveralThatEachHoldUpToTheirNumber(t *testing.T) {
	entries := crowd(200, chat.MaxMembersPerCommand)
	hints := Hints(entries, false, 1)
	var want, got []chat.MemberChange
	for i := range entries {
		want = append(want, core.Changes(&entries[i].Event, false)...)
	}
	last, asked := int64(0), 0
	for i := range hints {
		h := &hints[i]
		if size := len(wire.EncodeNotify(h)); size > 100<<10 {
			t.Errorf("a hint has %d bytes", size)
		}
		if h.Conversation != group || h.MaxSeq <= last {
			t.Errorf("a hint of %s at %d follows one at %d", h.Conversation, h.MaxSeq, last)
		}
		for _, c := range h.Members {
			if c.Seq <= last || c.Seq > h.MaxSeq {
				t.Errorf("a hint for %d to %d tells of a change at %d", last+1, h.MaxSeq, c.Seq)
			}
		}
		last, got, asked = h.MaxSeq, append(got, h.Members...), asked+len(h.Asked)
	}
	if last != entries[len(entries)-1].Event.Seq || asked != 200 || !slices.Equal(got, want) {
		t.Errorf("together they tell of %d changes up to %d, want %d up to %d", len(got), last, len(want), entries[len(entries)-1].Event.Seq)
	}
	if few := Hints(crowd(3, 500), false, 1); len(few) != 1 {
		t.Errorf("a batch that one record can hold became %d", len(few))
	}
}

func TestWriter_TellsOfACrowdThatJoinsAtOnce(t *testing.T) {
	r := newRig(t)
	o := &partition{Writer: NewWriter(r.cfg, r.store, r.marks, r.producer, tracing.None(), quiet, NewMetrics(prometheus.NewRegistry()), "writer")}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := o.tell(ctx, crowd(200, chat.MaxMembersPerCommand), nil, false); err != nil {
		t.Fatal(err)
	}
	if !r.told(401) {
		t.Error("the last of them was not told")
	}
}
