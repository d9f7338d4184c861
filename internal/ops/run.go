package ops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// Service is anything that runs until its context ends. It returns nil for an orderly end, and waits for whatever it
// started.
type Service interface {
	Run(ctx context.Context) error
}

// ServiceFunc makes a Service of a function.
type ServiceFunc func(ctx context.Context) error

// Run calls the function.
func (f ServiceFunc) Run(ctx context.Context) error { return f(ctx) }

// Named is a service with the name under which it is logged.
type Named struct {
	Name    string
	Service Service
}

// Group runs services together. They start in the order given and stop in the order of the data, which is the same:
// doors first, then what works for them, then what all of them rest on. Each has ended before the next is told to.
type Group struct {
	Log      *slog.Logger
	Services []Named
	// Drain bounds how long the whole stop may take; what has not ended then is abandoned with an error.
	Drain time.Duration
	// Draining is called first when the stop begins: readiness goes false before any door closes.
	Draining func()
	// Linger is how long everything goes on after that, until whoever asks for readiness has heard.
	Linger time.Duration
}

// Run runs the services until the context ends or one of them does, and then stops them all. It returns the first error.
func (g *Group) Run(ctx context.Context) error {
	type running struct {
		name   string
		cancel context.CancelFunc
		done   chan struct{}
	}
	failed := make(chan error, len(g.Services))
	list := make([]running, len(g.Services))
	var wg sync.WaitGroup
	base := context.WithoutCancel(ctx)
	for i, s := range g.Services {
		sctx, cancel := context.WithCancel(base)
		list[i] = running{s.Name, cancel, make(chan struct{})}
		wg.Go(func() {
			defer close(list[i].done)
			err := s.Service.Run(sctx)
			if sctx.Err() == nil || (err != nil && !errors.Is(err, context.Canceled)) {
				failed <- fmt.Errorf("%s ended: %w", s.Name, orEnded(err))
			}
		})
	}
	var first error
	select {
	case <-ctx.Done():
	case first = <-failed:
		g.Log.Error("a service ended by itself; all of them stop", "err", first)
	}
	if g.Draining != nil {
		g.Draining()
	}
	deadline := time.NewTimer(g.Drain)
	defer deadline.Stop()
	if g.Linger > 0 && first == nil {
		linger := time.NewTimer(g.Linger)
		defer linger.Stop()
		select {
		case <-linger.C:
		case first = <-failed:
			g.Log.Error("a service ended by itself during the stop", "err", first)
		}
	}
	for _, r := range list {
		r.cancel()
		select {
		case <-r.done:
		case <-deadline.C:
			for _, rest := range list {
				rest.cancel()
			}
			return errors.Join(first, fmt.Errorf("stopping %s: not done within %s", r.name, g.Drain))
		}
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		if first == nil {
			first = err
		}
	}
	return first
}

var errEnded = errors.New("it returned although nobody had asked it to")

func orEnded(err error) error {
	if err == nil {
		return errEnded
	}
	return err
}

// echo is how long a signal may come again and be the same one: make, a shell and a terminal all pass it on.
const echo = time.Second

// Signals gives a context that ends with the first SIGTERM or SIGINT. A second one, later than an echo, ends the process
// at once.
func Signals(ctx context.Context, log *slog.Logger) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	got := make(chan os.Signal, 2)
	signal.Notify(got, syscall.SIGTERM, os.Interrupt)
	go func() {
		select {
		case s := <-got:
			log.Info("stopping", "signal", s.String())
			cancel()
		case <-ctx.Done():
			return
		}
		for first := time.Now(); ; {
			if <-got; time.Since(first) > echo {
				break
			}
		}
		log.Error("a second signal: ending at once")
		os.Exit(1)
	}()
	return ctx, func() { signal.Stop(got); cancel() }
}
