package pusher

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestHands_DoEverythingOnceAndLetGoOfWhoeverIsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		ctx, end := context.WithCancel(t.Context())
		h := newHands(ctx, &wg)
		var done, atWork, most atomic.Int64
		work := func() {
			if n := atWork.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(10 * time.Millisecond)
			atWork.Add(-1)
			done.Add(1)
		}
		for range 50 { // one after the other: nobody new is needed
			h.do(work)
			time.Sleep(20 * time.Millisecond)
		}
		if done.Load() != 50 || most.Load() != 1 {
			t.Fatalf("%d were done, %d at once", done.Load(), most.Load())
		}
		for range 200 { // together: nobody waits
			h.do(work)
		}
		time.Sleep(20 * time.Millisecond)
		if done.Load() != 250 || most.Load() != 200 {
			t.Fatalf("%d were done, %d at once", done.Load(), most.Load())
		}
		time.Sleep(2 * idleHand)
		synctest.Wait()
		wg.Wait() // all have ended without being told: the bubble would be stuck here otherwise
		h.do(work)
		end()
		wg.Wait()
		if done.Load() != 251 {
			t.Fatalf("%d were done; what had begun when the end came was dropped", done.Load())
		}
	})
}
