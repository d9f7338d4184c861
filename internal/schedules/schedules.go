// Package schedules runs a simulation over many seeded schedules, so that each of them can be run again: TIDELINE_TEST_SEED=17
// runs the schedule of seed 17 alone.
package schedules

import (
	"os"
	"strconv"
	"testing"
)

// How many schedules are run: all, in -short, and under the race detector, which is ten to twenty times slower.
const (
	whole = 10_000
	short = 300
	raced = 500
)

const seedVariable = "TIDELINE_TEST_SEED"

// Run runs one for each seed, as a subtest that has it in its name.
func Run(t *testing.T, one func(t *testing.T, seed uint64)) {
	t.Helper()
	first, n := uint64(0), uint64(whole)
	switch {
	case testing.Short():
		n = short
	case race:
		n = raced
	}
	if text := os.Getenv(seedVariable); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s is %q, no seed", seedVariable, text)
		}
		first, n = seed, 1
	}
	for seed := first; seed < first+n; seed++ {
		ok := t.Run("seed="+strconv.FormatUint(seed, 10), func(t *testing.T) { one(t, seed) })
		if !ok {
			t.Fatalf("the schedule of seed %d fails; %s=%d runs it again", seed, seedVariable, seed)
		}
	}
}
