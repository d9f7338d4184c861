package timeline

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	core "tideline/pkg/timeline"
)

func (r *rig) produce(records ...*kgo.Record) {
	r.t.Helper()
	for _, rec := range records {
		rec.Topic = kafka.TopicMessages
	}
	if err := r.producer.ProduceSync(r.t.Context(), records...).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) head() core.Conversation {
	r.t.Helper()
	list, err := r.store.Conversations(r.t.Context(), []chat.ConversationID{group})
	if err != nil || len(list) != 1 {
		r.t.Fatalf("%d heads, %v", len(list), err)
	}
	return list[0]
}

func (r *rig) passed(offset int64) bool {
	at, err := r.store.Positions(r.t.Context(), []int32{0})
	return err == nil && at[0].MessagesNext >= offset
}

func TestWriter_ParksAnyRecord(t *testing.T) {
	key := []byte(group.String())
	for _, c := range []struct {
		name   string
		record kgo.Record
	}{
		{"NullValue", kgo.Record{Key: key}},
		{"EmptyValue", kgo.Record{Key: key, Value: []byte{}}},
		{"NullKey", kgo.Record{Value: []byte{0xff}}},
		{"EmptyKey", kgo.Record{Key: []byte{}, Value: []byte{0xff}}},
		{"NullKeyAndValue", kgo.Record{}},
		{"LongKey", kgo.Record{Key: bytes.Repeat([]byte("k"), 129), Value: []byte{0xff}}},
		{"HugeKey", kgo.Record{Key: bytes.Repeat([]byte{0, 0xff}, 200_000), Value: []byte{0xff}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.start()
			r.events(r.create())
			rec := c.record
			r.produce(&rec)
			r.events(r.message())
			r.until("the writer goes on", func() bool { return r.told(2) })
			list := r.parked()
			if len(list) != 1 || (list[0].Key == nil) != (c.record.Key == nil) || (list[0].Record == nil) != (c.record.Value == nil) ||
				!bytes.Equal(list[0].Key, c.record.Key) || !bytes.Equal(list[0].Record, c.record.Value) {
				t.Fatalf("parked %.300v", list)
			}
			if n := testutil.ToFloat64(r.metrics.parked); n != 1 {
				t.Errorf("%v are counted as parked", n)
			}
		})
	}
}

// What the head says of a number that was parked is what numbering goes on from, when the tail has left memory.
func TestWriter_MovesTheHeadPastWhatIsParked(t *testing.T) {
	hopeless := func(r *rig) *kgo.Record {
		e := r.message()
		e.ClientMsgID = strings.Repeat("x", chat.MaxClientMsgIDBytes+1)
		return &kgo.Record{Key: []byte(group.String()), Value: wire.EncodeEvent(&e)}
	}
	unreadable := func(seq string) func(r *rig) *kgo.Record {
		return func(*rig) *kgo.Record {
			return &kgo.Record{Key: []byte(group.String()), Headers: []kgo.RecordHeader{{Key: kafka.HeaderSeq, Value: []byte(seq)}}}
		}
	}
	unknown := func(r *rig) *kgo.Record {
		e := r.event(77)
		return &kgo.Record{Key: []byte(group.String()), Value: wire.EncodeEvent(&e)}
	}
	for _, c := range []struct {
		name   string
		record func(r *rig) *kgo.Record
		max    int64
	}{
		{"WhatTheStoreCanNeverTake", hopeless, 3},
		{"AnUnknownKind", unknown, 3},
		{"UnreadableWithTheNextNumber", unreadable("3"), 3},
		{"UnreadableWithAUsedNumber", unreadable("1"), 2},
		{"UnreadableWithANumberFarAhead", unreadable("9"), 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.start()
			r.events(r.create(), r.message())
			r.produce(c.record(r))
			r.until("the record is passed", func() bool { return r.passed(3) })
			if head := r.head(); head.MaxSeq != c.max || len(r.rows()) != 2 || len(r.parked()) != 1 {
				t.Fatalf("the head is at %d, want %d; %d rows, %d parked", head.MaxSeq, c.max, len(r.rows()), len(r.parked()))
			}
			if p := r.parked()[0]; (p.Kind != 0) != (c.name == "AnUnknownKind") || p.Seq == 0 || p.Conversation != group {
				t.Errorf("parked %+v", p)
			}
			r.seq = c.max
			r.events(r.message())
			r.until("the next is told", func() bool { return r.told(c.max + 1) })
		})
	}
}

// An owner at work does not see what something else writes between its events.
func TestWriter_StoresTheEventWhoseNumberAnUnreadableRecordHadTaken(t *testing.T) {
	for _, batches := range []int{1, 2} {
		t.Run(fmt.Sprintf("Batches=%d", batches), func(t *testing.T) {
			r := newRig(t)
			if batches == 2 {
				r.start()
			}
			r.events(r.create(), r.message())
			r.produce(&kgo.Record{Key: []byte(group.String()), Headers: []kgo.RecordHeader{{Key: kafka.HeaderSeq, Value: []byte("3")}}})
			if batches == 2 {
				r.until("the record is passed", func() bool { return r.passed(3) })
			}
			name := "renamed"
			e := r.event(chat.KindUpdate)
			e.Update = &chat.Update{Name: &name}
			r.events(e, r.message())
			if batches == 1 {
				r.start()
			}
			r.until("the last is told", func() bool { return r.told(4) })
			if rows := r.rows(); len(rows) != 4 || rows[2].Kind != chat.KindUpdate || r.head().Name != name {
				t.Fatalf("%d rows, the name is %q", len(rows), r.head().Name)
			}
			if batches == 1 {
				return
			}
			changed := false
			for _, n := range r.hints() {
				for _, seq := range n.ChangedSeqs {
					changed = changed || seq == 3
				}
			}
			if !changed {
				t.Error("the caches did not learn that number 3 has a row now")
			}
		})
	}
}

func TestWriter_AppliesAParkedEventOnceItKnowsTheKind(t *testing.T) {
	for _, fails := range []string{"", "the fast marks are away", "the store forgets the answer", "the position had not moved"} {
		t.Run("But"+strings.ReplaceAll(fails, " ", "_"), func(t *testing.T) {
			r := newRig(t)
			stop := r.start()
			r.events(r.create(), r.message())
			later := r.event(77) // what this version calls an update
			r.produce(&kgo.Record{Key: []byte(group.String()), Value: wire.EncodeEvent(&later)})
			r.until("the record is passed", func() bool { return r.passed(3) })
			r.events(r.message())
			r.until("the next is told", func() bool { return r.told(4) })
			stop()
			// The kind becomes known: the bytes say now what the next version would read in them.
			old := r.parked()[0]
			if err := r.store.Unpark(t.Context(), old.Topic, old.Partition, old.Offset); err != nil {
				t.Fatal(err)
			}
			later.Kind, later.Update = chat.KindUpdate, &chat.Update{HistoryVisible: new(bool)}
			old.Record = wire.EncodeEvent(&later)
			if fails == "the position had not moved" {
				old.Offset = 4
				later = r.event(chat.KindUpdate)
				later.Update = &chat.Update{HistoryVisible: new(bool)}
				old.Record = wire.EncodeEvent(&later)
				r.produce(&kgo.Record{Key: []byte(group.String()), Value: old.Record})
			}
			if err := r.store.Park(t.Context(), old); err != nil {
				t.Fatal(err)
			}
			lost := errors.New("the answer is lost")
			switch fails {
			case "the fast marks are away":
				r.marks.be(true)
			case "the store forgets the answer":
				r.store.fail(nil, func(from, to core.Position, _ []core.Entry) error {
					r.store.fail(nil, nil)
					return lost
				})
			}
			r.start()
			r.until("nothing is parked", func() bool { return len(r.parked()) == 0 })
			r.until("the row is there", func() bool {
				rows := r.rows()
				return len(rows) == int(r.seq)-map[bool]int{true: 1}[fails == "the position had not moved"]
			})
			if fails == "the fast marks are away" {
				if at, err := r.store.Positions(t.Context(), []int32{0}); err != nil || !at[0].MarksDirty {
					t.Errorf("the position does not say that the marks missed something: %+v, %v", at, err)
				}
			} else if _, n := r.marks.counts(); n == 0 && fails != "the position had not moved" {
				t.Error("the fast marks do not know that they missed something")
			}
			if head := r.head(); head.MaxSeq != r.seq || head.MemberCount != 3 {
				t.Errorf("the head is %+v", head)
			}
		})
	}
}
