package sqlstore

import (
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"tideline/pkg/chat"
	"tideline/pkg/seq"
)

func TestReserveCounted_ParallelCallsStayWithinTheLimit(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		const most = 5
		if err := s.CreateUser(ctx, User{ID: 1, Username: "ada", Nickname: "Ada"}); err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		s.now = func() time.Time { return now }
		since := now.Add(-time.Hour).UnixMilli()
		// What an administrator reserved does not count, and neither does what is older.
		if _, _, err := s.ReserveGroup(ctx, 1, "reserved", chat.BodyHash{}, 900); err != nil {
			t.Fatal(err)
		}
		var made, refused sync.Map
		var all sync.WaitGroup
		for i := range 4 * most {
			all.Go(func() {
				name := fmt.Sprint(i)
				id, conflict, full, err := s.ReserveCounted(ctx, Reservation{Creator: 1, ClientMsgID: name, Group: int64(1000 + i), Most: most, Since: since})
				switch {
				case err != nil || conflict:
					t.Errorf("%s: %v, %v", name, conflict, err)
				case id != 0:
					made.Store(name, id)
				case full == now.UnixMilli():
					refused.Store(name, true)
				default:
					t.Errorf("%s: full since %d, want %d", name, full, now.UnixMilli())
				}
			})
		}
		all.Wait()
		n := 0
		made.Range(func(name, id any) bool {
			n++
			again, conflict, full, err := s.ReserveCounted(ctx, Reservation{Creator: 1, ClientMsgID: name.(string), Group: 5000, Most: most, Since: since})
			if err != nil || again != id || conflict || full != 0 {
				t.Errorf("the repetition of %s is %d, %v, %d, %v, want %d", name, again, conflict, full, err, id)
			}
			if _, conflict, _, err := s.ReserveCounted(ctx, Reservation{Creator: 1, ClientMsgID: name.(string), Hash: chat.BodyHash{1}, Group: 5000, Most: most, Since: since}); err != nil || !conflict {
				t.Errorf("%s for another group: %v, %v", name, conflict, err)
			}
			if found, err := s.ReservedGroup(ctx, 1, name.(string)); err != nil || found != id {
				t.Errorf("%s was reserved as %d, %v", name, found, err)
			}
			return true
		})
		if n != most {
			t.Errorf("%d were reserved, %d are allowed", n, most)
		}
		refused.Range(func(name, _ any) bool {
			if found, err := s.ReservedGroup(ctx, 1, name.(string)); err != nil || found != 0 {
				t.Errorf("%s was refused, and is reserved as %d, %v", name, found, err)
			}
			return true
		})
		// An hour later there is room again.
		now = now.Add(time.Hour)
		if id, _, full, err := s.ReserveCounted(ctx, Reservation{Creator: 1, ClientMsgID: "later", Group: 6000, Most: most, Since: now.Add(-time.Hour).UnixMilli()}); err != nil || id != 6000 || full != 0 {
			t.Errorf("an hour later: %d, %d, %v", id, full, err)
		}
	})
}

// usesIndex fails where a statement does not read a table by an index.
func usesIndex(t *testing.T, s *Store, index, text string, args []any) {
	t.Helper()
	explain := "EXPLAIN QUERY PLAN "
	if s.dialect == &mysqlDialect {
		explain = "EXPLAIN "
	}
	var plan strings.Builder
	err := s.query(t.Context(), "explaining", explain+text, args, func(r *sql.Rows) error {
		columns, err := r.Columns()
		if err != nil {
			return err
		}
		values := make([]sql.NullString, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		err = r.Scan(into...)
		for i := range values {
			fmt.Fprintf(&plan, "%s=%s ", columns[i], values[i].String)
		}
		return err
	})
	if used := "key=" + index + " "; err != nil || s.dialect == &mysqlDialect && !strings.Contains(plan.String(), used) ||
		s.dialect == &sqliteDialect && !strings.Contains(plan.String(), "USING COVERING INDEX "+index) {
		t.Errorf("the plan is %s, %v", plan.String(), err)
	}
}

func TestInGroups_CountsPresentMembershipsOfGroups(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		put := func(c chat.ConversationID, u chat.UserID, left int64) {
			t.Helper()
			_, err := s.writer.ExecContext(t.Context(), "INSERT INTO members (conversation_id, user_id, join_seq, left_seq, changed_seq, changed_offset) VALUES (?, ?, 1, ?, 1, 0)", c.Bytes(), int64(u), left)
			if err != nil {
				t.Fatal(err)
			}
		}
		for g := range int64(300) {
			for u := range chat.UserID(4) {
				left := int64(0)
				if u > 0 && g >= int64(u) { // user 1 is in one group, 2 in two, and they left all others
					left = 9
				}
				put(chat.GroupConversation(1<<40+g), 1+u, left)
			}
			put(chat.PrivateConversation(2, chat.UserID(100+g)), 2, 0)
		}
		for least, want := range map[int]string{1: "map[1:true 2:true 3:true 4:true]", 2: "map[1:true 3:true 4:true]", 3: "map[1:true 4:true]", 4: "map[1:true]", 300: "map[1:true]", 301: "map[]"} {
			got, err := s.InGroups(t.Context(), []chat.UserID{1, 2, 3, 4, 5}, least)
			set := map[chat.UserID]bool{}
			for _, u := range got {
				set[u] = true
			}
			if err != nil || fmt.Sprint(set) != want || len(got) != len(set) {
				t.Errorf("in at least %d groups are %v, %v, want %s", least, got, err, want)
			}
		}
		if _, err := s.writer.ExecContext(t.Context(), map[bool]string{true: "ANALYZE TABLE members", false: "ANALYZE members"}[s.dialect == &mysqlDialect]); err != nil {
			t.Fatal(err)
		}
		usesIndex(t, s, "members_present", inGroups(2), inGroupsArgs([]chat.UserID{2, 3}, 500))
	})
}

func TestLoad_SaysWhoBeganAndEndedAMembership(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		c, other := chat.GroupConversation(1), chat.GroupConversation(2)
		exec := func(text string, args ...any) {
			t.Helper()
			if _, err := s.writer.ExecContext(t.Context(), text, args...); err != nil {
				t.Fatal(err)
			}
		}
		for _, g := range []chat.ConversationID{c, other} {
			for n, sender := range []int64{7, 8, 9, 10} {
				exec("INSERT INTO timeline (conversation_id, seq, ordinal, kind, message_id, sender_id, body_hash, sent_at) VALUES (?, ?, 0, 3, 1, ?, ?, ?)", g.Bytes(), n+1, sender, make([]byte, 16), 1000+n)
			}
			for u, seqs := range map[int64][2]int64{20: {1, 0}, 21: {2, 3}, 22: {4, 9}, 23: {0, 0}} { // number 9 is not there
				exec("INSERT INTO members (conversation_id, user_id, role, join_seq, left_seq, muted_until, changed_seq, changed_offset) VALUES (?, ?, 2, ?, ?, 5, ?, 0)", g.Bytes(), u, seqs[0], seqs[1], max(seqs[0], seqs[1]))
			}
		}
		var need seq.Need
		for _, g := range []chat.ConversationID{c, other} {
			for u := chat.UserID(20); u < 25; u++ {
				need.Members = append(need.Members, seq.MemberKey{Conversation: g, User: u})
			}
		}
		loaded, err := s.Load(t.Context(), need)
		if err != nil || len(loaded.Members) != 8 {
			t.Fatalf("%+v, %v", loaded.Members, err)
		}
		for _, m := range loaded.Members {
			want := map[chat.UserID]seq.Member{
				20: {JoinSeq: 1, AddedBy: 7, ChangedSeq: 1}, 21: {JoinSeq: 2, AddedBy: 8, Left: true, LeftBy: 9, LeftAt: 1002, ChangedSeq: 3},
				22: {JoinSeq: 4, AddedBy: 10, Left: true, ChangedSeq: 9}, 23: {},
			}[m.User]
			want.MemberKey, want.Role, want.MutedUntil = m.MemberKey, chat.RoleAdmin, 5
			if m != want {
				t.Errorf("%+v, want %+v", m, want)
			}
		}
	})
}
