package fault

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tideline/test/platform"
)

// Places at which an owner of numbers may die; see internal/ingest and pkg/seq.
var ingestPoints = []string{
	"ingest/fenced",         // the predecessor is refused, nothing is read yet
	"ingest/replayed",       // taken over, nothing is numbered yet
	"ingest/decided",        // before anything is written
	"ingest/produced",       // between produce and commit
	"ingest/aside-written",  // rejections and moves are written, the events behind them are not
	"ingest/events-written", // committed, and nobody was told
	"ingest/told",           // the senders know
}

// Places at which a writer of the timeline, or the archiver beside it, may die.
var timelinePoints = []string{
	"timeline/decoded", "timeline/stored", "timeline/told", "archive/intended", "archive/asked", "archive/inserted", "archive/changed",
}

// arm starts a process anew, in good order, so that it acts when it comes to a place for the n-th time.
func arm(p *platform.Process, point string, n int, act string) {
	p.Terminate()
	p.Start(fmt.Sprintf("FAILPOINT=%s:%d:%s", point, n, act))
}

// pointTime bounds how long a process may take to come to a place: it joins its group, takes over, and is used.
const pointTime = 40 * time.Second

// hits gives after how many passes of a place a process acts. Some places are passed once for each partition, and the
// archiver does little at a time.
func (c *cluster) hits(point string) int {
	if point == "ingest/fenced" || point == "ingest/replayed" || strings.HasPrefix(point, "archive/") {
		return 1 + c.rng.IntN(3)
	}
	return 1 + c.rng.IntN(20)
}

func TestFault_OwnersDieAtEachPlace(t *testing.T) {
	c := begin(t, platform.Setup{})
	die := func(p *platform.Process, point string) {
		guest := c.Guest()
		f := c.Break(p.Name + " dies at " + point)
		arm(p, point, c.hits(point), "kill")
		guest.Says()
		p.AwaitEnd(pointTime)
		guest.SaysAgain() // while nobody, or somebody else, owns its partition
		p.Start()
		guest.IsRemoved()
		guest.SaysAgain() // after the sender was removed
		c.Mended(f, allowed)
	}
	for i, n := range c.some(len(ingestPoints), 4) {
		die(c.Ingest[i%2], ingestPoints[n])
	}
	for _, n := range c.some(len(timelinePoints), 4) {
		die(c.Timeline, timelinePoints[n])
	}
	c.For(time.Second)
	c.end()
}

// What a process says that is refused: by the broker or the store, or by its group before it could write.
const (
	fenced = "somebody else owns the partition"
	lost   = `"how":"lost"`
)

// asleep puts a process to sleep at a place until another has taken over, and wakes it: it must be refused, and stay out.
func (c *cluster) asleep(p *platform.Process, point string, refused ...string) {
	c.t.Helper()
	f := c.Break(p.Name + " sleeps at " + point)
	arm(p, point, c.hits(point), "stop")
	p.AwaitSleep(pointTime)
	c.For(c.moment(5*time.Second, 8*time.Second)) // the session time-out is 3 s
	before := len(p.Log())
	p.Signal(syscall.SIGCONT)
	isRefused := func() bool {
		said := p.Log()[before:]
		return slices.ContainsFunc(refused, func(text string) bool { return strings.Contains(said, text) })
	}
	for deadline := time.Now().Add(30 * time.Second); !isRefused(); c.For(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Errorf("%s woke up at %s, and nobody refused it: it does not say %q, but\n%s", p.Name, point, refused, p.Log()[before:])
			break
		}
	}
	c.Mended(f, allowed)
}

func TestFault_OwnersSleepWhileAnotherTakesOver(t *testing.T) {
	c := begin(t, platform.Setup{})
	c.Another("timeline")
	sleeps := []func(){
		func() { c.asleep(c.Ingest[0], "ingest/decided", fenced) },
		func() { c.asleep(c.Ingest[1], "ingest/produced", fenced) },
		func() { c.asleep(c.Timeline, "timeline/decoded", fenced) },
		func() { c.asleep(c.Timeline, "timeline/stored", fenced, lost) },
		func() { c.asleep(c.Timeline, "archive/intended", fenced, lost) },
		func() { c.asleep(c.Timeline, "archive/asked", fenced, lost) },
	}
	for _, i := range c.some(len(sleeps), 3) {
		sleeps[i]()
	}
	c.For(time.Second)
	c.end()
}

// A long run of records that end in no event, and the owner killed within it: their outcomes are told once each.
func TestFault_OwnersDieInALongRunOfRefusals(t *testing.T) {
	c := begin(t, platform.Setup{})
	for range 3 {
		f := c.Break("ingest dies in a run of refusals")
		c.RefusedRun(3000)
		c.For(c.moment(0, 300*time.Millisecond))
		p := c.Ingest[c.rng.IntN(2)]
		p.Kill()
		c.For(c.moment(0, time.Second))
		p.Start()
		c.Mended(f, allowed)
	}
	c.For(time.Second)
	c.end()
}
