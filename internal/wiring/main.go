package wiring

import (
	"context"
	"os"
	"time"

	"tideline/internal/config"
	"tideline/internal/ops"
)

// Main is the frame of a process: it reads the settings, connects, builds and runs. It returns the exit code.
func Main(name string, settings *Settings, sections []config.Section, build func(ctx context.Context, p *Parts) ([]ops.Named, error)) int {
	if code, goOn := config.Command(name, os.Args[1:], os.Environ(), os.Stdout, os.Stderr, sections...); !goOn {
		return code
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
