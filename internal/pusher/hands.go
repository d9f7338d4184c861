package pusher

import (
	"context"
	"sync"
	"time"
)

// hands are goroutines that do requests and wait for more: a new one's stack grows, by copying, to what a request needs, and
// when a crowd comes back that is a tenth of all the work. Those that find nothing to do end soon, with the memory.
type hands struct {
	ctx  context.Context
	wg   *sync.WaitGroup
	idle chan func() // without a place: whoever receives is waiting
}

// idleHand is how long a goroutine waits for more.
const idleHand = time.Second

func newHands(ctx context.Context, wg *sync.WaitGroup) *hands {
	return &hands{ctx: ctx, wg: wg, idle: make(chan func())}
}

// do lets somebody do the work, and does not wait.
func (h *hands) do(work func()) {
	select {
	case h.idle <- work:
		return
	default:
	}
	h.wg.Go(func() {
		work()
		rest := time.NewTimer(idleHand)
		defer rest.Stop()
		for {
			select {
			case work := <-h.idle:
				work()
				rest.Reset(idleHand)
			case <-rest.C:
				return
			case <-h.ctx.Done():
				return
			}
		}
	})
}
