package fsck

import (
	"math/rand/v2"
	"testing"
)

// Whatever is added in whatever order, what was added is there and nothing else, and neighbours are one span.
func TestSpans_AreASet(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var s spans
		model := map[int64]bool{}
		for range 200 {
			n := rnd.Int64N(100)
			if again := s.add(n); again != model[n] {
				t.Fatalf("seed %d: %d was there: %v", seed, n, again)
			}
			model[n] = true
		}
		for n := int64(-1); n <= 100; n++ {
			if s.has(n) != model[n] {
				t.Fatalf("seed %d: %d is there: %v", seed, n, s.has(n))
			}
		}
		for i := 1; i < len(s.list); i++ {
			if s.list[i-1].to >= s.list[i].from {
				t.Fatalf("seed %d: %v and %v touch", seed, s.list[i-1], s.list[i])
			}
		}
	}
}
