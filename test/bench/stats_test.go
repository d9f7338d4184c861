package bench

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// spread is a figure of several runs.
type spread struct{ median, least, most float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{math.NaN(), math.NaN(), math.NaN()}
	}
	s := slices.Sorted(slices.Values(values))
	m := s[len(s)/2]
	if len(s)%2 == 0 {
		m = (s[len(s)/2-1] + m) / 2
	}
	return spread{m, s[0], s[len(s)-1]}
}

// text gives median and range.
func (s spread) text() string {
	return fmt.Sprintf("%s [%s – %s]", short(s.median), short(s.least), short(s.most))
}

// short gives three digits that count.
func short(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a > 0 && a < 0.1:
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// ms gives a time in milliseconds.
func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// quantile gives the time that a part of sorted times does not exceed.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// sortedTimes sorts.
func sortedTimes(list []time.Duration) []time.Duration { return slices.Sorted(slices.Values(list)) }

// shot is one send that was answered; times are since the beginning of its run.
type shot struct {
	group          int
	sent, answered time.Duration
	intended       time.Duration // when it was due, where it was due at a time
	seq            int64
}

// faults tells what is wrong with the numbers that were given: before are the groups' last ones before the run, to which
// nobody else has sent since.
func faults(shots []shot, before []int64) []string {
	byGroup := make([][]shot, len(before))
	for _, s := range shots {
		byGroup[s.group] = append(byGroup[s.group], s)
	}
	var out []string
	for g, last := range before {
		list := byGroup[g]
		slices.SortFunc(list, func(a, b shot) int { return int(a.seq - b.seq) })
		begun := time.Duration(0)
		for _, s := range list {
			switch {
			case s.seq == last:
				out = append(out, fmt.Sprintf("twin: number %d of group %d was given twice", s.seq, g))
			case s.seq != last+1:
				out = append(out, fmt.Sprintf("gap: number %d of group %d follows %d", s.seq, g, last))
			}
			// Whoever has a lower number was sent at the latest when this one was answered.
			if s.answered < begun {
				out = append(out, fmt.Sprintf("inversion: number %d of group %d was answered before one below it was sent", s.seq, g))
			}
			last, begun = s.seq, max(begun, s.sent)
		}
	}
	return out
}

func TestFaults_FindsAGapATwinAndAnInversion(t *testing.T) {
	const s = time.Second
	good := []shot{{seq: 4, sent: 0, answered: 2 * s}, {seq: 5, sent: 0, answered: 1 * s}, {seq: 6, sent: 3 * s, answered: 4 * s}}
	if found := faults(good, []int64{3}); len(found) > 0 {
		t.Errorf("sound numbers are told to be %q", found)
	}
	for name, bad := range map[string][]shot{
		"gap":       {{seq: 4}, {seq: 6}},
		"twin":      {{seq: 4}, {seq: 4}},
		"inversion": {{seq: 4, sent: 3 * s, answered: 4 * s}, {seq: 5, sent: 1 * s, answered: 2 * s}},
	} {
		found := faults(bad, []int64{3})
		if len(found) != 1 || found[0][:len(name)] != name {
			t.Errorf("of a %s is told %q", name, found)
		}
	}
	if found := faults([]shot{{group: 0, seq: 2}, {group: 1, seq: 1}}, []int64{1, 1}); len(found) != 1 {
		t.Errorf("of the second of two groups is told %q", found)
	}
}

func TestSpread_IsMedianAndRange(t *testing.T) {
	if got := spreadOf([]float64{3, 1, 2}); got != (spread{2, 1, 3}) {
		t.Errorf("of three: %v", got)
	}
	if got := spreadOf([]float64{4, 1, 2, 3}); got != (spread{2.5, 1, 4}) {
		t.Errorf("of four: %v", got)
	}
	if got := spreadOf([]float64{1234.4, 12.34, 123.4}).text(); got != "123 [12.3 – 1234]" {
		t.Errorf("as text: %s", got)
	}
}
