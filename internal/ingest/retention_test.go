package ingest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/servers"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/seq"
	"tideline/pkg/seq/seqtest"
)

// stored is a store that has everything of a log, at a position of its own.
type stored struct {
	*seqtest.Store
	at seq.Checkpoint
}

func (s *stored) Checkpoint(context.Context, int32) (seq.Checkpoint, error) { return s.at, nil }

// store gives the store after a writer has stored everything, with markers counted or not.
func (w *world) store(t *testing.T, markers bool) *stored {
	t.Helper()
	log, err := w.Messages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := &stored{Store: seqtest.NewStore(11, 12)}
	s.CatchUp(log, log[len(log)-1].Offset+1)
	s.at, _ = s.Store.Checkpoint(t.Context(), w.partition)
	if _, end := w.bounds(t, kafka.TopicMessages); markers {
		s.at.MessagesNext = end
	}
	return s
}

func (w *world) bounds(t *testing.T, topic string) (start, end int64) {
	t.Helper()
	start, end, err := kafka.Bounds(t.Context(), w.cfg, "test", quiet, topic, w.partition)
	if err != nil {
		t.Fatal(err)
	}
	return start, end
}

// empty does what retention does to a partition in which nothing is said for long.
func (w *world) empty(t *testing.T) {
	t.Helper()
	cl, err := w.cfg.NewAdmin("test", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	offsets := kadm.Offsets{}
	for _, topic := range []string{kafka.TopicInbound, kafka.TopicMessages, kafka.TopicRejected} {
		_, end := w.bounds(t, topic)
		offsets.AddOffset(topic, w.partition, end, -1)
	}
	answers, err := kadm.NewClient(cl).DeleteRecords(t.Context(), offsets)
	if err = errors.Join(err, answers.Error()); err != nil {
		t.Fatal(err)
	}
}

// settle waits until the markers of a finished owner are written: the last offset of a settled log is one.
func (w *world) settle(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l := w.own()
	if err := l.Fence(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestOwner_TakesOverWhereRetentionHasEmptiedAnIdlePartition(t *testing.T) {
	cfg := configFor(servers.StartKafka(t).Addr, 2)
	prepare(t, cfg)
	sender, w := &world{t: t, cfg: cfg, fenced: true, log: quiet}, &world{t: t, cfg: cfg, fenced: true, partition: 1, log: quiet}
	g := groupsOf(1, 2)[0]
	command := func(id string) []byte {
		return wire.EncodeCommand(&chat.Command{Type: chat.KindCreate, Conversation: g, Sender: 11, ClientMsgID: id, Create: &chat.Create{Name: "all"}})
	}
	// The record comes by a move, which is a transaction: it ends in a marker in im.inbound, too.
	produce(t, sender, &kgo.Record{Value: command("a")})
	number(t, sender, 1)
	number(t, w, 2)
	w.settle(t)
	if _, end := w.bounds(t, kafka.TopicInbound); end != 2 {
		t.Fatalf("the moved record and its marker end at %d", end)
	}
	store, former := w.store(t, true), w.store(t, false)
	if store.at.InboundNext != 2 {
		t.Errorf("the events say that everything before %d has its outcome, want 2", store.at.InboundNext)
	}
	w.empty(t)
	if start, end := w.bounds(t, kafka.TopicMessages); start != end || former.at.MessagesNext != end-1 {
		t.Fatalf("the log goes from %d to %d, and a former version stood at %d", start, end, former.at.MessagesNext)
	}
	produce(t, w, &kgo.Record{Partition: 1, Value: command("b")}, &kgo.Record{Partition: 1, Value: command("c")})
	if err := numberFrom(t, w, former, 4); err != nil {
		t.Errorf("from a position that did not count the marker: %v", err)
	}
	if err := w.own().Start(t.Context(), 1); !errors.Is(err, kafka.ErrTruncated) {
		t.Errorf("a record of im.inbound that may be lost was jumped over: %v", err)
	}
	former.at.MessagesNext--
	if err := numberFrom(t, w, former, 5); !errors.Is(err, kafka.ErrTruncated) {
		t.Errorf("a log that has lost a record was taken over: %v", err)
	}
	produce(t, w, &kgo.Record{Partition: 1, Value: command("d")})
	if err := numberFrom(t, w, store, 5); err != nil {
		t.Error(err)
	}
}
