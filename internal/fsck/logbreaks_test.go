package fsck_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/fsck"
	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// What was written to a log stays: each test of these has a world of its own, and each breach is found beside those
// before it.

func (w *world) breakLog(t *testing.T, name string, before *[]string, do func() []string) {
	t.Helper()
	want := do()
	slices.Sort(want)
	report := w.run(nil) // at rest, which is quick; that nobody comes to what is written here is another check's
	all := slices.DeleteFunc(foundIn(report), func(s string) bool { return strings.HasPrefix(s, "rest: ") })
	got := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(*before, s) })
	if !slices.Equal(got, want) {
		t.Errorf("%s: found %q, want %q", name, got, want)
	}
	*before = all
}

// event gives a message of the group that could be its next one, and how it is written.
func (w *world) event(seq, ordinal, inbound int64) *chat.Event {
	return &chat.Event{
		Conversation: group, Seq: seq, Ordinal: ordinal, Kind: chat.KindMessage, MessageID: seq, Sender: 1, ClientMsgID: fmt.Sprint("e-", seq), SentAt: 1,
		InboundOffset: inbound, Message: &chat.Message{Type: chat.TypeText, Content: []byte(`{"text":"x"}`)},
	}
}

func headersOf(e *chat.Event) []kgo.RecordHeader {
	return []kgo.RecordHeader{
		{Key: kafka.HeaderKind, Value: []byte(e.Kind.String())}, {Key: kafka.HeaderSeq, Value: strconv.AppendInt(nil, e.Seq, 10)},
		{Key: kafka.HeaderProducer, Value: []byte(e.Producer)}, {Key: kafka.HeaderClientMsgID, Value: []byte(e.ClientMsgID)},
	}
}

func (w *world) number(e *chat.Event) fsck.Place {
	offset := w.produce(kafka.TopicMessages, home, e.Conversation.String(), wire.EncodeEvent(e), headersOf(e)...)
	p := offsetAt(kafka.TopicMessages, home, offset)
	p.Conversation, p.Seq = e.Conversation.String(), e.Seq
	return p
}

func running(o *fsck.Options) { o.AtRest = false }

func TestRun_FindsEachBreachOfTheLogsInItsPlace(t *testing.T) {
	w := newWorld(t, embeddedSettings(t))
	w.breakLogs(t)
}

func (w *world) breakLogs(t *testing.T) {
	before := foundIn(w.run(nil))
	reject := func(r *chat.Rejection, key string) int64 {
		return w.produce(kafka.TopicRejected, home, key, wire.EncodeRejection(r))
	}
	var taken, free int64 = -1, 5000 // an inbound record that became an event, and one that there is none of
	bounds, err := w.logs.Bounds(t.Context(), kafka.TopicMessages)
	w.must(err)
	w.must(w.logs.Read(t.Context(), kafka.TopicMessages, home, 0, bounds[home].End, func(r *kgo.Record) error {
		if e, err := wire.DecodeEvent(r.Value); err == nil && e.Seq == 2 && e.Conversation == group {
			taken = e.InboundOffset
		}
		return nil
	}))
	refusal := func(offset int64) *chat.Rejection {
		return &chat.Rejection{Code: chat.CodeForbidden, Conversation: group, Sender: 1, ClientMsgID: "r", Inbound: chat.Position{Partition: home, Offset: offset}}
	}
	rejected := func(offset int64) string { return breach("rejected", offsetAt(kafka.TopicRejected, home, offset)) }
	w.breakLog(t, "a rejection cannot be read", &before, func() []string {
		return []string{rejected(w.produce(kafka.TopicRejected, home, "", []byte{0xff}))}
	})
	w.breakLog(t, "what was refused became an event", &before, func() []string { return []string{rejected(reject(refusal(taken), group.String()))} })
	w.breakLog(t, "it was refused twice", &before, func() []string {
		reject(refusal(free), group.String())
		return []string{rejected(reject(refusal(free), group.String()))}
	})
	w.breakLog(t, "a rejection is of another partition", &before, func() []string {
		r := refusal(free + 1)
		r.Inbound.Partition = 1 - home
		return []string{rejected(reject(r, group.String()))}
	})
	w.breakLog(t, "a rejection has another key", &before, func() []string { return []string{rejected(reject(refusal(free+2), "g-1"))} })
	w.breakLog(t, "a record was moved where it does not belong", &before, func() []string {
		r := refusal(free + 3)
		r.Code, r.MovedTo = chat.CodeMoved, 1-home
		return []string{rejected(reject(r, group.String()))}
	})
	repeats := func(inbound, seq, id int64) []string {
		r := refusal(inbound)
		r.Code, r.ClientMsgID, r.First = chat.CodeDuplicate, "c-2", &chat.FirstEvent{Seq: seq, MessageID: id}
		at := offsetAt(kafka.TopicRejected, home, reject(r, group.String()))
		at.Conversation, at.Seq = group.String(), seq
		return []string{breach("duplicates", at)}
	}
	w.breakLog(t, "a duplicate of nothing", &before, func() []string { return repeats(free+4, 77, 1) })
	w.breakLog(t, "a duplicate of another", &before, func() []string { return repeats(free+5, 2, 1) })

	p4 := chat.Partition("4", partitions)
	w.breakLog(t, "a mark cannot be read", &before, func() []string {
		return []string{breach("receipts", offsetAt(kafka.TopicReceipts, p4, w.produce(kafka.TopicReceipts, p4, "4", []byte{0xff})))}
	})
	w.breakLog(t, "a mark is in another partition", &before, func() []string {
		m := chat.ReadMark{User: 4, Conversation: group, Seq: 2, Ordinal: 1}
		return []string{breach("receipts", offsetAt(kafka.TopicReceipts, 1-p4, w.produce(kafka.TopicReceipts, 1-p4, "4", wire.EncodeReadMark(&m))))}
	})

	w.breakLog(t, "an event is missing in the store", &before, func() []string {
		at := w.number(w.event(15, 6, 1000))
		w.exec("UPDATE timeline_positions SET messages_next = ? WHERE partition_id = ?", *at.Offset+1, home)
		return []string{breach("log-store", at)}
	})
	w.breakLog(t, "numbers jump", &before, func() []string { return []string{breach("log-order", w.number(w.event(17, 7, 1001)))} })
	w.breakLog(t, "an ordinal jumps", &before, func() []string { return []string{breach("log-order", w.number(w.event(18, 9, 1002)))} })
	w.breakLog(t, "a number comes twice", &before, func() []string { return []string{breach("log-order", w.number(w.event(18, 10, 1003)))} })
	w.breakLog(t, "an inbound record became two events", &before, func() []string {
		at := w.number(w.event(19, 11, 1003))
		at.Conversation, at.Seq = "", 0
		return []string{breach("log-inbound", at)}
	})
	w.breakLog(t, "an event cannot be read", &before, func() []string {
		return []string{breach("log-form", offsetAt(kafka.TopicMessages, home, w.produce(kafka.TopicMessages, home, "", []byte{0xff})))}
	})
	seq := int64(19)
	for i, header := range []string{kafka.HeaderKind, kafka.HeaderSeq, kafka.HeaderClientMsgID, kafka.HeaderProducer, "key"} {
		w.breakLog(t, "another "+header, &before, func() []string {
			seq++
			e := w.event(seq, seq-8, 1004+int64(i))
			headers, key := headersOf(e), group.String()
			for n := range headers {
				if headers[n].Key == header {
					headers[n].Value = []byte("another")
				}
			}
			if header == "key" {
				key = "g-1"
			}
			at := offsetAt(kafka.TopicMessages, home, w.produce(kafka.TopicMessages, home, key, wire.EncodeEvent(e), headers...))
			at.Conversation, at.Seq = group.String(), seq
			return []string{breach("log-form", at)}
		})
	}
	w.breakLog(t, "a message has no body", &before, func() []string {
		e := w.event(25, 16, 1009)
		e.Message = nil
		at := w.number(e)
		at.Conversation, at.Seq = "", 0 // it cannot be read so far
		return []string{breach("log-form", at)}
	})
	w.breakLog(t, "a note of progress has a number", &before, func() []string {
		e := &chat.Event{Kind: chat.KindProgress, Seq: 3, InboundOffset: 1010}
		offset := w.produce(kafka.TopicMessages, home, "", wire.EncodeEvent(e), kgo.RecordHeader{Key: kafka.HeaderKind, Value: []byte("progress")})
		return []string{breach("log-form", offsetAt(kafka.TopicMessages, home, offset))}
	})
	other := chat.GroupConversation(1)
	for chat.Partition(other.String(), partitions) == home {
		other.A++
	}
	w.breakLog(t, "an event is in another partition", &before, func() []string {
		e := w.event(1, 1, 1011)
		e.Conversation = other
		return []string{breach("log-form", w.number(e))}
	})
}

func TestRun_FindsAnInboundRecordWithoutAnOutcome(t *testing.T) {
	w := newWorld(t, embeddedSettings(t))
	offset := w.produce(kafka.TopicInbound, home, group.String(), []byte("lost"))
	at := offsetAt(kafka.TopicInbound, home, offset)
	// Nobody has come to it yet.
	w.breaks(t, "running", nil, running, func() {}, nil)
	w.breaks(t, "at rest", nil, nil, func() {}, nil, breach("outcomes", at), breach("rest", at))
	// Now somebody has passed it.
	e := &chat.Event{Kind: chat.KindProgress, InboundOffset: offset + 1}
	w.produce(kafka.TopicMessages, home, "", wire.EncodeEvent(e), kgo.RecordHeader{Key: kafka.HeaderKind, Value: []byte("progress")})
	w.breaks(t, "passed", nil, running, func() {}, nil, breach("outcomes", at))
}

// An event of a kind that this version does not know has no row. It is lost unless it is parked.
func TestRun_FindsAnEventOfAnUnknownKindThatIsNotKept(t *testing.T) {
	w := newWorld(t, embeddedSettings(t))
	before := foundIn(w.run(nil))
	unknown := w.event(15, 5, 1000)
	unknown.Kind, unknown.Message = 250, nil
	var at fsck.Place
	w.breakLog(t, "it has no row", &before, func() []string {
		at = w.number(unknown)
		w.exec("UPDATE timeline_positions SET messages_next = ? WHERE partition_id = ?", *at.Offset+1, home)
		return []string{breach("log-store", at)}
	})
	before = nil
	w.breakLog(t, "it is parked", &before, func() []string {
		w.exec("INSERT INTO parked (topic, partition_id, record_offset, reason, record_key, record, parked_at, conversation_id, seq, kind) VALUES ('im.messages', ?, ?, 'why', ?, ?, 1, ?, 15, 250)",
			home, *at.Offset, []byte(group.String()), wire.EncodeEvent(unknown), group.Bytes())
		w.exec("UPDATE conversations SET max_seq = 15 WHERE conversation_id = ?", group.Bytes())
		return []string{breach("parked", offsetAt(kafka.TopicMessages, home, *at.Offset))}
	})
}

// The highest times stay exact where the head passes a parked event, and where that is put back in front of others.
func TestRun_FindsTheTimesExactAroundAParkedEvent(t *testing.T) {
	w := newWorld(t, embeddedSettings(t))
	owner, err := sqlstore.Open(t.Context(), w.s.Store)
	w.must(err)
	defer func() { w.must(owner.Close()) }()
	late, early := w.event(15, 6, 1000), w.event(16, 7, 1001)
	late.SentAt = time.Now().Add(time.Hour).UnixMilli()
	place := w.number(late)
	w.number(early)
	write := func(next int64, entries ...timeline.Entry) {
		positions, err := owner.Positions(t.Context(), []int32{home})
		w.must(err)
		to := positions[0]
		to.MessagesNext = max(to.MessagesNext, next)
		_, err = owner.Apply(t.Context(), positions[0], to, entries)
		w.must(err)
		w.must(w.redis.FlushDB(t.Context()).Err()) // the sets are filled again from the store
	}
	var before []string
	w.breakLog(t, "it is parked", &before, func() []string {
		w.must(owner.Park(t.Context(), sqlstore.Parked{Topic: kafka.TopicMessages, Partition: home, Offset: *place.Offset, Reason: "why", Record: wire.EncodeEvent(late), Conversation: group, Seq: 15}))
		write(*place.Offset+2, timeline.Pass(*place.Offset, late), timeline.Entry{Offset: *place.Offset + 1, Event: *early})
		return []string{breach("parked", offsetAt(kafka.TopicMessages, home, *place.Offset))}
	})
	w.breakLog(t, "it is put back", &before, func() []string {
		write(0, timeline.Entry{Offset: *place.Offset, Event: *late})
		w.must(owner.Unpark(t.Context(), kafka.TopicMessages, home, *place.Offset))
		return nil
	})
	highs, err := owner.HighTimes(t.Context(), group, 15, 16)
	w.must(err)
	if len(highs) != 1 || highs[16] != late.SentAt {
		t.Errorf("the highest times apart from their rows' own are %v, want that of 15 at 16", highs)
	}
}

// What retention has removed cannot be looked at, and is no breach; unless somebody had not come so far.
func TestRun_TakesRetentionForNoBreach(t *testing.T) {
	w := newWorld(t, embeddedSettings(t))
	admin := kadm.NewClient(w.kafka)
	early := kadm.Offsets{}
	early.AddOffset(kafka.TopicMessages, home, w.offsetOf(6), -1)
	_, err := admin.DeleteRecords(t.Context(), early)
	w.must(err)
	do, undo := w.removed("timeline", "conversation_id = ? AND seq = 5", group.Bytes())
	w.breaks(t, "what a recall aims at is gone, also from the log", nil, nil, do, undo,
		breach("rows", seqAt(5)), breach("targets", seqAt(6)), breach("corrections", tableAt("recalled", 5, "")), breach("log-changes", w.logged(6)))

	removed := kadm.Offsets{}
	last := w.offsetOf(14)
	removed.AddOffset(kafka.TopicMessages, home, last, -1)
	removed.AddOffset(kafka.TopicRejected, home, 1, -1)
	removed.AddOffset(kafka.TopicReceipts, chat.Partition("4", partitions), 1, -1)
	gone, err := admin.DeleteRecords(t.Context(), removed)
	w.must(err)
	w.must(gone.Error())
	if report := w.run(nil); report.Breaches() != 0 {
		t.Errorf("%s", text(report))
	}
	w.exec("UPDATE timeline_positions SET messages_next = 0 WHERE partition_id = ?", home)
	w.breaks(t, "the writer was behind", nil, nil, func() {}, nil,
		breach("positions", offsetAt(kafka.TopicMessages, home, 0)), breach("log-store", w.logged(14)), breach("rest", offsetAt(kafka.TopicMessages, home, last)))
}
