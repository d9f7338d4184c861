package importer

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestGate_ClosesAboveTheBoundAndOpensAtHalfOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		var waiting atomic.Int64
		g := &gate{
			bound: 100, patience: time.Minute, waiting: func(b behind) { waiting.Store(b.n) },
			behind: func() behind { return behind{"the store", n.Load()} },
		}
		n.Store(100)
		if err := g.pass(t.Context()); err != nil || waiting.Load() != 0 {
			t.Fatal("at the bound it does not let through")
		}
		n.Store(101)
		through := make(chan error, 1)
		go func() { through <- g.pass(t.Context()) }()
		for _, still := range []int64{101, 100, 51} {
			n.Store(still)
			time.Sleep(time.Second)
			synctest.Wait()
			if len(through) > 0 || waiting.Load() != still {
				t.Fatalf("with %d left it is open, or tells of %d", still, waiting.Load())
			}
		}
		n.Store(50)
		time.Sleep(time.Second)
		if err := <-through; err != nil || waiting.Load() != 0 {
			t.Errorf("%v, and it tells of %d", err, waiting.Load())
		}
	})
}

func TestGate_GivesUpWhenNothingMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		left := int64(1000)
		g := &gate{bound: 100, patience: time.Minute, waiting: func(behind) {}, behind: func() behind {
			if time.Since(began) < time.Hour { // slow, and not dead
				left = 1000 - int64(time.Since(began)/(50*time.Second))
			}
			return behind{"the numbering of this import", left}
		}}
		err := g.pass(t.Context())
		if err == nil || !strings.Contains(err.Error(), "the numbering of this import is") || !strings.Contains(err.Error(), "ingest") {
			t.Errorf("it says %v", err)
		}
		if took := time.Since(began); took < time.Hour || took > time.Hour+2*time.Minute {
			t.Errorf("it gave up after %s", took)
		}
	})
}

func TestGate_LetsGoWhenTheImportIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("the operator is tired")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		g := &gate{bound: 1, patience: time.Minute, waiting: func(behind) {}, behind: func() behind { return behind{"all", 9} }}
		if err := g.pass(ctx); !errors.Is(err, why) {
			t.Errorf("it says %v", err)
		}
	})
}

// lines collects what a progress writes.
type lines struct {
	mu  sync.Mutex // guards all
	all []string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(b))
	return len(b), nil
}

func TestProgress_TellsRateAndTimeLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &lines{}
		p := &progress{out: out, now: time.Now}
		done, ended := make(chan struct{}), make(chan struct{})
		go func() { defer close(ended); p.run(done) }()
		time.Sleep(10*time.Second + time.Millisecond)
		if len(out.all) != 0 {
			t.Errorf("it tells %q before anything has begun", out.all)
		}
		p.begin("lines", 1000, 5000) // 1,000 were done by an earlier run, and say nothing about the speed of this one
		time.Sleep(10 * time.Second)
		p.set(3000)
		p.waits(behind{"the store", 7})
		if got, want := p.line(), "lines: 3000 of 5000, 200/s, 10s left; waiting: the store is 7 behind"; got != want {
			t.Errorf("it tells %q, not %q", got, want)
		}
		p.waits(behind{})
		time.Sleep(10 * time.Second)
		close(done)
		<-ended
		if want := "lines: 1000 of 5000\n"; len(out.all) != 2 || out.all[0] != want || !strings.HasPrefix(out.all[1], "lines: 3000 of 5000, 1") {
			t.Errorf("it told %q", out.all)
		}
		if p.out = io.Discard; (&progress{terminal: true}).every() != time.Second {
			t.Error("on a terminal it is not every second")
		}
	})
}
