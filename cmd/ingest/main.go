// Command ingest numbers commands: it owns partitions of im.inbound and writes im.messages.
package main

import (
	"context"
	"os"

	"tideline/internal/ops"
	"tideline/internal/wiring"
)

func main() {
	s := wiring.Defaults()
	os.Exit(wiring.Main("ingest", s, s.ForIngest(), func(_ context.Context, p *wiring.Parts) ([]ops.Named, error) { return p.Ingest() }))
}
