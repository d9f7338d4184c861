package embedded

import (
	"context"
	"log/slog"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
)

func TestPartitionBytes_BoundATopicWhateverItsPartitions(t *testing.T) {
	for n := 1; n <= MaxPartitions; n++ {
		retention, segment := PartitionBytes(n)
		if all := retention * int64(n); all > TopicBytes || all < TopicBytes-int64(n) {
			t.Errorf("%d partitions keep %d bytes together", n, all)
		}
		if segment != retention/4 || segment < 2<<20 {
			t.Errorf("%d partitions have segments of %d bytes", n, segment)
		}
	}
	// What installations with 8 partitions have always had.
	if retention, segment := PartitionBytes(8); retention != 64<<20 || segment != 16<<20 {
		t.Errorf("8 partitions keep %d bytes each in segments of %d", retention, segment)
	}
}

func TestRetention_RemovesOnlyWhatWasDealtWith(t *testing.T) {
	broker, err := StartBroker(t.TempDir(), "127.0.0.1:0", "secret", kafka.MaxUnpackedBytes, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	stop, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() { defer close(stopped); _ = broker.Run(stop) }()
	t.Cleanup(func() { cancel(); <-stopped })
	cfg := kafka.DefaultConfig()
	broker.Join(&cfg)
	client, err := kgo.NewClient(append(cfg.Common("tests", slog.New(slog.DiscardHandler)), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	admin := kadm.NewClient(client)
	const topic, n = "said", 60
	bytes := "1000"
	if _, err := admin.CreateTopic(t.Context(), 1, 1, map[string]*string{"retention.bytes": &bytes}, topic); err != nil {
		t.Fatal(err)
	}
	place := int64(0)
	r := NewRetention(client, func(context.Context) (map[string]map[int32]int64, error) {
		return map[string]map[int32]int64{topic: {0: place}}, nil
	}, 1<<20, slog.New(slog.DiscardHandler))
	if err := r.TakeOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: make([]byte, 64<<10)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	broker.cluster.ApplyRetention() // the broker's own, which would leave one record
	start := func() int64 {
		t.Helper()
		starts, err := admin.ListStartOffsets(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		o, _ := starts.Lookup(topic, 0)
		return o.Offset
	}
	trim := func() int64 {
		t.Helper()
		for range 10 { // each comes nearer
			if err := r.trim(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return start()
	}
	if at := start(); at != 0 {
		t.Fatalf("the broker has removed what is before %d by itself", at)
	}
	for _, c := range []struct{ place, least, most int64 }{{0, 0, 0}, {10, 10, 10}, {n, n - 16, n - 14}} {
		place = c.place
		if at := trim(); at < c.least || at > c.most {
			t.Errorf("where everything before %d was dealt with, the log begins at %d", place, at)
		}
	}
}
