package fsck_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tideline/internal/fsck"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// doubled is a store whose primary key has failed.
type doubled struct {
	fsck.Store
	seq int64
}

func (d doubled) Rows(ctx context.Context, c chat.ConversationID, first, last int64) ([]timeline.Row, error) {
	rows, err := d.Store.Rows(ctx, c, first, last)
	for i := range rows {
		if c == group && rows[i].Seq == d.seq {
			return append(rows[:i+1:i+1], rows[i:]...), err
		}
	}
	return rows, err
}

// once is a store that says something wrong the first time that it is asked.
type once struct {
	fsck.Store
	asked int
}

func (o *once) CountMembers(ctx context.Context, c chat.ConversationID) (head, present int64, err error) {
	head, present, err = o.Store.CountMembers(ctx, c)
	if o.asked++; o.asked == 1 {
		head++
	}
	return head, present, err
}

// away is a log that does not answer.
type away struct{ fsck.Logs }

func (away) Bounds(context.Context, string) (map[int32]fsck.Bounds, error) {
	return nil, errors.New("nobody answers")
}

func TestRun_KeepsToItsRules(t *testing.T) {
	w := newWorld(t, embeddedSettings(t))
	run := func(store fsck.Store, logs fsck.Logs, o fsck.Options) *fsck.Report {
		t.Helper()
		o.Partitions = partitions
		report, err := fsck.New(store, logs, nil, w.sets, o).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return report
	}

	t.Run("ANumberThatStandsTwiceIsFound", func(t *testing.T) {
		report := run(doubled{w.store, 11}, w.logs, fsck.Options{AtRest: true})
		if got := foundIn(report); len(got) != 1 || got[0] != breach("rows", seqAt(11)) {
			t.Errorf("found %q", got)
		}
	})
	t.Run("WhatIsWrongOnlyOnceWasMoving", func(t *testing.T) {
		s := &once{Store: w.store}
		if report := run(s, w.logs, fsck.Options{}); report.Breaches() != 0 || s.asked < 3 {
			t.Errorf("asked %d times:\n%s", s.asked, text(report))
		}
	})
	t.Run("AtRestNothingMoves", func(t *testing.T) {
		if report := run(&once{Store: w.store}, w.logs, fsck.Options{AtRest: true}); report.Breaches() != 1 {
			t.Errorf("%s", text(report))
		}
	})
	t.Run("APartThatDoesNotAnswerIsSaid", func(t *testing.T) {
		report := run(w.store, away{}, fsck.Options{})
		if !report.Blind() || len(report.Unlooked) != 2 || report.Unlooked[0].Part != fsck.PartLog || !strings.Contains(report.Unlooked[0].Why, "nobody answers") {
			t.Errorf("%+v", report.Unlooked)
		}
		if !strings.Contains(text(report), "COULD NOT LOOK at log: ") {
			t.Errorf("%s", text(report))
		}
	})
	t.Run("WithoutAStoreNothingIsLookedAt", func(t *testing.T) {
		report := run(nil, w.logs, fsck.Options{Broken: map[string]error{fsck.PartStore: errors.New("no such file")}})
		if !report.Blind() || len(report.Unlooked) != 4 || !strings.Contains(report.Unlooked[1].Why, "no such file") {
			t.Errorf("%+v", report.Unlooked)
		}
	})
	t.Run("WhatIsLeftOutIsSaid", func(t *testing.T) {
		report := run(w.store, w.logs, fsck.Options{Skip: map[string]string{fsck.PartRedis: "it is elsewhere"}})
		if report.Blind() || !strings.Contains(text(report), "not looked at: redis (it is elsewhere)") {
			t.Errorf("%s", text(report))
		}
	})
	t.Run("MachinesReadTheSame", func(t *testing.T) {
		var b bytes.Buffer
		if err := run(doubled{w.store, 11}, w.logs, fsck.Options{AtRest: true}).JSON(&b); err != nil {
			t.Fatal(err)
		}
		var back fsck.Report
		if err := json.Unmarshal(b.Bytes(), &back); err != nil || back.Breaches() != 1 || back.Checks[0].Breaches[0].Place != seqAt(11) {
			t.Errorf("%v: %s", err, b.String())
		}
	})
}

// Every check has a row in the operators' page.
func TestChecks_AreExplained(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "fsck.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range fsck.Checks() {
		if !strings.Contains(string(page), "| `"+c.Name+"` ("+c.Promise+") |") {
			t.Errorf("docs/fsck.md does not explain %s (%s)", c.Name, c.Promise)
		}
	}
}
