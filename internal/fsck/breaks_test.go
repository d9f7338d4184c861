package fsck_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/fsck"
	"tideline/internal/kafka"
	"tideline/internal/marks"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// breach gives what foundIn gives.
func breach(check string, p fsck.Place) string { return check + ": " + p.String() }

func seqAt(seq int64) fsck.Place { return fsck.Place{Conversation: group.String(), Seq: seq} }

var whole = fsck.Place{Conversation: group.String()}

func tableAt(table string, seq int64, user string) fsck.Place {
	return fsck.Place{Table: table, Conversation: group.String(), Seq: seq, User: user}
}

func offsetAt(topic string, partition int32, offset int64) fsck.Place {
	return fsck.Place{Topic: topic, Partition: &partition, Offset: &offset}
}

func keyAt(key, member string) fsck.Place { return fsck.Place{Key: key, Member: member} }

// logged gives the place of an event of the group in im.messages.
func (w *world) logged(seq int64) fsck.Place {
	w.t.Helper()
	p := offsetAt(kafka.TopicMessages, home, w.offsetOf(seq))
	p.Conversation, p.Seq = group.String(), seq
	return p
}

func (w *world) offsetOf(seq int64) int64 {
	w.t.Helper()
	bounds, err := w.logs.Bounds(w.t.Context(), kafka.TopicMessages)
	w.must(err)
	at := int64(-1)
	w.must(w.logs.Read(w.t.Context(), kafka.TopicMessages, home, bounds[home].Start, bounds[home].End, func(r *kgo.Record) error {
		if e, err := wire.DecodeEvent(r.Value); err == nil && e.Conversation == group && e.Seq == seq {
			at = r.Offset
		}
		return nil
	}))
	return at
}

// breaks does something wrong, expects exactly what is wanted besides what was found before, and undoes it.
func (w *world) breaks(t *testing.T, name string, before []string, change func(*fsck.Options), do, undo func(), want ...string) {
	t.Helper()
	do()
	report := w.run(change)
	if undo != nil {
		undo()
	}
	got := slices.DeleteFunc(foundIn(report), func(s string) bool { return slices.Contains(before, s) })
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: found\n  %s\nwant\n  %s\n%s", name, strings.Join(got, "\n  "), strings.Join(want, "\n  "), text(report))
	}
}

// saved removes rows from a table, and gives what puts them back.
func (w *world) removed(table, where string, args ...any) (do, undo func()) {
	return func() {
			w.exec("CREATE TABLE kept AS SELECT * FROM "+table+" WHERE "+where, args...)
			w.exec("DELETE FROM "+table+" WHERE "+where, args...)
		}, func() {
			w.exec("INSERT INTO " + table + " SELECT * FROM kept")
			w.exec("DROP TABLE kept")
		}
}

func TestRun_FindsEachBreachOfTheStoreInItsPlace(t *testing.T) {
	w := newWorld(t, embeddedSettings(t))
	w.breakStore(t)
}

func (w *world) breakStore(t *testing.T) {
	g := group.Bytes()
	fastKeys := func(check string, u chat.UserID) []string {
		return []string{breach(check, keyAt("tl:{u:"+u.String()+"}", group.String())), breach(check, keyAt(marks.KeyOf(group), u.String()))}
	}
	sql := func(statement string, args ...any) func() { return func() { w.exec(statement, args...) } }
	type broken struct {
		name     string
		do, undo func()
		want     []string
	}
	var list []broken
	add := func(name string, do, undo func(), want ...string) { list = append(list, broken{name, do, undo, want}) }
	remove := func(name, table, where string, args []any, want ...string) {
		do, undo := w.removed(table, where, args...)
		add(name, do, undo, want...)
	}
	remove("a row is gone", "timeline", "conversation_id = ? AND seq = 11", []any{g}, breach("rows", seqAt(11)), breach("log-store", w.logged(11)))
	remove("two rows are gone", "timeline", "conversation_id = ? AND seq IN (6, 7)", []any{g},
		breach("rows", seqAt(6)), breach("targets", whole), breach("log-store", w.logged(6)), breach("log-store", w.logged(7)))
	add("a row has no number", sql("INSERT INTO timeline (conversation_id, seq, ordinal, kind, message_id, sender_id, body_hash, sent_at) VALUES (?, -1, 0, 1, 1, 1, x'00112233445566778899aabbccddeeff', 1)", g),
		sql("DELETE FROM timeline WHERE conversation_id = ? AND seq < 1", g), breach("rows", seqAt(-1)))
	joined := `{"notice":"joined","user_ids":["4"]}`
	add("a join was recalled", sql("UPDATE timeline SET content = NULL, recalled_at = 1, recalled_by = 1 WHERE conversation_id = ? AND seq = 9", g),
		sql("UPDATE timeline SET content = ?, recalled_at = NULL, recalled_by = NULL WHERE conversation_id = ? AND seq = 9", joined, g),
		w.andArchived(breach("archive-content", tableAt("clickhouse messages", 9, "")), breach("recalled", seqAt(9)), breach("members", tableAt("members", 0, "4")))...)
	add("a client id is missing", sql("UPDATE timeline SET client_msg_id = NULL WHERE conversation_id = ? AND seq = 11", g), sql("UPDATE timeline SET client_msg_id = ? WHERE conversation_id = ? AND seq = 11", append([]byte{0}, "c-11"...), g),
		w.andArchived(breach("archive-content", tableAt("clickhouse messages", 11, "")), breach("client-ids", seqAt(11)), breach("log-store", w.logged(11)))...)
	add("a recall is another's", sql("UPDATE timeline SET recalled_by = 2 WHERE conversation_id = ? AND seq = 5", g), sql("UPDATE timeline SET recalled_by = 1 WHERE conversation_id = ? AND seq = 5", g),
		breach("targets", seqAt(6)), breach("log-changes", w.logged(6)))
	add("a recall aims at nothing", sql("UPDATE timeline SET target_seq = 99 WHERE conversation_id = ? AND seq = 6", g), sql("UPDATE timeline SET target_seq = 5 WHERE conversation_id = ? AND seq = 6", g),
		w.andArchived(breach("archive-content", tableAt("clickhouse messages", 6, "")), breach("targets", seqAt(6)), breach("log-store", w.logged(6)))...)
	add("a membership does not know of its last change", sql("UPDATE members SET changed_seq = 2 WHERE conversation_id = ? AND user_id = 4", g), sql("UPDATE members SET changed_seq = 9 WHERE conversation_id = ? AND user_id = 4", g),
		breach("members", tableAt("members", 0, "4")), breach("members", tableAt("members", 0, "4")))
	add("a membership changes in the future", sql("UPDATE members SET changed_seq = 99 WHERE conversation_id = ? AND user_id = 4", g), sql("UPDATE members SET changed_seq = 9 WHERE conversation_id = ? AND user_id = 4", g),
		breach("members", tableAt("members", 0, "4")))
	add("two people are three", sql("INSERT INTO members (conversation_id, user_id, join_seq, left_seq, changed_seq, changed_offset, read_seq) VALUES (?, 5, 0, 1, 1, 0, 0)", private.Bytes()), sql("DELETE FROM members WHERE conversation_id = ? AND user_id = 5", private.Bytes()),
		breach("members", fsck.Place{Table: "members", Conversation: private.String(), User: "5"}))
	add("a mark is before the join", sql("UPDATE members SET read_seq = 1, read_ordinal = 0 WHERE conversation_id = ? AND user_id = 3", g), sql("UPDATE members SET read_seq = 4, read_ordinal = 2 WHERE conversation_id = ? AND user_id = 3", g),
		breach("marks", tableAt("members", 0, "3")))
	add("the head is ahead", sql("UPDATE conversations SET max_seq = 15 WHERE conversation_id = ?", g), sql("UPDATE conversations SET max_seq = 14 WHERE conversation_id = ?", g), breach("rows", seqAt(15)))
	add("the head is behind", sql("UPDATE conversations SET max_seq = 13, ordinal = ordinal - 1 WHERE conversation_id = ?", g),
		sql("UPDATE conversations SET max_seq = 14, ordinal = ordinal + 1 WHERE conversation_id = ?", g),
		w.unlessArchived(breach("rows", seqAt(14)), breach("marks", tableAt("members", 0, "2")), breach("times", whole))...)
	add("an ordinal is wrong", sql("UPDATE timeline SET ordinal = ordinal + 5 WHERE conversation_id = ? AND seq = 2", g), sql("UPDATE timeline SET ordinal = ordinal - 5 WHERE conversation_id = ? AND seq = 2", g),
		breach("ordinals", seqAt(2)), breach("ordinals", seqAt(3)), breach("log-store", w.logged(2)))
	add("a row hides a later time", sql("UPDATE timeline SET high_at = sent_at + 1 WHERE conversation_id = ? AND seq = 2", g), sql("UPDATE timeline SET high_at = NULL WHERE conversation_id = ? AND seq = 2", g), breach("times", seqAt(2)))
	var high int64
	w.must(w.db.QueryRow("SELECT high_at FROM conversations WHERE conversation_id = ?", g).Scan(&high))
	add("the head's highest time is wrong", sql("UPDATE conversations SET high_at = 1 WHERE conversation_id = ?", g), sql("UPDATE conversations SET high_at = ? WHERE conversation_id = ?", high, g), breach("times", whole))
	add("the head's ordinal is wrong", sql("UPDATE conversations SET ordinal = ordinal + 1 WHERE conversation_id = ?", g), sql("UPDATE conversations SET ordinal = ordinal - 1 WHERE conversation_id = ?", g), breach("ordinals", whole))
	add("what was recalled can be read", sql(`UPDATE timeline SET content = '{"text":"gone"}' WHERE conversation_id = ? AND seq = 5`, g), sql("UPDATE timeline SET content = NULL WHERE conversation_id = ? AND seq = 5", g),
		breach("recalled", seqAt(5)), breach("log-changes", w.logged(6)))
	add("content is gone", sql("UPDATE timeline SET content = NULL WHERE conversation_id = ? AND seq = 2", g), sql(`UPDATE timeline SET content = '{"text":"one"}' WHERE conversation_id = ? AND seq = 2`, g),
		w.andArchived(breach("archive-content", tableAt("clickhouse messages", 2, "")), breach("recalled", seqAt(2)), breach("log-store", w.logged(2)))...)
	add("a mention outlives the recall", sql("INSERT INTO mentions (user_id, conversation_id, seq, sender_id) VALUES (0, ?, 5, 1)", g), sql("DELETE FROM mentions WHERE user_id = 0 AND conversation_id = ?", g),
		breach("recalled", tableAt("mentions", 5, "0")))
	remove("a correction is missing", "recalled", "conversation_id = ? AND seq = 5", []any{g}, breach("corrections", tableAt("recalled", 5, "")))
	add("a correction too many", sql("INSERT INTO recalled (conversation_id, seq) VALUES (?, 2)", g), sql("DELETE FROM recalled WHERE conversation_id = ? AND seq = 2", g), breach("corrections", tableAt("recalled", 2, "")))
	add("a correction of nothing", sql("INSERT INTO recalled (conversation_id, seq) VALUES (?, 99)", g), sql("DELETE FROM recalled WHERE conversation_id = ? AND seq = 99", g), breach("corrections", tableAt("recalled", 99, "")))
	for column, value := range map[string]int{"max_recalled_seq": 12, "max_addressed_seq": 12, "max_mention_seq": 5} {
		add("the head forgot "+column, sql("UPDATE conversations SET "+column+" = 0 WHERE conversation_id = ?", g), sql(fmt.Sprintf("UPDATE conversations SET %s = %d WHERE conversation_id = ?", column, value), g), breach("corrections", whole))
	}
	var edited int64
	w.must(w.db.QueryRow("SELECT edited_at FROM timeline WHERE conversation_id = ? AND seq = 3", g).Scan(&edited))
	add("an edit is lost", sql(`UPDATE timeline SET edited_at = NULL, changes = 0, content = '{"text":"two"}' WHERE conversation_id = ? AND seq = 3`, g),
		sql(`UPDATE timeline SET edited_at = ?, changes = 2, content = '{"text":"two, again"}' WHERE conversation_id = ? AND seq = 3`, edited, g),
		w.andArchived(breach("archive-content", tableAt("clickhouse messages", 3, "")), breach("targets", seqAt(8)), breach("log-changes", w.logged(8)))...)
	add("an edit is another one", sql(`UPDATE timeline SET content = '{"text":"not this"}' WHERE conversation_id = ? AND seq = 3`, g), sql(`UPDATE timeline SET content = '{"text":"two, again"}' WHERE conversation_id = ? AND seq = 3`, g),
		w.andArchived(breach("archive-content", tableAt("clickhouse messages", 3, "")), breach("log-changes", w.logged(8)))...)
	add("something was changed by nobody", sql("UPDATE timeline SET changes = 3 WHERE conversation_id = ? AND seq = 2", g), sql("UPDATE timeline SET changes = 0 WHERE conversation_id = ? AND seq = 2", g), breach("targets", whole))
	add("content is another one", sql(`UPDATE timeline SET content = '{"text":"won"}' WHERE conversation_id = ? AND seq = 2`, g), sql(`UPDATE timeline SET content = '{"text":"one"}' WHERE conversation_id = ? AND seq = 2`, g),
		w.andArchived(breach("archive-content", tableAt("clickhouse messages", 2, "")), breach("log-store", w.logged(2)))...)
	for what, content := range map[string]string{
		"has too many levels": `{"a":` + strings.Repeat("[", chat.MaxContentDepth) + strings.Repeat("]", chat.MaxContentDepth) + "}",
		"has a long number":   `{"a":1` + strings.Repeat("0", chat.MaxContentNumberBytes) + "}",
		"is infinite":         `{"a":1e400}`, "has a key twice": `{"a":1,"a":2}`, "has half of a surrogate pair": `{"a":"\ud800"}`,
	} {
		add("content "+what, sql("UPDATE timeline SET content = ? WHERE conversation_id = ? AND seq = 2", content, g), sql(`UPDATE timeline SET content = '{"text":"one"}' WHERE conversation_id = ? AND seq = 2`, g),
			w.andArchived(breach("archive-content", tableAt("clickhouse messages", 2, "")), breach("content", seqAt(2)), breach("log-store", w.logged(2)))...)
	}
	drop, again := "DROP INDEX timeline_client", "CREATE UNIQUE INDEX timeline_client ON timeline (conversation_id, sender_id, client_msg_id)"
	if w.s.Store.Driver == "mysql" {
		drop += " ON timeline"
	}
	add("a client id stands twice", func() {
		w.exec(drop)
		w.exec("UPDATE timeline SET client_msg_id = ? WHERE conversation_id = ? AND seq = 12", append([]byte{0}, "c-2"...), g)
	}, func() {
		w.exec("UPDATE timeline SET client_msg_id = ? WHERE conversation_id = ? AND seq = 12", append([]byte{0}, "c-12"...), g)
		w.exec(again)
	}, w.andArchived(breach("archive-content", tableAt("clickhouse messages", 12, "")), breach("client-ids", seqAt(12)), breach("log-store", w.logged(12)))...)
	add("a tombstone points at nobody's", sql("UPDATE timeline SET flags = 2, target_seq = 4, client_msg_id = NULL WHERE conversation_id = ? AND seq = 11", g),
		sql("UPDATE timeline SET flags = 0, target_seq = NULL, client_msg_id = ? WHERE conversation_id = ? AND seq = 11", append([]byte{0}, "c-11"...), g),
		breach("client-ids", seqAt(11)), breach("corrections", tableAt("recalled", 11, "")))
	add("the head counts others", sql("UPDATE conversations SET member_count = 9 WHERE conversation_id = ?", g), sql("UPDATE conversations SET member_count = 3 WHERE conversation_id = ?", g), breach("members", whole))
	add("a join is none", sql("UPDATE members SET join_seq = 2 WHERE conversation_id = ? AND user_id = 4", g), sql("UPDATE members SET join_seq = 9 WHERE conversation_id = ? AND user_id = 4", g),
		breach("members", tableAt("members", 0, "4")), breach("fast-members", keyAt(marks.KeyOf(group), "4")))
	add("a leave is none", sql("UPDATE members SET left_seq = 11 WHERE conversation_id = ? AND user_id = 3", g), sql("UPDATE members SET left_seq = 10 WHERE conversation_id = ? AND user_id = 3", g), breach("members", tableAt("members", 0, "3")))
	remove("a membership is gone", "members", "conversation_id = ? AND user_id = 4", []any{g},
		append(fastKeys("fast-members", 4), breach("members", whole), breach("members", tableAt("members", 0, "4")))...)
	mark := func(seq, ordinal int64) func() {
		return sql("UPDATE members SET read_seq = ?, read_ordinal = ? WHERE conversation_id = ? AND user_id = 4", seq, ordinal, g)
	}
	add("a mark is beyond the end", mark(99, 4), mark(13, 4), append(fastKeys("fast-marks", 4), breach("marks", tableAt("members", 0, "4")))...)
	add("a mark has another ordinal", mark(13, 3), mark(13, 4), breach("marks", tableAt("members", 0, "4")), breach("fast-marks", keyAt("tl:{u:4}", group.String())))
	lost := offsetAt(kafka.TopicReceipts, chat.Partition("4", partitions), 0)
	lost.Conversation, lost.User = group.String(), "4"
	add("a mark is lost", mark(11, 4), mark(13, 4), append(fastKeys("fast-marks", 4), breach("receipts", lost))...)
	add("an own send did not move the mark", mark(9, 3), mark(13, 4), append(fastKeys("fast-marks", 4), breach("receipts", lost), breach("marks", tableAt("members", 0, "4")))...)
	remove("nobody is told that he is meant", "mentions", "user_id = 3", nil, breach("meant", tableAt("mentions", 3, "3")))
	remove("an addressee has no row", "addressed", "user_id = 1", nil, breach("meant", tableAt("addressed", 4, "1")))
	add("somebody is meant for no reason", sql("INSERT INTO mentions (user_id, conversation_id, seq, sender_id) VALUES (4, ?, 2, 1)", g), sql("DELETE FROM mentions WHERE user_id = 4"), breach("meant", tableAt("mentions", 2, "4")))
	add("somebody is meant by nothing", sql("INSERT INTO addressed (user_id, conversation_id, seq) VALUES (4, ?, 77)", g), sql("DELETE FROM addressed WHERE user_id = 4"), breach("meant", tableAt("addressed", 77, "4")))
	add("a mention has another sender", sql("UPDATE mentions SET sender_id = 1 WHERE user_id = 3"), sql("UPDATE mentions SET sender_id = 2 WHERE user_id = 3"), breach("meant", tableAt("mentions", 3, "3")))
	add("a conversation is elsewhere", sql("UPDATE conversations SET partition_id = ? WHERE conversation_id = ?", 1-home, g), sql("UPDATE conversations SET partition_id = ? WHERE conversation_id = ?", home, g), breach("home", whole))
	orphan := chat.GroupConversation(999)
	for table, insert := range map[string]string{
		"recalled": "INSERT INTO recalled (conversation_id, seq) VALUES (?, 1)",
		"members":  "INSERT INTO members (conversation_id, user_id, join_seq, changed_seq, changed_offset) VALUES (?, 5, 1, 1, 0)",
		"timeline": "INSERT INTO timeline (conversation_id, seq, ordinal, kind, message_id, sender_id, body_hash, sent_at) VALUES (?, 1, 0, 1, 1, 1, x'00112233445566778899aabbccddeeff', 1)",
	} {
		add("an orphan in "+table, sql(insert, orphan.Bytes()), sql("DELETE FROM "+table+" WHERE conversation_id = ?", orphan.Bytes()), breach("orphans", fsck.Place{Table: table, Conversation: orphan.String()}))
	}
	add("a record is parked", sql("INSERT INTO parked (topic, partition_id, record_offset, reason, record_key, record, parked_at) VALUES ('im.messages', ?, 7, 'why', x'67', x'00', 1)", home), sql("DELETE FROM parked"),
		breach("parked", offsetAt(kafka.TopicMessages, home, 7)))
	for column, topic := range map[string]string{"messages_next": kafka.TopicMessages, "inbound_next": kafka.TopicInbound, "rejected_next": kafka.TopicRejected} {
		var at int64
		w.must(w.db.QueryRow("SELECT "+column+" FROM timeline_positions WHERE partition_id = ?", home).Scan(&at))
		add(column+" is behind the end", sql("UPDATE timeline_positions SET "+column+" = 5000 WHERE partition_id = ?", home), sql("UPDATE timeline_positions SET "+column+" = ? WHERE partition_id = ?", at, home),
			breach("positions", offsetAt(topic, home, 5000)))
	}
	add("marks are left to be stored", sql("UPDATE consumer_positions SET next_offset = 0 WHERE consumer = 'receipts'"), sql("UPDATE consumer_positions SET next_offset = 1 WHERE consumer = 'receipts'"),
		breach("rest", offsetAt(kafka.TopicReceipts, chat.Partition("4", partitions), 0)))
	var next int64
	w.must(w.db.QueryRow("SELECT messages_next FROM timeline_positions WHERE partition_id = ?", home).Scan(&next))
	add("the store is ahead of its position", sql("UPDATE timeline_positions SET messages_next = ? WHERE partition_id = ?", w.offsetOf(14), home), sql("UPDATE timeline_positions SET messages_next = ? WHERE partition_id = ?", next, home),
		breach("log-store", w.logged(14)), breach("rest", offsetAt(kafka.TopicMessages, home, w.offsetOf(14))))
	for _, b := range list {
		w.breaks(t, b.name, nil, nil, b.do, b.undo, b.want...)
	}
	if report := w.run(nil); report.Breaches() != 0 {
		t.Errorf("what was mended is not whole:\n%s", text(report))
	}
}

// andArchived adds what an archive shows of a breach of the store, where there is one.
func (w *world) andArchived(archived string, others ...string) []string {
	if w.engine == nil {
		return others
	}
	return append(others, archived)
}

// unlessArchived adds that the archive has the number that the head does not know.
func (w *world) unlessArchived(others ...string) []string {
	return w.andArchived(breach("archive-rows", tableAt("clickhouse messages", 14, "")), others...)
}

func TestRun_FindsEachBreachOfTheFastMarksInItsPlace(t *testing.T) {
	w := newWorld(t, embeddedSettings(t))
	w.breakRedis(t)
}

func (w *world) breakRedis(t *testing.T) {
	ctx := t.Context()
	set := func(key, member string, score float64) func() {
		return func() { w.must(w.redis.ZAdd(ctx, key, redis.Z{Member: member, Score: score}).Err()) }
	}
	gone := func(key string, members ...any) func() {
		return func() { w.must(w.redis.ZRem(ctx, key, members...).Err()) }
	}
	conversation, user := marks.KeyOf(group), "tl:{u:4}"
	both := func(a, b func()) func() { return func() { a(); b() } }
	for _, b := range []struct {
		name     string
		do, undo func()
		want     []string
	}{
		{"a mark is behind", set(conversation, "4", 9), set(conversation, "4", 13), []string{breach("fast-marks", keyAt(conversation, "4"))}},
		{"a mark is beyond", set(conversation, "4", 14), set(conversation, "4", 13), []string{breach("fast-marks", keyAt(conversation, "4"))}},
		{"a user's mark is behind", set(user, group.String(), 9), set(user, group.String(), 13), []string{breach("fast-marks", keyAt(user, group.String()))}},
		{"an ordinal is wrong", set(user, "o:"+group.String(), 9), set(user, "o:"+group.String(), 4), []string{breach("fast-marks", keyAt(user, group.String()))}},
		{"a join is wrong", set(conversation, "j:4", -3), set(conversation, "j:4", -10), []string{breach("fast-members", keyAt(conversation, "4"))}},
		{"half is missing", gone(conversation, "j:4"), set(conversation, "j:4", -10), []string{breach("fast-members", keyAt(conversation, "4"))}},
		{"a member is missing", gone(conversation, "4", "j:4"), both(set(conversation, "4", 13), set(conversation, "j:4", -10)), []string{breach("fast-members", keyAt(conversation, "4"))}},
		{"who left is in", both(set(conversation, "3", 4), set(conversation, "j:3", -2)), gone(conversation, "3", "j:3"), []string{breach("fast-members", keyAt(conversation, "3"))}},
		{"something strange is in", set(user, "what", 1), gone(user, "what"), []string{breach("fast-members", keyAt(user, "what"))}},
		{"a set that nobody believes is wrong", both(gone(conversation, "ready"), set(conversation, "4", 1)), nil, nil},
	} {
		w.breaks(t, b.name, nil, nil, b.do, b.undo, b.want...)
	}
}

// A mark that stands in im.receipts and that the store has not come to is on its way, and no breach until everything is
// said to be at rest.
func TestRun_TakesAMarkThatIsOnItsWayForNoBreach(t *testing.T) {
	w := newWorld(t, embeddedSettings(t))
	mark := chat.ReadMark{User: 4, Conversation: group, Seq: 14, Ordinal: 5, At: 1}
	offset := w.produce(kafka.TopicReceipts, chat.Partition("4", partitions), "4", wire.EncodeReadMark(&mark))
	w.must(w.redis.ZAdd(t.Context(), "tl:{u:4}", redis.Z{Member: group.String(), Score: 14}, redis.Z{Member: "o:" + group.String(), Score: 5}).Err())
	running := func(o *fsck.Options) { o.AtRest = false }
	w.breaks(t, "running", nil, running, func() {}, nil)
	w.breaks(t, "at rest", nil, nil, func() {}, nil,
		breach("fast-marks", keyAt("tl:{u:4}", group.String())), breach("rest", offsetAt(kafka.TopicReceipts, chat.Partition("4", partitions), offset)))
}

// What the writer of the last batch may not have followed is left to its successor.
func TestRun_LeavesTheLastBatchToTheSuccessorOfItsWriter(t *testing.T) {
	w := newWorld(t, embeddedSettings(t))
	w.exec("UPDATE timeline_positions SET batch_from = 0 WHERE partition_id = ?", home)
	w.must(w.redis.ZRem(context.Background(), marks.KeyOf(group), "4", "j:4").Err())
	w.breaks(t, "running", nil, func(o *fsck.Options) { o.AtRest = false }, func() {}, nil)
	w.breaks(t, "at rest", nil, nil, func() {}, nil, breach("fast-members", keyAt(marks.KeyOf(group), "4")))
}
