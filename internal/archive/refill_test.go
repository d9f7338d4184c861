package archive

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/pkg/timeline"
)

// counts is a store and an engine that know how much they have, and nothing else.
type counts struct {
	FillStore
	FillEngine
	events, stored, rows int64
	marks                []sqlstore.StoredMark
}

func (c *counts) PartitionEvents(context.Context, string, int32) (int64, error) { return c.events, nil }

func (c *counts) StoredMarks(context.Context, timeline.MemberKey, int) ([]sqlstore.StoredMark, error) {
	return c.marks, nil
}

func (c *counts) Positions(context.Context, []int32) ([]timeline.Position, error) {
	return []timeline.Position{{MessagesNext: c.stored}}, nil
}

func (c *counts) Held(context.Context, string, int32) (rows, last int64, err error) {
	return c.rows, c.rows - 1, nil
}

func (c *counts) ForgetMarks(context.Context, int32) error { return nil }

func TestCompare_SaysWhatIsMissingAndNoMore(t *testing.T) {
	for name, c := range map[string]struct {
		counts
		archived, missing int64
	}{
		"all is there":                            {counts{events: 100, stored: 110, rows: 100}, 110, 0},
		"the archive is behind":                   {counts{events: 100, stored: 110, rows: 40}, 50, 0},
		"the archive is ahead of the writer":      {counts{events: 90, stored: 100, rows: 100}, 110, 0},
		"nothing is there":                        {counts{events: 100, stored: 110}, 110, 100},
		"nothing is there, and the lag is long":   {counts{events: 100, stored: 1000}, 50, 100},
		"an older backup was restored":            {counts{events: 100, stored: 110, rows: 60}, 110, 40},
		"one row was removed":                     {counts{events: 100, stored: 110, rows: 99}, 110, 1},
		"nothing was said yet":                    {counts{stored: 10}, 10, 0},
		"the archive has not begun":               {counts{events: 100, stored: 110}, 0, 0},
		"a row of a parked record is there":       {counts{events: 99, stored: 110, rows: 100}, 110, 0},
		"an older backup was restored, and a lag": {counts{events: 100, stored: 110, rows: 30}, 90, 50},
	} {
		t.Run(name, func(t *testing.T) {
			var said strings.Builder
			registry := prometheus.NewRegistry()
			a := New(DefaultConfig(), kafka.DefaultConfig(), &c.counts, nil, slog.New(slog.NewTextHandler(&said, nil)), NewMetrics(registry), "t")
			a.Compare(&c.counts, &c.counts)
			for range 2 { // the second time it is known
				o := &partition{Archiver: a, topic: kafka.TopicMessages, id: 3, at: sqlstore.ArchivePosition{Next: c.archived}}
				if err := o.checkLoss(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if got := strings.Count(said.String(), "THE ARCHIVE LOST ROWS"); got != int(min(c.missing, 1)) {
				t.Errorf("the log says %d times that rows are missing:\n%s", got, said.String())
			}
			if err := a.Health(t.Context()); (err != nil) != (c.missing > 0) {
				t.Errorf("health is %v", err)
			}
			if c.missing > 0 {
				if got := testutil.ToFloat64(a.metrics.lost.WithLabelValues(kafka.TopicMessages, "3")); got != float64(c.missing) {
					t.Errorf("the metric is %v, want %d", got, c.missing)
				}
			}
		})
	}
}

// A refill of marks that a crash cut short leaves rows, none of them with an offset of the log.
func TestCompare_NoticesAPartOfAFillOfMarks(t *testing.T) {
	marks := []sqlstore.StoredMark{{Offset: 3}, {Offset: 5}, {Offset: 9}, {Offset: 12}} // the last is not archived yet
	for name, c := range map[string]struct{ start, rows, last, missing int64 }{
		"nothing is there, nor in the log":         {start: 10, last: -1, missing: 3},
		"a part was filled, nothing is in the log": {start: 10, rows: 2, last: -1, missing: 1},
		"all was filled":                           {start: 10, rows: 3, last: -1},
		"a mark that was filled has moved since":   {start: 10, rows: 4, last: -1},
		"a part was filled, the log has more":      {start: 6, rows: 2, last: -1, missing: 4},
		"it goes on from the log":                  {start: 6, rows: 5, last: 9},
	} {
		t.Run(name, func(t *testing.T) {
			kafkaConfig := kafka.DefaultConfig()
			kafkaConfig.Partitions = 1
			store := &counts{marks: marks}
			a := New(DefaultConfig(), kafkaConfig, store, nil, slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()), "t")
			a.Compare(store, store)
			o := &partition{Archiver: a, topic: kafka.TopicReceipts, at: sqlstore.ArchivePosition{Next: 10}}
			if missing, err := o.missingOf(t.Context(), c.start, c.rows, c.last); err != nil || missing != c.missing {
				t.Errorf("%d are missing, want %d; %v", missing, c.missing, err)
			}
		})
	}
}

// The archivers of a cluster whose settings are as they are when nothing is said only report.
func TestRefill_IsAskedForOnACluster(t *testing.T) {
	if c := DefaultConfig(); c.Refill != refillReport {
		t.Errorf("the default is %q", c.Refill)
	}
	for value, good := range map[string]bool{"auto": true, "report": true, "": false, "yes": false} {
		c := DefaultConfig()
		c.Refill = value
		if err := c.Validate(); (err == nil) != good {
			t.Errorf("archive.refill=%q: %v", value, err)
		}
	}
}
