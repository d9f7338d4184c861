package seqtest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"tideline/pkg/chat"
	"tideline/pkg/seq"
)

// RunTogether makes a history with several owners alive at once and checks it. The World must fence; the time must be made by
// testing/synctest. Each owner begins while others work, sleep or think that they are the owner; each of its steps takes a
// while, so that it may wake up in the middle of anything to find that it is replaced; some die at a random point. The writer
// of the timeline follows at its own pace, and gives checkpoints of its own choice.
func RunTogether(t *testing.T, w World, p Plan) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour) // of made time
	defer cancel()
	rng := rand.New(rand.NewPCG(p.Seed, 2))
	store := NewStore(people...)
	commands := makeCommands(rng, p)
	hasher, err := chat.NewHasher([]byte("a key for the tests"))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Append(ctx, commands); err != nil {
		t.Fatal(err)
	}
	var ids sync.Mutex // guards lastID
	var lastID int64
	nextID := func() (int64, error) { ids.Lock(); defer ids.Unlock(); lastID++; return lastID, nil }

	owner := func(ctx context.Context, seed uint64, last bool) error {
		rng := rand.New(rand.NewPCG(p.Seed, seed)) // of this owner alone, so that its steps do not depend on those of others
		points := []seq.Point{seq.PointFenced, seq.PointReplayed, seq.PointDecided, seq.PointAsideWritten, seq.PointEventsWritten, seq.PointTold}
		dieAt, after := points[rng.IntN(len(points))], rng.IntN(20)
		living, stop := context.WithCancel(ctx)
		defer stop()
		o := seq.Owner{
			Config: seq.Config{Partition: p.Partition, Hasher: hasher, WindowIDs: 1 + rng.IntN(40), CacheEntries: 1 + rng.IntN(20), MaxMembers: 4, NextID: nextID},
			Log:    &sleepy{w.Own(), rng}, Store: store, Now: func() time.Time { return time.UnixMilli(now) },
			Tell:      func([]seq.Outcome) {},
			Confirmed: func() seq.Checkpoint { cp, _ := store.Checkpoint(ctx, p.Partition); return cp },
			MaxBatch:  1 + rng.IntN(12), MaxUnconfirmed: 8 + rng.IntN(60), Waiting: func(bool) {},
			Moved: func(next int64) {
				if next >= int64(len(commands)) {
					stop()
				}
			},
			At: func(at seq.Point) error {
				doze(rng)
				if !last && at == dieAt {
					if after--; after < 0 {
						return errDied
					}
				}
				return nil
			},
		}
		return o.Run(living)
	}

	// The writer is another process, which stops when everything has its outcome; then nobody has anything to wait for.
	writing, stopWriting := context.WithCancel(ctx)
	var writer sync.WaitGroup
	writer.Go(func() {
		rng := rand.New(rand.NewPCG(p.Seed, 3))
		for writing.Err() == nil {
			time.Sleep(time.Duration(1 + rng.Int64N(int64(200*time.Millisecond))))
			if log, err := w.Messages(ctx); err == nil && len(log) > 0 {
				store.CatchUp(log, log[rng.IntN(len(log))].Offset+1)
				if rng.IntN(4) == 0 {
					store.CatchUp(log, log[len(log)-1].Offset+1)
				}
				if log[len(log)-1].Event.InboundOffset == int64(len(commands))-1 {
					cancel()
					return
				}
			}
		}
	})
	defer writer.Wait()
	defer stopWriting()

	ends := make(chan error, p.Lives)
	var owners sync.WaitGroup
	for i := range p.Lives {
		time.Sleep(time.Duration(rng.Int64N(int64(150 * time.Millisecond))))
		owners.Go(func() { ends <- owner(ctx, 100+uint64(i), false) })
	}
	// A bubble ends only with all who live in it, so that a fault is told when they have.
	var fault error
	for tries := uint64(0); fault == nil && !settled(context.WithoutCancel(ctx), t, w, int64(len(commands))); tries++ {
		if tries > 100 || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			fault = errors.New("came to no end")
		} else if err := owner(ctx, 1000+tries, true); !isEnd(err) && !isReplaced(err) {
			fault = err
		}
	}
	// Those who still believe that they own it come to know better, or to its end.
	cancel()
	owners.Wait()
	close(ends)
	for err := range ends {
		if !isEnd(err) && !isReplaced(err) {
			t.Errorf("an owner ended with %v", err)
		}
	}
	if fault != nil {
		t.Fatalf("the last owner ended with %v", fault)
	}
	check(context.WithoutCancel(ctx), t, w, commands)
}

// isEnd tells whether an owner died, or ended because it was asked to.
func isEnd(err error) bool {
	return errors.Is(err, errDied) || errors.Is(err, ErrKilled) || errors.Is(err, context.Canceled)
}

// isReplaced tells whether an owner has found out that it is none any more.
func isReplaced(err error) bool { return errors.Is(err, ErrFenced) || errors.Is(err, seq.ErrReplaced) }

// doze lets others go first: mostly for a moment, sometimes for so long that an owner is long replaced.
func doze(rng *rand.Rand) {
	d := rng.Int64N(int64(5 * time.Millisecond))
	switch rng.IntN(40) {
	case 0:
		d = rng.Int64N(int64(2 * time.Second))
	case 1, 2, 3:
		d = rng.Int64N(int64(100 * time.Millisecond))
	}
	time.Sleep(time.Duration(d + 1))
}

// sleepy is a Log each of whose calls takes a while, before and after its effect.
type sleepy struct {
	log seq.Log
	rng *rand.Rand
}

func (s *sleepy) Fence(ctx context.Context) error {
	doze(s.rng)
	defer doze(s.rng)
	return s.log.Fence(ctx)
}

func (s *sleepy) Tail(ctx context.Context, from int64, each func(seq.TailRecord) error) error {
	doze(s.rng)
	defer doze(s.rng)
	return s.log.Tail(ctx, from, each)
}

func (s *sleepy) Asides(ctx context.Context, from int64, each func(seq.AsideRecord) error) error {
	doze(s.rng)
	defer doze(s.rng)
	return s.log.Asides(ctx, from, each)
}

func (s *sleepy) Start(ctx context.Context, offset int64) error {
	doze(s.rng)
	return s.log.Start(ctx, offset)
}

func (s *sleepy) Poll(ctx context.Context, limit int) ([]seq.Record, int64, error) {
	doze(s.rng)
	defer doze(s.rng)
	return s.log.Poll(ctx, limit)
}

func (s *sleepy) WriteAside(ctx context.Context, asides []seq.Outcome) (int64, error) {
	doze(s.rng)
	defer doze(s.rng)
	return s.log.WriteAside(ctx, asides)
}

func (s *sleepy) WriteEvents(ctx context.Context, b *seq.Batch) ([]int64, error) {
	doze(s.rng)
	defer doze(s.rng)
	return s.log.WriteEvents(ctx, b)
}
