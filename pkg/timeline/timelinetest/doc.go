// Package timelinetest holds the suite that every store of the timeline must pass. It drives a store through histories
// and compares all that it answers with a model in memory that knows nothing of tables, indexes or ordinals: the model
// keeps the events and counts.
package timelinetest

import (
	"context"
	"testing"
	"time"

	"tideline/pkg/timeline"
)

// Store is what the suite drives.
type Store interface {
	timeline.Writer
	timeline.Reader
	timeline.MarkWriter
}

// Run runs the whole suite; open gives a new and empty store.
func Run(t *testing.T, open func(t *testing.T) Store) {
	t.Run("Histories", func(t *testing.T) { histories(t, open) })
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			c.run(t, &desk{t: t, ctx: ctx, store: open(t)})
		})
	}
}
