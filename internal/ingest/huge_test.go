package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/servers"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/seq"
	"tideline/pkg/seq/seqtest"
)

// noise gives bytes that no compression makes smaller.
func noise(n int) []byte {
	rng := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	_, _ = rng.Read(b)
	return b
}

// produce writes records one batch each, as a producer does that bounds nothing but what the brokers do.
func produce(t *testing.T, w *world, records ...*kgo.Record) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.cfg.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(64<<20), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, r := range records {
		r.Topic = kafka.TopicInbound
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatalf("the log does not take a record of %d bytes: %v", len(r.Value), err)
		}
	}
}

// number lets one owner work until everything before an offset has its outcome.
func number(t *testing.T, w *world, until int64) {
	t.Helper()
	if err := numberFrom(t, w, seqtest.NewStore(11, 12), until); err != nil {
		t.Fatal(err)
	}
}

// numberFrom is the same with what a store has; it gives the error with which the owner ended before.
func numberFrom(t *testing.T, w *world, store seq.Store, until int64) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	hasher, err := chat.NewHasher([]byte("a key for the tests"))
	if err != nil {
		t.Fatal(err)
	}
	var id int64
	done := false
	o := seq.Owner{
		Config: seq.Config{
			Partition: w.partition, Hasher: hasher, WindowIDs: 100, CacheEntries: 100, MaxMembers: 10,
			NextID: func() (int64, error) { id++; return id, nil },
		},
		Log: w.own(), Store: store, Now: time.Now, Tell: func([]seq.Outcome) {}, Confirmed: func() seq.Checkpoint { return seq.Checkpoint{} },
		MaxBatch: 500, MaxUnconfirmed: 1 << 20, Waiting: func(bool) {},
		Moved: func(next int64) {
			if done = next >= until; done {
				cancel()
			}
		},
	}
	if err := o.Run(ctx); !done {
		return fmt.Errorf("the owner ended before %d: %w", until, err)
	}
	return nil
}

func TestPartitionLog_NumbersPastHugeRecordsOnTheEmbeddedBroker(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	numbersPastHugeRecords(t, &world{t: t, cfg: configFor(cluster.ListenAddrs()[0], 2), log: quiet})
}

func TestPartitionLog_NumbersPastHugeRecordsOnKafkaFenced(t *testing.T) {
	numbersPastHugeRecords(t, &world{t: t, cfg: configFor(servers.StartKafka(t).Addr, 2), fenced: true, log: quiet})
}

func numbersPastHugeRecords(t *testing.T, w *world) {
	prepare(t, w.cfg)
	here, elsewhere := groupsOf(0, 2)[0], groupsOf(1, 2)[0]
	create := func(g chat.ConversationID) []byte {
		return wire.EncodeCommand(&chat.Command{Type: chat.KindCreate, Conversation: g, Sender: 11, ClientMsgID: "c", Create: &chat.Create{Name: "all"}})
	}
	const mib = 1 << 20
	small := make([]byte, 15*mib) // on the wire; of more, the batch is not unpacked
	large := noise(mib - 100)     // all that the log takes
	whole := noise(chat.MaxRejectedBytes)
	odd := []byte(`{"` + strings.Repeat("x", 80<<10) + `":1}`)
	header := func(key string, value []byte) []kgo.RecordHeader {
		return []kgo.RecordHeader{{Key: key, Value: value}, {Key: kafka.HeaderProducer, Value: []byte("crm")}, {Key: "mine", Value: []byte("kept")}}
	}
	produce(t, w,
		&kgo.Record{Value: small}, &kgo.Record{Value: large}, &kgo.Record{Value: whole},
		&kgo.Record{Value: odd, Headers: header(kafka.HeaderContentType, []byte(wire.ContentTypeJSON))},
		&kgo.Record{Value: create(here), Headers: header(kafka.HeaderContentType, noise(mib-1000))},
		&kgo.Record{Value: create(elsewhere), Headers: header("theirs", noise(mib-1000))},
		&kgo.Record{Value: create(here), Headers: header("theirs", noise(mib-1000))},
	)
	number(t, w, 7)
	events, err := w.Messages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	last := events[len(events)-1].Event
	if last.Kind != chat.KindCreate || last.Conversation != here || last.InboundOffset != 6 {
		t.Fatalf("the record behind them became %+v", last)
	}
	rejected, err := w.Rejected(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	codes := []chat.Code{chat.CodeTooLarge, chat.CodeTooLarge, chat.CodeTooLarge, chat.CodeUnknownField, chat.CodeNotAcceptable, chat.CodeMoved}
	if len(rejected) != len(codes) {
		t.Fatalf("%d rejections, want %d", len(rejected), len(codes))
	}
	for i, value := range [][]byte{small, large, whole, odd, create(here), create(elsewhere)} {
		r := &rejected[i].Rejection
		if r.Code != codes[i] || r.Inbound.Offset != int64(i) {
			t.Errorf("record %d was rejected as %s at %d", i, r.Code, r.Inbound.Offset)
		}
		if len(value) <= chat.MaxRejectedBytes {
			if !bytes.Equal(r.Record, value) || r.RecordBytes != 0 || r.RecordHash != nil {
				t.Errorf("of record %d, which is not long, %d of %d bytes were kept", i, len(r.Record), len(value))
			}
			continue
		}
		if sum := sha256.Sum256(value); r.RecordBytes != int64(len(value)) || !bytes.Equal(r.RecordHash, sum[:]) || !bytes.Equal(r.Record, value[:chat.MaxRejectedBytes]) {
			t.Errorf("of record %d: %d bytes kept, of %d with hash %x", i, len(r.Record), r.RecordBytes, r.RecordHash)
		}
	}
	var moved *kgo.Record
	if _, err := kafka.ReadToEnd(t.Context(), w.cfg, "test", quiet, kafka.TopicInbound, 1, 0, func(r *kgo.Record) error { moved = r; return nil }); err != nil {
		t.Fatal(err)
	}
	if moved == nil || !bytes.Equal(moved.Value, create(elsewhere)) {
		t.Fatal("the misplaced record was not moved")
	}
	for key, want := range map[string]string{kafka.HeaderProducer: "crm", "mine": "kept", kafka.HeaderMovedFrom: "0:5", "theirs": ""} {
		if got := kafka.Header(moved, key); got != want {
			t.Errorf("the header %s of the moved record is %.20q, want %q", key, got, want)
		}
	}
}
