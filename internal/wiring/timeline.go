package wiring

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tideline/internal/archive"
	"tideline/internal/ops"
	"tideline/internal/timeline"
)

// The parts of cmd/timeline. Each is a consumer group of its own, and can run alone.
const (
	partWriter     = "writer"
	partMarks      = "marks"
	partRejections = "rejections"
	partArchive    = "archive"
)

var timelineParts = []string{partWriter, partMarks, partRejections, partArchive}

// TimelineConfig says which parts run in a process. Keys begin with timeline.
type TimelineConfig struct {
	Run []string `conf:"run" help:"parts that run in this process: writer, marks, rejections, archive"`
}

// Validate lists every fault.
func (c *TimelineConfig) Validate() error {
	var faults []error
	if len(c.Run) == 0 {
		faults = append(faults, errors.New("timeline.run is empty"))
	}
	for _, part := range c.Run {
		if !slices.Contains(timelineParts, part) {
			faults = append(faults, fmt.Errorf("timeline.run has %q; %s are known", part, strings.Join(timelineParts, ", ")))
		}
	}
	return errors.Join(faults...)
}

// Timeline builds the services of cmd/timeline.
func (p *Parts) Timeline() ([]ops.Named, error) {
	s := p.Settings
	producer, err := p.producer("timeline")
	if err != nil {
		return nil, err
	}
	metrics := timeline.NewMetrics(p.Registry)
	id := "timeline-" + p.ID
	var services []ops.Named
	for _, part := range s.Timeline.Run {
		switch part {
		case partWriter:
			services = append(services, ops.Named{Name: "timeline writer", Service: timeline.NewWriter(s.Kafka, p.Store, p.Marks, producer, p.Tracer, p.Log, metrics, id)})
		case partMarks:
			services = append(services, ops.Named{Name: "mark writer", Service: timeline.NewMarkWriter(s.Kafka, p.Store, p.Marks, p.Log, metrics, id)})
		case partRejections:
			services = append(services, ops.Named{Name: "rejection recorder", Service: timeline.NewRejectionRecorder(s.Kafka, p.Store, p.Log, metrics, id)})
		case partArchive:
			if s.Archive.Addr.Reveal() == "" {
				p.Log.Info("nothing is archived: archive.addr is empty. A ClickHouse that comes later is filled with `tideline archive fill`")
				continue
			}
			archiver, err := p.Archiver()
			if err != nil {
				return nil, err
			}
			services = append(services, ops.Named{Name: "archiver", Service: archiver})
		}
	}
	return services, nil
}

// Archiver builds the archiver. It does not connect: a ClickHouse that is away is waited for.
func (p *Parts) Archiver() (*archive.Archiver, error) {
	s := p.Settings
	engine, err := archive.Open(s.Archive.Addr.Reveal())
	if err != nil {
		return nil, err
	}
	p.close = append(p.close, func() { _ = engine.Close() })
	archiver := archive.New(s.Archive, s.Kafka, p.Store, engine, p.Log, archive.NewMetrics(p.Registry), "archive-"+p.ID)
	archiver.Compare(p.Store, engine)
	p.Ops.Note("archive", archiver.Health)
	return archiver, nil
}

// LateArchiver builds an archiver for an engine that is not there yet: it waits for it, brings its schema to what this
// binary knows, fills it where it comes late or has lost rows, and archives from then on.
func (p *Parts) LateArchiver() (ops.Service, error) {
	archiver, err := p.Archiver()
	if err != nil {
		return nil, err
	}
	return ops.ServiceFunc(func(ctx context.Context) error {
		for pause := 250 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
			once, cancel := context.WithTimeout(ctx, time.Minute)
			err := archive.Migrate(once, p.Settings.Archive.Addr.Reveal())
			cancel()
			if err == nil {
				p.Log.Info("the archive is ready")
				return archiver.Run(ctx)
			}
			p.Log.Debug("the archive is waited for", "err", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
		}
	}), nil
}
