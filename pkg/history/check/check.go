package check

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// Options are what the promises leave to be chosen.
type Options struct {
	// Grace is how long after the 200 of a recall (or an edit) a pull may still begin that shows what was there before:
	// an api that was cut off trusts its cache for so long.
	Grace time.Duration
	// Told is how long after a number is known an online member may stay without a hint of it while nothing is broken.
	Told time.Duration
	// Settle is how long after its 200 a read mark may not be in others' receipts yet while nothing is broken: the store
	// counts where Redis cannot, and the mark reaches it through im.receipts.
	Settle time.Duration
	// Keep bounds the violations that are kept of each check; all are counted.
	Keep int
}

// DefaultOptions gives 2 s of grace (P10), 10 s for hints, 5 s for marks, and 20 violations of each check.
func DefaultOptions() Options {
	return Options{Grace: 2 * time.Second, Told: 10 * time.Second, Settle: 5 * time.Second, Keep: 20}
}

// Validate lists what is wrong with the options.
func (o Options) Validate() error {
	var errs []error
	for _, d := range [...]struct {
		name  string
		value time.Duration
	}{{"grace", o.Grace}, {"told", o.Told}, {"settle", o.Settle}} {
		if d.value < 0 {
			errs = append(errs, fmt.Errorf("%s is negative", d.name))
		}
	}
	if o.Keep < 1 {
		errs = append(errs, errors.New("keep is not positive"))
	}
	return errors.Join(errs...)
}

// Violation is a promise that was broken, or a rule that stands for one.
type Violation struct {
	Check        string // the name of the check
	Promise      string // P1 to P11, or "" where the history itself is at fault
	Conversation chat.ConversationID
	// Message is a sentence that says what is wrong.
	Message string
	// Lines are the smallest set of lines of the history that shows it, in order.
	Lines []int
	// Seqs are the numbers that it is about: of a long line, only what concerns them matters.
	Seqs []int64
}

// Result is what one check did.
type Result struct {
	Check   string
	Promise string
	Rule    string // one sentence
	Looked  int64  // how many times the rule was applied
	Found   int64  // how many violations there are; Violations may have fewer
	// Violations are the first ones.
	Violations []Violation
}

// Report is the judgement on a history.
type Report struct {
	Results []Result
	Summary Summary
	Torn    bool // the writer was killed: its last line is half a record
	Rested  bool // all came to rest, and the exact counts could be judged
}

// Found tells how many violations there are in all.
func (r *Report) Found() (n int64) {
	for i := range r.Results {
		n += r.Results[i].Found
	}
	return n
}

// rule is a check.
type rule struct {
	name    string
	promise string
	text    string
	run     func(*ledger, *findings)
}

// rules are all checks, in the order in which a message meets them.
func rules() []rule {
	return []rule{
		whole, acknowledged, refused, once, twin, conflict, contiguous, order, realtime, invented, agree, archived,
		pulled, complete, visible, audience, told, informed, monotonic, marks, unread, receipts, recalled, stale, answered,
	}
}

// findings collects what one check finds.
type findings struct {
	result *Result
	keep   int
}

func (f *findings) look(n int) { f.result.Looked += int64(n) }

// add adds a violation; lines that are 0 are left out.
func (f *findings) add(c chat.ConversationID, lines []int32, seqs []int64, format string, args ...any) {
	f.result.Found++
	if len(f.result.Violations) >= f.keep {
		return
	}
	v := Violation{Check: f.result.Check, Promise: f.result.Promise, Conversation: c, Message: fmt.Sprintf(format, args...), Seqs: seqs}
	for _, l := range lines {
		if l > 0 {
			v.Lines = append(v.Lines, int(l))
		}
	}
	slices.Sort(v.Lines)
	v.Lines = slices.Compact(v.Lines)
	f.result.Violations = append(f.result.Violations, v)
}

// Run judges a history. It holds in memory what the checks need of it: BenchmarkCheck's two million records (200,000
// messages) take 22 s, of which 17 are reading them, and 720 MiB, on two cores of a small machine. The error is that of the
// records, or says that they are no history.
func Run(records iter.Seq2[*history.Record, error], o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("options of the check: %w", err)
	}
	l := newLedger(o)
	for r, err := range records {
		if err == nil {
			err = l.take(r)
		}
		if err != nil {
			return nil, err
		}
	}
	l.close()
	report := &Report{Summary: l.summary(), Rested: l.rested()}
	for _, r := range rules() {
		result := Result{Check: r.name, Promise: r.promise, Rule: r.text}
		r.run(l, &findings{result: &result, keep: o.Keep})
		slices.SortStableFunc(result.Violations, func(a, b Violation) int { return slices.Compare(a.Lines, b.Lines) })
		report.Results = append(report.Results, result)
	}
	return report, nil
}

// Read judges what a reader reads, and notes whether it was torn.
func Read(r *history.Reader, o Options) (*Report, error) {
	report, err := Run(r.All(), o)
	if err != nil {
		return nil, err
	}
	report.Torn = r.Torn()
	return report, nil
}
