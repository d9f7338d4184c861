// Package crowd lets many who ask for one thing each share what asks for many: a crowd that comes back together costs few
// statements, and whoever is alone notices nothing.
package crowd

import (
	"context"
	"errors"
	"sync"
	"time"

	"tideline/pkg/chat"
)

// Batches does work for callers. It is safe for concurrent use.
//
// Nobody waits for company: while fewer works are under way than there may be, a caller does his own. Those who come when there
// are as many gather in batches, and when a work ends, one of the first batch's callers does the next, for all of it. So what a
// caller gets was always done after he came, as without Batches, and no goroutine is left to anybody. Each caller goes when his
// context ends, also from the midst of a work for others: one of them begins it again.
type Batches[B any] struct {
	atOnce, mostWaiting int
	refusal             string

	mu      sync.Mutex // guards what follows
	running int
	waiting []*batch[B] // in order
}

var errDropped = errors.New("whoever did this for several did not end it")

// batch is what several wait for.
type batch[B any] struct {
	what B
	wait int           // how many wait; guarded by Batches
	turn chan struct{} // has one token from when it may begin until somebody takes it
	done chan struct{}
	err  error
}

// NewBatches makes Batches of which so many are worked on at once, and so many wait at most. Whoever would be behind them is refused
// with these words: where so many wait, works take seconds, and the next is better done for who still wants it.
func NewBatches[B any](atOnce, mostWaiting int, refusal string) *Batches[B] {
	return &Batches[B]{atOnce: atOnce, mostWaiting: mostWaiting, refusal: refusal}
}

// Do gives the batch that a caller belongs to, when it has been worked on. Join puts what he wants into a batch, which is empty
// or has what others want, and tells whether there was room; it is not called by two at once for one batch. Work leaves in the
// batch what it gives, and must end with its context, which is that of one of the callers. The error is that of the work, or the
// caller's own: then there is no batch.
func (q *Batches[B]) Do(ctx context.Context, join func(b *B) bool, work func(ctx context.Context, b *B) error) (*B, error) {
	q.mu.Lock()
	if q.running < q.atOnce {
		q.running++
		q.mu.Unlock()
		defer q.next() // also if the work panics
		mine := new(B)
		join(mine)
		return mine, work(ctx, mine)
	}
	b := q.gathering(join)
	if b == nil {
		q.mu.Unlock()
		return nil, chat.Refuse(chat.CodeOverloaded, "%s", q.refusal).After(time.Second)
	}
	b.wait++
	q.mu.Unlock()
	select {
	case <-b.done:
		return &b.what, b.err
	case <-b.turn:
		if ctx.Err() != nil { // both at once: whoever stays has it
			b.turn <- struct{}{}
			q.leave(b)
			return nil, ctx.Err()
		}
		if q.lead(ctx, b, work) {
			return &b.what, b.err
		}
		return nil, ctx.Err()
	case <-ctx.Done():
		q.leave(b)
		return nil, ctx.Err()
	}
}

// gathering gives the batch that a caller goes with, or nil where too many wait. q.mu is held.
func (q *Batches[B]) gathering(join func(b *B) bool) *batch[B] {
	for _, b := range q.waiting {
		if join(&b.what) {
			return b
		}
	}
	if len(q.waiting) >= q.mostWaiting {
		return nil
	}
	b := &batch[B]{turn: make(chan struct{}, 1), done: make(chan struct{})}
	join(&b.what)
	q.waiting = append(q.waiting, b)
	return b
}

// lead works on a batch for all who wait for it. Where the caller's own context ends the work, it is not done, and another's turn.
func (q *Batches[B]) lead(ctx context.Context, b *batch[B], work func(ctx context.Context, b *B) error) (done bool) {
	b.err = errDropped // for the others, if the work panics
	defer func() {
		if handed := !done && ctx.Err() != nil && q.handOn(b); !handed {
			close(b.done)
			q.next()
		}
	}()
	err := work(ctx, &b.what)
	if err != nil && ctx.Err() != nil {
		return false
	}
	b.err = err
	return true
}

// handOn gives the turn back for somebody who stays, if there is one.
func (q *Batches[B]) handOn(b *batch[B]) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	b.wait--
	if b.wait > 0 {
		b.turn <- struct{}{}
	}
	return b.wait > 0
}

// leave takes a caller out. If it was the last one's turn, it is the next batch's.
func (q *Batches[B]) leave(b *batch[B]) {
	q.mu.Lock()
	b.wait--
	mine := false
	if b.wait == 0 {
		select {
		case <-b.turn:
			mine = true
		default:
		}
	}
	q.mu.Unlock()
	if mine {
		q.next()
	}
}

// next lets the place of a work that has ended go to those who wait.
func (q *Batches[B]) next() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) > 0 {
		b := q.waiting[0]
		q.waiting[0] = nil
		q.waiting = q.waiting[1:]
		if b.wait > 0 { // what nobody waits for any more is not done
			b.turn <- struct{}{}
			return
		}
	}
	q.running--
}
