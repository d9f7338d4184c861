package check

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"

	"tideline/pkg/history"
)

// Excerpt gives a record as JSON, of long answers only what is about some numbers: entries of a pull, receipts. Where
// something is left out it says how much. With no numbers nothing is left out.
func Excerpt(r *history.Record, seqs []int64) string {
	cut := *r
	left := 0
	if r.End != nil && len(seqs) > 0 {
		end := *r.End
		if end.Pull != nil {
			p := *end.Pull
			p.Entries = slices.DeleteFunc(slices.Clone(p.Entries), func(e history.Entry) bool {
				return !slices.ContainsFunc(seqs, func(n int64) bool { return e.Seq <= n && n <= e.Last() })
			})
			left += len(end.Pull.Entries) - len(p.Entries)
			end.Pull = &p
		}
		if len(end.Receipts) > 0 {
			end.Receipts = slices.DeleteFunc(slices.Clone(end.Receipts), func(x history.Receipt) bool { return !slices.Contains(seqs, x.Seq) })
			left += len(r.End.Receipts) - len(end.Receipts)
		}
		cut.End = &end
	}
	if r.Begin != nil && len(r.Begin.Seqs) > len(seqs) && len(seqs) > 0 {
		begin := *r.Begin
		begin.Seqs = slices.DeleteFunc(slices.Clone(begin.Seqs), func(n int64) bool { return !slices.Contains(seqs, n) })
		left += len(r.Begin.Seqs) - len(begin.Seqs)
		cut.Begin = &begin
	}
	text, err := json.Marshal(&cut)
	if err != nil { // records are plain values, and this one was read
		return err.Error()
	}
	if left > 0 {
		return fmt.Sprintf("%s (and %d more)", text, left)
	}
	return string(text)
}

// Excerpts reads a history once more and gives the excerpts of all lines that the violations of a report name, for each
// violation in the order of its lines.
func Excerpts(records iter.Seq2[*history.Record, error], report *Report) (map[*Violation][]string, error) {
	type wish struct {
		v  *Violation
		at int
	}
	wishes := map[int][]wish{}
	out := map[*Violation][]string{}
	for i := range report.Results {
		for j := range report.Results[i].Violations {
			v := &report.Results[i].Violations[j]
			out[v] = make([]string, len(v.Lines))
			for k, line := range v.Lines {
				wishes[line] = append(wishes[line], wish{v, k})
			}
		}
	}
	for r, err := range records {
		if err != nil {
			return nil, err
		}
		for _, w := range wishes[r.Line] {
			out[w.v][w.at] = Excerpt(r, w.v.Seqs)
		}
		delete(wishes, r.Line)
		if len(wishes) == 0 {
			break
		}
	}
	return out, nil
}
