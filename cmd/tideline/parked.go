package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/internal/config"
	"tideline/internal/kafka"
	"tideline/internal/marks"
	"tideline/internal/sqlstore"
	"tideline/internal/timeline"
	"tideline/internal/wiring"
)

func listParked(ctx context.Context, args []string, out io.Writer) error {
	store, err := openStore(ctx, "parked list", args, out)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	partition, offset := int32(-1), int64(-1)
	for {
		list, err := store.ListParked(ctx, kafka.TopicMessages, partition, offset, 100)
		if err != nil {
			return err
		}
		for _, p := range list {
			if _, err := fmt.Fprintf(out, "%s/%d at %d, %s: %s\n", p.Topic, p.Partition, p.Offset, keyOf(&p), p.Reason); err != nil {
				return err
			}
			partition, offset = p.Partition, p.Offset
		}
		if len(list) < 100 {
			return nil
		}
	}
}

// keyOf shows the key of a record, which may be of any length and any bytes.
func keyOf(p *sqlstore.Parked) string {
	if p.Key == nil {
		return "no key"
	}
	return fmt.Sprintf("key %.128q", p.Key)
}

// replayParked tries parked records again. It fails while some stay, so that scripts see it.
func replayParked(ctx context.Context, args []string, out io.Writer) error {
	s := wiring.Defaults()
	fromBroker(&s.Kafka)
	printed, err := load("parked replay", args, out, &dataFolder{},
		config.Section{Name: "store", Into: &s.Store}, config.Section{Name: "kafka", Into: &s.Kafka}, config.Section{Name: "redis", Into: &s.Redis})
	if err != nil || printed {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := s.Kafka.AdoptPartitions(ctx, "tideline", log); err != nil {
		return err
	}
	store, err := sqlstore.Open(ctx, s.Store)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	if err := store.CheckSchema(ctx); err != nil {
		return err
	}
	producer, err := s.Kafka.NewProducer("tideline", log)
	if err != nil {
		return err
	}
	defer producer.Close()
	redis := s.Redis.Connect()
	defer func() { _ = redis.Close() }()
	fast := marks.New(redis, store, nil, s.Kafka.Partitions, log, marks.NewMetrics(prometheus.NewRegistry()))
	done, err := timeline.NewReplayer(store, fast, producer, log).Run(ctx)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "%d put back, %d stay parked\n", done.Stored, done.Left); err != nil {
		return err
	}
	if done.Left > 0 {
		return fmt.Errorf("%d records can still not be stored", done.Left)
	}
	return nil
}
