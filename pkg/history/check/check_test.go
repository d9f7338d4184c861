package check

import (
	"fmt"
	"iter"
	"testing"

	"tideline/pkg/history"
)

func each(records []history.Record) iter.Seq2[*history.Record, error] {
	return func(yield func(*history.Record, error) bool) {
		for i := range records {
			if !yield(&records[i], nil) {
				return
			}
		}
	}
}

func judge(t *testing.T, records []history.Record) *Report {
	t.Helper()
	report, err := Run(each(records), DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestCheck_FindsNothingWhereNothingIsWrong(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 10
	}
	looked := map[string]int64{}
	var total Summary
	for seed := range uint64(seeds) {
		records := play(seed)
		for i := range records {
			if err := records[i].Validate(); err != nil {
				t.Fatalf("seed %d: line %d is no record: %v", seed, records[i].Line, err)
			}
		}
		report := judge(t, records)
		for _, r := range report.Results {
			looked[r.Check] += r.Looked
			for _, v := range r.Violations {
				t.Errorf("seed %d: %s", seed, describe(v, records))
			}
		}
		total = report.Summary
		if t.Failed() {
			break
		}
	}
	for name, n := range looked {
		if n == 0 {
			t.Errorf("the check %s looked at nothing", name)
		}
	}
	t.Logf("the last of them: %+v; looked at %v", total, looked)
}

func describe(v Violation, records []history.Record) string {
	s := fmt.Sprintf("%s: %s: %s", v.Check, v.Conversation, v.Message)
	for _, line := range v.Lines {
		s += fmt.Sprintf("\n  %d: %s", line, Excerpt(&records[line-2], v.Seqs))
	}
	return s
}
