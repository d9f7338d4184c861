package archive

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"tideline/internal/servers"
	"tideline/internal/sqlstore"
	clickhouseschema "tideline/schemas/clickhouse"
)

func TestMain(m *testing.M) {
	code := m.Run()
	servers.Stop()
	os.Exit(code)
}

// newEngine returns an archive in a database of its own on the real engine.
func newEngine(t *testing.T) *ClickHouse {
	t.Helper()
	engine, _ := newEngineAt(t)
	return engine
}

func newEngineAt(t *testing.T) (engine *ClickHouse, addr string) {
	t.Helper()
	addr = servers.ClickHouse(t)
	if err := Migrate(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	engine, err := Open(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() })
	return engine, addr
}

func scan[T any](t *testing.T, c *ClickHouse, text string, args ...any) []T {
	t.Helper()
	var out []T
	if err := c.conn.Select(t.Context(), &out, text, args...); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return out
}

type counted struct {
	N uint64 `ch:"n"`
}

func TestMigrate_MayBeRepeated(t *testing.T) {
	addr := servers.ClickHouse(t)
	for range 2 {
		if err := Migrate(t.Context(), addr); err != nil {
			t.Fatal(err)
		}
	}
}

// killed is a real engine whose archiver dies at a call, as disk says.
type killed struct {
	*ClickHouse
	d *disk
}

func (k *killed) Insert(ctx context.Context, token string, b Block) (err error) {
	died := k.d.do(func() { err = k.ClickHouse.Insert(ctx, token, b) })
	if err != nil {
		return err
	}
	return died
}

func (k *killed) Change(ctx context.Context, c Changes) (err error) {
	died := k.d.do(func() { err = k.ClickHouse.Change(ctx, c) })
	if err != nil {
		return err
	}
	return died
}

// P9: a plain count() is the number of events, wherever an archiver was killed, on the real engine.
func TestClickHouse_HasEachEventOnceWhereverTheArchiverIsKilled(t *testing.T) {
	records := log()
	for kill := 1; ; kill++ {
		finished := false
		for _, after := range []bool{false, true} {
			engine := newEngine(t)
			d := &disk{dieAt: kill, after: after, tokens: map[string]bool{}, rows: map[int64]Message{}}
			finished = runOn(d, &killed{engine, d}, records) == nil
			d.dieAt = 0
			if err := runOn(d, &killed{engine, d}, records); err != nil {
				t.Fatal(err)
			}
			list := scan[Message](t, engine, "SELECT * FROM messages ORDER BY seq")
			if len(list) != len(records) {
				t.Fatalf("killed at %d (after: %v): %d rows of %d events", kill, after, len(list), len(records))
			}
			for seq, want := range map[int64]string{1: "three", 2: "", 5: "", 10: "secret"} {
				if m := list[seq-1]; m.Seq != seq || m.Text != want || m.Recalled != (want == "") || (m.Content == "") != (want == "") {
					t.Fatalf("killed at %d (after: %v): row %d is %+v", kill, after, seq, m)
				}
			}
		}
		if finished {
			return
		}
	}
}

// An archiver that slept while a successor did its work inserts its block again when it wakes.
func TestClickHouse_TakesABlockOnceFromASleeperAndItsSuccessor(t *testing.T) {
	engine := newEngine(t)
	block := Block{Messages: []Message{{ConversationID: "g-1", Seq: 1, SentAt: time.UnixMilli(1), Mentions: []int64{}, Recipients: []int64{}}}}
	for range 3 {
		if err := engine.Insert(t.Context(), "im.messages:0:0:1", block); err != nil {
			t.Fatal(err)
		}
	}
	marks := Block{Marks: []Mark{{UserID: 7, ConversationID: "g-1", Seq: 1, At: time.UnixMilli(1)}}}
	for range 2 {
		if err := engine.Insert(t.Context(), "im.receipts:0:0:1", marks); err != nil {
			t.Fatal(err)
		}
	}
	if n := scan[counted](t, engine, "SELECT count() AS n FROM messages"); n[0].N != 1 {
		t.Fatalf("%d rows", n[0].N)
	}
	if n := scan[counted](t, engine, "SELECT count() AS n FROM read_marks"); n[0].N != 1 {
		t.Fatalf("%d marks", n[0].N)
	}
	has := func(from, to int64) bool {
		t.Helper()
		there, err := engine.Has(t.Context(), "messages", 0, from, to)
		if err != nil {
			t.Fatal(err)
		}
		return there
	}
	if !has(0, 1) || has(1, 9) {
		t.Fatal("the range that is there is not found, or one that is not is")
	}
}

func TestChange_ReachesManyRowsAtOnceAndNeverGoesBack(t *testing.T) {
	engine := newEngine(t)
	var block Block
	const n = 2*changesAtOnce + 50
	for seq := range int64(n) {
		m := Message{
			ConversationID: fmt.Sprintf("g-%d", seq%3), Seq: seq, Type: "text", Text: "before", Content: `{"text":"before"}`, SentAt: time.UnixMilli(1), Mentions: []int64{4}, Recipients: []int64{},
		}
		if seq%5 == 0 {
			m.Type, m.Text = "custom", ""
		}
		block.Messages = append(block.Messages, m)
	}
	if err := engine.Insert(t.Context(), "a", block); err != nil {
		t.Fatal(err)
	}
	place := func(seq int64) Place { return Place{fmt.Sprintf("g-%d", seq%3), seq} }
	var changes Changes
	for seq := range int64(n) {
		said := fmt.Sprintf(`it's "new" \ ? %d`, seq)
		content, _ := json.Marshal(map[string]string{"text": said})
		if seq%4 == 0 {
			changes.Recalls = append(changes.Recalls, place(seq))
		} else {
			changes.Edits = append(changes.Edits, Edit{Place: place(seq), EditSeq: 1000 + seq, Text: said, Content: string(content)})
		}
	}
	late := Changes{Edits: []Edit{
		{Place: place(1), EditSeq: 3, Text: "old", Content: "{}"},         // an older edit comes again
		{Place: place(4), EditSeq: 5000, Text: "secret", Content: `"{}"`}, // an edit of what was recalled
	}}
	for _, c := range []Changes{changes, late, changes} { // again: a repeat changes nothing
		if err := engine.Change(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range scan[Message](t, engine, "SELECT * FROM messages ORDER BY seq") {
		text := fmt.Sprintf(`it's "new" \ ? %d`, m.Seq)
		content, _ := json.Marshal(map[string]string{"text": text})
		if m.Type == "custom" {
			text = ""
		}
		if m.Seq%4 == 0 {
			if !m.Recalled || m.Text != "" || m.Content != "" || len(m.Mentions) != 0 {
				t.Fatalf("what was recalled is %+v", m)
			}
		} else if m.Text != text || m.Content != string(content) || m.EditSeq != 1000+m.Seq || m.Recalled {
			t.Fatalf("what was edited is %+v", m)
		}
	}
}

func TestViews_AnswerAsANaiveCountDoes(t *testing.T) {
	engine := newEngine(t)
	start := time.Date(2026, 3, 1, 22, 30, 0, 0, time.UTC)
	var block Block
	type hourKey struct {
		c string
		h time.Time
	}
	type dayKey struct {
		c      string
		day    string
		sender int64
	}
	hours, senders, days, recalled := map[hourKey]uint64{}, map[hourKey]map[int64]bool{}, map[dayKey]uint64{}, map[dayKey]uint64{}
	for seq := range int64(500) {
		m := Message{
			ConversationID: fmt.Sprintf("g-%d", seq%2), ConversationType: "group", Seq: seq, Kind: "message", Type: "text", SenderID: seq * seq % 11, SentAt: start.Add(time.Duration(seq) * time.Minute),
			Recalled: seq%9 == 0, Mentions: []int64{}, Recipients: []int64{},
		}
		if seq%10 == 3 {
			m.Kind = "join"
		} else {
			h := hourKey{m.ConversationID, m.SentAt.Truncate(time.Hour)}
			d := dayKey{m.ConversationID, m.SentAt.Format(time.DateOnly), m.SenderID}
			hours[h]++
			if senders[h] == nil {
				senders[h] = map[int64]bool{}
			}
			senders[h][m.SenderID] = true
			days[d]++
			if m.Recalled {
				recalled[d]++
			}
		}
		block.Messages = append(block.Messages, m)
	}
	if err := engine.Insert(t.Context(), "a", block); err != nil {
		t.Fatal(err)
	}
	perHour := scan[struct {
		C        string    `ch:"conversation_id"`
		Hour     time.Time `ch:"hour"`
		Messages uint64    `ch:"messages"`
		Senders  uint64    `ch:"senders"`
	}](t, engine, "SELECT * FROM messages_per_hour")
	if len(perHour) != len(hours) {
		t.Fatalf("%d hours, want %d", len(perHour), len(hours))
	}
	for _, r := range perHour {
		if k := (hourKey{r.C, r.Hour.UTC()}); hours[k] != r.Messages || uint64(len(senders[k])) != r.Senders {
			t.Fatalf("%+v, want %d by %d", r, hours[k], len(senders[k]))
		}
	}
	active := scan[struct {
		C        string    `ch:"conversation_id"`
		Day      time.Time `ch:"day"`
		Sender   int64     `ch:"sender_id"`
		Messages uint64    `ch:"messages"`
		Recalled uint64    `ch:"recalled"`
	}](t, engine, "SELECT * FROM active_senders")
	if len(active) != len(days) {
		t.Fatalf("%d rows of senders, want %d", len(active), len(days))
	}
	for _, r := range active {
		if k := (dayKey{r.C, r.Day.Format(time.DateOnly), r.Sender}); days[k] != r.Messages || recalled[k] != r.Recalled {
			t.Fatalf("%+v, want %d and %d", r, days[k], recalled[k])
		}
	}

	var marks Block
	first := map[int64]time.Time{}
	for i := range int64(300) {
		m := Mark{UserID: i % 40, ConversationID: fmt.Sprintf("g-%d", i%3), Seq: i / 2, At: start.Add(time.Duration(i) * 10 * time.Second), Offset: i}
		if m.ConversationID == "g-1" && m.Seq >= 61 {
			if at, there := first[m.UserID]; !there || m.At.Before(at) {
				first[m.UserID] = m.At
			}
		}
		marks.Marks = append(marks.Marks, m)
	}
	if err := engine.Insert(t.Context(), "b", marks); err != nil {
		t.Fatal(err)
	}
	// A later message counts as a mark of its sender; the sender of number 61 is not counted.
	writer := int64(0)
	for _, m := range block.Messages {
		if m.ConversationID != "g-1" || m.Kind != "message" || m.SenderID == 0 {
			continue
		}
		if m.Seq == 61 {
			writer = m.SenderID
		}
		if at, there := first[m.SenderID]; m.Seq > 61 && (!there || m.SentAt.Before(at)) {
			first[m.SenderID] = m.SentAt
		}
	}
	if _, there := first[writer]; writer == 0 || !there {
		t.Fatalf("number 61 is of %d, of which no mark is known", writer)
	}
	delete(first, writer)
	byMinute := map[time.Time]uint64{}
	for _, at := range first {
		byMinute[at.Truncate(time.Minute)]++
	}
	var minutes []time.Time
	for m := range byMinute {
		minutes = append(minutes, m)
	}
	slices.SortFunc(minutes, time.Time.Compare)
	through := scan[struct {
		Minute time.Time `ch:"minute"`
		N      uint64    `ch:"readers"`
		SoFar  uint64    `ch:"readers_so_far"`
	}](t, engine, "SELECT * FROM read_through(conversation = 'g-1', number = 61)")
	if len(through) != len(minutes) {
		t.Fatalf("%d minutes, want %d", len(through), len(minutes))
	}
	soFar := uint64(0)
	for i, r := range through {
		soFar += byMinute[minutes[i]]
		if !r.Minute.Equal(minutes[i]) || r.N != byMinute[minutes[i]] || r.SoFar != soFar {
			t.Fatalf("minute %d is %+v, want %s %d %d", i, r, minutes[i], byMinute[minutes[i]], soFar)
		}
	}
}

var (
	_ Store  = (*sqlstore.Store)(nil)
	_ Engine = (*ClickHouse)(nil)
)

// No ClickHouse server is here to run it on: the engine parses it at least.
func TestGrants_AreStatementsOfClickHouse(t *testing.T) {
	engine := newEngine(t)
	statements := 0
	for _, text := range strings.Split(clickhouseschema.Grants, ";\n") {
		if strings.TrimSpace(text) == "" {
			continue
		}
		statements++
		if got := scan[struct {
			Text string `ch:"text"`
		}](t, engine, "SELECT formatQuerySingleLine(?) AS text", text); len(got) != 1 || got[0].Text == "" {
			t.Errorf("%s\nis parsed as %v", text, got)
		}
	}
	if statements != 3 {
		t.Errorf("%d statements", statements)
	}
}

// An archive of the version before there were readers.
func TestMigrate_ShowsReadersWhatWasArchivedBefore(t *testing.T) {
	engine, addr := newEngineAt(t)
	row := func(conversation, kind string) Message {
		return Message{ConversationID: conversation, ConversationType: kind, Seq: 1, Kind: "message", SenderID: 7, Text: "said", SentAt: time.UnixMilli(1), Mentions: []int64{}, Recipients: []int64{}}
	}
	if err := engine.Insert(t.Context(), "a", Block{Messages: []Message{row("g-1", "group"), row("p-1-2", "private"), row("s-7", "system"), row("s-all", "system")}}); err != nil {
		t.Fatal(err)
	}
	o, err := options(addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"ALTER TABLE messages DROP INDEX by_public_id", "ALTER TABLE messages DROP COLUMN public_id", "ALTER TABLE read_marks DROP INDEX by_public_id", "ALTER TABLE read_marks DROP COLUMN public_id",
		"DROP TABLE analysis_key", "DROP DATABASE " + quoteName(AnalysisOf(o.Auth.Database)), "ALTER TABLE goose_db_version DELETE WHERE version_id > 1"} {
		if err := engine.conn.Exec(clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"mutations_sync": 2})), text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	for range 2 { // the key, and with it the ids, stay
		if err := Migrate(t.Context(), addr); err != nil {
			t.Fatal(err)
		}
	}
	got := scan[struct {
		Shown  uint64 `ch:"shown"`
		Hidden uint64 `ch:"hidden"`
		Texts  uint64 `ch:"texts"`
	}](t, engine, "SELECT countIf(conversation_id IN ('g-1', 's-all')) AS shown, countIf(length(conversation_id) = 34) AS hidden, countIf(text != '' OR sender_id != 0) AS texts FROM "+quoteName(AnalysisOf(o.Auth.Database))+".messages")
	if got[0].Shown != 2 || got[0].Hidden != 2 || got[0].Texts != 2 {
		t.Errorf("readers see %+v, want 2 of each", got)
	}
	if keys := scan[counted](t, engine, "SELECT count() AS n FROM analysis_key"); keys[0].N != 1 {
		t.Errorf("%d keys", keys[0].N)
	}
}
