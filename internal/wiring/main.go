package wiring

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"tideline/internal/config"
	"tideline/internal/ops"
)

// Main is the frame of a process: it reads the settings, connects, builds and runs. It returns the exit code.
func Main(name string, settings *Settings, sections []config.Section, build func(ctx context.Context, p *Parts) ([]ops.Named, error)) int {
	loaded, err := config.Load(name, os.Args[1:], os.Environ(), os.Stderr, sections...)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s: the settings are not right:\n%v\n", name, err)
		return 2
	case len(loaded.Args) > 0:
		fmt.Fprintf(os.Stderr, "%s takes no arguments, and %q was given\n", name, loaded.Args)
		return 2
	case loaded.PrintConfig:
		if err := loaded.Print(os.Stdout); err != nil {
			return 1
		}
		return 0
	}
	log := ops.NewLogger(os.Stderr, settings.Ops, name)
	if err := run(build, func(ctx context.Context) (*Parts, error) { return NewParts(ctx, settings, name, log) }); err != nil {
		log.Error("the process ends", "err", err)
		return 1
	}
	return 0
}

// startTimeout bounds the checks before a process begins.
const startTimeout = 30 * time.Second

func run(build func(ctx context.Context, p *Parts) ([]ops.Named, error), connect func(ctx context.Context) (*Parts, error)) error {
	starting, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	p, err := connect(starting)
	if p != nil {
		defer p.Close()
	}
	if err != nil {
		return err
	}
	services, err := build(starting, p)
	if err != nil {
		return err
	}
	return p.Run(context.Background(), services...)
}
