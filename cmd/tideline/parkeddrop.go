package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"

	"tideline/internal/config"
	"tideline/internal/sqlstore"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// dropConfig is what a drop is asked for.
type dropConfig struct {
	Anyway bool `conf:"anyway" help:"drop the record although a version of this software may still apply it, or its number has no row"`
}

// dropParked removes one parked record for good. Its place in the log stays as it is.
func dropParked(ctx context.Context, args []string, out io.Writer) error {
	cfg, store := dropConfig{}, sqlstore.DefaultConfig()
	loaded, err := loadWithArgs("parked drop", args, &dataFolder{stoppedToo: true}, config.Section{Into: &cfg}, config.Section{Name: "store", Into: &store})
	switch {
	case err != nil:
		return err
	case loaded.PrintVersion:
		return printVersion(ctx, nil, out)
	case loaded.PrintConfig:
		return loaded.Print(out)
	}
	topic, partition, offset, err := parkedPlace(loaded.Args)
	if err != nil {
		return err
	}
	s, err := sqlstore.Open(ctx, store)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	if err := s.CheckSchema(ctx); err != nil {
		return err
	}

	list, err := s.ListParked(ctx, topic, partition, offset-1, 1)
	if err != nil {
		return err
	}
	if len(list) == 0 || list[0].Partition != partition || list[0].Offset != offset {
		return fmt.Errorf("no record of %s/%d at %d is parked", topic, partition, offset)
	}
	p := &list[0]
	if !cfg.Anyway {
		if err := droppable(ctx, s, p); err != nil {
			return err
		}
	}
	if err := s.Unpark(ctx, topic, partition, offset); err != nil {
		return err
	}

	slog.New(slog.NewTextHandler(os.Stderr, nil)).Warn("a parked record was dropped",
		"topic", topic, "partition", partition, "offset", offset, "conversation", p.Conversation, "seq", p.Seq, "kind", int(p.Kind),
		"reason", p.Reason, "bytes", len(p.Record), "sha256", hashOf(p.Record))
	_, err = fmt.Fprintf(out, "%s/%d at %d, %s, %d bytes with SHA-256 %s: dropped\n", topic, partition, offset, keyOf(p), len(p.Record), hashOf(p.Record))
	return err
}

// parkedPlace reads the arguments of a drop.
func parkedPlace(args []string) (topic string, partition int32, offset int64, err error) {
	if len(args) != 3 {
		return "", 0, 0, errors.New("topic, partition and offset of the record are required behind the flags")
	}
	p, err := strconv.ParseInt(args[1], 10, 32)
	if err != nil || p < 0 {
		return "", 0, 0, fmt.Errorf("partition must be a number from 0, not %q", args[1])
	}
	offset, err = strconv.ParseInt(args[2], 10, 64)
	if err != nil || offset < 0 {
		return "", 0, 0, fmt.Errorf("offset must be a number from 0, not %q", args[2])
	}
	return args[0], int32(p), offset, nil
}

// droppable returns an error where a record may still become a row, or its number has none: the record is all that says why.
func droppable(ctx context.Context, s *sqlstore.Store, p *sqlstore.Parked) error {
	place := sqlstore.Place{Conversation: p.Conversation, Seq: p.Seq}
	if e, err := wire.DecodeEvent(p.Record); err == nil && e.Kind != chat.KindProgress {
		place = sqlstore.Place{Conversation: e.Conversation, Seq: e.Seq}
		if !e.Kind.IsKnown() {
			return fmt.Errorf("the record is an event of kind %d, which a newer version applies; -anyway drops it", e.Kind)
		}
		rows, err := s.RowsAt(ctx, []sqlstore.Place{place})
		if err != nil {
			return err
		}
		if _, there := rows[place]; !there {
			return fmt.Errorf("the record is the event %s/%d, which tideline parked replay may still apply; -anyway drops it", place.Conversation, place.Seq)
		}
		return nil
	}
	if place.Seq == 0 {
		return nil
	}
	heads, err := s.Conversations(ctx, []chat.ConversationID{place.Conversation})
	if err != nil {
		return err
	}
	if len(heads) == 0 || heads[0].MaxSeq < place.Seq {
		return nil // the number was never used
	}
	rows, err := s.RowsAt(ctx, []sqlstore.Place{place})
	if err != nil {
		return err
	}
	if _, there := rows[place]; !there {
		return fmt.Errorf("number %d of %s was used by the record and has no row, which fsck reports once it is dropped; -anyway drops it", place.Seq, place.Conversation)
	}
	return nil
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
