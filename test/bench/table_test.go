package bench

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"strings"
)

// table is what a cell prints.
type table struct {
	b     *bench
	title string
	rows  [][]string
	void  []string

	others func() float64 // cores that others used since it was begun
}

func (b *bench) table(title string, columns ...string) *table {
	return &table{b: b, title: title, rows: [][]string{columns}, others: watch()}
}

// row adds a line. Where something was wrong in its runs its verdict, the last column, is that it is void.
func (t *table) row(void []string, values ...any) {
	line := make([]string, len(values))
	for i, v := range values {
		if s, ok := v.(spread); ok {
			line[i] = s.text()
		} else {
			line[i] = fmt.Sprint(v)
		}
	}
	if len(void) > 0 {
		line[len(line)-1] = "VOID"
		t.void = append(t.void, fmt.Sprintf("%s is void: %s", strings.Join(line[:2], ", "), strings.Join(void[:min(3, len(void))], "; ")))
	}
	t.rows = append(t.rows, line)
}

// print writes the table as Markdown, to standard output and to the file that BENCH_REPORT names. A void cell fails the test.
func (t *table) print() {
	t.b.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "\n### %s\n\n", t.title)
	for i, row := range t.rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(&b, "|%s\n", strings.Repeat("---|", len(row)))
		}
	}
	fmt.Fprintf(&b, "\nWhile this ran, others used %.1f of the machine's %d cores.\n", t.others(), runtime.NumCPU())
	for _, v := range t.void {
		fmt.Fprintf(&b, "\n%s\n", v)
	}
	fmt.Print(b.String())
	if path := os.Getenv("BENCH_REPORT"); path != "" {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = f.WriteString(b.String())
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.b.t.Error(err)
		}
	}
	for _, v := range t.void {
		t.b.t.Errorf("%s: %s", t.title, v)
	}
}

// atLeast and atMost judge a figure by its bar.
func atLeast(v, bar float64, unit string) string {
	if v >= bar {
		return fmt.Sprintf("met (bar ≥ %g%s)", bar, unit)
	}
	return fmt.Sprintf("missed by %.0f %% (bar ≥ %g%s)", (bar-v)/bar*100, bar, unit)
}

func atMost(v, bar float64, unit string) string {
	if v <= bar {
		return fmt.Sprintf("met (bar ≤ %g%s)", bar, unit)
	}
	return fmt.Sprintf("missed by %.0f %% (bar ≤ %g%s)", (v-bar)/bar*100, bar, unit)
}
