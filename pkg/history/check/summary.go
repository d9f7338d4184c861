package check

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"tideline/pkg/history"
)

// Summary says what happened, whatever is to be said of it.
type Summary struct {
	Records, Clients, Connections, Conversations, Hints, Faults int64
	// Outcomes are counted by call and door and outcome, in that order; a refusal has its code.
	Outcomes []OutcomeCount
	// Sends are the latencies of sends that were numbered, by door.
	Sends []Latency
	// Sources are the pieces of final state.
	Sources []SourceCount
}

// OutcomeCount counts how often operations of one sort ended in one way.
type OutcomeCount struct {
	Call    history.Call
	Door    history.Door
	Outcome string // or none, where the history does not tell of an end
	Count   int64
}

// Latency has percentiles of times from begin to end. They are at most 3 % too high.
type Latency struct {
	Door                     history.Door
	Count                    int64
	P50, P90, P99, P999, Max time.Duration
}

// SourceCount counts the records of a source; Whole tells that the history says it was read to its end.
type SourceCount struct {
	Name  history.SourceName
	Count int64
	Whole bool
}

// tally counts while a history is read.
type tally struct {
	records, hints int64
	outcomes       map[OutcomeCount]int64
	sends          map[history.Door]*buckets
}

func newTally() tally {
	return tally{outcomes: map[OutcomeCount]int64{}, sends: map[history.Door]*buckets{}}
}

func (t *tally) ended(op *operation, e *history.End) {
	outcome := string(e.Outcome)
	if e.Outcome == history.OutcomeRefused {
		outcome += " " + string(e.Code)
	}
	t.outcomes[OutcomeCount{Call: op.call.Call, Door: op.call.Door, Outcome: outcome}]++
	if op.call.Call == history.CallSend && e.Outcome == history.OutcomeOK {
		b := t.sends[op.call.Door]
		if b == nil {
			b = &buckets{}
			t.sends[op.call.Door] = b
		}
		b.add(op.end - op.begin)
	}
}

func (t *tally) unended(op *operation) {
	t.outcomes[OutcomeCount{Call: op.call.Call, Door: op.call.Door, Outcome: "none"}]++
}

// buckets is a histogram of nanoseconds: 32 buckets for each power of two.
type buckets struct {
	count   int64
	highest int64
	of      [64 * 32]int64
}

func bucketOf(ns int64) int {
	ns = max(ns, 0)
	if ns < 32 {
		return int(ns)
	}
	power := bits.Len64(uint64(ns)) - 6 // so that ns >> power has 6 bits
	return power*32 + int(ns>>power)
}

func topOf(bucket int) int64 {
	if bucket < 64 {
		return int64(bucket)
	}
	power := bucket/32 - 1
	return (int64(bucket%32+32)+1)<<power - 1
}

func (b *buckets) add(ns int64) {
	b.count++
	b.highest = max(b.highest, ns)
	b.of[bucketOf(ns)]++
}

// at gives the time that a part of all did not exceed.
func (b *buckets) at(part float64) time.Duration {
	want := max(int64(float64(b.count)*part+0.999999), 1)
	var n int64
	for i := range b.of {
		if n += b.of[i]; n >= want {
			return time.Duration(min(topOf(i), b.highest))
		}
	}
	return time.Duration(b.highest)
}

func (l *ledger) summary() Summary {
	s := Summary{Records: l.tally.records, Connections: int64(len(l.connOrder)), Conversations: int64(len(l.order)), Hints: l.tally.hints, Faults: int64(len(l.faults))}
	people := map[any]bool{}
	for u := range l.talkers {
		people[u] = true
	}
	for _, c := range l.connOrder {
		people[c.client] = true
	}
	s.Clients = int64(len(people))
	for o, n := range l.tally.outcomes {
		o.Count = n
		s.Outcomes = append(s.Outcomes, o)
	}
	slices.SortFunc(s.Outcomes, func(a, b OutcomeCount) int {
		return cmp.Or(cmp.Compare(a.Call, b.Call), cmp.Compare(a.Door, b.Door), cmp.Compare(a.Outcome, b.Outcome))
	})
	for door, b := range l.tally.sends {
		s.Sends = append(s.Sends, Latency{door, b.count, b.at(0.5), b.at(0.9), b.at(0.99), b.at(0.999), time.Duration(b.highest)})
	}
	slices.SortFunc(s.Sends, func(a, b Latency) int { return cmp.Compare(a.Door, b.Door) })
	for _, name := range []history.SourceName{history.SourceLog, history.SourceStore, history.SourceArchive, history.SourceRejected, history.SourceMembers} {
		s.Sources = append(s.Sources, SourceCount{name, l.counted[name], l.has(name)})
	}
	return s
}

// operations counts all that began.
func (t *tally) operations() (n int64) {
	for _, c := range t.outcomes {
		n += c
	}
	return n
}
