// Command api is the HTTP door. It keeps nothing but caches.
package main

import (
	"context"
	"os"

	"tideline/internal/ops"
	"tideline/internal/wiring"
)

func main() {
	// What an api keeps is caches of some ten megabytes, of which a collection walks all: rarely is cheaper, for as much memory.
	ops.CollectAt(200)
	s := wiring.Defaults()
	os.Exit(wiring.Main("api", s, s.ForAPI(), func(_ context.Context, p *wiring.Parts) ([]ops.Named, error) {
		r, behind, err := p.Requests()
		if err != nil {
			return nil, err
		}
		door, addr, err := p.Door(r, nil)
		if err != nil {
			return nil, err
		}
		p.Log.Info("the door is open", "addr", addr.String())
		return append([]ops.Named{door}, behind...), nil
	}))
}
