package fault

import (
	"testing"
	"time"

	"tideline/test/platform"
)

// allowed is how long after a process is back everybody must have been told: its partitions are taken over within the
// session time-out of 3 s, connections come back within a few seconds, and the machine is busy.
const allowed = 10 * time.Second

// kill ends a process at a random moment, starts it again, and now and then ends it again as it recovers.
func (c *cluster) kill(p *platform.Process) {
	c.For(c.moment(200*time.Millisecond, 1500*time.Millisecond))
	f := c.Break("kill -9 of " + p.Name)
	p.Kill()
	c.For(c.moment(0, time.Second))
	p.Start()
	for c.rng.IntN(3) == 0 {
		c.For(c.moment(50*time.Millisecond, time.Second))
		p.Kill()
		p.Start()
	}
	c.Mended(f, allowed)
}

func TestFault_EachProcessIsKilledAtRandomMomentsAndAgainAsItRecovers(t *testing.T) {
	c := begin(t, platform.Setup{})
	for _, i := range c.rng.Perm(len(c.Parts)) {
		c.kill(c.Parts[i])
	}
	c.For(2 * time.Second)
	c.end()
}

// killAll ends everything at random moments, as often as it is told, and ends the evening.
func (c *cluster) killAll(times int) {
	for range times {
		c.For(c.moment(time.Second, 3*time.Second))
		f := c.Break("kill -9 of all")
		c.Restart()
		c.Mended(f, allowed)
	}
	c.For(2 * time.Second)
	c.end()
}

func TestFault_AllProcessesAreKilledAtOnce(t *testing.T) { begin(t, platform.Setup{}).killAll(2) }

func TestFault_StandaloneIsKilled(t *testing.T) { alone(t, t.TempDir()).killAll(4) }
