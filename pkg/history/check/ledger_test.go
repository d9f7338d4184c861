package check

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

func TestRun_RefusesWhatIsNoHistory(t *testing.T) {
	c := chat.GroupConversation(7)
	begin := history.Record{At: 10, Op: 1, Client: 1, Conversation: c, Begin: &history.Begin{Call: history.CallSend}}
	end := history.Record{At: 20, Op: 1, End: &history.End{Outcome: history.OutcomeOK, Seq: 1}}
	early := end
	early.At = 5
	open := history.Record{At: 1, Client: 1, Conn: 1, Open: &history.Open{Door: history.DoorSocket}}
	shut := history.Record{At: 2, Client: 1, Conn: 1, Close: &history.Close{}}
	fault := history.Record{At: 1, Fault: &history.Fault{ID: 1}}
	mended := history.Record{At: 2, FaultEnd: &history.FaultEnd{ID: 1}}
	rest := history.Record{At: 3, Rest: &history.Rest{}}
	source := history.Record{At: 4, Source: &history.Source{Name: history.SourceLog}}
	for name, c := range map[string]struct {
		records []history.Record
		want    string
	}{
		"a begin twice":           {[]history.Record{begin, begin}, "line 3: operation 1 begins twice"},
		"an end without a begin":  {[]history.Record{end}, "line 2: operation 1 ends, and it has not begun"},
		"an end twice":            {[]history.Record{begin, end, end}, "line 4: operation 1 ends"},
		"an end before its begin": {[]history.Record{begin, early}, "line 3: operation 1 ends before it begins"},
		"opened twice":            {[]history.Record{open, open}, "line 3: connection 1 opens twice"},
		"closed and not open":     {[]history.Record{shut}, "line 2: connection 1 closes"},
		"closed twice":            {[]history.Record{open, shut, shut}, "line 4: connection 1 closes"},
		"broken twice":            {[]history.Record{fault, fault}, "line 3: fault 1 begins twice"},
		"mended and not broken":   {[]history.Record{mended}, "line 2: fault 1 ends"},
		"at rest twice":           {[]history.Record{rest, rest}, "line 3: it comes to rest twice"},
		"read to its end twice":   {[]history.Record{source, source}, "line 3: source log"},
	} {
		for i := range c.records {
			c.records[i].Line = i + 2
		}
		if _, err := Run(each(c.records), DefaultOptions()); !errors.Is(err, history.ErrNotAHistory) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := Run(each(nil), Options{Grace: -1, Told: -1, Keep: 1}); err == nil || !strings.Contains(err.Error(), "grace is negative\ntold is negative") {
		t.Errorf("senseless options gave %v", err)
	}
}

func TestRun_ConcludesNothingFromWhatNobodyLookedAt(t *testing.T) {
	var part []history.Record
	for _, r := range play(1) {
		if r.Event == nil && r.Rejected == nil && r.Member == nil && r.Source == nil {
			part = append(part, r)
		}
	}
	for _, r := range judge(t, part).Results {
		if r.Found > 0 {
			t.Errorf("without any source the check %s found %v", r.Check, r.Violations)
		}
		switch r.Check {
		case "acknowledged", "refused", "once", "contiguous", "order", "realtime", "invented", "agree", "archived", "pulled", "unread", "receipts", "visible":
			if r.Looked > 0 {
				t.Errorf("without any source the check %s looked at %d things", r.Check, r.Looked)
			}
		}
	}
}

func TestRun_KeepsSomeViolationsAndCountsAll(t *testing.T) {
	records := play(1)
	for i := range records {
		if e := records[i].Event; e != nil && e.Source == history.SourceStore {
			e.MessageID++
		}
	}
	o := DefaultOptions()
	o.Keep = 3
	report, err := Run(each(records), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Results {
		if r.Check == "agree" && (len(r.Violations) != 3 || r.Found < 100 || report.Found() != r.Found) {
			t.Errorf("%d violations are kept and %d counted, of %d in all", len(r.Violations), r.Found, report.Found())
		}
	}
}

func TestDue_WaitsForFaultsThatCameBetween(t *testing.T) {
	l := newLedger(DefaultOptions())
	l.faults = []*fault{{from: 100, to: 200}, {from: 190, to: 300}, {from: 500, to: never}}
	for _, c := range []struct{ at, within, want int64 }{
		{10, 50, 60}, {60, 50, 300}, {150, 10, 300}, {210, 10, 300}, {310, 50, 360}, {310, 200, never}, {250, 400, never},
	} {
		if got := l.due(c.at, c.within); got != c.want {
			t.Errorf("what was known at %d is due within %d at %d, want %d", c.at, c.within, got, c.want)
		}
	}
	if l.calm(250, 260) || l.calm(1, 1000) || !l.calm(301, 499) {
		t.Error("it is calm while something is broken, or the other way round")
	}
}

func TestLatency_IsAtMostThreePercentTooHigh(t *testing.T) {
	var b buckets
	for i := int64(1); i <= 100_000; i++ {
		b.add(i * 1000)
	}
	for part, want := range map[float64]time.Duration{0.5: 50 * time.Millisecond, 0.9: 90 * time.Millisecond, 0.99: 99 * time.Millisecond, 0.999: 99900 * time.Microsecond, 1: 100 * time.Millisecond} {
		if got := b.at(part); got < want || float64(got) > float64(want)*1.032 {
			t.Errorf("the time of %v of all is %v, want %v", part, got, want)
		}
	}
	for _, ns := range []int64{0, 1, 31, 32, 63, 64, 65, 1 << 20, 1<<62 + 12345} {
		if i := bucketOf(ns); topOf(i) < ns || i > 0 && topOf(i-1) >= ns {
			t.Errorf("%d falls into bucket %d, which ends at %d", ns, i, topOf(i))
		}
	}
}

func TestExcerpt_LeavesOutWhatIsNotMeant(t *testing.T) {
	r := history.Record{At: 1, Op: 1, End: &history.End{Outcome: history.OutcomeOK, Pull: &history.Pull{MinSeq: 1, MaxSeq: 9, Entries: []history.Entry{
		{Seq: 1, ToSeq: 4, Type: history.TypeVoid}, {Seq: 5, Type: "text"}, {Seq: 6, Type: "text"},
	}}}}
	const want = `{"t":1,"op":1,"end":{"outcome":"ok","pull":{"entries":[{"seq":1,"to_seq":4,"type":"void"},{"seq":6,"type":"text"}],"min_seq":1,"max_seq":9}}} (and 1 more)`
	if got := Excerpt(&r, []int64{3, 6}); got != want {
		t.Errorf("it is\n%s, want\n%s", got, want)
	}
	if got := Excerpt(&r, nil); strings.Contains(got, "more") || len(r.End.Pull.Entries) != 3 {
		t.Errorf("with no numbers something is left out: %s", got)
	}
}
