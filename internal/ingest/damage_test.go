package ingest

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/kafka/kafkatest"
	"tideline/internal/servers"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// The embedded broker without its guard takes every batch, as older versions of ours did.
func TestOwner_RejectsABatchThatCannotBeReadOnTheEmbeddedBroker(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	bad := batchesOfDamage(t)
	cfg := configFor(cluster.ListenAddrs()[0], len(bad))
	cfg.Plain = true
	rejectsDamage(t, cfg, false, bad)
}

// A real broker takes only those that are too large for us, and refuses the others.
func TestOwner_RejectsABatchThatCannotBeReadOnKafkaFenced(t *testing.T) {
	var sound []kafkatest.Bad
	for _, bad := range batchesOfDamage(t) {
		if bad.Sound {
			sound = append(sound, bad)
		}
	}
	rejectsDamage(t, configFor(servers.StartKafka(t).Addr, len(sound)), true, sound)
}

func batchesOfDamage(t *testing.T) (seen []kafkatest.Bad) {
	for _, bad := range kafkatest.BadBatches(t) {
		if !bad.Unseen {
			seen = append(seen, bad)
		}
	}
	return seen
}

// rejectsDamage puts each batch between good records of a partition of its own.
func rejectsDamage(t *testing.T, cfg kafka.Config, fenced bool, list []kafkatest.Bad) {
	prepare(t, cfg)
	cl, err := cfg.NewAdmin("tests", quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	for i, bad := range list {
		t.Run(bad.Name, func(t *testing.T) {
			w := &world{t: t, cfg: cfg, fenced: fenced, partition: int32(i), log: quiet}
			g := groupsOf(w.partition, cfg.Partitions)[0]
			say := func(id string) *kgo.Record {
				return &kgo.Record{Partition: w.partition, Value: wire.EncodeCommand(&chat.Command{
					Type: chat.KindMessage, Conversation: g, Sender: 11, ClientMsgID: id, Message: &chat.Message{Type: chat.TypeText, Content: []byte(`{"text":"hi"}`)},
				})}
			}
			produce(t, w, &kgo.Record{Partition: w.partition, Value: wire.EncodeCommand(&chat.Command{Type: chat.KindCreate, Conversation: g, Sender: 11, ClientMsgID: "c", Create: &chat.Create{Name: "all"}})})
			first, err := kafkatest.Produce(t.Context(), cl, kafka.TopicInbound, w.partition, bad.Raw)
			if err != nil || first != 1 {
				t.Fatalf("the log has the batch at %d: %v", first, err)
			}
			produce(t, w, say("a"))
			last := first + bad.Offsets - 1
			number(t, w, last+2)
			w.hasOutcomes(t, last, last+2)
			if e := w.lastEvent(t); e.Seq != 2 || e.ClientMsgID != "a" {
				t.Errorf("numbered %+v behind the batch", e)
			}
			// Its successor finds the rejection in the log and makes no second one.
			produce(t, w, say("b"))
			number(t, w, last+3)
			w.hasOutcomes(t, last, last+3)
			if e := w.lastEvent(t); e.Seq != 3 || e.ClientMsgID != "b" {
				t.Errorf("the successor numbered %+v", e)
			}
		})
	}
}

// hasOutcomes checks that each inbound offset before end has one outcome, and that one rejection of a stretch ends at last.
func (w *world) hasOutcomes(t *testing.T, last, end int64) {
	t.Helper()
	outcomes := make([]int, end)
	events, err := w.Messages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Event.Kind != chat.KindProgress {
			outcomes[e.Event.InboundOffset]++
		}
	}
	rejected, err := w.Rejected(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stretches := 0
	for _, r := range rejected {
		v := &r.Rejection
		if v.InboundLast > 0 {
			stretches++
			if v.InboundLast != last || v.Code != chat.CodeMalformed {
				t.Errorf("offsets %d to %d were rejected as %s, want up to %d", v.Inbound.Offset, v.InboundLast, v.Code, last)
			}
		}
		for o := v.Inbound.Offset; o <= max(v.Inbound.Offset, v.InboundLast); o++ {
			outcomes[o]++
		}
	}
	if stretches != 1 {
		t.Errorf("%d rejections are of stretches, want one", stretches)
	}
	for o, n := range outcomes {
		if n != 1 {
			t.Fatalf("offset %d has %d outcomes", o, n)
		}
	}
}
