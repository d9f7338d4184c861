// Command timeline stores what was numbered and tells where conversations stand; it makes read marks durable and keeps
// rejections for those who ask; it archives in ClickHouse. Each of these can run alone: see the setting timeline.run.
package main

import (
	"context"
	"os"

	"tideline/internal/ops"
	"tideline/internal/wiring"
)

func main() {
	s := wiring.Defaults()
	os.Exit(wiring.Main("timeline", s, s.ForTimeline(), func(_ context.Context, p *wiring.Parts) ([]ops.Named, error) { return p.Timeline() }))
}
