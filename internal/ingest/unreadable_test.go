package ingest

import (
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/servers"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/seq/seqtest"
)

func headers(pairs ...string) (list []kgo.RecordHeader) {
	for p := range slices.Chunk(pairs, 2) {
		list = append(list, kgo.RecordHeader{Key: p[0], Value: []byte(p[1])})
	}
	return list
}

// The key "KEY" becomes that of a conversation of the partition, in which 1 and 2 are numbered, and "OTHER" one of another.
var foreignRecords = []struct {
	name   string
	record kgo.Record
	next   int64  // the number that is given behind it; 0: the partition is not taken over
	why    string // what the error says
}{
	{"NullValue", kgo.Record{}, 3, ""},
	{"EmptyValue", kgo.Record{Value: []byte{}}, 3, ""},
	{"Garbage", kgo.Record{Key: []byte("KEY"), Value: []byte("\xff\xffnot an event")}, 3, ""},
	{"ItsProducerNamed", kgo.Record{Key: []byte("KEY"), Value: []byte{0xff}, Headers: headers("producer", "crm")}, 3, ""},
	{"SeqWithoutAKey", kgo.Record{Value: []byte{0xff}, Headers: headers("seq", "3")}, 3, ""},
	{"SeqThatIsNone", kgo.Record{Key: []byte("KEY"), Value: []byte{0xff}, Headers: headers("seq", "03")}, 3, ""},
	{"SeqBelowOne", kgo.Record{Key: []byte("KEY"), Value: []byte{0xff}, Headers: headers("seq", "0")}, 3, ""},
	{"KeyOfAnotherPartition", kgo.Record{Key: []byte("OTHER"), Value: []byte{0xff}, Headers: headers("seq", "3")}, 3, ""},
	{"HugeKey", kgo.Record{Key: []byte(strings.Repeat("g-1", 10_000)), Value: nil, Headers: headers("seq", "3")}, 3, ""},
	{"TheNextNumber", kgo.Record{Key: []byte("KEY"), Headers: headers("seq", "3")}, 4, ""},
	{"TheNextNumberByOurs", kgo.Record{Key: []byte("KEY"), Value: []byte{0xff}, Headers: headers("kind", "message", "seq", "3", "producer", "")}, 4, ""},
	{"AUsedNumber", kgo.Record{Key: []byte("KEY"), Headers: headers("kind", "message", "seq", "2")}, 3, ""},
	{"ProgressOfOurs", kgo.Record{Headers: headers("kind", "progress")}, 0, "decoding an event"},
	{"OursWithoutANumber", kgo.Record{Key: []byte("KEY"), Value: []byte{0xff}, Headers: headers("kind", "message")}, 0, "decoding an event"},
	{"UnknownKind", kgo.Record{Key: []byte("KEY"), Headers: headers("kind", "poll", "seq", "3", "kinds", "9")}, 0, "a release with version 9 or later of the list of kinds is needed, and this one has 1"},
	{"UnknownKindThatSaysNothing", kgo.Record{Key: []byte("KEY"), Headers: headers("seq", "3")}, 0, "does not say which version is needed; this one has version 1"},
}

func TestOwner_TakesOverBehindRecordsThatCannotBeRead(t *testing.T) {
	t.Run("Kafka", func(t *testing.T) {
		takesOverBehind(t, configFor(servers.StartKafka(t).Addr, 2*len(foreignRecords)), true)
	})
	t.Run("Embedded", func(t *testing.T) {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()), kfake.SyncWrites())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cluster.Close)
		cfg := configFor(cluster.ListenAddrs()[0], 2*len(foreignRecords))
		cfg.Plain = true
		takesOverBehind(t, cfg, false)
	})
}

func takesOverBehind(t *testing.T, cfg kafka.Config, fenced bool) {
	prepare(t, cfg)
	takesOverBehindRejections(t, cfg, fenced)
	for i, c := range foreignRecords {
		t.Run(c.name, func(t *testing.T) {
			w := &world{t: t, cfg: cfg, fenced: fenced, partition: int32(i), log: quiet}
			g := groupsOf(w.partition, cfg.Partitions)[0]
			say := func(id string) *kgo.Record {
				return &kgo.Record{Partition: w.partition, Value: wire.EncodeCommand(&chat.Command{
					Type: chat.KindMessage, Conversation: g, Sender: 11, ClientMsgID: id, Message: &chat.Message{Type: chat.TypeText, Content: []byte(`{"text":"hi"}`)},
				})}
			}
			produce(t, w, &kgo.Record{Partition: w.partition, Value: wire.EncodeCommand(&chat.Command{Type: chat.KindCreate, Conversation: g, Sender: 11, ClientMsgID: "c", Create: &chat.Create{Name: "all"}})}, say("a"))
			number(t, w, 2)
			r := c.record
			r.Topic, r.Partition = kafka.TopicMessages, w.partition
			r.Key = []byte(strings.NewReplacer("KEY", g.String(), "OTHER", groupsOf(w.partition+1, cfg.Partitions)[0].String()).Replace(string(r.Key)))
			if strings.HasPrefix(c.name, "UnknownKind") {
				r.Value = wire.EncodeEvent(&chat.Event{Conversation: g, Seq: 3, Ordinal: 1, Kind: 77, Sender: 11, ClientMsgID: "k", InboundOffset: 2})
			}
			inject(t, w, &r)
			produce(t, w, say("b"))
			err := numberFrom(t, w, seqtest.NewStore(11, 12), 3)
			if c.next == 0 {
				if err == nil || !strings.Contains(err.Error(), c.why) {
					t.Fatalf("the owner ended with %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if e := w.lastEvent(t); e.Seq != c.next || e.ClientMsgID != "b" || e.Ordinal != 2 {
				t.Errorf("numbered %+v, want %d", e, c.next)
			}
		})
	}
}

// The same of im.rejected: an empty value would pass for the outcome of the first inbound record of partition 0.
func takesOverBehindRejections(t *testing.T, cfg kafka.Config, fenced bool) {
	cases := []struct {
		name   string
		record kgo.Record
		ends   bool
	}{
		{"NullValue", kgo.Record{}, false},
		{"Garbage", kgo.Record{Value: []byte{0xff}, Headers: headers("kind", "message")}, false},
		{"Ours", kgo.Record{Headers: headers("producer", "")}, true},
	}
	for i, c := range cases {
		t.Run("Rejected"+c.name, func(t *testing.T) {
			w := &world{t: t, cfg: cfg, fenced: fenced, partition: int32(len(foreignRecords) + i), log: quiet}
			r := c.record
			r.Topic, r.Partition = kafka.TopicRejected, w.partition
			inject(t, w, &r)
			g := groupsOf(w.partition, cfg.Partitions)[0]
			produce(t, w, &kgo.Record{Partition: w.partition, Value: wire.EncodeCommand(&chat.Command{Type: chat.KindCreate, Conversation: g, Sender: 11, ClientMsgID: "c", Create: &chat.Create{Name: "all"}})})
			err := numberFrom(t, w, seqtest.NewStore(11, 12), 1)
			if c.ends != (err != nil) {
				t.Fatalf("the owner ended with %v", err)
			}
			if c.ends {
				return
			}
			if e := w.lastEvent(t); e.Seq != 1 || e.Kind != chat.KindCreate {
				t.Errorf("numbered %+v", e)
			}
		})
	}
}

// inject writes records as something else than ingest does.
func inject(t *testing.T, w *world, records ...*kgo.Record) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.cfg.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// lastEvent returns the last record of im.messages that can be read.
func (w *world) lastEvent(t *testing.T) (last chat.Event) {
	t.Helper()
	w.settle(t)
	_, err := kafka.ReadToEnd(t.Context(), w.cfg, "test", quiet, kafka.TopicMessages, w.partition, 0, func(r *kgo.Record) error {
		if e, err := wire.DecodeEvent(r.Value); err == nil {
			last = e
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return last
}
