package pusher

import "time"

// bucket limits how often something happens: so many at once, so many a second for long.
type bucket struct {
	tokens float64
	at     time.Duration
}

// take takes one; where there is none it gives how long to wait.
func (b *bucket) take(now time.Duration, perSecond float64, burst int) time.Duration {
	b.tokens = min(b.tokens+(now-b.at).Seconds()*perSecond, float64(burst))
	b.at = now
	if b.tokens < 1 {
		return time.Duration((1 - b.tokens) / perSecond * float64(time.Second))
	}
	b.tokens--
	return 0
}
