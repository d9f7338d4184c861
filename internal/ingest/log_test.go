package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/servers"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/seq"
	"tideline/pkg/seq/seqtest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	servers.Stop()
	os.Exit(code)
}

// world is one partition of a broker.
type world struct {
	t         *testing.T
	cfg       kafka.Config
	fenced    bool
	partition int32
	log       *slog.Logger
}

func configFor(addr string, partitions int) kafka.Config {
	c := kafka.DefaultConfig()
	c.Brokers, c.Partitions, c.Replication, c.MinInSync = []string{addr}, partitions, 1, 1
	return c
}

func prepare(t *testing.T, cfg kafka.Config) {
	t.Helper()
	cl, err := cfg.NewAdmin("test", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := kafka.EnsureTopics(ctx, cl, cfg); err != nil {
		t.Fatal(err)
	}
}

var quiet = slog.New(slog.DiscardHandler)

func (w *world) Append(ctx context.Context, commands []chat.Command) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.cfg.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer cl.Close()
	var records []*kgo.Record
	for i := range commands {
		c := &commands[i]
		records = append(records, &kgo.Record{Topic: kafka.TopicInbound, Partition: w.partition, Key: []byte(c.Conversation.String()), Value: wire.EncodeCommand(c)})
	}
	return cl.ProduceSync(ctx, records...).FirstErr()
}

func (w *world) own() *partitionLog {
	p, closeIt := kafka.OpenPartition(w.cfg, "test", kafka.TopicInbound, w.partition, quiet)
	l := &partitionLog{cfg: w.cfg, clientID: "test", fenced: w.fenced, log: quiet, partition: p, metrics: NewMetrics(prometheus.NewRegistry())}
	// Former owners stay open, as those do that are only asleep.
	w.t.Cleanup(func() { l.close(); closeIt() })
	return l
}

func (w *world) Own() seq.Log { return w.own() }

func (w *world) Messages(ctx context.Context) (out []seq.TailRecord, err error) {
	_, err = kafka.ReadToEnd(ctx, w.cfg, "test", quiet, kafka.TopicMessages, w.partition, 0, func(r *kgo.Record) error {
		e, err := wire.DecodeEvent(r.Value)
		out = append(out, seq.TailRecord{Offset: r.Offset, Event: e})
		return err
	})
	return out, err
}

func (w *world) Rejected(ctx context.Context) (out []seq.AsideRecord, err error) {
	_, err = kafka.ReadToEnd(ctx, w.cfg, "test", quiet, kafka.TopicRejected, w.partition, 0, func(r *kgo.Record) error {
		v, err := wire.DecodeRejection(r.Value)
		out = append(out, seq.AsideRecord{Offset: r.Offset, Rejection: v})
		return err
	})
	return out, err
}

// groupsOf gives conversations that belong to a partition.
func groupsOf(partition int32, partitions int) []chat.ConversationID {
	var out []chat.ConversationID
	for n := int64(1); len(out) < 2; n++ {
		if g := chat.GroupConversation(n); chat.Partition(g.String(), int32(partitions)) == partition {
			out = append(out, g)
		}
	}
	return out
}

func TestPartitionLog_KeepsItsPromisesOnTheEmbeddedBroker(t *testing.T) {
	const partitions = 6
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()), kfake.SyncWrites())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close) // the parallel ones run after this function has returned
	runOn(t, cluster.ListenAddrs()[0], false, partitions)
}

func TestPartitionLog_KeepsItsPromisesOnKafkaFenced(t *testing.T) {
	runOn(t, servers.StartKafka(t).Addr, true, 4)
}

func runOn(t *testing.T, addr string, fenced bool, partitions int) {
	cfg := configFor(addr, partitions)
	prepare(t, cfg)
	for p := range int32(partitions) {
		t.Run(fmt.Sprintf("seed=%d", p), func(t *testing.T) {
			t.Parallel()
			w := &world{t: t, cfg: cfg, fenced: fenced, partition: p, log: quiet}
			seqtest.Run(t, w, seqtest.Plan{Seed: 1000 + uint64(p), Commands: 80, Lives: 8, Partition: p, Groups: groupsOf(p, partitions)})
		})
	}
}

func TestPartitionLog_RefusesAnOwnerThatWasReplaced(t *testing.T) {
	cfg := configFor(servers.Kafka(t), 1)
	prepare(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := &world{t: t, cfg: cfg, fenced: true}
	sleeper, successor := w.own(), w.own()
	if err := sleeper.Fence(ctx); err != nil {
		t.Fatal(err)
	}
	rejection := []seq.Outcome{{Record: &seq.Record{Attached: &attached{record: &kgo.Record{}}}, Rejection: &chat.Rejection{Code: chat.CodeMalformed}}}
	if _, err := sleeper.WriteAside(ctx, rejection); err != nil {
		t.Fatal(err)
	}
	if err := successor.Fence(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := sleeper.WriteAside(ctx, rejection); !errors.Is(err, kafka.ErrGiveUp) {
		t.Fatalf("the replaced owner wrote, or was told something else: %v", err)
	}
	if _, err := successor.WriteAside(ctx, rejection); err != nil {
		t.Fatal(err)
	}
	all, err := w.Rejected(ctx)
	if err != nil || len(all) != 2 {
		t.Fatalf("%d rejections stand, want the 2 of the owners of their time: %v", len(all), err)
	}
}

func TestReadToEnd_EndsBehindMarkersAndRefusesWhatIsNotThere(t *testing.T) {
	cfg := configFor(servers.Kafka(t), 1)
	prepare(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := &world{t: t, cfg: cfg, fenced: true}
	l := w.own()
	if err := l.Fence(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.producer.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := l.producer.ProduceSync(ctx, &kgo.Record{Topic: kafka.TopicMessages, Value: []byte("taken back")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := l.producer.EndTransaction(ctx, kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	seen := 0
	end, err := kafka.ReadToEnd(ctx, cfg, "test", quiet, kafka.TopicMessages, 0, 0, func(*kgo.Record) error { seen++; return nil })
	if err != nil || seen != 0 || end != 2 {
		t.Fatalf("of an aborted record and its marker, %d records were given and the end is %d: %v", seen, end, err)
	}
	if _, err := kafka.ReadToEnd(ctx, cfg, "test", quiet, kafka.TopicMessages, 0, 99, func(*kgo.Record) error { return nil }); err == nil {
		t.Fatal("reading from behind the end was not refused")
	}
}
