package fault

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tideline/test/platform"
)

func TestFault_ProcessesJoinAndLeave(t *testing.T) {
	c := begin(t, platform.Setup{})
	f := c.Break("owners come and go")
	for range map[bool]int{true: 6, false: 2}[full()] {
		ingest, timeline := c.Another("ingest"), c.Another("timeline")
		c.For(long(10*time.Second, 3*time.Second))
		ingest.Terminate()
		timeline.Terminate()
		c.For(long(10*time.Second, 2*time.Second))
	}
	c.Mended(f, allowed)
	c.end()
}

// A stop in good order is no fault where there are two of each: nobody is refused anything, no answer is missing, everybody is
// told in time, and those whose connection ends are told to come back.
func TestFault_AStopInGoodOrderIsSeenByNobody(t *testing.T) {
	c := begin(t, platform.Setup{Twice: true})
	answered := knock(t, c.HTTP, c.WS)
	c.For(2 * time.Second)
	for range map[bool]int{true: 3, false: 1}[full()] {
		for _, i := range c.rng.Perm(len(c.Parts)) {
			p := c.Parts[i]
			t.Logf("SIGTERM of %s (part %d)", p.Name, i)
			p.Terminate()
			c.For(c.moment(0, time.Second))
			p.Start()
			c.AwaitTwins()
			c.For(c.moment(time.Second, 2*time.Second))
		}
	}
	for _, trouble := range c.Troubles() {
		t.Errorf("somebody who had done nothing wrong was told: %s", trouble)
	}
	t.Logf("%d new connections were answered", answered())
	c.end()
}

// knock opens a connection to each door again and again, until it is asked how many were answered: all of them must be.
func knock(t *testing.T, doors ...string) (answered func() int64) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var n atomic.Int64
	var wg sync.WaitGroup
	anew := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, door := range doors {
		wg.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				r, err := anew.Get(door + "/v1/ws") // whatever it is answered: the one has no socket, the other wants a handshake
				if err != nil {
					t.Errorf("a new connection to a door was not answered: %v", err)
					return
				}
				_ = r.Body.Close()
				n.Add(1)
				<-tick.C
			}
		})
	}
	end := func() { stop(); wg.Wait() }
	t.Cleanup(end)
	return func() int64 { end(); return n.Load() }
}

// The clocks of the processes are hours apart: numbers, cursors and order do not care.
func TestFault_ClocksAreWrongByHours(t *testing.T) {
	skews := []string{"3h", "-5h", "90m", "-2h", "7h"}
	c := begin(t, platform.Setup{})
	for i, p := range c.Parts {
		f := c.Break("the clock of " + p.Name + " is off by " + skews[i])
		p.Terminate()
		p.Start("CLOCK_SKEW=" + skews[i])
		c.Mended(f, allowed)
	}
	c.For(3 * time.Second)
	for i, p := range c.Parts {
		f := c.Break("the clock of " + p.Name + " jumps to " + skews[len(skews)-1-i])
		p.Kill()
		p.Start("CLOCK_SKEW=" + skews[len(skews)-1-i])
		c.Mended(f, allowed)
		c.For(c.moment(500*time.Millisecond, 2*time.Second))
	}
	c.For(2 * time.Second)
	c.end()
}
