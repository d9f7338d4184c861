package sqlstore

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

func TestReceipt_IsOfMessagesThatStand(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		c := chat.GroupConversation(7)
		lists := packLists(nil, []chat.UserID{2, 5})
		for _, r := range []struct {
			seq   int64
			kind  chat.Kind
			flags int
			lists []byte
		}{{1, chat.KindCreate, 0, nil}, {2, chat.KindMessage, 0, nil}, {3, chat.KindMessage, flagTombstone, nil}, {4, chat.KindMessage, flagReceipt, lists}} {
			_, err := s.writer.ExecContext(t.Context(), "INSERT INTO timeline (conversation_id, seq, ordinal, kind, message_id, sender_id, body_hash, sent_at, flags, lists) VALUES (?, ?, 1, ?, ?, 9, ?, 0, ?, ?)",
				c.Bytes(), r.seq, int(r.kind), r.seq, make([]byte, 16), r.flags, r.lists)
			if err != nil {
				t.Fatal(err)
			}
		}
		got, err := s.Receipt(t.Context(), c, []int64{5, 4, 3, 2, 1})
		want := []timeline.ReceiptQuestion{{Seq: 2, Sender: 9}, {Seq: 4, Sender: 9, Recipients: []chat.UserID{2, 5}}}
		if err != nil || !slices.EqualFunc(got, want, func(a, b timeline.ReceiptQuestion) bool {
			return a.Seq == b.Seq && a.Sender == b.Sender && slices.Equal(a.Recipients, b.Recipients)
		}) {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
	})
}

// members puts people into a group, who joined and have read up to anywhere.
func members(t testing.TB, s *Store, c chat.ConversationID, n int) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	for from := 0; from < n; from += 500 {
		many := min(500, n-from)
		var args []any
		for u := range many {
			joined := 1 + random.Int64N(200)
			left := int64(0)
			if random.IntN(10) == 0 {
				left = joined + 1
			}
			args = append(args, c.Bytes(), int64(from+u+1), joined, left, joined+random.Int64N(300), 0, 0)
		}
		_, err := s.exec(t.Context(), "putting members", "INSERT INTO members (conversation_id, user_id, join_seq, left_seq, read_seq, changed_seq, changed_offset) VALUES "+rowsOf(many, 7), args...)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Asked together, about everybody or a few, receipts are what each is alone.
func TestReadCounts_OfManyAreThoseOfEach(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		c := chat.GroupConversation(7)
		members(t, s, c, 700)
		random := rand.New(rand.NewPCG(3, 4))
		var asked []timeline.ReceiptQuestion
		for range 60 {
			q := timeline.ReceiptQuestion{Seq: 1 + random.Int64N(500), Sender: chat.UserID(1 + random.IntN(700))}
			if random.IntN(3) == 0 {
				q.Recipients = []chat.UserID{3, 40, 500, chat.UserID(1 + random.IntN(300)), 9999}
			}
			asked = append(asked, q)
		}
		together, err := s.ReadCounts(t.Context(), c, asked)
		if err != nil || len(together) != len(asked) {
			t.Fatalf("%d counts, %v", len(together), err)
		}
		for i := range asked {
			alone, err := s.ReadCounts(t.Context(), c, asked[i:i+1])
			if err != nil || alone[0] != together[i] {
				t.Errorf("%+v is %+v alone, %v, and %+v with others", asked[i], alone, err, together[i])
			}
		}
	})
}

// BenchmarkReadCounts counts in a group of 10,000: one by one, and in one walk.
func BenchmarkReadCounts(b *testing.B) {
	for dialect, open := range map[string]func(testing.TB) *Store{"SQLite": newSQLite, "MySQL": newMySQL} {
		s := open(b)
		c := chat.GroupConversation(7)
		members(b, s, c, 10_000)
		for _, n := range []int{1, 4, 20, 200} {
			var asked []timeline.ReceiptQuestion
			about := make([]int, n)
			for i := range n {
				asked, about[i] = append(asked, timeline.ReceiptQuestion{Seq: int64(1 + i), Sender: 1}), i
			}
			out := make([]timeline.ReceiptCount, n)
			b.Run(fmt.Sprintf("%s/%d/each", dialect, n), func(b *testing.B) {
				for b.Loop() {
					for i := range asked {
						if err := s.countReaders(b.Context(), c, &asked[i], &out[i]); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
			b.Run(fmt.Sprintf("%s/%d/walk", dialect, n), func(b *testing.B) {
				for b.Loop() {
					if err := s.walkReaders(b.Context(), c, asked, about, out); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
