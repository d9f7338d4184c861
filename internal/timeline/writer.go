// Package timeline is what cmd/timeline runs: the writer that stores what was numbered and tells where conversations
// stand, the writer of read marks, and the recorder of rejections. Each is a consumer group of its own and can run alone.
package timeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"tideline/internal/failpoint"
	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	core "tideline/pkg/timeline"
)

// Store is what the writer needs besides the timeline itself.
type Store interface {
	restoreStore
	// Park keeps a record that can never be stored, with its reason.
	Park(ctx context.Context, p sqlstore.Parked) error
	// UnknownKinds lists records of a partition that are parked because their kind was not known, beginning after an offset.
	UnknownKinds(ctx context.Context, partition int32, afterOffset int64, limit int) ([]sqlstore.Parked, error)
}

// FastMarks are the read marks that are kept for speed. They may fail: the writer remembers that they are dirty.
type FastMarks interface {
	// Follow moves marks and memberships past events that the store has.
	Follow(ctx context.Context, entries []core.Entry) error
	// Invalidate makes everything unready that may have missed something.
	Invalidate(ctx context.Context) error
}

// Writer stores what was numbered.
type Writer struct {
	kafka    kafka.Config
	store    Store
	marks    FastMarks
	producer *kgo.Client
	tracer   trace.Tracer
	log      *slog.Logger
	metrics  *Metrics
	id       string
	maxBatch int
}

// NewWriter makes the writer. The producer writes the hints.
func NewWriter(kc kafka.Config, store Store, marks FastMarks, producer *kgo.Client, tracer trace.Tracer, log *slog.Logger, metrics *Metrics, id string) *Writer {
	// 100 to 500 rows a commit is the knee of what MySQL takes a second.
	return &Writer{kafka: kc, store: store, marks: marks, producer: producer, tracer: tracer, log: log, metrics: metrics, id: id, maxBatch: 500}
}

// Run owns partitions of im.messages until the context ends.
func (w *Writer) Run(ctx context.Context) error {
	owners := kafka.Owners{
		Config: w.kafka, ClientID: w.id, Group: kafka.GroupTimeline, Topic: kafka.TopicMessages, Log: w.log, Own: w.own,
		Owned: func(n int) { w.metrics.owned.Set(float64(n)) },
		Lag:   func(id int32, n int64) { w.metrics.lag.WithLabelValues(strconv.Itoa(int(id))).Set(float64(n)) },
		Gone:  func(id int32) { w.metrics.lag.DeleteLabelValues(strconv.Itoa(int(id))) },
	}
	return owners.Run(ctx)
}

// partition is the state of one owned partition.
type partition struct {
	*Writer
	p     *kafka.Partition
	at    core.Position
	dirty bool // the fast marks missed something
	// tried is when the store was last asked to take a batch: from then on the batch may be there for others to follow.
	tried time.Time
	label string
	// most bounds the entries that the store is given at once: fewer than a batch after it could not take that many.
	most int
}

func (w *Writer) own(ctx context.Context, p *kafka.Partition) error {
	o := &partition{Writer: w, p: p, label: strconv.Itoa(int(p.ID)), most: w.maxBatch}
	positions, err := w.store.Positions(ctx, []int32{p.ID})
	if err != nil {
		return err
	}
	o.at = positions[0]
	if err := o.repeatLast(ctx); err != nil {
		return err
	}
	if err := p.Start(ctx, o.at.MessagesNext); err != nil {
		if errors.Is(err, kafka.ErrTruncated) {
			w.metrics.stuck.Inc()
			w.log.Error("THE TIMELINE STOPPED on a partition: retention removed what was not stored yet; see the runbook", "partition", p.ID, "err", err)
		}
		return err
	}
	if p.Next() > o.at.MessagesNext { // a marker was all that retention removed: from now on the position says so
		if err := o.take(ctx, nil); err != nil {
			return err
		}
	}
	if err := o.applyKnown(ctx); err != nil {
		return fmt.Errorf("applying events whose kind is known now: %w", err)
	}
	for {
		records, err := p.Poll(ctx, w.maxBatch)
		if err != nil {
			return err
		}
		if err := o.take(ctx, records); err != nil {
			return err
		}
		p.Done(o.at.MessagesNext)
		w.metrics.lag.WithLabelValues(o.label).Set(float64(p.Lag()))
	}
}

// repeatLast tells again what the last batch told: its writer may have died between the commit and the hint.
func (o *partition) repeatLast(ctx context.Context) error {
	if o.at.MarksDirty {
		o.dirty = true
	}
	if o.at.BatchFrom >= o.at.MessagesNext {
		return nil
	}
	var entries []core.Entry
	_, err := kafka.ReadToEnd(ctx, o.kafka, o.id, o.log, kafka.TopicMessages, o.p.ID, o.at.BatchFrom, func(r *kgo.Record) error {
		if r.Offset >= o.at.MessagesNext {
			return errEnough
		}
		e, err := wire.DecodeEvent(r.Value)
		switch {
		case err != nil: // it was parked
		case e.Kind.IsCommanded():
			entries = append(entries, core.Entry{Offset: r.Offset, Event: e})
		case !e.Kind.IsKnown():
			entries = append(entries, core.Pass(r.Offset, &e))
		}
		return nil
	})
	switch {
	case errors.Is(err, kafka.ErrTruncated):
		return nil // so old that nobody waits for it
	case err != nil && !errors.Is(err, errEnough):
		return fmt.Errorf("reading the last batch again: %w", err)
	}
	o.tried = time.Now() // by the only owner now
	o.follow(ctx, entries)
	return o.tell(ctx, entries, nil, true)
}

var errEnough = errors.New("enough was read")

// take stores records and tells of them, and moves the position past whatever else was read. It returns when that is done,
// or an error that ends the owner.
func (o *partition) take(ctx context.Context, records []*kgo.Record) error {
	began := time.Now()
	to := o.at
	to.BatchFrom, to.MessagesNext = o.at.MessagesNext, o.p.Next()
	to.MarksDirty = o.dirty
	entries := make([]core.Entry, 0, len(records))
	raw := make(map[int64]*kgo.Record, len(records))
	for _, r := range records {
		e, err := wire.DecodeEvent(r.Value)
		if err != nil {
			p := parkedOf(r, err)
			if id, seq, ok := kafka.Outside(r, o.kafka.Partitions); ok {
				p.Conversation, p.Seq = id, seq
				entries = append(entries, core.PassUnreadable(r.Offset, id, seq, r.Timestamp.UnixMilli()))
			}
			if err := o.park(ctx, p); err != nil {
				return err
			}
			continue
		}
		to.InboundNext = max(to.InboundNext, e.InboundOffset+1)
		to.RejectedNext = max(to.RejectedNext, e.RejectedNext)
		to.HighestStamp = max(to.HighestStamp, chat.Stamp(e.ClientMsgID))
		switch {
		case e.Kind.IsCommanded():
			entries = append(entries, core.Entry{Offset: r.Offset, Event: e})
			raw[r.Offset] = r
		case !e.Kind.IsKnown():
			p := parkedEvent(r, &e, fmt.Errorf("%w %d; %s", errUnknownKind, e.Kind, kafka.Needed(r)))
			p.Kind = e.Kind
			if err := o.park(ctx, p); err != nil {
				return err
			}
			entries = append(entries, core.Pass(r.Offset, &e))
		}
	}
	failpoint.Here("timeline/decoded")
	applied, stored, err := o.store1(ctx, to, entries, raw)
	o.trace(began, records, err)
	if err != nil {
		return err
	}
	failpoint.Here("timeline/stored")
	// Who has just become a member must stand in the fast marks before it is told: its first read mark finds its place
	// then. Other marks can follow the hint, which is what people wait for.
	if !changesMembers(stored) {
		if err := o.tell(ctx, stored, applied.Filled, false); err != nil {
			return err
		}
		o.follow(ctx, stored)
		return nil
	}
	o.follow(ctx, stored)
	return o.tell(ctx, stored, applied.Filled, false)
}

func changesMembers(entries []core.Entry) bool {
	for i := range entries {
		if e := &entries[i].Event; len(core.Changes(e, e.Seq == 1)) > 0 {
			return true
		}
	}
	return false
}

// tell writes the hints of a batch, once the store has everything that they speak of.
func (o *partition) tell(ctx context.Context, entries []core.Entry, filled []core.Filled, repeat bool) error {
	hints := Hints(entries, repeat, time.Now().UnixMilli())
	for _, f := range filled { // readers may have seen these numbers as voids
		for i := range hints {
			if hints[i].Conversation == f.Conversation {
				hints[i].ChangedSeqs = append(hints[i].ChangedSeqs, f.Seq)
			}
		}
	}
	if len(hints) == 0 {
		return nil
	}
	records := make([]*kgo.Record, len(hints))
	for i := range hints {
		records[i] = &kgo.Record{Topic: kafka.TopicNotify, Key: []byte(hints[i].Conversation.String()), Value: wire.EncodeNotify(&hints[i])}
	}
	started := time.Now()
	for pause := leastPause; ; pause = min(2*pause, mostPause) {
		err := o.producer.ProduceSync(context.WithoutCancel(ctx), records...).FirstErr()
		if err == nil {
			o.metrics.hints.Add(float64(len(hints)))
			o.metrics.hint.Observe(time.Since(started).Seconds())
			failpoint.Here("timeline/told")
			return nil
		}
		o.log.Warn("hints were not written; it is tried again", "err", err, "partition", o.p.ID)
		select {
		case <-ctx.Done():
			return ctx.Err() // the next owner repeats them
		case <-time.After(pause):
		}
	}
}

// maxHintChanges bounds the changes of membership that a hint names before it takes another event: with the largest event,
// 2,500 of about 20 bytes. A batch may have a hundred times that, which the log would not take as one record.
const maxHintChanges = 2000

// Hints gives what im.notify says of some events, in order: one for each conversation. Where that would name too many
// members there are several, and each tells of the conversation up to its own last event.
func Hints(entries []core.Entry, repeat bool, now int64) []chat.Notify {
	at := map[chat.ConversationID]int{}
	var hints []chat.Notify
	for i := range entries {
		e := &entries[i].Event
		if e.Ordinal == core.UnknownOrdinal {
			continue // it has nothing to show, and the conversation's next event says where it is
		}
		changes := core.Changes(e, e.Seq == 1)
		n, there := at[e.Conversation]
		if !there || len(changes) > 0 && len(hints[n].Members) >= maxHintChanges {
			n = len(hints)
			at[e.Conversation] = n
			hints = append(hints, chat.Notify{Conversation: e.Conversation, Repeat: repeat, At: now})
		}
		h := &hints[n]
		h.MaxSeq, h.Ordinal = e.Seq, e.Ordinal
		if target := e.TargetSeq(); target > 0 {
			h.ChangedSeqs = append(h.ChangedSeqs, target)
		}
		h.Members = append(h.Members, changes...)
		if e.Message != nil && e.Message.Receipt {
			h.Asked = append(h.Asked, chat.Asked{Seq: e.Seq, Sender: e.Sender})
		}
		if e.Kind == chat.KindUpdate || e.Kind == chat.KindDissolve || e.Kind == chat.KindCreate {
			h.Meta = true
		}
	}
	return hints
}

// follow moves the fast marks. When they cannot be moved the writer goes on, and makes them unready as soon as they
// answer again.
func (o *partition) follow(ctx context.Context, entries []core.Entry) {
	ctx = context.WithoutCancel(ctx)
	// Whoever was held up for long may have a successor, who has followed further: what would be done now could undo that.
	late := time.Since(o.tried) > o.kafka.SessionTimeout/2
	if o.dirty || late {
		if err := o.marks.Invalidate(ctx); err != nil {
			o.dirty = true
			return
		}
		o.log.Info("the fast read marks were invalidated: they had missed something", "partition", o.p.ID)
		o.dirty = false
		if late {
			return
		}
	}
	if err := o.marks.Follow(ctx, entries); err != nil {
		o.dirty = true
		o.metrics.dirty.Inc()
		o.log.Warn("the fast read marks could not follow; they are invalidated when Redis answers again", "err", err, "partition", o.p.ID)
	}
}
