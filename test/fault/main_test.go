// Package fault breaks the platform on purpose while people use it, and then checks what they were told against what is
// there: by the history of what they did and saw (pkg/history/check), and by what the stores say of each other
// (tideline fsck).
//
// Each test has a seed and prints it; FAULT_SEED runs it again with the same one. make test runs each fault on a
// small evening; FAULT=full, or make fault, runs all of them on a large one.
package fault

import (
	"flag"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"tideline/test/evening"
	"tideline/test/platform"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		return // there is nothing short about them
	}
	os.Exit(platform.Main(m))
}

// full tells whether everything is asked for, however long it takes.
func full() bool { return os.Getenv("FAULT") == "full" }

// onlyInFull skips a test that a selection does not have time for.
func onlyInFull(t *testing.T) {
	t.Helper()
	if !full() {
		t.Skip("one of the faults that make fault runs")
	}
}

// seed gives the seed of this run of a test, and the dice that it throws.
func seed(t *testing.T) (uint64, *rand.Rand) {
	t.Helper()
	n := rand.Uint64N(1 << 32)
	if text := os.Getenv("FAULT_SEED"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("FAULT_SEED: %v", err)
		}
	}
	t.Logf("seed %d: FAULT_SEED=%d runs it again", n, n)
	return n, rand.New(rand.NewPCG(n, 2))
}

func plan(n uint64) evening.Plan {
	if full() {
		return evening.Full(n)
	}
	return evening.Small(n)
}
