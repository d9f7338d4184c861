package fault

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"tideline/test/evening"
	"tideline/test/platform"
)

// crowd lets everybody in: all of them come from one address.
func crowd(process string) []string {
	all := []string{"TIDELINE_HTTP_RATE_PER_ADDRESS=0", "TIDELINE_HTTP_RATE_PER_USER=0"}
	switch process {
	case "api":
		return all
	case "pusher":
		return append(all, "TIDELINE_PUSH_MAX_UNAUTHENTICATED_PER_ADDRESS=5000")
	}
	return nil
}

// cluster is an evening on four processes and real servers; on standalone it has what every platform has, and no more.
type cluster struct {
	*platform.Cluster
	*evening.Evening
	t   *testing.T
	rng *rand.Rand
}

// begin starts a cluster and an evening on it.
func begin(t *testing.T, setup platform.Setup) *cluster {
	t.Helper()
	n, rng := seed(t)
	setup.OwnServers, setup.Failpoints = true, true
	setup.As = crowd
	c := &cluster{Cluster: setup.Start(t), t: t, rng: rng}
	c.Evening = evening.Prepare(t, &c.Platform, plan(n))
	c.Start()
	return c
}

// alone starts standalone with a folder for its data, and an evening on it.
func alone(t *testing.T, dir string) *cluster {
	t.Helper()
	n, rng := seed(t)
	c := &cluster{Cluster: &platform.Cluster{Platform: *platform.StandaloneIn(t, dir, append(crowd("pusher"), platform.ManyPartitions)...)}, t: t, rng: rng}
	c.Evening = evening.Prepare(t, &c.Platform, plan(n))
	c.Start()
	return c
}

// end lets the evening end and everything come to rest, and checks it.
func (c *cluster) end() {
	c.t.Helper()
	c.Stop()
	c.Rest()
	judge(c.t, c.Path)
	if out := c.Fsck(); testing.Verbose() {
		c.t.Logf("%s", out)
	}
}

// moment gives a random time, so that faults meet the platform at any place.
func (c *cluster) moment(least, most time.Duration) time.Duration {
	return least + time.Duration(c.rng.Int64N(int64(most-least)))
}

// some gives numbers below n in an order of chance: all of them, or a few in a selection.
func (c *cluster) some(n, selection int) []int {
	order := c.rng.Perm(n)
	if full() {
		return order
	}
	return order[:selection]
}

// judge checks the history of an evening with the program that anybody can run on it. A history that shows a fault is kept.
func judge(t *testing.T, path string) {
	t.Helper()
	out, err := exec.Command(platform.Built(t, "check"), "-told", evening.Told.String(), path).CombinedOutput()
	if err == nil {
		if testing.Verbose() {
			t.Logf("%s", out)
		}
		return
	}
	kept := filepath.Join(os.TempDir(), fmt.Sprintf("history-%s-%d.jsonl", t.Name(), os.Getpid()))
	if history, readErr := os.ReadFile(path); readErr == nil {
		_ = os.WriteFile(kept, history, 0o600)
	}
	t.Errorf("the history shows a fault (%v); it is kept at %s\n%s", err, kept, out)
}
