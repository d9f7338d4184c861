package client

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff is the pause between tries: it doubles from half a second to thirty, and each is multiplied by a random number
// between a half and one, so that a crowd that was cut off together does not come back together.
type backoff struct{ tries int }

const (
	leastPause = 500 * time.Millisecond
	mostPause  = 30 * time.Second
)

// next gives the next pause; where the server named one, it is that and a little more.
func (b *backoff) next(named time.Duration) time.Duration {
	pause := min(leastPause<<min(b.tries, 10), mostPause)
	b.tries++
	if named > 0 {
		return named + rand.N(leastPause)
	}
	return pause/2 + rand.N(pause/2)
}

// wait waits for the next pause.
func (b *backoff) wait(ctx context.Context, named time.Duration) error {
	t := time.NewTimer(b.next(named))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
