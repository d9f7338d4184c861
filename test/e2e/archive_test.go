package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tideline/test/platform"
)

// lossWait is how long an archive may take to be compared and filled: the engine starts in a second or two.
const lossWait = 60 * time.Second

// until asks again and again, and returns once the answer is the one that is wanted.
func until(t *testing.T, want string, ask func() string) {
	t.Helper()
	for deadline := time.Now().Add(lossWait); ; time.Sleep(50 * time.Millisecond) {
		got := ask()
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the answer is %s, want %s", got, want)
		}
	}
}

func TestStandalone_RefillsAnArchiveThatWasLost(t *testing.T) {
	dir := t.TempDir()
	pf := platform.StandaloneIn(t, dir)
	ada, bob := pf.Join(t, "ada"), pf.Join(t, "bob")
	var g struct {
		ID string `json:"conversation_id"`
	}
	ada.Eventually(201, "POST", "/groups", map[string]any{"name": "Harbour", "member_ids": []string{bob.ID}, "client_msg_id": "group-1"}, &g)
	var last int64
	for n := range 20 {
		last = ada.Send(g.ID, fmt.Sprintf("m-%d", n), "hello").Seq
		if n%5 == 4 {
			bob.Must(200, "PUT", "/conversations/"+g.ID+"/read", map[string]int64{"seq": last}, nil)
		}
	}
	count := func(a *platform.Archive) func() string {
		return func() string {
			rows, err := a.Try("SELECT count() FROM messages")
			if err != nil {
				return err.Error()
			}
			marks, err := a.Try("SELECT count() FROM read_marks")
			if err != nil {
				return err.Error()
			}
			return fmt.Sprintf("%d rows and %d marks", rows, marks)
		}
	}
	all := fmt.Sprintf("%d rows and 4 marks", last)
	until(t, all, count(pf.Archived(t, g.ID, last)))

	for _, name := range []string{"the folder was moved away", "nothing was lost"} {
		pf.Parts[0].Terminate()
		before := strings.Count(pf.Parts[0].Log(), "THE ARCHIVE LOST ROWS")
		if name != "nothing was lost" {
			if err := os.Rename(filepath.Join(dir, "clickhouse"), filepath.Join(dir, "away")); err != nil {
				t.Fatal(err)
			}
		}
		pf.Parts[0].Start()
		until(t, all, count(pf.Archived(t, g.ID, last)))
		said := strings.Count(pf.Parts[0].Log(), "THE ARCHIVE LOST ROWS") - before
		if lost := name != "nothing was lost"; lost != (said > 0) {
			t.Errorf("%s: the log says %d times that rows were lost", name, said)
		}
		next := ada.Send(g.ID, "after "+name, "hello").Seq // it goes on behind
		pf.Archived(t, g.ID, next)
		last, all = next, fmt.Sprintf("%d rows and 4 marks", next)
	}
	pf.Parts[0].Terminate()
	pf.Parts[0].Start()
	pf.Archived(t, g.ID, last)
	pf.Fsck()
}

func TestStandalone_AnAnalystReadsTheViewsAndNoFile(t *testing.T) {
	dir := t.TempDir()
	pf := platform.StandaloneIn(t, dir)
	ada := pf.Join(t, "ada")
	var g struct {
		ID string `json:"conversation_id"`
	}
	ada.Eventually(201, "POST", "/groups", map[string]any{"name": "Harbour", "client_msg_id": "group-1"}, &g)
	pf.Archived(t, g.ID, ada.Send(g.ID, "m", "hello").Seq)
	owner, err := url.Parse(pf.ClickHouse())
	if err != nil {
		t.Fatal(err)
	}
	password, err := os.ReadFile(filepath.Join(dir, "clickhouse-password"))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(text string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+owner.Host+"/", strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("reader", strings.TrimSpace(string(password)))
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body)
	}
	if status, body := ask("SELECT text FROM messages WHERE kind = 'message'"); status != 200 || body != "hello\n" {
		t.Errorf("an analyst is answered %d %q", status, body)
	}
	for _, name := range []string{"token-key", "hash-key", "admin-token", "clickhouse-owner-password"} {
		secret, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"SELECT * FROM file('" + filepath.Join(dir, name) + "', 'LineAsString')", "SELECT file('" + filepath.Join(dir, name) + "')"} {
			if status, body := ask(text); status != 403 || strings.Contains(body, strings.TrimSpace(string(secret))) {
				t.Errorf("%s: %d %s", text, status, body)
			}
		}
	}
	for _, text := range []string{"SELECT * FROM sqlite('" + filepath.Join(dir, "tideline.db") + "', 'users')", "DROP TABLE tideline.read_marks", "ALTER TABLE tideline.messages DELETE WHERE 1", "SELECT * FROM tideline.messages"} {
		if status, body := ask(text); status != 403 {
			t.Errorf("%s: %d %s", text, status, body)
		}
	}
}
