package archive

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
)

// until is a disk that ends its archiver once its position has come to an offset.
type until struct {
	*disk
	offset int64
	stop   context.CancelFunc
}

func (u *until) MoveArchive(ctx context.Context, old sqlstore.ArchivePosition, next, intentTo int64) (sqlstore.ArchivePosition, error) {
	at, err := u.disk.MoveArchive(ctx, old, next, intentTo)
	if err == nil && at.Next >= u.offset {
		u.stop()
	}
	return at, err
}

// Where the log is written in transactions it ends in a marker, and retention may remove that with everything before it.
func TestArchiver_GoesOnWhereRetentionHasEmptiedAnIdlePartition(t *testing.T) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, kafka.TopicMessages))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	cfg := kafka.DefaultConfig()
	cfg.Brokers, cfg.Partitions = broker.ListenAddrs(), 1
	owner, err := cfg.NewOwnerProducer("test", "tideline-ingest-0", quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(owner.Close)
	write := func(records []*kgo.Record) {
		t.Helper()
		err := owner.BeginTransaction()
		for _, r := range records {
			err = errors.Join(err, owner.ProduceSync(t.Context(), &kgo.Record{Topic: r.Topic, Value: r.Value}).FirstErr())
		}
		if err = errors.Join(err, owner.EndTransaction(t.Context(), kgo.TryCommit)); err != nil {
			t.Fatal(err)
		}
	}
	d := &disk{tokens: map[string]bool{}, rows: map[int64]Message{}}
	archive := func(to int64) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		u := &until{d, to, cancel}
		c := DefaultConfig()
		c.Linger = 0
		p, closeIt := kafka.OpenPartition(cfg, "test", kafka.TopicMessages, 0, quiet)
		defer closeIt()
		err := New(c, cfg, u, d, quiet, NewMetrics(prometheus.NewRegistry()), "t").own(ctx, p)
		if d.at.Next >= to {
			return nil
		}
		return err
	}
	records := log()
	write(records[:4])
	if err := archive(5); err != nil || d.inserted != 4 {
		t.Fatalf("%d rows, and the position is %d, want 4 and 5 behind the marker: %v", d.inserted, d.at.Next, err)
	}
	// A version that did not count markers had intended, or reached, the end of the records; the marker is there still.
	d.at.Next, d.at.IntentTo = 0, 4
	if err := archive(5); err != nil || d.inserted != 4 {
		t.Fatalf("%d rows after an intent was repeated, want 4: %v", d.inserted, err)
	}
	admin, err := cfg.NewAdmin("test", quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	offsets := kadm.Offsets{}
	offsets.AddOffset(kafka.TopicMessages, 0, 5, -1)
	answers, err := kadm.NewClient(admin).DeleteRecords(t.Context(), offsets)
	if err = errors.Join(err, answers.Error()); err != nil {
		t.Fatal(err)
	}
	d.at.Next = 4 // as a version left it that did not count markers
	if err := archive(5); err != nil {
		t.Fatalf("from before the marker: %v", err)
	}
	write(records[4:7])
	if err := archive(9); err != nil || d.inserted != 7 {
		t.Fatalf("from behind the marker: %d rows, want 7: %v", d.inserted, err)
	}
	d.at.Next = 3
	if err := archive(13); !errors.Is(err, kafka.ErrTruncated) {
		t.Fatalf("a log that lacks a record was archived on: %v", err)
	}
}
