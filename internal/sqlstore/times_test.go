package sqlstore

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"testing"

	"tideline/pkg/chat"
	"tideline/schemas/mysql"
	"tideline/schemas/sqlite"
)

// timed stores rows of a conversation that were sent at some times, as a release without high_at left them.
func timed(tb testing.TB, s *Store, c chat.ConversationID, times []int64) {
	tb.Helper()
	run := func(text string, args ...any) {
		if _, err := s.writer.ExecContext(tb.Context(), text, args...); err != nil {
			tb.Fatal(err)
		}
	}
	const batch = 500
	for from := 0; from < len(times); from += batch {
		part := times[from:min(from+batch, len(times))]
		var args []any
		for i, at := range part {
			seq := int64(from + i + 1)
			args = append(args, c.Bytes(), seq, seq, 1, seq, 1, fmt.Appendf(nil, "%016d", seq), at)
		}
		run("INSERT INTO timeline (conversation_id, seq, ordinal, kind, message_id, sender_id, body_hash, sent_at) VALUES "+rowsOf(len(part), 8), args...)
	}
	run("INSERT INTO conversations (conversation_id, partition_id, max_seq, ordinal, created_at, last_at, last_offset) VALUES (?, 0, ?, ?, 1, 1, 1)",
		c.Bytes(), len(times), len(times))
}

// fillTimesOfOld runs the statements of the schema step that fill high_at.
func fillTimesOfOld(tb testing.TB, s *Store) {
	tb.Helper()
	files := sqlite.Files
	if s.dialect != &sqliteDialect {
		files = mysql.Files
	}
	text, err := files.ReadFile("00006_times.sql")
	if err != nil {
		tb.Fatal(err)
	}
	updates := regexp.MustCompile(`(?ms)^UPDATE .*?;`).FindAllString(string(text), -1)
	if len(updates) != 2 {
		tb.Fatalf("the step has %d statements that fill, 2 are expected", len(updates))
	}
	for _, u := range updates {
		if _, err := s.writer.ExecContext(tb.Context(), u); err != nil {
			tb.Fatal(err)
		}
	}
}

func TestSeqAt_IsExactForRowsThatWereThereBeforeTheStep(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		random := rand.New(rand.NewPCG(5, 6))
		times := map[chat.ConversationID][]int64{}
		for g := range int64(3) {
			c := chat.GroupConversation(g + 1)
			for range 300 {
				times[c] = append(times[c], 1+random.Int64N(1000*(g+1)))
			}
			timed(t, s, c, times[c])
		}
		fillTimesOfOld(t, s)
		heads, err := s.Conversations(t.Context(), []chat.ConversationID{chat.GroupConversation(1), chat.GroupConversation(2), chat.GroupConversation(3)})
		if err != nil || len(heads) != 3 {
			t.Fatalf("%d heads, %v", len(heads), err)
		}
		for _, head := range heads {
			var highest int64
			for _, at := range times[head.ID] {
				highest = max(highest, at)
			}
			if head.HighAt != highest {
				t.Errorf("%s: the highest time is %d, the head says %d", head.ID, highest, head.HighAt)
			}
			for at := range highest + 2 {
				var want int64
				for i, sent := range times[head.ID] {
					if sent >= at {
						want = int64(i + 1)
						break
					}
				}
				if got, err := s.SeqAt(t.Context(), head.ID, at); err != nil || got != want {
					t.Fatalf("%s: the lowest number sent at %d or later is %d, %v; want %d", head.ID, at, got, err, want)
				}
			}
		}
	})
}

// BenchmarkSeqAt looks for times in a conversation of a million rows, half of them out of order.
func BenchmarkSeqAt(b *testing.B) {
	for dialect, open := range map[string]func(testing.TB) *Store{"SQLite": newSQLite, "MySQL": newMySQL} {
		s := open(b)
		c := chat.GroupConversation(7)
		const rows = 1_000_000
		random := rand.New(rand.NewPCG(7, 8))
		times := make([]int64, rows)
		for i := range times {
			times[i] = int64(1_000_000 + 10*i - 1000*random.IntN(2)*random.IntN(500))
		}
		timed(b, s, c, times)
		fillTimesOfOld(b, s)
		b.Run(dialect, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.SeqAt(b.Context(), c, int64(1_000_000+random.IntN(10*rows))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
