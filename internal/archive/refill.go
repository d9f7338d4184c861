package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// What a partition's archive that has lost rows gets: see Config.Refill.
const (
	refillReport = "report"
	refillAuto   = "auto"
)

// CompareStore is what the archive is compared with, and refilled from.
type CompareStore interface {
	FillStore
	// PartitionEvents counts the events of a partition that the store has, or could have.
	PartitionEvents(ctx context.Context, topic string, partition int32) (int64, error)
	// StoredMarks lists read marks that came by im.receipts, in the order of their keys, beginning after one.
	StoredMarks(ctx context.Context, after timeline.MemberKey, limit int) ([]sqlstore.StoredMark, error)
}

// CompareEngine is an Engine that can say what it has.
type CompareEngine interface {
	FillEngine
	// Held counts the rows of a partition in a table, and returns the highest offset among them; -1 where there is none.
	Held(ctx context.Context, table string, partition int32) (rows, last int64, err error)
	ForgetMarks(ctx context.Context, partition int32) error
}

// Compare makes the archiver compare each partition with the store before it goes on there for the first time. An archive that
// has less than its position says has lost rows: the position is in the store, and is no help to ClickHouse. The loss is
// logged, counted and reported by Health; with archive.refill=auto the partition is filled again. Call it before Run.
func (a *Archiver) Compare(store CompareStore, engine CompareEngine) {
	a.compare = &comparison{store: store, engine: engine, seen: map[string]bool{}, lost: map[string]int64{}}
}

// comparison is what a comparison needs and has found.
type comparison struct {
	store  CompareStore
	engine CompareEngine

	seen map[string]bool  // places that were compared; guarded by the archiver's mu
	lost map[string]int64 // rows that are missing at least, of places that were not refilled; guarded by the archiver's mu
}

// Health is nil while no loss is known.
func (a *Archiver) Health(context.Context) error {
	if a.compare == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.compare.lost) == 0 {
		return nil
	}
	places := make([]string, 0, len(a.compare.lost))
	for place := range a.compare.lost {
		places = append(places, place)
	}
	slices.Sort(places)
	return fmt.Errorf("the archive has lost rows of %s", strings.Join(places, ", "))
}

// checkLoss compares a partition once, and refills it where it is to be.
func (o *partition) checkLoss(ctx context.Context) error {
	c := o.compare
	place := fmt.Sprintf("%s/%d", o.topic, o.id)
	o.mu.Lock()
	seen := c != nil && c.seen[place]
	o.mu.Unlock()
	if c == nil || seen || o.at.Next == 0 {
		return nil
	}
	var missing int64
	err := o.patiently(ctx, func(ctx context.Context) (err error) {
		missing, err = o.missing(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if missing > 0 {
		o.noteLoss(place, missing)
		if o.cfg.Refill != refillAuto {
			o.log.Error("THE ARCHIVE LOST ROWS of a partition; chat does not suffer. Fill it with `tideline archive fill`, or set archive.refill=auto",
				"topic", o.topic, "partition", o.id, "missing_at_least", missing)
		} else if err := o.refill(ctx, missing); err != nil {
			return err
		} else {
			o.noteLoss(place, 0)
		}
	}
	o.mu.Lock()
	c.seen[place] = true
	o.mu.Unlock()
	return nil
}

func (o *partition) noteLoss(place string, missing int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if missing == 0 {
		delete(o.compare.lost, place)
	} else {
		o.compare.lost[place] = missing
	}
	o.metrics.missing(o.topic, o.id, missing)
}

// missing returns how many rows of the partition the archive lacks at least, as far as its position says that it had them.
func (o *partition) missing(ctx context.Context) (int64, error) {
	if o.topic == kafka.TopicReceipts {
		return o.missingMarks(ctx)
	}
	// What the store counts first, what the archive has last, and the lag of both from after and before: whatever moves
	// meanwhile makes the answer smaller.
	events, err := o.compare.store.PartitionEvents(ctx, o.topic, o.id)
	if err != nil {
		return 0, err
	}
	stored, err := o.compare.store.Positions(ctx, []int32{o.id})
	if err != nil {
		return 0, err
	}
	rows, _, err := o.compare.engine.Held(ctx, o.table(), o.id)
	if err != nil || events == 0 {
		return 0, err
	}
	if rows == 0 { // some records are no events: of a long lag it cannot be said what they are
		return events, nil
	}
	behind := max(0, stored[0].MessagesNext-o.at.Next)
	return max(0, events-behind-rows), nil
}

// missingMarks looks for a partition of which the archive has nothing from the log, though the log has what was archived. How
// many marks there were before retention, nothing says.
func (o *partition) missingMarks(ctx context.Context) (int64, error) {
	start, _, err := kafka.Bounds(ctx, o.kafka, o.Archiver.id, o.log, o.topic, o.id)
	if err != nil {
		return 0, err
	}
	rows, last, err := o.compare.engine.Held(ctx, o.table(), o.id)
	if err != nil {
		return 0, err
	}
	return o.missingOf(ctx, start, rows, last)
}

// missingOf judges what the archive has of a partition of im.receipts whose log begins at start.
func (o *partition) missingOf(ctx context.Context, start, rows, last int64) (int64, error) {
	if archived := o.at.Next - start; archived > 0 && last < start {
		return archived, nil
	}
	if last >= 0 {
		return 0, nil
	}
	// It has at most what a refill inserted, which a crash may have cut short.
	marks, err := o.storedMarks(ctx, o.at.Next)
	return max(0, int64(len(marks))-rows), err
}

// storedMarks returns the last mark of each person and conversation of the partition that came before an offset of im.receipts.
func (o *partition) storedMarks(ctx context.Context, before int64) ([]Mark, error) {
	var out []Mark
	now := time.Now().UTC().Truncate(time.Millisecond)
	var after timeline.MemberKey
	for {
		page, err := o.compare.store.StoredMarks(ctx, after, rowsAtOnce)
		if err != nil {
			return nil, err
		}
		for _, m := range page {
			after = m.MemberKey
			if m.Offset < before && chat.Partition(m.User.String(), int32(o.kafka.Partitions)) == o.id {
				out = append(out, Mark{UserID: int64(m.User), ConversationID: m.Conversation.String(), Seq: m.Seq, At: now, Partition: o.id, Offset: -1})
			}
		}
		if len(page) < rowsAtOnce {
			return out, nil
		}
	}
}

// refill fills the partition again.
func (o *partition) refill(ctx context.Context, missing int64) error {
	if o.topic == kafka.TopicReceipts {
		return o.refillMarks(ctx)
	}
	o.log.Warn("THE ARCHIVE LOST ROWS of a partition and is filled from the store; the offsets of its messages are lost. "+
		"If all of the archive was lost, its key was too: the hashed ids of private conversations differ from earlier ones", "partition", o.id, "missing_at_least", missing)
	var rows int64
	err := o.patiently(ctx, func(ctx context.Context) (err error) {
		if rows, err = o.fillPartition(ctx, o.compare.store, o.compare.engine, o.id); errors.Is(err, timeline.ErrFenced) {
			return o.fenced(err)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("filling from the store: %w", err)
	}
	if o.at, err = o.store.ArchivePosition(ctx, o.topic, o.id); err != nil {
		return err
	}
	o.metrics.rows.Add(float64(rows))
	o.metrics.refills.Inc()
	o.log.Info("the archive of a partition was filled", "topic", o.topic, "partition", o.id, "rows", rows)
	return nil
}

// refillMarks puts the last marks of before retention into the archive, and lets the archiver begin at the log's start.
func (o *partition) refillMarks(ctx context.Context) error {
	var filled int
	var start int64
	err := o.patiently(ctx, func(ctx context.Context) error {
		var err error
		if start, _, err = kafka.Bounds(ctx, o.kafka, o.Archiver.id, o.log, o.topic, o.id); err != nil {
			return err
		}
		// The version moves, so that an archiver at work is refused before its next insert; and so that tokens are new.
		if o.at, err = o.store.MoveArchive(ctx, o.at, o.at.Next, 0); err != nil {
			return o.fenced(err)
		}
		if err := o.compare.engine.ForgetMarks(ctx, o.id); err != nil {
			return err
		}
		marks, err := o.storedMarks(ctx, start)
		if err != nil {
			return err
		}
		filled = len(marks)
		for n := 0; len(marks) > 0; n++ {
			part := marks[:min(len(marks), o.cfg.Batch)]
			if err := o.engine.Insert(ctx, fmt.Sprintf("fill-marks:%d:%d:%d", o.id, o.at.Version, n), Block{Marks: part}); err != nil {
				return err
			}
			marks = marks[len(part):]
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("filling marks from the store: %w", err)
	}
	if err := o.move(ctx, start, 0); err != nil {
		return err
	}
	o.metrics.rows.Add(float64(filled))
	o.metrics.refills.Inc()
	o.log.Warn("THE ARCHIVE LOST ROWS of a partition's read marks: they are taken from the log from where it begins, and before that the last of each person and conversation from the store. "+
		"Earlier marks, and the times of those from the store, are lost", "partition", o.id, "from_store", filled, "log_begins", start)
	return nil
}
