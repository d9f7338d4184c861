package archive

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// FillStore is what a fill reads besides the archive's positions.
type FillStore interface {
	Store
	Positions(ctx context.Context, partitions []int32) ([]timeline.Position, error)
	// PartitionConversations lists the heads of a partition's conversations in the order of their ids, beginning after
	// one; the zero id for the first page.
	PartitionConversations(ctx context.Context, partition int32, after chat.ConversationID, limit int) ([]timeline.Conversation, error)
	Rows(ctx context.Context, c chat.ConversationID, first, last int64) ([]timeline.Row, error)
	// UnknownKinds lists records of a partition that are parked because their kind was not known, beginning after an offset.
	UnknownKinds(ctx context.Context, partition int32, afterOffset int64, limit int) ([]sqlstore.Parked, error)
}

// FillEngine is an Engine that can forget a partition.
type FillEngine interface {
	Engine
	Forget(ctx context.Context, partition int32) error
}

// rowsAtOnce is how many rows are read from the store together; a block may hold several reads.
const rowsAtOnce = 1000

// Fill makes the messages of every partition anew from the store, in their present form, for an archive that begins late
// or has lost something; the archivers then go on behind it. They must not run meanwhile: a fill that they overtake fails
// and can be repeated, because it begins by removing what is there. told is called after each partition.
//
// Rows of the store have no offsets: they carry -1. Read marks are not filled by it; see Compare.
func (a *Archiver) Fill(ctx context.Context, store FillStore, engine FillEngine, told func(partition int32, rows int64)) error {
	for p := range int32(a.kafka.Partitions) {
		n, err := a.fillPartition(ctx, store, engine, p)
		if err != nil {
			return fmt.Errorf("filling partition %d: %w", p, err)
		}
		told(p, n)
	}
	return nil
}

func (a *Archiver) fillPartition(ctx context.Context, store FillStore, engine FillEngine, p int32) (int64, error) {
	old, err := store.ArchivePosition(ctx, kafka.TopicMessages, p)
	if err != nil {
		return 0, err
	}
	// The version moves, so that an archiver at work is refused before its next insert; and so that tokens are new.
	at, err := store.MoveArchive(ctx, old, old.Next, 0)
	if err != nil {
		return 0, fmt.Errorf("an archiver is at work, stop it first: %w", err)
	}
	if err := engine.Forget(ctx, p); err != nil {
		return 0, err
	}
	before, err := store.Positions(ctx, []int32{p})
	if err != nil {
		return 0, err
	}
	f := &filler{store: store, engine: engine, partition: p, limit: a.cfg.Batch, token: fmt.Sprintf("fill:%d:%d", p, at.Version), heads: map[chat.ConversationID]int64{}}
	if err := f.all(ctx); err != nil {
		return f.rows, err
	}
	// Conversations moved on while they were read: what the store has passed meanwhile and was not read comes from the log.
	after, err := store.Positions(ctx, []int32{p})
	if err != nil {
		return f.rows, err
	}
	var rest []timeline.Entry
	// What is parked for a newer version has no row yet, and the archive would go on behind it.
	held, err := store.UnknownKinds(ctx, p, -1, 1)
	if err != nil {
		return f.rows, err
	}
	if len(held) > 0 {
		return f.rows, fmt.Errorf("%w: the event of kind %d at %d is parked in the store", errUnknownKind, held[0].Kind, held[0].Offset)
	}
	if after[0].MessagesNext > before[0].MessagesNext {
		o := &partition{Archiver: a, topic: kafka.TopicMessages, id: p}
		rest, err = o.between(ctx, before[0].MessagesNext, after[0].MessagesNext)
		if err != nil {
			return f.rows, err
		}
	}
	list, _ := rows(p, rest)
	for _, m := range list {
		c, err := chat.ParseConversationID(m.ConversationID)
		if err != nil {
			return f.rows, err
		}
		if m.Seq > f.heads[c] {
			if err := f.add(ctx, m); err != nil {
				return f.rows, err
			}
		}
	}
	if err := f.flush(ctx); err != nil {
		return f.rows, err
	}
	changes := f.aimedAt(rest)
	if !changes.empty() {
		if err := engine.Change(ctx, changes); err != nil {
			return f.rows, err
		}
	}
	if _, err := store.MoveArchive(ctx, at, after[0].MessagesNext, 0); err != nil {
		return f.rows, fmt.Errorf("an archiver has been at work, stop it and fill again: %w", err)
	}
	return f.rows, nil
}

var errEnough = errors.New("enough was read")

func (o *partition) between(ctx context.Context, from, to int64) ([]timeline.Entry, error) {
	var records []*kgo.Record
	_, err := kafka.ReadToEnd(ctx, o.kafka, o.Archiver.id, o.log, o.topic, o.id, from, func(r *kgo.Record) error {
		if r.Offset >= to {
			return errEnough
		}
		records = append(records, r)
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	if _, unknown := o.unknownKind(records); unknown != nil {
		return nil, unknown
	}
	return o.entries(records), nil
}

type filler struct {
	store     FillStore
	engine    FillEngine
	partition int32
	limit     int
	token     string
	heads     map[chat.ConversationID]int64 // how far each was read
	block     []Message
	blocks    int
	rows      int64
}

func (f *filler) all(ctx context.Context) error {
	var after chat.ConversationID
	for {
		page, err := f.store.PartitionConversations(ctx, f.partition, after, rowsAtOnce)
		if err != nil {
			return err
		}
		for _, c := range page {
			after = c.ID
			f.heads[c.ID] = c.MaxSeq
			for first := int64(1); first <= c.MaxSeq; first += rowsAtOnce {
				list, err := f.store.Rows(ctx, c.ID, first, min(first+rowsAtOnce-1, c.MaxSeq))
				if err != nil {
					return err
				}
				for i := range list {
					if err := f.add(ctx, messageOf(&list[i], f.partition, -1)); err != nil {
						return err
					}
				}
			}
		}
		if len(page) < rowsAtOnce {
			return f.flush(ctx)
		}
	}
}

func (f *filler) add(ctx context.Context, m Message) error {
	f.block = append(f.block, m)
	if len(f.block) < f.limit {
		return nil
	}
	return f.flush(ctx)
}

func (f *filler) flush(ctx context.Context) error {
	if len(f.block) == 0 {
		return nil
	}
	f.blocks++
	if err := f.engine.Insert(ctx, fmt.Sprintf("%s:%d", f.token, f.blocks), Block{Messages: f.block}); err != nil {
		return err
	}
	f.rows += int64(len(f.block))
	f.block = nil
	return nil
}

// aimedAt gives what the rest of a partition does to rows that were taken from the store: the last word on each. It may be
// there already, and is then done again, which changes nothing.
func (f *filler) aimedAt(entries []timeline.Entry) Changes {
	edits, recalls := map[Place]Edit{}, map[Place]bool{}
	for i := range entries {
		e := &entries[i].Event
		target := e.TargetSeq()
		if target == 0 || target > f.heads[e.Conversation] {
			continue
		}
		place := Place{e.Conversation.String(), target}
		if e.Kind == chat.KindRecall {
			recalls[place] = true
			delete(edits, place)
		} else if !recalls[place] {
			edits[place] = Edit{Place: place, EditSeq: e.Seq, Content: string(e.Edit.Content), Text: textOf(chat.TypeText, e.Edit.Content)}
		}
	}
	var changes Changes
	for p := range recalls {
		changes.Recalls = append(changes.Recalls, p)
	}
	for _, e := range edits {
		changes.Edits = append(changes.Edits, e)
	}
	return changes
}
