package marks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tideline/internal/crowd"
	"tideline/pkg/chat"
)

// Logs tells how far the logs go.
type Logs interface {
	// Ends gives, for each partition, the offset after the last committed record of im.messages and of im.receipts.
	Ends(ctx context.Context) (messages, receipts map[int32]int64, err error)
	// ReceiptEnds gives those of im.receipts alone.
	ReceiptEnds(ctx context.Context) (map[int32]int64, error)
	// Silent tells which partitions of im.messages have no record from one offset up to another, which does not belong
	// to the range: transactions leave offsets behind that no reader is given.
	Silent(ctx context.Context, from, to map[int32]int64) (map[int32]bool, error)
}

// Bounds of a wait for the writers.
const (
	look = 20 * time.Millisecond
	// A writer that is behind for this long is behind for longer: the store answers meanwhile.
	patience = 5 * time.Second
)

var errBehind = errors.New("the writers are behind the logs")

// barrier waits until the store has what the logs had. Many fills wait together: they share the questions.
type barrier struct {
	store      Store
	logs       Logs
	partitions []int32
	ends       nextCall[ends]
	positions  nextCall[positions]
	silent     nextCall[struct{}]
	receipts   nextCall[map[int32]int64]
	marks      nextCall[map[int32]int64]
	look       time.Duration

	mu    sync.Mutex // guards quiet
	quiet map[int32]span
}

type span struct{ from, to int64 }

type ends struct{ messages, receipts map[int32]int64 }

type positions struct{ messages, receipts map[int32]int64 }

func newBarrier(store Store, logs Logs, partitions int) *barrier {
	b := &barrier{
		store: store, logs: logs, ends: newNextCall[ends](), positions: newNextCall[positions](), silent: newNextCall[struct{}](),
		receipts: newNextCall[map[int32]int64](), marks: newNextCall[map[int32]int64](), quiet: map[int32]span{}, look: look,
	}
	for p := range int32(partitions) {
		b.partitions = append(b.partitions, p)
	}
	return b
}

// waitMarks returns when the store has every read mark that stood in the log when it was called.
func (b *barrier) waitMarks(ctx context.Context, patience time.Duration) error {
	goal, err := b.receipts.do(ctx, b.logs.ReceiptEnds)
	if err != nil {
		return fmt.Errorf("asking where the log of read marks ends: %w", err)
	}
	deadline := time.Now().Add(patience)
	for {
		at, err := b.marks.do(ctx, func(ctx context.Context) (map[int32]int64, error) { return b.store.MarkPositions(ctx, b.partitions) })
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(b.partitions, func(p int32) bool { return at[p] < goal[p] }) {
			return nil
		}
		if time.Now().After(deadline) {
			return errBehind
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(b.look):
		}
	}
}

// wait returns when the store has everything about a subject that stood in the logs when it was called.
func (b *barrier) wait(ctx context.Context, s subject) error {
	n := int32(len(b.partitions))
	messages, receipts := b.partitions, b.partitions
	if s.user != 0 {
		receipts = []int32{chat.Partition(s.user.String(), n)}
	} else {
		messages = []int32{chat.Partition(s.conversation.String(), n)}
	}
	goal, err := b.ends.do(ctx, func(ctx context.Context) (e ends, err error) {
		e.messages, e.receipts, err = b.logs.Ends(ctx)
		return e, err
	})
	if err != nil {
		return fmt.Errorf("asking where the logs end: %w", err)
	}
	deadline := time.Now().Add(patience)
	for try := 0; ; try++ {
		at, err := b.positions.do(ctx, b.read)
		if err != nil {
			return err
		}
		behind := 0
		from, to := map[int32]int64{}, map[int32]int64{}
		for _, p := range messages {
			if at.messages[p] < goal.messages[p] && !b.knownQuiet(p, at.messages[p], goal.messages[p]) {
				from[p], to[p] = at.messages[p], goal.messages[p]
			}
		}
		for _, p := range receipts {
			if at.receipts[p] < goal.receipts[p] {
				behind++
			}
		}
		// A writer that works moves on within a look or two. What stands still may have nothing to be moved by.
		if len(from) > 0 && try >= 2 {
			if err := b.listen(ctx, from, to); err != nil {
				return err
			}
			for p := range from {
				if b.knownQuiet(p, from[p], to[p]) {
					delete(from, p)
				}
			}
		}
		if behind+len(from) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return errBehind
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(b.look):
		}
	}
}

func (b *barrier) read(ctx context.Context) (at positions, err error) {
	list, err := b.store.Positions(ctx, b.partitions)
	if err != nil {
		return at, err
	}
	at.messages = make(map[int32]int64, len(list))
	for _, p := range list {
		at.messages[p.Partition] = p.MessagesNext
	}
	at.receipts, err = b.store.MarkPositions(ctx, b.partitions)
	return at, err
}

func (b *barrier) knownQuiet(p int32, from, to int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	q, known := b.quiet[p]
	return known && q.from <= from && to <= q.to
}

// listen looks whether there is anything between where writers are and where logs end.
func (b *barrier) listen(ctx context.Context, from, to map[int32]int64) error {
	_, err := b.silent.do(ctx, func(ctx context.Context) (struct{}, error) {
		silent, err := b.logs.Silent(ctx, from, to)
		if err != nil {
			return struct{}{}, fmt.Errorf("looking for records that no writer has passed: %w", err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		for p := range silent {
			if silent[p] {
				b.quiet[p] = span{from[p], to[p]}
			}
		}
		return struct{}{}, nil
	})
	return err
}

// nextCall lets many callers share calls: who comes while one is under way shares the next one, so that what it is given
// was found out after it asked.
type nextCall[T any] struct{ *crowd.Batches[T] }

func newNextCall[T any]() nextCall[T] {
	return nextCall[T]{crowd.NewBatches[T](1, 1, "too many wait for the logs")}
}

func (n nextCall[T]) do(ctx context.Context, ask func(context.Context) (T, error)) (got T, err error) {
	shared, err := n.Do(ctx, func(*T) bool { return true }, func(ctx context.Context, shared *T) (err error) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		*shared, err = ask(ctx)
		return err
	})
	if shared != nil {
		got = *shared
	}
	return got, err
}
