// Command pusher is the socket door: it tells members who are online which conversations moved, and answers requests on
// sockets through the same handlers as the api.
package main

import (
	"context"
	"os"

	"tideline/internal/ops"
	"tideline/internal/wiring"
)

func main() {
	// What a pusher keeps is connections, for hours, and a hint leaves no garbage: collecting early costs little, and what would be
	// left lying about is a good part of what a connection takes.
	ops.CollectAt(50)
	s := wiring.Defaults()
	os.Exit(wiring.Main("pusher", s, s.ForPusher(), func(_ context.Context, p *wiring.Parts) ([]ops.Named, error) {
		r, behind, err := p.Requests()
		if err != nil {
			return nil, err
		}
		handler, sockets := p.Socket(r)
		door, addr, err := p.Door(r, handler)
		if err != nil {
			return nil, err
		}
		p.Log.Info("the door is open", "addr", addr.String())
		return append([]ops.Named{sockets, door}, behind...), nil
	}))
}
