// Package seqtest holds every seq.Log to its promises: it numbers random commands through owners that die at random
// points, and then checks what is in the log against what a naive reader of the promises expects.
package seqtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"tideline/pkg/chat"
	"tideline/pkg/seq"
)

// World is one partition of a log, as seen from outside and by its owners.
type World interface {
	// Append produces commands to the partition's im.inbound, in order.
	Append(ctx context.Context, commands []chat.Command) error
	// Own gives the view of a new owner; the former one is dead, or thinks that it is not.
	Own() seq.Log
	// Messages and Rejected give everything committed, in order.
	Messages(ctx context.Context) ([]seq.TailRecord, error)
	Rejected(ctx context.Context) ([]seq.AsideRecord, error)
}

// ErrKilled is what a memory log returns from a write during which its owner was killed.
var ErrKilled = errors.New("the owner was killed during a write")

// ErrFenced is what a memory log returns from a write of an owner that was replaced.
var ErrFenced = errors.New("fenced")

// Memory is a World in memory. Its writes are torn at random: plain, a prefix of the records stays; fenced, all or none.
type Memory struct {
	Partition int32
	Fenced    bool
	// Tear is the chance that a write is torn by a kill.
	Tear float64

	mu       sync.Mutex // guards what follows
	rng      *rand.Rand
	inbound  []chat.Command
	messages []chat.Event
	rejected []chat.Rejection
	owner    int
	more     chan struct{}
}

// NewMemory makes an empty partition.
func NewMemory(seed uint64, fenced bool, tear float64) *Memory {
	return &Memory{Fenced: fenced, Tear: tear, rng: rand.New(rand.NewPCG(seed, 7)), more: make(chan struct{})}
}

// Append implements World.
func (m *Memory) Append(_ context.Context, commands []chat.Command) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inbound = append(m.inbound, commands...)
	close(m.more)
	m.more = make(chan struct{})
	return nil
}

// Own implements World.
func (m *Memory) Own() seq.Log { return &memoryLog{m: m} }

// Messages implements World.
func (m *Memory) Messages(context.Context) ([]seq.TailRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []seq.TailRecord
	for i, e := range m.messages {
		out = append(out, seq.TailRecord{Offset: int64(i), Event: e})
	}
	return out, nil
}

// Rejected implements World.
func (m *Memory) Rejected(context.Context) ([]seq.AsideRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []seq.AsideRecord
	for i, r := range m.rejected {
		out = append(out, seq.AsideRecord{Offset: int64(i), Rejection: r})
	}
	return out, nil
}

type memoryLog struct {
	m    *Memory
	me   int
	next int
}

func (l *memoryLog) Fence(context.Context) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.m.owner++
	l.me = l.m.owner
	return nil
}

func (l *memoryLog) Tail(ctx context.Context, from int64, each func(seq.TailRecord) error) error {
	all, err := l.m.Messages(ctx)
	if err != nil {
		return err
	}
	for _, r := range all[from:] {
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}

func (l *memoryLog) Asides(ctx context.Context, from int64, each func(seq.AsideRecord) error) error {
	all, err := l.m.Rejected(ctx)
	if err != nil {
		return err
	}
	for _, r := range all[from:] {
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}

func (l *memoryLog) Start(_ context.Context, offset int64) error { l.next = int(offset); return nil }

func (l *memoryLog) Poll(ctx context.Context, limit int) ([]seq.Record, int64, error) {
	for {
		l.m.mu.Lock()
		n := min(limit, len(l.m.inbound)-l.next)
		if n > 0 {
			n = 1 + l.m.rng.IntN(n)
			var out []seq.Record
			for i := range n {
				c := clone(&l.m.inbound[l.next+i])
				out = append(out, seq.Record{Offset: int64(l.next + i), Command: c, Home: l.m.Partition, Value: []byte("as it came")})
			}
			l.next += n
			l.m.mu.Unlock()
			return out, int64(l.next), nil
		}
		more := l.m.more
		l.m.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

// clone copies what validation changes in place: several owners may be given one record.
func clone(c *chat.Command) *chat.Command {
	d := *c
	d.Message, d.Create, d.Join, d.Leave, d.Edit = copied(c.Message), copied(c.Create), copied(c.Join), copied(c.Leave), copied(c.Edit)
	if d.Message != nil {
		d.Message.Mentions = copied(d.Message.Mentions)
		d.Message.Recipients = slices.Clone(d.Message.Recipients) // the sender is taken out of it
	}
	return &d
}

func copied[T any](v *T) *T {
	if v == nil {
		return nil
	}
	c := *v
	return &c
}

// write appends some of n records and tells how many, with the error that the writer sees.
func (l *memoryLog) write(n int, appendOne func(i int)) error {
	m := l.m
	if m.Fenced && l.me != m.owner {
		return fmt.Errorf("%w: owner %d writes, and %d is the owner", ErrFenced, l.me, m.owner)
	}
	stay, torn := n, m.rng.Float64() < m.Tear
	if torn {
		if stay = m.rng.IntN(n + 1); m.Fenced && stay < n {
			stay = 0
		}
	}
	for i := range stay {
		appendOne(i)
	}
	if torn {
		return ErrKilled
	}
	return nil
}

func (l *memoryLog) WriteAside(_ context.Context, asides []seq.Outcome) (int64, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	err := l.write(len(asides), func(i int) { l.m.rejected = append(l.m.rejected, *asides[i].Rejection) })
	return int64(len(l.m.rejected)), err
}

func (l *memoryLog) WriteEvents(_ context.Context, b *seq.Batch) ([]int64, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	var offsets []int64
	err := l.write(len(b.Events()), func(i int) {
		offsets = append(offsets, int64(len(l.m.messages)))
		l.m.messages = append(l.m.messages, *b.Events()[i])
	})
	return offsets, err
}
