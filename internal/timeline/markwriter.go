package timeline

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	core "tideline/pkg/timeline"
)

// MarkStore makes marks durable.
type MarkStore interface {
	core.MarkWriter
	// MarksMissed tells of which partitions of im.receipts the fast marks missed something that was not made good yet.
	MarksMissed(ctx context.Context, partitions []int32) (map[int32]bool, error)
	// NoteMarksMissed keeps, or forgets, that they did.
	NoteMarksMissed(ctx context.Context, partition int32, missed bool) error
}

// RaiseMarks are the fast marks. They are raised before the store has a mark: the api that wrote it may have died before it
// could.
type RaiseMarks interface {
	Raise(ctx context.Context, marks []chat.ReadMark) error
	// Invalidate makes everything unready that may have missed something.
	Invalidate(ctx context.Context) error
}

// MarkWriter makes read marks durable.
//
// What could not be raised in Redis, by the api nor here, is missing in sets that are ready, and nobody else will notice:
// that is noted in the store before the position moves past it, and the sets are invalidated as soon as Redis answers.
type MarkWriter struct {
	*consumer
	store MarkStore
	fast  RaiseMarks

	mu     sync.Mutex // guards missed, and is held while notes are kept or forgotten
	missed map[int32]int
}

// NewMarkWriter makes the service.
func NewMarkWriter(kc kafka.Config, store MarkStore, fast RaiseMarks, log *slog.Logger, metrics *Metrics, id string) *MarkWriter {
	w := &MarkWriter{store: store, fast: fast, missed: map[int32]int{}}
	w.consumer = &consumer{
		kafka: kc, group: kafka.GroupMarks, topic: kafka.TopicReceipts, id: id, log: log, metrics: metrics, position: w.takeOver, apply: w.take, letGo: w.letGo,
		rest: marksRest,
	}
	return w
}

// marksRest is how long the marks of a partition gather while they are many. Sets that are ready answer meanwhile, and a count in
// the store waits this long more; a commit for each mark costs the store ten times as much.
const marksRest = 100 * time.Millisecond

// missedLook is how often it is tried to make good what the fast marks missed.
const missedLook = time.Second

// Run makes marks durable until the context ends.
func (w *MarkWriter) Run(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(missedLook)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				w.makeGood(ctx)
			}
		}
	}()
	err := w.consumer.Run(ctx)
	<-done
	return err
}

// takeOver gives the position of a partition, with what a predecessor noted.
func (w *MarkWriter) takeOver(ctx context.Context, partition int32) (int64, error) {
	missed, err := w.store.MarksMissed(ctx, []int32{partition})
	if err != nil {
		return 0, err
	}
	if missed[partition] {
		w.mu.Lock()
		w.missed[partition]++
		w.mu.Unlock()
	}
	at, err := w.store.MarkPositions(ctx, []int32{partition})
	return at[partition], err
}

// letGo leaves what was noted to the next owner.
func (w *MarkWriter) letGo(partition int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.missed, partition)
}

func (w *MarkWriter) take(ctx context.Context, partition int32, from, to int64, records []*kgo.Record) error {
	entries := make([]core.MarkEntry, 0, len(records))
	marks := make([]chat.ReadMark, 0, len(records))
	for _, r := range records {
		m, err := wire.DecodeReadMark(r.Value)
		if err != nil {
			w.metrics.parked.Inc()
			w.log.Error("A READ MARK is not readable and is skipped", "partition", r.Partition, "offset", r.Offset, "err", err)
			continue
		}
		entries, marks = append(entries, core.MarkEntry{Offset: r.Offset, Mark: m}), append(marks, m)
	}
	if err := w.fast.Raise(ctx, marks); err != nil {
		if err := w.note(ctx, partition, err); err != nil {
			return err
		}
	}
	if err := w.store.ApplyMarks(ctx, partition, from, to, entries); err != nil {
		return err
	}
	w.metrics.marks.Add(float64(len(entries)))
	return nil
}

// note keeps that the fast marks missed something, before anything goes on.
func (w *MarkWriter) note(ctx context.Context, partition int32, why error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.missed[partition]++; w.missed[partition] > 1 {
		return nil
	}
	w.metrics.dirty.Inc()
	w.log.Warn("read marks were not raised in Redis; the sets are invalidated when it answers again", "partition", partition, "err", why)
	if err := w.store.NoteMarksMissed(ctx, partition, true); err != nil {
		delete(w.missed, partition)
		return err
	}
	return nil
}

// makeGood invalidates the sets where they missed something, and forgets it. What is missed meanwhile stays noted.
func (w *MarkWriter) makeGood(ctx context.Context) {
	w.mu.Lock()
	before := make(map[int32]int, len(w.missed))
	for p, n := range w.missed {
		before[p] = n
	}
	w.mu.Unlock()
	if len(before) == 0 {
		return
	}
	if err := w.fast.Invalidate(ctx); err != nil {
		return // it says so itself, and the next look tries again
	}
	w.log.Info("the fast read marks were invalidated: they had missed marks", "partitions", len(before))
	w.mu.Lock()
	defer w.mu.Unlock()
	for p, n := range before {
		if w.missed[p] != n {
			continue
		}
		if err := w.store.NoteMarksMissed(ctx, p, false); err != nil {
			w.log.Warn("that marks were missed could not be forgotten; the sets are invalidated once more", "partition", p, "err", err)
			continue
		}
		delete(w.missed, p)
	}
}
