package fault

import (
	"testing"
	"time"

	"tideline/test/platform"
)

func TestFault_ProcessesJoinAndLeaveAndStopInOrder(t *testing.T) {
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
	// A stop in good order is no fault: who follows the close codes and asks again sees nothing of it.
	for _, p := range c.Parts {
		f := c.Break("SIGTERM of " + p.Name)
		p.Terminate()
		p.Start()
		c.Mended(f, allowed)
		c.For(c.moment(time.Second, 2*time.Second))
	}
	c.end()
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
