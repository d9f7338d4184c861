// Package bench measures what the platform costs against floors: what the same thing costs where nothing is promised. Each
// cell is measured several times, in turn with its floors, and prints the median and the range; a cell whose answers had a
// gap, a twin, an inversion or an error is void and says so.
//
// BENCH=full, or make bench, measures; without it each cell is so small that it only shows that the cell works. Neither is
// part of make test: what is measured while other tests run says nothing.
package bench

import (
	"fmt"
	"os"
	"testing"
	"time"

	"tideline/test/platform"
)

// roleEnv makes a process of this binary something else than the tests: see roles.
const roleEnv = "TIDELINE_BENCH_ROLE"

// roles are what the other processes of a measurement are. They talk over their input and output, and end with their input.
var roles = map[string]func() error{"floor": beFloor, "crowd": beCrowd, "member": beMember}

func TestMain(m *testing.M) {
	if name := os.Getenv(roleEnv); name != "" {
		role, known := roles[name]
		if !known {
			fmt.Fprintf(os.Stderr, "%s is %q, which is no role\n", roleEnv, name)
			os.Exit(2)
		}
		if err := role(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(platform.Main(m))
}

// size says how large the cells are.
type size struct {
	runs        int           // of each cell, and of its floors
	cell, floor time.Duration // how long one run loads the platform, and a floor
	inFlight    []int
	offered     []int // messages a second
	groups      int   // of the cells with many groups
	online      []int // clients
	windows     []time.Duration
	ranges      int      // different ones that are pulled
	pulls       int      // of one run
	summary     int      // conversations of the one who asks for all of them
	members     int      // of the group whose receipts are counted
	marks       int      // a second
	back        int      // connections that come back at once
	imports     []int    // messages; the last is the long history
	sites       []string // standalone, cluster; BENCH_ON names one of them
}

// full tells whether measurements are asked for, or only whether the cells work.
func full() bool { return os.Getenv("BENCH") == "full" }

func theSize() size {
	const ms = time.Millisecond
	sites := []string{"standalone", "cluster"}
	if one := os.Getenv("BENCH_ON"); one != "" {
		sites = []string{one}
	}
	if full() {
		return size{
			runs: 3, cell: 3 * time.Second, floor: 1500 * ms, inFlight: []int{1, 16, 64, 256}, offered: []int{200, 500, 1000}, groups: 500,
			online: []int{1000, 10_000}, windows: []time.Duration{0, 100 * ms, 200 * ms, 500 * ms}, ranges: 100, pulls: 10_000, summary: 500,
			members: 10_000, marks: 1000, back: 8000, imports: []int{100_000, 100_000, 1_000_000}, sites: sites,
		}
	}
	return size{
		runs: 1, cell: 300 * ms, floor: 150 * ms, inFlight: []int{16}, offered: []int{100}, groups: 10,
		online: []int{100}, windows: []time.Duration{0, 200 * ms}, ranges: 5, pulls: 200, summary: 20,
		members: 100, marks: 50, back: 100, imports: []int{2000, 5000}, sites: sites,
	}
}

// TestBench runs the cells in turn: they share two platforms, as nobody has two machines for each.
func TestBench(t *testing.T) {
	if testing.Short() {
		t.Skip("the cells start all servers")
	}
	b := &bench{t: t, size: theSize()}
	for _, c := range []struct {
		name string
		run  func(*bench)
	}{
		{"1-send", (*bench).send},
		{"2-hints", (*bench).hints},
		{"3-pull", (*bench).pull},
		{"4-summary", (*bench).summary},
		{"5-receipts", (*bench).receipts},
		{"8-return", (*bench).comeBack},
		{"9-import", (*bench).imports}, // and what needs a long history: 6, 7, and the takeover
	} {
		t.Run(c.name, func(t *testing.T) {
			within := *b
			within.t = t
			within.parent = b
			c.run(&within)
		})
	}
}
