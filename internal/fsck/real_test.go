package fsck_test

import (
	"testing"

	"github.com/go-sql-driver/mysql"

	"tideline/internal/config"
	"tideline/internal/fsck"
	"tideline/internal/kafka"
	"tideline/internal/marks"
	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
)

// The same world on Kafka, MySQL, Redis and the ClickHouse engine, with an archive.
func TestRun_FindsEachBreachOnRealServers(t *testing.T) {
	w := newWorld(t, realSettings(t))
	for _, c := range w.run(nil).Checks {
		if c.Looked == 0 && c.Name != "parked" {
			t.Errorf("%s has looked at nothing", c.Name)
		}
	}
	w.needsToReadOnly(t)
	w.breakStore(t)
	w.breakRedis(t)
	w.breakArchive(t)
	w.breakLogs(t)
}

// needsToReadOnly runs with the rights that docs/fsck.md names; those on Kafka are in the tests of docs/kafka-acl.md.
func (w *world) needsToReadOnly(t *testing.T) {
	ctx := t.Context()
	dsn, err := mysql.ParseDSN(w.s.Store.DSN.Reveal())
	w.must(err)
	name := "fsck_" + dsn.DBName[max(0, len(dsn.DBName)-12):]
	w.exec("CREATE USER '" + name + "'@'%' IDENTIFIED BY 'x'")
	w.exec("GRANT SELECT ON `" + dsn.DBName + "`.* TO '" + name + "'@'%'")
	dsn.User, dsn.Passwd = name, "x"
	limited := w.s.Store
	limited.DSN = config.Secret(dsn.FormatDSN())
	store, err := sqlstore.OpenReader(ctx, limited)
	w.must(err)
	defer func() { _ = store.Close() }()
	w.must(store.CheckSchema(ctx))
	if err := store.Park(ctx, sqlstore.Parked{Topic: kafka.TopicMessages, Key: []byte{1}, Record: []byte{1}}); err == nil {
		t.Error("who may only read has written")
	}

	rights := append([]any{"ACL", "SETUSER", name, "on", ">x"}, "~tl:*", "+@connection", "+get", "+scan", "+zrange")
	w.must(w.redis.Do(ctx, rights...).Err())
	reader := w.s.Redis
	reader.User, reader.Password = name, "x"
	client := reader.Connect()
	defer func() { _ = client.Close() }()
	if err := client.Set(ctx, "tl:epoch", "1", 0).Err(); err == nil {
		t.Error("who may only read has begun an epoch")
	}
	report, err := fsck.New(store, w.logs, w.archive(), marks.NewSets(client), fsck.Options{Partitions: partitions, AtRest: true}).Run(ctx)
	w.must(err)
	if report.Breaches() != 0 || report.Blind() {
		t.Errorf("with the least rights:\n%s", text(report))
	}
}

func (w *world) breakArchive(t *testing.T) {
	do := func(statement string, args ...any) func() {
		return func() {
			t.Helper()
			if err := w.click.Exec(t.Context(), statement, args...); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
	}
	const now = " SETTINGS mutations_sync = 2"
	g := group.String()
	set := func(what string, seq int) func() {
		return do("ALTER TABLE messages UPDATE "+what+" WHERE conversation_id = ? AND seq = ?"+now, g, seq)
	}
	gone := func(where string, args ...any) func() {
		return do("ALTER TABLE messages DELETE WHERE "+where+now, args...)
	}
	copied := func(columns string, seq int) func() {
		return do("INSERT INTO messages SELECT * REPLACE ("+columns+") FROM (SELECT * FROM messages WHERE conversation_id = ? AND seq = ?)", g, seq)
	}
	row := func(check string, seq int64) string { return breach(check, tableAt("clickhouse messages", seq, "")) }
	unknown := chat.GroupConversation(999).String()
	var next int64
	w.must(w.db.QueryRow("SELECT next_offset FROM archive_positions WHERE topic = ? AND partition_id = ?", kafka.TopicMessages, home).Scan(&next))
	position := func(column string, at int64) func() {
		return func() {
			w.exec("UPDATE archive_positions SET "+column+" = ? WHERE topic = ? AND partition_id = ?", at, kafka.TopicMessages, home)
		}
	}
	last := offsetAt(kafka.TopicMessages, home, w.offsetOf(14))
	lastRow := last
	lastRow.Table, lastRow.Conversation, lastRow.Seq = "clickhouse messages", g, 14
	p4 := chat.Partition("4", partitions)
	mark := breach("archive-marks", offsetAt(kafka.TopicReceipts, p4, 0))
	both := func(a, b func()) func() { return func() { a(); b() } }
	do("CREATE TABLE kept ENGINE = Memory AS SELECT * FROM messages WHERE conversation_id = ? AND seq = 11", g)()
	again := do("INSERT INTO messages SELECT * FROM kept SETTINGS insert_deduplicate = 0")
	none := gone("conversation_id = ? AND seq = 11", g)
	for _, b := range []struct {
		name     string
		do, undo func()
		want     []string
	}{
		{"a row is gone", none, again, []string{row("archive-rows", 11)}},
		{"a row comes twice", again, both(none, again), []string{row("archive-rows", 11)}},
		{"a sender is another", set("sender_id = 9", 2), set("sender_id = 1", 2), []string{row("archive-content", 2)}},
		{"a client id is another", set("client_msg_id = 'x'", 2), set("client_msg_id = 'c-2'", 2), []string{row("archive-content", 2)}},
		{"a kind is another", set("kind = 'join'", 2), set("kind = 'message'", 2), []string{row("archive-content", 2)}},
		{"content is another", set("text = 'x'", 2), set("text = 'one'", 2), []string{row("archive-content", 2)}},
		{"a type is another", set("type = 'custom'", 4), set("type = 'text'", 4), []string{row("archive-content", 4)}},
		{"recipients are others", set("recipients = [7]", 4), set("recipients = [1]", 4), []string{row("archive-content", 4)}},
		{"a time is another", set("sent_at = sent_at + INTERVAL 1 DAY", 2), set("sent_at = sent_at - INTERVAL 1 DAY", 2), []string{row("archive-content", 2)}},
		{"what was recalled can be read", set("content = 'gone'", 5), set("content = ''", 5), []string{row("archive-content", 5)}},
		{"a recall is missing", set("recalled = false", 5), set("recalled = true", 5), []string{row("archive-content", 5)}},
		{"an edit is missing", set("content = concat(char(123), '\"text\":\"two\"', char(125)), text = 'two'", 3), set("content = concat(char(123), '\"text\":\"two, again\"', char(125)), text = 'two, again'", 3), []string{row("archive-content", 3)}},
		{"a number behind the last", copied("99 AS seq, -1 AS offset", 2), gone("seq = 99"), []string{row("archive-rows", 99)}},
		{"a number below the first", copied("0 AS seq", 2), gone("seq = 0"), []string{row("archive-rows", 0)}},
		{"a conversation of nobody", copied("'"+unknown+"' AS conversation_id", 2), gone("conversation_id = ?", unknown), []string{breach("archive-rows", fsck.Place{Table: "clickhouse messages", Conversation: unknown})}},
		{"a name that is none", copied("'what' AS conversation_id", 2), gone("conversation_id = 'what'"), []string{breach("archive-rows", fsck.Place{Table: "clickhouse messages", Conversation: "what"})}},
		{"the archive is ahead of its position", position("next_offset", *last.Offset), position("next_offset", next), []string{breach("archive-rows", lastRow), breach("rest", last)}},
		{"an intent was left", position("intent_to", next+5), position("intent_to", 0), []string{breach("rest", offsetAt(kafka.TopicMessages, home, next))}},
		{"a position is behind the end", position("next_offset", 5000), position("next_offset", next), []string{breach("positions", offsetAt(kafka.TopicMessages, home, 5000))}},
		{"a mark comes twice", do("INSERT INTO read_marks SELECT * FROM read_marks SETTINGS insert_deduplicate = 0"), nil, []string{mark}},
		{"a mark is gone", do("ALTER TABLE read_marks DELETE WHERE true" + now), nil, []string{mark}},
		{"a mark is of another", do("INSERT INTO read_marks (user_id, conversation_id, seq, at, partition, offset) VALUES (7, ?, 2, now64(3), ?, 0)", g, p4), do("ALTER TABLE read_marks DELETE WHERE true" + now), []string{mark}},
		{"a mark of nothing", do("INSERT INTO read_marks (user_id, conversation_id, seq, at, partition, offset) VALUES (7, ?, 2, now64(3), ?, 77)", g, p4), do("ALTER TABLE read_marks DELETE WHERE true" + now), []string{mark, breach("archive-marks", offsetAt(kafka.TopicReceipts, p4, 77))}},
	} {
		w.breaks(t, b.name, nil, nil, b.do, b.undo, b.want...)
	}
}
