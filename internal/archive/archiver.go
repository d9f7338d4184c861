package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/failpoint"
	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/internal/wire"
	"tideline/pkg/timeline"
)

// Store keeps how far the archive is.
type Store interface {
	ArchivePosition(ctx context.Context, topic string, partition int32) (sqlstore.ArchivePosition, error)
	// MoveArchive replaces a position by compare-and-set; timeline.ErrFenced where another archiver has moved it.
	MoveArchive(ctx context.Context, old sqlstore.ArchivePosition, next, intentTo int64) (sqlstore.ArchivePosition, error)
}

// Block is what is inserted together; one of its lists is set.
type Block struct {
	Messages []Message
	Marks    []Mark
}

func (b *Block) len() int { return len(b.Messages) + len(b.Marks) }

// Engine is what an archiver asks of ClickHouse. An error says nothing about whether it was done.
type Engine interface {
	// Insert inserts a block whole or not at all, and only once for each token of the recent past.
	Insert(ctx context.Context, token string, b Block) error
	// Has tells whether rows of a range of offsets stand in a table.
	Has(ctx context.Context, table string, partition int32, from, to int64) (bool, error)
	// Change edits and blanks rows of messages; nobody reads the old ones once it has returned.
	Change(ctx context.Context, changes Changes) error
}

// Archiver copies the logs to ClickHouse.
type Archiver struct {
	cfg     Config
	kafka   kafka.Config
	store   Store
	engine  Engine
	log     *slog.Logger
	metrics *Metrics
	id      string
	compare *comparison // nil: nothing is compared

	mu sync.Mutex // guards the findings of compare
}

// New makes the archiver.
func New(cfg Config, kc kafka.Config, store Store, engine Engine, log *slog.Logger, metrics *Metrics, id string) *Archiver {
	return &Archiver{cfg: cfg, kafka: kc, store: store, engine: engine, log: log, metrics: metrics, id: id}
}

// Run archives im.messages and im.receipts until the context ends.
func (a *Archiver) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i, topic := range []string{kafka.TopicMessages, kafka.TopicReceipts} {
		group := kafka.GroupArchive
		if topic == kafka.TopicReceipts {
			group += "-receipts"
		}
		owners := kafka.Owners{
			Config: a.kafka, ClientID: a.id, Group: group, Topic: topic, Log: a.log, Own: a.own,
			Lag:  func(id int32, n int64) { a.metrics.lag(topic, id, n) },
			Gone: func(id int32) { a.metrics.forget(topic, id) },
		}
		wg.Go(func() { errs[i] = owners.Run(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// partition is one partition under way.
type partition struct {
	*Archiver
	topic string
	id    int32
	at    sqlstore.ArchivePosition
}

func (a *Archiver) own(ctx context.Context, p *kafka.Partition) error {
	at, err := a.store.ArchivePosition(ctx, p.Topic, p.ID)
	if err != nil {
		return err
	}
	o := &partition{Archiver: a, topic: p.Topic, id: p.ID, at: at}
	if err := o.checkLoss(ctx); err != nil {
		return err
	}
	err = p.Start(ctx, o.at.Next)
	if errors.Is(err, kafka.ErrTruncated) {
		err = o.truncated(ctx, p, err)
	}
	if err != nil {
		return err
	}
	if o.at.IntentTo > o.at.Next {
		records, err := readUpTo(ctx, p, o.at.IntentTo)
		if err != nil {
			return err
		}
		if _, unknown := o.unknownKind(records); unknown != nil {
			return o.hold(unknown)
		}
		if err := o.finish(ctx, records, true); err != nil {
			return err
		}
		// More may have been read than belongs to the intent.
		if err := p.Start(ctx, o.at.Next); err != nil {
			return err
		}
	}
	if p.Next() > o.at.Next { // a marker was all that retention removed: from now on the position says so
		if err := o.move(ctx, p.Next(), 0); err != nil {
			return err
		}
	}
	var last time.Time
	for {
		// Who keeps up waits a little, so that small inserts become fewer; who is behind does not.
		if wait := a.cfg.Linger - time.Since(last); wait > 0 && p.Lag() < int64(a.cfg.Batch) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(wait):
			}
		}
		records, err := p.Poll(ctx, a.cfg.Batch)
		if err != nil {
			return err
		}
		last = time.Now()
		to := p.Next()
		i, unknown := o.unknownKind(records)
		if unknown != nil {
			records, to = records[:i], records[i].Offset
		}
		if to > o.at.Next {
			if err := o.take(ctx, records, to); err != nil {
				return err
			}
		}
		p.Done(o.at.Next)
		a.metrics.lag(p.Topic, p.ID, p.Lag())
		if unknown != nil {
			return o.hold(unknown)
		}
	}
}

// truncated decides what to do where retention has removed what was not archived. Marks are an analysis and go on;
// messages are promised to be complete.
func (o *partition) truncated(ctx context.Context, p *kafka.Partition, truncated error) error {
	if o.topic == kafka.TopicMessages && o.compare != nil && o.cfg.Refill == refillAuto && o.at.Next == 0 {
		return o.fillLate(ctx, p)
	}
	o.metrics.stuck.Inc()
	if o.topic == kafka.TopicMessages {
		o.log.Error("THE ARCHIVE STOPPED on a partition: retention removed what was not archived; fill it with `tideline archive fill`", "partition", o.id, "err", truncated)
		return truncated
	}
	start, _, err := kafka.Bounds(ctx, o.kafka, o.Archiver.id, o.log, o.topic, o.id)
	if err != nil {
		return err
	}
	o.log.Error("read marks of before retention are missing in the archive", "partition", o.id, "from", o.at.Next, "to", start)
	if o.at, err = o.store.MoveArchive(ctx, o.at, start, 0); err != nil {
		return o.fenced(err)
	}
	return p.Start(ctx, start)
}

// fillLate takes from the store what retention has removed before the archive came, and begins behind it.
func (o *partition) fillLate(ctx context.Context, p *kafka.Partition) error {
	o.log.Info("filling the archive of a partition from the store: it comes late", "partition", o.id)
	rows, err := o.fillPartition(ctx, o.compare.store, o.compare.engine, o.id)
	if err != nil {
		return fmt.Errorf("filling from the store: %w", err)
	}
	if o.at, err = o.store.ArchivePosition(ctx, o.topic, o.id); err != nil {
		return err
	}
	o.metrics.rows.Add(float64(rows))
	o.log.Info("the archive of a partition was filled", "partition", o.id, "rows", rows)
	return p.Start(ctx, o.at.Next)
}

func readUpTo(ctx context.Context, p *kafka.Partition, to int64) ([]*kgo.Record, error) {
	var all []*kgo.Record
	for p.Next() < to { // an intent ends behind a record, or behind the marker of a transaction
		records, err := p.Poll(ctx, 10_000)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if r.Offset < to {
				all = append(all, r)
			}
		}
	}
	return all, nil
}

// take archives a range: intent, block, changes, position. A range without records has nothing but a position.
func (o *partition) take(ctx context.Context, records []*kgo.Record, to int64) error {
	if len(records) == 0 {
		return o.move(ctx, to, 0)
	}
	if err := o.move(ctx, o.at.Next, to); err != nil {
		return err
	}
	failpoint.Here("archive/intended")
	return o.finish(ctx, records, false)
}

// finish does what the intent says. Where it may have been done already, ClickHouse is asked first: tokens are remembered
// for so many blocks only.
func (o *partition) finish(ctx context.Context, records []*kgo.Record, again bool) error {
	from, to := o.at.Next, o.at.IntentTo
	block, changes := o.decode(records)
	if block.len() > 0 {
		token := fmt.Sprintf("%s:%d:%d:%d", o.topic, o.id, from, to)
		err := o.patiently(ctx, func(ctx context.Context) error {
			if again {
				there, err := o.engine.Has(ctx, o.table(), o.id, from, to)
				if err != nil || there {
					return err
				}
			}
			again = true // whatever comes of this try
			failpoint.Here("archive/asked")
			started := time.Now()
			if err := o.engine.Insert(ctx, token, block); err != nil {
				return err
			}
			failpoint.Here("archive/inserted")
			o.metrics.insert.Observe(time.Since(started).Seconds())
			o.metrics.rows.Add(float64(block.len()))
			o.metrics.block.Observe(float64(block.len()))
			return nil
		})
		if err != nil {
			return err
		}
	}
	if !changes.empty() {
		if err := o.patiently(ctx, func(ctx context.Context) error { return o.engine.Change(ctx, changes) }); err != nil {
			return err
		}
		o.metrics.changes.Add(float64(len(changes.Edits) + len(changes.Recalls)))
	}
	failpoint.Here("archive/changed")
	return o.move(ctx, to, 0)
}

func (o *partition) table() string {
	if o.topic == kafka.TopicReceipts {
		return "read_marks"
	}
	return "messages"
}

func (o *partition) decode(records []*kgo.Record) (Block, Changes) {
	if o.topic == kafka.TopicReceipts {
		var b Block
		for _, r := range records {
			m, err := wire.DecodeReadMark(r.Value)
			if err != nil {
				o.skipped(r, err)
				continue
			}
			b.Marks = append(b.Marks, Mark{int64(m.User), m.Conversation.String(), m.Seq, time.UnixMilli(m.At).UTC(), r.Partition, r.Offset})
		}
		return b, Changes{}
	}
	list, changes := rows(o.id, o.entries(records))
	return Block{Messages: list}, changes
}

// errUnknownKind says that a later version has to archive what comes.
var errUnknownKind = errors.New("the archive needs a newer version")

// unknownKind finds the first event of a kind that this version does not know. The archive waits before it: what it does to
// rows is not known, and a row that came late would break the order of the blocks. See ADR 27.
func (o *partition) unknownKind(records []*kgo.Record) (int, error) {
	if o.topic != kafka.TopicMessages {
		return 0, nil
	}
	for i, r := range records {
		if e, err := wire.DecodeEvent(r.Value); err == nil && !e.Kind.IsKnown() {
			return i, fmt.Errorf("%w: event kind %d at %d; %s", errUnknownKind, e.Kind, r.Offset, kafka.Needed(r))
		}
	}
	return 0, nil
}

// hold says that the archive of a partition waits for a newer version.
func (o *partition) hold(unknown error) error {
	o.metrics.stuck.Inc()
	o.log.Error("THE ARCHIVE NEEDS A NEWER VERSION on a partition: it waits, and nothing is lost; see the runbook", "partition", o.id, "err", unknown)
	return unknown
}

// entries returns the events that are rows; progress records are none.
func (o *partition) entries(records []*kgo.Record) []timeline.Entry {
	entries := make([]timeline.Entry, 0, len(records))
	for _, r := range records {
		e, err := wire.DecodeEvent(r.Value)
		if err != nil {
			o.skipped(r, err)
			continue
		}
		if e.Kind.IsCommanded() {
			entries = append(entries, timeline.Entry{Offset: r.Offset, Event: e})
		}
	}
	return entries
}

func (o *partition) skipped(r *kgo.Record, err error) {
	o.metrics.skipped.Inc()
	o.log.Error("A RECORD is not readable and is not archived", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "err", err)
}

// move replaces the position in the store. A move whose answer was lost is recognised when it is tried again.
func (o *partition) move(ctx context.Context, next, intentTo int64) error {
	return o.patiently(ctx, func(ctx context.Context) error {
		fresh, err := o.store.MoveArchive(ctx, o.at, next, intentTo)
		if errors.Is(err, timeline.ErrFenced) {
			now, lookErr := o.store.ArchivePosition(ctx, o.topic, o.id)
			if lookErr != nil {
				return lookErr
			}
			// The same move of the same version by somebody else would be the same range with the same token.
			if now.Version != o.at.Version+1 || now.Next != next || now.IntentTo != intentTo {
				return o.fenced(err)
			}
			fresh, err = now, nil
		}
		if err == nil {
			o.at = fresh
		}
		return err
	})
}

func (o *partition) fenced(err error) error {
	if errors.Is(err, timeline.ErrFenced) {
		return fmt.Errorf("%w: %w", kafka.ErrGiveUp, err)
	}
	return err
}

// Pauses between tries while ClickHouse or the store are away.
const (
	leastPause = 100 * time.Millisecond
	mostPause  = 10 * time.Second
	// tryTime bounds one try. A mutation over large parts is the slowest thing that happens here.
	tryTime = 10 * time.Minute
)

// patiently repeats something until it succeeds, the partition is given up, or the context ends.
func (o *partition) patiently(ctx context.Context, do func(context.Context) error) error {
	for pause := leastPause; ; pause = min(2*pause, mostPause) {
		try, cancel := context.WithTimeout(ctx, tryTime)
		err := do(try)
		cancel()
		if err == nil || errors.Is(err, kafka.ErrGiveUp) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		o.metrics.retries.Inc()
		o.log.Warn("the archive waits", "topic", o.topic, "partition", o.id, "err", err, "pause", pause.String())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause + rand.N(pause)):
		}
	}
}
