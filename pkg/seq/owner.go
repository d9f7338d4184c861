package seq

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Log is the part of the log that belongs to one partition, as its owner sees it: im.inbound, im.messages and im.rejected
// of one number. It has one user.
//
// A Log MUST keep these promises, or say so by an error:
//   - after Fence, no write of a predecessor becomes readable, and none that was readable vanishes;
//   - what WriteAside and WriteEvents have returned without an error is durable, in order, and readable by every later
//     owner;
//   - after an error of a write, its outcome is unknown: the owner writes nothing more and ends. Where the Log cannot
//     fence (the embedded broker), it retries by itself, or the process ends; an unknown outcome never reaches a successor
//     that still has it ahead.
type Log interface {
	// Fence refuses all predecessors from now on and settles what they had open.
	Fence(ctx context.Context) error
	// Tail returns the records of im.messages from an offset to the end, in order. A record that it cannot read is given as
	// Unreadable where it names a conversation and a number outside its value, left out where no owner can have written it, and
	// else an error.
	Tail(ctx context.Context, from int64, each func(TailRecord) error) error
	// Asides gives the records of im.rejected from an offset, or from the first one kept, to the end.
	Asides(ctx context.Context, from int64, each func(AsideRecord) error) error
	// Start begins to read im.inbound at an offset, before the first Poll.
	Start(ctx context.Context, offset int64) error
	// Poll waits for records of im.inbound and gives at most limit, with the offset behind everything that it has read. It
	// may give no records and an offset that has moved: a log has offsets without a record (markers of transactions), and
	// an owner that has passed one needs nothing before it any more.
	Poll(ctx context.Context, limit int) (records []Record, next int64, err error)
	// WriteAside writes rejections to im.rejected and moves to im.inbound, all or nothing where the Log is fenced; a
	// move is written before the note of it. It gives the offset behind the last record in im.rejected.
	WriteAside(ctx context.Context, asides []Outcome) (rejectedNext int64, err error)
	// WriteEvents writes to im.messages, all or nothing where the Log is fenced, and gives the offsets.
	WriteEvents(ctx context.Context, b *Batch) ([]int64, error)
}

// Point names a place in an owner's loop, for tests that end it there.
type Point string

// The points at which an owner may die.
const (
	PointFenced        Point = "fenced"
	PointReplayed      Point = "replayed"
	PointDecided       Point = "decided"
	PointAsideWritten  Point = "aside-written"
	PointEventsWritten Point = "events-written"
	PointTold          Point = "told"
)

// Owner works on one partition: it takes over, and then numbers until its context ends or something fails.
type Owner struct {
	Config Config
	Log    Log
	Store  Store
	Now    func() time.Time
	// Tell is given the outcomes of each batch after they are written. It must not block for long.
	Tell func(outcomes []Outcome)
	// Confirmed gives the newest checkpoint that is known; it is asked before every batch.
	Confirmed func() Checkpoint
	// MaxBatch bounds the records of a batch; MaxUnconfirmed the events that the store may be behind.
	MaxBatch, MaxUnconfirmed int
	// Waiting is told when the partition pauses, because the store is MaxUnconfirmed behind, and when it goes on.
	Waiting func(paused bool)
	// Moved is told the inbound offset behind which everything has its outcome.
	Moved func(inboundNext int64)
	// At is called at each Point; an error ends the owner there. May be nil.
	At func(Point) error
}

// storeWait is how often a paused partition looks whether the store has come on.
const storeWait = 50 * time.Millisecond

// Run takes the partition over and numbers its records. It returns the context's error once that ends, at a moment when
// nothing is half written, or the error that stopped it.
func (o *Owner) Run(ctx context.Context) error {
	m, err := o.takeOver(ctx)
	if err != nil {
		return err
	}
	var rest []Record
	var next int64
	for {
		if err := o.awaitStore(ctx, m); err != nil {
			return err
		}
		records := rest
		if len(records) == 0 {
			if records, next, err = o.Log.Poll(ctx, o.MaxBatch); err != nil {
				return fmt.Errorf("reading inbound records: %w", err)
			}
		}
		if rest, err = o.number(ctx, m, records, next); err != nil {
			return err
		}
	}
}

func (o *Owner) takeOver(ctx context.Context) (*Machine, error) {
	if err := o.Log.Fence(ctx); err != nil {
		return nil, fmt.Errorf("fencing the predecessor off: %w", err)
	}
	if err := o.at(PointFenced); err != nil {
		return nil, err
	}
	cp, err := o.Store.Checkpoint(ctx, o.Config.Partition)
	if err != nil {
		return nil, fmt.Errorf("reading the checkpoint: %w", err)
	}
	m := New(o.Config, cp)
	err = o.Log.Tail(ctx, cp.MessagesNext, func(r TailRecord) error {
		if r.Unreadable {
			return m.ReplayUnreadable(r.Offset, r.Event.Conversation, r.Event.Seq)
		}
		return m.Replay(r.Offset, &r.Event)
	})
	if err != nil {
		return nil, fmt.Errorf("replaying the log's tail from %d: %w", cp.MessagesNext, err)
	}
	err = o.Log.Asides(ctx, m.RejectedNext(), func(r AsideRecord) error { m.ReplayRejection(r.Rejection); return nil })
	if err != nil {
		return nil, fmt.Errorf("replaying rejections from %d: %w", m.RejectedNext(), err)
	}
	if err := o.Log.Start(ctx, m.Resume()); err != nil {
		return nil, fmt.Errorf("beginning to read inbound records: %w", err)
	}
	return m, o.at(PointReplayed)
}

// awaitStore pauses the partition while the store is too far behind: what is unconfirmed must stay in memory.
func (o *Owner) awaitStore(ctx context.Context, m *Machine) error {
	m.Confirm(o.Confirmed())
	if m.Unconfirmed() < o.MaxUnconfirmed {
		return nil
	}
	o.Waiting(true)
	defer o.Waiting(false)
	tick := time.NewTicker(storeWait)
	defer tick.Stop()
	for m.Unconfirmed() >= o.MaxUnconfirmed {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			m.Confirm(o.Confirmed())
		}
	}
	return nil
}

// number gives records their outcomes and returns those that have to wait for the next batch.
func (o *Owner) number(ctx context.Context, m *Machine, records []Record, next int64) ([]Record, error) {
	b := m.Begin(records, next, o.Now().UnixMilli())
	var loaded Loaded
	if need := b.Need(); !need.Empty() {
		var err error
		if loaded, err = o.Store.Load(ctx, need); err != nil {
			return nil, fmt.Errorf("loading what a batch misses: %w", err)
		}
	}
	if err := b.Decide(loaded); err != nil {
		return nil, o.orReplaced(ctx, m, err)
	}
	if err := o.at(PointDecided); err != nil {
		return nil, err
	}
	// From here on nothing is left half done because somebody wants us to stop: a write that was begun is finished.
	ctx = context.WithoutCancel(ctx)
	rejectedNext := m.RejectedNext()
	if asides := b.Asides(); len(asides) > 0 {
		var err error
		if rejectedNext, err = o.Log.WriteAside(ctx, asides); err != nil {
			return nil, fmt.Errorf("writing rejections and moves: %w", err)
		}
	}
	if err := o.at(PointAsideWritten); err != nil {
		return nil, err
	}
	offsets, err := o.Log.WriteEvents(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("writing events: %w", err)
	}
	b.Settle(rejectedNext, offsets)
	if err := o.at(PointEventsWritten); err != nil {
		return nil, err
	}
	o.Tell(b.Outcomes)
	o.Moved(m.Resume())
	return b.Rest, o.at(PointTold)
}

// orReplaced looks into a contradiction between the store and what this owner knows. There is none where a successor has
// numbered on, and the store has that already: this owner would be refused with its next write.
func (o *Owner) orReplaced(ctx context.Context, m *Machine, err error) error {
	if !errors.Is(err, ErrInconsistent) {
		return err
	}
	cp, failed := o.Store.Checkpoint(ctx, o.Config.Partition)
	if failed == nil && cp.InboundNext > m.Resume() {
		return fmt.Errorf("%w: the store has what became of inbound %d, and this owner is at %d", ErrReplaced, cp.InboundNext-1, m.Resume())
	}
	return err
}

func (o *Owner) at(p Point) error {
	if o.At == nil {
		return nil
	}
	return o.At(p)
}
