package importer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"tideline/internal/kafka"
)

// behind says who is how many records behind.
type behind struct {
	what string
	n    int64
}

// lagLook is how often groups are asked how far they are; they say it once a second.
const lagLook = time.Second

// groupLag watches the numbering and the storing of the partitions that the import is not in, where live chat goes on.
// The import's own partition is followed record by record instead.
type groupLag struct {
	admin *kadm.Client
	skip  int32
	log   *slog.Logger
	last  atomic.Pointer[behind]
}

// run looks until the context ends.
func (g *groupLag) run(ctx context.Context) {
	tick := time.NewTicker(lagLook)
	defer tick.Stop()
	for {
		look, cancel := context.WithTimeout(ctx, 10*time.Second)
		worst, err := g.look(look)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			g.log.Warn("how far live chat is behind could not be seen; what was seen last counts on", "err", err)
		default:
			g.last.Store(&worst)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (g *groupLag) worst() behind {
	if b := g.last.Load(); b != nil {
		return *b
	}
	return behind{}
}

func (g *groupLag) look(ctx context.Context) (behind, error) {
	var worst behind
	ends, err := g.admin.ListEndOffsets(ctx, kafka.TopicInbound, kafka.TopicMessages)
	if err != nil {
		return worst, fmt.Errorf("asking for the ends of the logs: %w", err)
	}
	for group, topic := range map[string]string{kafka.GroupIngest: kafka.TopicInbound, kafka.GroupTimeline: kafka.TopicMessages} {
		at, err := g.admin.FetchOffsets(ctx, group)
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			return worst, fmt.Errorf("asking how far %s is: %w", group, err)
		}
		for partition, end := range ends[topic] {
			o, known := at.Lookup(topic, partition)
			// Who has said nothing yet is not known to lag: a group that does not run at all shows in our own partition.
			if partition == g.skip || end.Err != nil || !known || o.Err != nil || o.At < 0 {
				continue
			}
			if n := end.Offset - o.At; n > worst.n {
				worst = behind{fmt.Sprintf("%s on %s/%d", group, topic, partition), n}
			}
		}
	}
	return worst, nil
}

// gate lets the import through while nobody is too far behind, and once it is closed, only when half of that is left.
type gate struct {
	bound    int64
	patience time.Duration
	behind   func() behind
	// waiting is told who is waited for, with n = 0 when the gate opens again.
	waiting func(behind)
}

// gateLook is how often a closed gate looks again.
const gateLook = 50 * time.Millisecond

// pass waits until the gate is open. It gives up where nothing has moved for as long as the gate's patience: then who is
// waited for does not work at all, and a person has to look.
func (g *gate) pass(ctx context.Context) error {
	b := g.behind()
	if b.n <= g.bound {
		return nil
	}
	defer g.waiting(behind{})
	tick := time.NewTicker(gateLook)
	defer tick.Stop()
	moved := time.Now()
	for b.n > g.bound/2 {
		g.waiting(b)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		before := b
		if b = g.behind(); b != before {
			moved = time.Now()
		}
		if time.Since(moved) >= g.patience {
			return fmt.Errorf("%s is %d behind, and nothing has moved for %s; are ingest and timeline running? The same command goes on from here", b.what, b.n, g.patience)
		}
	}
	return nil
}
