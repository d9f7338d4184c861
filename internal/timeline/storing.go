package timeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
	core "tideline/pkg/timeline"
)

// store1 stores a batch, whatever it takes: what the store cannot take for now is tried again, what it can never take
// is parked. It gives what was stored.
func (o *partition) store1(ctx context.Context, to core.Position, entries []core.Entry, raw map[int64]*kgo.Record) (core.Applied, []core.Entry, error) {
	var all core.Applied
	var stored []core.Entry
	// A batch with an entry that can never be stored is halved until that entry is alone; one that the store does not take
	// whole, until it does.
	queue := o.portions(entries)
	for len(queue) > 0 {
		part := queue[0]
		queue = queue[1:]
		step := to
		if len(queue) > 0 {
			step = upTo(o.at, to, queue[0][0].Offset)
		}
		applied, err := o.applyPatiently(ctx, step, part)
		switch {
		case errors.Is(err, errTooMuch):
			queue = o.portions(slices.Concat(append([][]core.Entry{part}, queue...)...))
		case errors.Is(err, core.ErrUnstorable) && len(part) > 1:
			half := len(part) / 2
			queue = append([][]core.Entry{part[:half], part[half:]}, queue...)
		case errors.Is(err, core.ErrUnstorable):
			r := raw[part[0].Offset]
			if r == nil { // it is parked, and the head cannot even pass its number; the position moves behind it
				o.log.Error("A NUMBER could not be passed: its record is parked, and the conversation's head stays behind it", "partition", o.p.ID, "offset", part[0].Offset, "err", err)
				if len(queue) == 0 {
					queue = append(queue, nil)
				}
				continue
			}
			if err := o.park(ctx, parkedEvent(r, &part[0].Event, err)); err != nil {
				return all, stored, err
			}
			delete(raw, part[0].Offset)
			queue = append([][]core.Entry{{core.Pass(part[0].Offset, &part[0].Event)}}, queue...)
		case err != nil:
			return all, stored, err
		default:
			all.Heads = append(all.Heads, applied.Heads...)
			all.Filled = append(all.Filled, applied.Filled...)
			stored = append(stored, part...)
			for _, t := range applied.Twins {
				o.log.Error("A TWIN reached the store and was made a tombstone: deduplication has failed", "conversation", t.Conversation.String(), "seq", t.Seq, "first", t.First)
			}
			o.metrics.twins.Add(float64(len(applied.Twins)))
			o.metrics.missing.Add(float64(applied.MissingTargets))
			if applied.Holes > 0 {
				o.metrics.holes.Add(float64(applied.Holes))
				o.log.Error("A HOLE in the store: numbers have no row; see `tideline parked list`", "partition", o.p.ID, "numbers", applied.Holes, "before", part[0].Offset)
			}
			o.metrics.rows.Add(float64(len(part) - applied.Skipped))
		}
	}
	return all, stored, nil
}

// upTo is a position on the way to another, before an offset. What it says of inbound records stays behind until the
// whole batch is stored: that only makes a takeover read a little more. The highest stamp does not: it must be no lower
// than that of any event before the offset, or a takeover would think that it remembers a client id that it does not, and
// number its retry again. Higher only costs a look into the store.
func upTo(at, to core.Position, offset int64) core.Position {
	step := at
	step.MessagesNext, step.BatchFrom, step.MarksDirty, step.HighestStamp = offset, to.BatchFrom, to.MarksDirty, to.HighestStamp
	return step
}

// Pauses between tries of a store that cannot take a batch for now.
const (
	leastPause = 50 * time.Millisecond
	mostPause  = 5 * time.Second
)

// portions cuts a batch into what the store took lately.
func (o *partition) portions(entries []core.Entry) [][]core.Entry {
	var queue [][]core.Entry
	for len(entries) > o.most {
		queue = append(queue, entries[:o.most])
		entries = entries[o.most:]
	}
	return append(queue, entries)
}

// errTooMuch says that the store answers, and has not taken so many entries in several tries.
var errTooMuch = errors.New("the store does not take so much at once")

// triesOfABatch is how often a batch is tried as it is, before the store is given less: a failure of a moment passes, and a
// batch that takes longer than the store's time-out, or is longer than it likes, never would.
const triesOfABatch = 3

func (o *partition) applyPatiently(ctx context.Context, to core.Position, entries []core.Entry) (core.Applied, error) {
	pause := leastPause
	for try := 1; ; try++ {
		started := time.Now()
		o.tried = started
		applied, err := o.store.Apply(context.WithoutCancel(ctx), o.at, to, entries)
		if err == nil {
			o.metrics.apply.Observe(time.Since(started).Seconds())
			o.metrics.batch.Observe(float64(len(entries)))
			o.at = to
			o.most = min(o.most+o.most/8+1, o.maxBatch)
			return applied, nil
		}
		if errors.Is(err, core.ErrUnstorable) {
			return applied, err
		}
		if errors.Is(err, core.ErrFenced) {
			return o.wasItUs(ctx, to, entries, err)
		}
		o.metrics.retries.Inc()
		o.log.Warn("the store did not take a batch; it is tried again", "err", err, "partition", o.p.ID, "events", len(entries), "pause", pause.String())
		select {
		case <-ctx.Done():
			return applied, ctx.Err()
		case <-time.After(pause + rand.N(pause)):
		}
		pause = min(2*pause, mostPause)
		// A store that is away takes nothing, however little: only one that answers, and has not moved, is given less.
		if try >= triesOfABatch && len(entries) > 1 {
			if positions, err := o.store.Positions(ctx, []int32{o.p.ID}); err == nil && positions[0] == o.at {
				o.most = max(len(entries)/2, 1)
				o.log.Warn("the store is given less at once", "partition", o.p.ID, "events", o.most)
				return core.Applied{}, errTooMuch
			}
		}
	}
}

// wasItUs finds out whether the position was moved by a try of ours whose answer was lost, or by another writer.
func (o *partition) wasItUs(ctx context.Context, to core.Position, entries []core.Entry, fenced error) (core.Applied, error) {
	positions, err := o.store.Positions(ctx, []int32{o.p.ID})
	if err != nil {
		return core.Applied{}, err
	}
	if positions[0] != to {
		return core.Applied{}, fmt.Errorf("%w: %w", kafka.ErrGiveUp, fenced)
	}
	// The heads are not known, and not needed: the last event of each conversation tells where it stands.
	o.log.Info("a commit whose answer was lost had happened", "partition", o.p.ID, "events", len(entries))
	o.at = to
	return core.Applied{}, nil
}

// parkedOf returns what is kept of a record.
func parkedOf(r *kgo.Record, why error) sqlstore.Parked {
	return sqlstore.Parked{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Reason: why.Error(), Key: r.Key, Record: r.Value, ParkedAt: time.Now().UnixMilli(),
	}
}

// parkedEvent returns what is kept of a record that can be read.
func parkedEvent(r *kgo.Record, e *chat.Event, why error) sqlstore.Parked {
	p := parkedOf(r, why)
	p.Conversation, p.Seq = e.Conversation, e.Seq
	return p
}

// park keeps a record, however often it has to be tried, and says so once it is kept.
func (o *partition) park(ctx context.Context, p sqlstore.Parked) error {
	for pause := leastPause; ; pause = min(2*pause, mostPause) {
		err := o.store.Park(ctx, p)
		if err == nil {
			o.metrics.parked.Inc()
			if p.Kind != 0 {
				o.log.Error("AN EVENT of an unknown kind was parked: a newer version applies it when it starts; see the runbook", "partition", p.Partition, "offset", p.Offset, "err", p.Reason)
			} else {
				o.log.Error("A RECORD was parked: it can never be stored as it is; see `tideline parked`", "partition", p.Partition, "offset", p.Offset, "err", p.Reason)
			}
			return nil
		}
		o.log.Warn("a record could not be parked; it is tried again", "partition", p.Partition, "offset", p.Offset, "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}
