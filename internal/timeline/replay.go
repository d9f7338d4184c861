package timeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/failpoint"
	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	core "tideline/pkg/timeline"
)

// ReplayStore is what putting parked records back needs.
type ReplayStore interface {
	restoreStore
	ListParked(ctx context.Context, topic string, afterPartition int32, afterOffset int64, limit int) ([]sqlstore.Parked, error)
}

// restoreStore is what putting back one record needs.
type restoreStore interface {
	core.Writer
	Conversations(ctx context.Context, ids []chat.ConversationID) ([]core.Conversation, error)
	Unpark(ctx context.Context, topic string, partition int32, offset int64) error
}

// Replayer puts parked events back where they belong, beside the writers that are running. What newer events have said
// since is left alone.
type Replayer struct {
	log  *slog.Logger
	list func(ctx context.Context, topic string, afterPartition int32, afterOffset int64, limit int) ([]sqlstore.Parked, error)
	restorer
}

// restorer puts back one record.
type restorer struct {
	store    restoreStore
	marks    FastMarks
	producer *kgo.Client // of hints
}

// NewReplayer makes a replayer.
func NewReplayer(store ReplayStore, marks FastMarks, producer *kgo.Client, log *slog.Logger) *Replayer {
	return &Replayer{list: store.ListParked, restorer: restorer{store, marks, producer}, log: log}
}

// Replayed counts what a replay did.
type Replayed struct {
	Stored int
	// Left counts the records that still cannot be stored; they stay parked.
	Left int
}

// Run tries every parked record once, in the order of the log. It is safe to repeat: a record leaves the list once it is
// stored, told of, and the fast marks know that they have missed something.
func (r *Replayer) Run(ctx context.Context) (Replayed, error) {
	var done Replayed
	partition, offset := int32(-1), int64(-1)
	for {
		list, err := r.list(ctx, kafka.TopicMessages, partition, offset, 100)
		if err != nil || len(list) == 0 {
			return done, err
		}
		for i := range list {
			p := &list[i]
			partition, offset = p.Partition, p.Offset
			err := r.put(ctx, p)
			switch {
			case errors.Is(err, core.ErrUnstorable) || errors.Is(err, errUnreadable):
				r.log.Warn("a record stays parked", "partition", p.Partition, "offset", p.Offset, "err", err)
				done.Left++
			case err != nil:
				return done, fmt.Errorf("putting back the record at %d of partition %d: %w", p.Offset, p.Partition, err)
			default:
				r.log.Info("a parked record was put back", "partition", p.Partition, "offset", p.Offset)
				done.Stored++
			}
		}
	}
}

var (
	errUnreadable  = errors.New("this version cannot read the record")
	errUnknownKind = errors.New("this version does not know the event kind")
)

// unknownAtOnce is how many parked records are read together; with their bytes, a few megabytes.
const unknownAtOnce = 100

// applyKnown puts back the events of the partition that were parked because their kind was not known, and that this version
// knows. A kill at any moment repeats what is not done: a record leaves the list last, and a row that is there stays as it is.
func (o *partition) applyKnown(ctx context.Context) error {
	r := restorer{o.store, o.marks, o.producer}
	offset := int64(-1)
	for {
		list, err := o.store.UnknownKinds(ctx, o.p.ID, offset, unknownAtOnce)
		if err != nil || len(list) == 0 {
			return err
		}
		var done []sqlstore.Parked
		for i := range list {
			offset = list[i].Offset
			if offset >= o.at.MessagesNext {
				// The predecessor died before the position moved: the record is read again, and parked again if it must be.
				if err := o.store.Unpark(ctx, list[i].Topic, list[i].Partition, offset); err != nil {
					return err
				}
				continue
			}
			switch err := r.restore(ctx, &list[i]); {
			case errors.Is(err, core.ErrUnstorable) || errors.Is(err, errUnreadable):
				o.log.Warn("a record stays parked", "partition", o.p.ID, "offset", offset, "err", err)
			case err != nil:
				return err
			default:
				done = append(done, list[i])
			}
		}
		if len(done) == 0 {
			continue
		}
		failpoint.Here("timeline/restored")
		// The fast marks have missed these events. Where they do not answer, the position notes it before the list forgets.
		if err := o.marks.Invalidate(ctx); err != nil {
			o.dirty = true
			if err := o.take(ctx, nil); err != nil {
				return err
			}
		}
		for i := range done {
			if err := o.store.Unpark(ctx, done[i].Topic, done[i].Partition, done[i].Offset); err != nil {
				return err
			}
			o.metrics.restored.Inc()
			o.log.Info("an event whose kind was not known was applied", "partition", o.p.ID, "offset", done[i].Offset, "kind", done[i].Kind)
		}
	}
}

func (r *restorer) put(ctx context.Context, p *sqlstore.Parked) error {
	if err := r.restore(ctx, p); err != nil {
		return err
	}
	if err := r.marks.Invalidate(ctx); err != nil {
		return fmt.Errorf("making the fast read marks fill again: %w", err)
	}
	return r.store.Unpark(ctx, p.Topic, p.Partition, p.Offset)
}

// restore stores the event of a parked record and sends its hint. A note of progress needs neither.
func (r *restorer) restore(ctx context.Context, p *sqlstore.Parked) error {
	e, err := wire.DecodeEvent(p.Record)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnreadable, err)
	}
	if !e.Kind.IsKnown() {
		return fmt.Errorf("%w: %w %d", errUnreadable, errUnknownKind, e.Kind)
	}
	if e.Kind.IsCommanded() {
		entries := []core.Entry{{Offset: p.Offset, Event: e}}
		if err := r.apply(ctx, p.Partition, entries); err != nil {
			return err
		}
		return r.tell(ctx, entries)
	}
	return nil
}

// apply stores an entry without moving the position. The writer of the partition may move it meanwhile, and then it is
// tried again from there.
func (r *restorer) apply(ctx context.Context, partition int32, entries []core.Entry) error {
	for {
		at, err := r.store.Positions(ctx, []int32{partition})
		if err != nil {
			return err
		}
		if at[0].MessagesNext <= entries[0].Offset {
			return fmt.Errorf("the writer stands at %d, before the record", at[0].MessagesNext)
		}
		if _, err = r.store.Apply(ctx, at[0], at[0], entries); !errors.Is(err, core.ErrFenced) {
			return err
		}
	}
}

// tell says that the number changed, at the end where the conversation stands.
func (r *restorer) tell(ctx context.Context, entries []core.Entry) error {
	e := &entries[0].Event
	heads, err := r.store.Conversations(ctx, []chat.ConversationID{e.Conversation})
	if err != nil {
		return err
	}
	if len(heads) == 0 {
		return fmt.Errorf("the conversation %s has no head", e.Conversation)
	}
	hint := Hints(entries, true, time.Now().UnixMilli())[0]
	hint.MaxSeq, hint.Ordinal, hint.Meta = heads[0].MaxSeq, heads[0].Ordinal, true
	hint.ChangedSeqs = append(hint.ChangedSeqs, e.Seq)
	record := &kgo.Record{Topic: kafka.TopicNotify, Key: []byte(hint.Conversation.String()), Value: wire.EncodeNotify(&hint)}
	if err := r.producer.ProduceSync(ctx, record).FirstErr(); err != nil {
		return fmt.Errorf("writing to %s: %w", kafka.TopicNotify, err)
	}
	return nil
}
