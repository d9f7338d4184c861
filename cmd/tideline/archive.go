package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/internal/archive"
	"tideline/internal/config"
	"tideline/internal/sqlstore"
	"tideline/internal/wiring"
)

// fillArchive makes the archive's messages anew from the store.
func fillArchive(ctx context.Context, args []string, out io.Writer) error {
	s := wiring.Defaults()
	fromBroker(&s.Kafka)
	printed, err := load("archive fill", args, out, &dataFolder{},
		config.Section{Name: "store", Into: &s.Store}, config.Section{Name: "kafka", Into: &s.Kafka}, config.Section{Name: "archive", Into: &s.Archive})
	if err != nil || printed {
		return err
	}
	if s.Archive.Addr.Reveal() == "" {
		return errors.New("archive.addr is empty: which archive is to be filled?")
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
	if err := archive.Migrate(ctx, s.Archive.Addr.Reveal()); err != nil {
		return err
	}
	engine, err := archive.Open(s.Archive.Addr.Reveal())
	if err != nil {
		return err
	}
	defer func() { _ = engine.Close() }()
	a := archive.New(s.Archive, s.Kafka, store, engine, log, archive.NewMetrics(prometheus.NewRegistry()), "tideline")
	var all int64
	err = a.Fill(ctx, store, engine, func(partition int32, rows int64) {
		all += rows
		_, _ = fmt.Fprintf(out, "partition %d: %d rows\n", partition, rows)
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%d rows were filled in; start the archivers\n", all)
	return err
}
