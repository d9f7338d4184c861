package archive

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What the page for analysts shows is run: a statement that is not right any more fails here.
func TestDocs_EveryStatementRunsAndTellsTheTruth(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "clickhouse.md"))
	if err != nil {
		t.Fatal(err)
	}
	engine := newEngine(t)
	start := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	var block, marks Block
	add := func(kind, kindType, text, content string) {
		seq := int64(len(block.Messages) + 1)
		block.Messages = append(block.Messages, Message{
			ConversationID: "g-1", ConversationType: "group", Seq: seq, Kind: kind, Type: kindType, SenderID: 1 + seq%2, Text: text, Content: content,
			SentAt: start.Add(time.Duration(seq) * time.Hour), Mentions: []int64{}, Recipients: []int64{}, Offset: seq,
		})
	}
	add("create", "notice", "", `{"notice":"created","user_ids":["2","3"]}`)
	add("join", "notice", "", `{"notice":"joined","user_ids":["4"]}`)
	add("leave", "notice", "", `{"notice":"left","user_ids":["2"]}`)
	for n := range 20 {
		text := fmt.Sprintf("line %d", n)
		if n == 9 {
			text = "to the Harbour, then"
		}
		add("message", "text", text, `{"text":"x"}`)
	}
	for i := range int64(4) {
		at := start.Add(17*time.Hour + time.Duration(i)*25*time.Minute)
		marks.Marks = append(marks.Marks, Mark{UserID: 10 + i, ConversationID: "g-1", Seq: 17 + i, At: at, Offset: i})
	}
	if err := engine.Insert(t.Context(), "a", block); err != nil {
		t.Fatal(err)
	}
	if err := engine.Insert(t.Context(), "b", marks); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"[2026-03-01 2026-03-02]", // days
		"[1:10:0 2:10:0]",         // who talks most
		"[4]",                     // readers within the hour: at 0, 25 and 50 minutes, and the next sender
		"[11 12 13 14 15]",        // around the word
		"[1:3 2:4 3:3]",           // members
		"[]",                      // nothing is missing
	}
	read := []func(rows rowsOf) string{
		func(r rowsOf) string {
			var day time.Time
			var n uint64
			r.scan(&day, &n)
			return day.Format(time.DateOnly)
		},
		func(r rowsOf) string {
			var id int64
			var said, back uint64
			r.scan(&id, &said, &back)
			return fmt.Sprintf("%d:%d:%d", id, said, back)
		},
		func(r rowsOf) string { var n uint64; r.scan(&n); return fmt.Sprint(n) },
		func(r rowsOf) string {
			var seq, id int64
			var text string
			r.scan(&seq, &id, &text)
			return fmt.Sprint(seq)
		},
		func(r rowsOf) string {
			var seq, n int64
			var at time.Time
			r.scan(&seq, &at, &n)
			return fmt.Sprintf("%d:%d", seq, n)
		},
		func(rowsOf) string { return "a conversation with something missing" },
	}
	statements := regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(statements) != len(want) {
		t.Fatalf("the page has %d statements, and %d are known here", len(statements), len(want))
	}
	// What was never said has nothing around it.
	never := strings.ReplaceAll(statements[3][1], "harbour", "lighthouse")
	if rows := scan[struct{}](t, engine, "SELECT 1 FROM ("+never+")"); len(rows) != 0 || never == statements[3][1] {
		t.Errorf("%s\nreturns %d rows for a word that was never said", never, len(rows))
	}
	for i, s := range statements {
		rows, err := engine.conn.Query(t.Context(), s[1])
		if err != nil {
			t.Errorf("%s\n%v", s[1], err)
			continue
		}
		got := []string{}
		for rows.Next() {
			got = append(got, read[i](rowsOf{t, rows.Scan}))
		}
		if err := rows.Err(); err != nil {
			t.Errorf("%s\n%v", s[1], err)
		}
		if text := "[" + strings.Join(got, " ") + "]"; text != want[i] {
			t.Errorf("%s\ngives %s, want %s", s[1], text, want[i])
		}
	}
}

type rowsOf struct {
	t   *testing.T
	row func(...any) error
}

func (r rowsOf) scan(into ...any) {
	r.t.Helper()
	if err := r.row(into...); err != nil {
		r.t.Error(err)
	}
}
