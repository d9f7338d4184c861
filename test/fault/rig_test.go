package fault

import (
	"math/rand/v2"
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

// cluster is an evening on four processes and real servers.
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

// end lets the evening end and everything come to rest, and checks it.
func (c *cluster) end() {
	c.t.Helper()
	c.Stop()
	c.Rest()
	judge(c.t, c.Path)
}

// moment gives a random time, so that faults meet the platform at any place.
func (c *cluster) moment(least, most time.Duration) time.Duration {
	return least + time.Duration(c.rng.Int64N(int64(most-least)))
}

func judge(t *testing.T, path string) {
	t.Log("not judged", path)
}
