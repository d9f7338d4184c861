// Command check judges a history of what clients did and saw, offline, against what the platform promises. docs/histories.md
// says what a history is, and how to read what this prints.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"tideline/internal/config"
	"tideline/internal/version"
	"tideline/pkg/history"
	"tideline/pkg/history/check"
)

// What the command exits with.
const (
	exitKept   = 0 // no promise was seen broken
	exitBroken = 1
	exitUsage  = 2 // there is no judgement: wrong flags, or no history
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out, errOut io.Writer) int {
	o := check.DefaultOptions()
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	flags.Usage = func() {
		_, _ = fmt.Fprintln(errOut, "usage: check [flags] history.jsonl\nexits with 0 where every promise was kept, 1 where one was broken, 2 where it cannot tell")
		flags.PrintDefaults()
	}
	flags.DurationVar(&o.Grace, "grace", o.Grace, "how long after the 200 of a recall or an edit a pull may begin that still shows what was there before")
	flags.DurationVar(&o.Told, "told", o.Told, "how long an online member may stay without a hint of a number while nothing is broken")
	flags.DurationVar(&o.Settle, "settle", o.Settle, "how long a read mark may stay unseen in receipts while nothing is broken")
	flags.IntVar(&o.Keep, "keep", o.Keep, "how many violations of each check are shown; all are counted")
	quiet := flags.Bool("quiet", false, "print violations only")
	showVersion := flags.Bool("version", false, "print the version of this build, and end")
	switch err := config.ParseFlags(flags, args, errOut); {
	case errors.Is(err, flag.ErrHelp):
		return exitKept
	case err != nil:
		_, _ = fmt.Fprintf(errOut, "check: %v\n", err)
		return exitUsage
	case *showVersion:
		_, _ = fmt.Fprintln(out, version.Line("check"))
		return exitKept
	case flags.NArg() != 1:
		flags.Usage()
		return exitUsage
	}
	// What is kept of a history stays until the end: collecting earlier costs a little time and much less memory.
	defer debug.SetGCPercent(debug.SetGCPercent(50))
	broken, err := judge(flags.Arg(0), o, *quiet, out)
	switch {
	case err != nil:
		_, _ = fmt.Fprintf(errOut, "check: %v\n", err)
		return exitUsage
	case broken:
		return exitBroken
	}
	return exitKept
}

func judge(path string, o check.Options, quiet bool, out io.Writer) (broken bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("opening the history: %w", err)
	}
	defer func() { _ = f.Close() }()
	r, err := history.NewReader(f)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	report, err := check.Read(r, o)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	w := bufio.NewWriter(out)
	if !quiet {
		summary(w, path, r, report)
	}
	if report.Found() > 0 {
		if err := violations(w, f, report); err != nil {
			return true, fmt.Errorf("%s: %w", path, err)
		}
	}
	if err := w.Flush(); err != nil {
		return true, fmt.Errorf("writing the report: %w", err)
	}
	return report.Found() > 0, nil
}

func summary(w *bufio.Writer, path string, r *history.Reader, report *check.Report) {
	s := &report.Summary
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) } // Flush gives the error
	line("%s: %d records of %q, begun %s", path, s.Records, r.Header.Driver, time.UnixMilli(r.Header.BeganAt).UTC().Format(time.RFC3339))
	line("%d clients, %d connections, %d conversations, %d hints, %d faults", s.Clients, s.Connections, s.Conversations, s.Hints, s.Faults)
	if report.Torn {
		line("THE LAST LINE IS TORN: the writer was killed, and what it had not flushed is missing")
	}
	if !report.Rested {
		line("IT NEVER CAME TO REST: counts are judged within bounds only")
	}
	line("\n%-9s %-7s %-36s %9s", "operation", "door", "outcome", "times")
	for _, o := range s.Outcomes {
		line("%-9s %-7s %-36s %9d", o.Call, o.Door, o.Outcome, o.Count)
	}
	line("\n%-15s %9s %9s %9s %9s %9s %9s", "numbered sends", "times", "p50", "p90", "p99", "p99.9", "max")
	for _, l := range s.Sends {
		line("%-15s %9d %9s %9s %9s %9s %9s", l.Door, l.Count, short(l.P50), short(l.P90), short(l.P99), short(l.P999), short(l.Max))
	}
	line("\n%-9s %9s", "source", "records")
	for _, c := range s.Sources {
		note := ""
		if !c.Whole {
			note = "  not read to its end: nothing is concluded from it"
		}
		line("%-9s %9d%s", c.Name, c.Count, note)
	}
	line("\n%-13s %-4s %10s %10s  %s", "check", "of", "looked at", "violations", "rule")
	for _, c := range report.Results {
		looked := fmt.Sprint(c.Looked)
		if c.Looked == 0 {
			looked = "NOTHING"
		}
		line("%-13s %-4s %10s %10d  %s", c.Check, c.Promise, looked, c.Found, c.Rule)
	}
}

func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

func violations(w *bufio.Writer, f *os.File, report *check.Report) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("reading the lines of the violations: %w", err)
	}
	again, err := history.NewReader(f)
	if err != nil {
		return err
	}
	excerpts, err := check.Excerpts(again.All(), report)
	if err != nil {
		return err
	}
	for i := range report.Results {
		c := &report.Results[i]
		for j := range c.Violations {
			v := &c.Violations[j]
			where := ""
			if !v.Conversation.IsZero() {
				where = " " + v.Conversation.String() + ":"
			}
			_, _ = fmt.Fprintf(w, "\n%s %s:%s %s\n", v.Check, v.Promise, where, v.Message)
			for k, text := range excerpts[v] {
				_, _ = fmt.Fprintf(w, "  %d: %s\n", v.Lines[k], text)
			}
		}
		if more := c.Found - int64(len(c.Violations)); more > 0 {
			_, _ = fmt.Fprintf(w, "\n%s %s: %d more\n", c.Check, c.Promise, more)
		}
	}
	return nil
}
