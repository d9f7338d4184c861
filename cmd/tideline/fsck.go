package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"tideline/internal/archive"
	"tideline/internal/config"
	"tideline/internal/embedded"
	"tideline/internal/fsck"
	"tideline/internal/kafka"
	"tideline/internal/marks"
	"tideline/internal/sqlstore"
	"tideline/internal/wiring"
	"tideline/pkg/chat"
)

// The exit codes of fsck. Breaches that were found outweigh what could not be looked at: both are in the report.
const (
	exitBreaches = 1
	exitBlind    = 2
)

// fsckConfig is what a run of fsck is asked for.
type fsckConfig struct {
	Conversation string        `conf:"conversation" help:"look at this conversation only"`
	JSON         bool          `conf:"json" help:"print the report as JSON"`
	AtRest       bool          `conf:"at-rest" help:"nobody writes any more: wait until everything has come to rest, then it has to be equal everywhere"`
	Patience     time.Duration `conf:"patience" help:"how long -at-rest waits for the writers; a partition is taken over within the session time-out"`
	Skip         []string      `conf:"skip" help:"parts that are left out: log, archive, redis"`
}

// Validate lists every fault.
func (c *fsckConfig) Validate() error {
	var faults []error
	if c.Conversation != "" {
		if _, err := chat.ParseConversationID(c.Conversation); err != nil {
			faults = append(faults, err)
		}
	}
	if c.Patience <= 0 {
		faults = append(faults, fmt.Errorf("patience is %s, and has to be more than nothing", c.Patience))
	}
	for _, part := range c.Skip {
		if part == fsck.PartStore || !slices.Contains(fsck.Parts(), part) {
			faults = append(faults, fmt.Errorf("skip names %q: log, archive and redis can be left out", part))
		}
	}
	return errors.Join(faults...)
}

// checkAll goes through everything and reports what is broken.
func checkAll(ctx context.Context, args []string, out io.Writer) error {
	s, cfg, folder := wiring.Defaults(), &fsckConfig{Patience: time.Minute}, &dataFolder{stoppedToo: true}
	fromBroker(&s.Kafka)
	printed, err := load("fsck", args, out, folder, config.Section{Into: cfg},
		config.Section{Name: "store", Into: &s.Store}, config.Section{Name: "kafka", Into: &s.Kafka}, config.Section{Name: "redis", Into: &s.Redis}, config.Section{Name: "archive", Into: &s.Archive})
	if err != nil {
		return &codedError{exitBlind, err}
	}
	if printed {
		return nil
	}
	report, err := checked(ctx, s, cfg, folder)
	if err != nil {
		return &codedError{exitBlind, err}
	}
	write := report.Text
	if cfg.JSON {
		write = report.JSON
	}
	if err := write(out); err != nil {
		return &codedError{exitBlind, err}
	}
	switch n := report.Breaches(); {
	case n > 0:
		return &codedError{exitBreaches, fmt.Errorf("%d breaches were found", n)}
	case report.Blind():
		return &codedError{exitBlind, errors.New("what was looked at is sound, and not everything could be looked at")}
	}
	return nil
}

// checked opens what there is, and makes a run. What cannot be opened is in the report.
func checked(ctx context.Context, s *wiring.Settings, cfg *fsckConfig, folder *dataFolder) (*fsck.Report, error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	options := fsck.Options{
		AtRest: cfg.AtRest, Patience: cfg.Patience, Skip: map[string]string{}, Broken: map[string]error{},
		Progress: func(line string) { _, _ = fmt.Fprintln(os.Stderr, line) },
	}
	if cfg.Conversation != "" {
		var err error
		if options.Conversation, err = chat.ParseConversationID(cfg.Conversation); err != nil {
			return nil, err
		}
	}
	for _, part := range cfg.Skip {
		options.Skip[part] = "left out with -skip"
	}
	if folder.stopped() {
		for _, part := range []string{fsck.PartLog, fsck.PartArchive, fsck.PartRedis} {
			if part != fsck.PartArchive || folder.found.Archived {
				options.Broken[part] = embedded.ErrNotRunning
			}
		}
	}
	wanted := func(part string) bool { return options.Skip[part] == "" && options.Broken[part] == nil }

	// Without the count nothing can be judged, and with a wrong one everything would be a breach. Brokers that are away are in
	// the report.
	if s.Kafka.Partitions == 0 || wanted(fsck.PartLog) {
		if err := s.Kafka.AdoptPartitions(ctx, "tideline-fsck", log); s.Kafka.Partitions == 0 || errors.Is(err, kafka.ErrOtherCount) {
			return nil, err
		}
	}
	options.Partitions = s.Kafka.Partitions

	var store fsck.Store
	opened, err := sqlstore.OpenReader(ctx, s.Store)
	if err == nil {
		defer func() { _ = opened.Close() }()
		if err = opened.CheckSchema(ctx); err == nil {
			store = opened
		}
	}
	options.Broken[fsck.PartStore] = err

	var logs fsck.Logs
	if wanted(fsck.PartLog) {
		k, err := fsck.NewKafkaLogs(s.Kafka, "tideline-fsck", log)
		if err == nil {
			defer k.Close()
			logs = k
		}
		options.Broken[fsck.PartLog] = err
	}
	var archived fsck.Archive
	if addr := s.Archive.Addr.Reveal(); addr != "" && wanted(fsck.PartArchive) {
		engine, err := archive.Open(addr)
		if err == nil {
			defer func() { _ = engine.Close() }()
			archived = engine
		}
		options.Broken[fsck.PartArchive] = err
	}
	var fast fsck.Fast
	if wanted(fsck.PartRedis) {
		client := s.Redis.Connect()
		defer func() { _ = client.Close() }()
		fast = marks.NewSets(client)
	}
	return fsck.New(store, logs, archived, fast, options).Run(ctx)
}
