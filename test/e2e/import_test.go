package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // to count in the store, beside the product
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	_ "modernc.org/sqlite" // the same

	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/test/platform"
)

// said is a line of the export that becomes an event.
type said struct{ sender, text string }

// chatExport gives a chat export and what is said in it: the real one, where it is beside the project, or else one of the
// same shape.
func chatExport(t *testing.T) (path string, lines []said) {
	t.Helper()
	source := os.Getenv("TIDELINE_TEST_CHAT_DATA")
	if source == "" {
		source = filepath.Join("..", "..", "..", "shared", "data", "ubuntu-irc.jsonl.gz")
	}
	var in io.Reader
	if f, err := os.Open(source); err == nil {
		defer func() { _ = f.Close() }()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		in = z
	} else {
		t.Logf("%s is not here: the import runs on made lines", source)
		in = madeExport()
	}
	path = filepath.Join(t.TempDir(), "export.jsonl")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(out)
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var l struct{ Kind, Sender, Text string }
		if err := json.Unmarshal(scanner.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		if l.Kind != "renamed" {
			lines = append(lines, said{l.Sender, l.Text})
		}
		_, _ = w.Write(append(scanner.Bytes(), '\n'))
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return path, lines
}

// madeExport makes lines of the shape of the real ones: a few talk much, many once, some lines are empty or actions.
func madeExport() io.Reader {
	var b bytes.Buffer
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 60_000 {
		kind, text := "message", fmt.Sprintf("line %d of somebody who has something to say", n)
		switch n % 400 {
		case 7:
			kind = "action"
		case 9:
			text = ""
		case 11:
			kind = "renamed"
		}
		who := int(min(r.ExpFloat64()*400, 4999))
		line, _ := json.Marshal(map[string]any{"day": "2004-12-25", "minute": n / 60, "kind": kind, "sender": fmt.Sprintf("nick%d", who), "text": text})
		b.Write(append(line, '\n'))
	}
	return &b
}

// importing is an import under way.
type importing struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *platform.Output
	path string
}

func startImport(t *testing.T, pf *platform.Platform, path string) *importing {
	t.Helper()
	im := &importing{t: t, out: &platform.Output{}, path: path}
	im.cmd = exec.Command(platform.Built(t, "tideline"), slices.Concat([]string{"import", "-import.api", pf.HTTP, "-import.group", "Everybody"}, pf.KafkaFlags(), []string{path})...)
	im.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TIDELINE_IMPORT_ADMIN_TOKEN=" + pf.Admin()}
	im.cmd.Stdout, im.cmd.Stderr = im.out, im.out
	if err := im.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = im.cmd.Process.Kill() })
	return im
}

func (im *importing) wait() string {
	im.t.Helper()
	done := make(chan error, 1)
	go func() { done <- im.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			im.t.Fatalf("the import ended with %v:\n%s", err, im.out)
		}
	case <-time.After(5 * time.Minute):
		im.t.Fatalf("the import has not ended:\n%s", im.out)
	}
	return im.out.String()
}

// past waits until the import has noted that a line was acknowledged.
func (im *importing) past(line int) {
	im.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		var c struct {
			Line int `json:"line"`
		}
		raw, err := os.ReadFile(im.path + ".checkpoint")
		if err == nil && json.Unmarshal(raw, &c) == nil && c.Line >= line {
			return
		}
		if time.Now().After(deadline) {
			im.t.Fatalf("the import stands at line %d, want %d:\n%s", c.Line, line, im.out)
		}
		time.Sleep(time.Millisecond)
	}
}

// moved is a community that moved in: its log, as any consumer reads it.
type moved struct {
	t      *testing.T
	pf     *platform.Platform
	group  chat.ConversationID
	events []chat.Event
}

// readLog reads im.messages as a service of somebody else does, and keeps the one group's events.
func readLog(t *testing.T, pf *platform.Platform) *moved {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(pf.Kafka), kgo.ConsumeTopics("im.messages"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	m := &moved{t: t, pf: pf}
	var quiet time.Time
	for quiet.IsZero() || time.Since(quiet) < 2*time.Second {
		once, cancelOnce := context.WithTimeout(ctx, time.Second)
		fetches := cl.PollFetches(once)
		cancelOnce()
		if ctx.Err() != nil {
			t.Fatal("the log was not read to its end in time")
		}
		if fetches.NumRecords() > 0 || len(m.events) == 0 {
			quiet = time.Now()
		}
		fetches.EachRecord(func(r *kgo.Record) {
			e, err := wire.DecodeEvent(r.Value)
			if err != nil {
				t.Errorf("%d/%d: %v", r.Partition, r.Offset, err)
			}
			if e.Kind == chat.KindProgress {
				return
			}
			if m.group.IsZero() {
				m.group = e.Conversation
			}
			if e.Conversation == m.group {
				m.events = append(m.events, e)
			}
		})
	}
	return m
}

// MustBe checks that the log has each line once, in order, at the numbers 1..n.
func (m *moved) mustBe(lines []said) {
	m.t.Helper()
	next := 0
	keys := map[string]bool{}
	for i := range m.events {
		e := &m.events[i]
		if e.Seq != int64(i+1) {
			m.t.Fatalf("at place %d of the log stands the number %d", i+1, e.Seq)
		}
		if keys[e.ClientMsgID] {
			m.t.Fatalf("%s is numbered twice, again at %d", e.ClientMsgID, e.Seq)
		}
		keys[e.ClientMsgID] = true
		if e.Kind != chat.KindMessage {
			continue
		}
		if next == len(lines) {
			m.t.Fatalf("number %d says more than the export", e.Seq)
		}
		var content struct{ Text string }
		if err := json.Unmarshal(e.Message.Content, &content); err != nil {
			m.t.Fatal(err)
		}
		if want := lines[next].text; content.Text != want && strings.TrimSpace(want) != "" {
			m.t.Fatalf("number %d says %q, and the export's line %q", e.Seq, content.Text, want)
		}
		next++
	}
	if next != len(lines) {
		m.t.Fatalf("the export says %d things, and the log has %d of them", len(lines), next)
	}
}

// stored counts in the store, beside the product.
func (m *moved) stored() {
	m.t.Helper()
	driver, dsn := m.pf.SQL()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var rows, numbers, first, last int64
	err = db.QueryRow("SELECT COUNT(*), COUNT(DISTINCT seq), MIN(seq), MAX(seq) FROM timeline WHERE conversation_id = ?", m.group.Bytes()).Scan(&rows, &numbers, &first, &last)
	if n := int64(len(m.events)); err != nil || rows != n || numbers != n || first != 1 || last != n {
		m.t.Fatalf("of %d events the store has %d rows with %d numbers from %d to %d: %v", n, rows, numbers, first, last, err)
	}
}

// members gives who is in the group, as the log says, with the number of the join.
func (m *moved) members() map[chat.UserID]int64 {
	joined := map[chat.UserID]int64{}
	for i := range m.events {
		switch e := &m.events[i]; e.Kind {
		case chat.KindCreate:
			joined[e.Sender] = e.Seq
			for _, u := range e.Create.Members {
				joined[u] = e.Seq
			}
		case chat.KindJoin:
			for _, u := range e.Join.Users {
				joined[u] = e.Seq
			}
		case chat.KindLeave:
			for _, u := range e.Leave.Users {
				delete(joined, u)
			}
		}
	}
	return joined
}

// everybody does something as each of the members, a few at a time.
func (m *moved) everybody(members []chat.UserID, do func(p *platform.Person, u chat.UserID)) {
	m.t.Helper()
	next := make(chan chat.UserID)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for u := range next {
				do(m.pf.As(m.t, u.String()), u)
			}
		})
	}
	for _, u := range members {
		if m.t.Failed() {
			break
		}
		next <- u
	}
	close(next)
	wg.Wait()
}

// unreadIsExact lets some members read to places of their own, and holds what everybody is told is unread against a count
// of the log, one event after the other.
func (m *moved) unreadIsExact(flush func()) {
	m.t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	joined := m.members()
	var members, readers []chat.UserID
	marks := map[chat.UserID]int64{}
	n := int64(len(m.events))
	for u, seq := range joined {
		members = append(members, u)
		marks[u] = seq // a member's mark starts at the join
		if r.IntN(20) == 0 {
			readers = append(readers, u)
		}
	}
	for i := range m.events {
		if e := &m.events[i]; e.Kind == chat.KindMessage {
			marks[e.Sender] = e.Seq // who speaks has read
		}
	}
	var mu sync.Mutex
	m.everybody(readers, func(p *platform.Person, u chat.UserID) {
		mu.Lock()
		seq := 1 + r.Int64N(n)
		marks[u] = max(marks[u], seq)
		want := marks[u]
		mu.Unlock()
		var answer struct {
			Read int64 `json:"read_seq"`
		}
		p.Must(200, "PUT", "/conversations/"+m.group.String()+"/read", map[string]int64{"seq": seq}, &answer)
		if answer.Read != want {
			m.t.Errorf("%s read up to %d, and the mark is at %d instead of %d", u, seq, answer.Read, want)
		}
	})
	flush()
	// The naive count: a place in the log is unread for everybody whose mark is before it and who did not say it.
	recalled := map[int64]bool{}
	for i := range m.events {
		if e := &m.events[i]; e.Kind == chat.KindRecall {
			recalled[e.Recall.TargetSeq] = true
		}
	}
	after := make([]int64, n+2) // messages at or behind a number
	for seq := n; seq >= 1; seq-- {
		after[seq] = after[seq+1]
		if m.events[seq-1].Kind == chat.KindMessage && !recalled[seq] {
			after[seq]++
		}
	}
	m.everybody(members, func(p *platform.Person, u chat.UserID) {
		mu.Lock()
		want := after[marks[u]+1] // nothing of one's own stands behind one's mark
		mu.Unlock()
		var v struct {
			Unread int64 `json:"unread"`
			Read   int64 `json:"read_seq"`
			Max    int64 `json:"max_seq"`
		}
		p.Must(200, "GET", "/conversations/"+m.group.String(), nil, &v)
		if v.Unread != want || v.Read != marks[u] || v.Max != n {
			m.t.Errorf("%s has %d unread behind %d of %d; counted one by one there are %d behind %d", u, v.Unread, v.Read, v.Max, want, marks[u])
		}
	})
}

// owner is who made the group.
func (m *moved) owner() *platform.Person { return m.pf.As(m.t, m.events[0].Sender.String()) }

// goesOn lets two people come to the group, and talk in it.
func (m *moved) goesOn() {
	m.t.Helper()
	ada, bob := m.pf.Join(m.t, "ada"), m.pf.Join(m.t, "bob")
	owner, group := m.owner(), "/groups/"+m.group.String()
	owner.Must(200, "POST", group+"/members", map[string]any{"user_ids": []string{ada.ID, bob.ID}}, nil)
	owner.Must(200, "PATCH", group+"/members/"+ada.ID, map[string]string{"role": "admin"}, nil)
	talk(m.t, m.pf, m.group.String(), ada, bob)
}

// canBePulled pulls the beginning, the end and a stretch between, with the number that was told.
func (m *moved) canBePulled() {
	m.t.Helper()
	said := map[int64]string{} // what each message says after its edits, and nothing where it was recalled
	for i := range m.events {
		switch e := &m.events[i]; e.Kind {
		case chat.KindMessage:
			said[e.Seq] = string(e.Message.Content)
		case chat.KindEdit:
			said[e.Edit.TargetSeq] = string(e.Edit.Content)
		case chat.KindRecall:
			said[e.Recall.TargetSeq] = ""
		}
	}
	p := m.owner()
	n := int64(len(m.events))
	for _, after := range []int64{0, n / 2, n - 50} {
		var page struct {
			Messages []struct {
				Seq     int64           `json:"seq"`
				Type    string          `json:"type"`
				Content json.RawMessage `json:"content"`
			} `json:"messages"`
		}
		p.Must(200, "GET", fmt.Sprintf("/conversations/%s/messages?after=%d&limit=50&told=%d", m.group, after, n), nil, &page)
		for i, got := range page.Messages {
			e := m.events[after+int64(i)]
			if want, ok := said[e.Seq]; got.Seq != e.Seq || ok && string(got.Content) != want {
				m.t.Fatalf("after %d the pull gives number %d with %s, and the log has number %d with %s", after, got.Seq, got.Content, e.Seq, want)
			}
		}
		if len(page.Messages) == 0 {
			m.t.Fatalf("after %d the pull gives nothing", after)
		}
	}
}

// isWhole checks that the log has each line once, lets people talk in the group, and then holds every view against the log.
func (m *moved) isWhole(lines []said, flush func()) {
	m.t.Helper()
	m.mustBe(lines)
	m.goesOn()
	m = readLog(m.t, m.pf)
	m.stored()
	m.pf.Archived(m.t, m.group.String(), int64(len(m.events)))
	m.canBePulled()
	m.unreadIsExact(flush)
}

func TestStandalone_ACommunityMovesIn(t *testing.T) {
	pf := platform.Standalone(t, platform.ManyPartitions) // converse needs a wrong partition
	path, lines := chatExport(t)
	t.Log(lastLine(startImport(t, pf, path).wait()))
	readLog(t, pf).isWhole(lines, pf.Restart) // the embedded Redis begins empty
}

// The whole of the real data, while the importer and every part are killed and Redis is emptied.
func TestCluster_ACommunityMovesInWhilePartsAreKilled(t *testing.T) {
	c := platform.StartCluster(t)
	path, lines := chatExport(t)
	cl := redis.NewClient(&redis.Options{Addr: c.Redis.Addr})
	defer func() { _ = cl.Close() }()
	flush := func() {
		if err := cl.FlushAll(context.Background()).Err(); err != nil {
			t.Error(err)
		}
	}
	all := len(lines)
	im := startImport(t, &c.Platform, path)
	im.past(all / 10)
	_ = im.cmd.Process.Kill()
	_ = im.cmd.Wait()
	im = startImport(t, &c.Platform, path)
	for i, p := range c.Parts {
		im.past(all / 10 * (i + 2))
		p.Kill()
		p.Start()
		flush()
	}
	t.Log(lastLine(im.wait()))
	readLog(t, &c.Platform).isWhole(lines, flush)
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
