package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// Whatever the size of a page, all of them together are what there is, in the order of the key and each row once.
func TestAudit_PagesGiveEverythingOnce(t *testing.T) {
	for name, open := range map[string]func(testing.TB) *Store{"SQLite": newSQLite, "MySQL": newMySQL} {
		t.Run(name, func(t *testing.T) { pagesGiveEverything(t, open(t)) })
	}
}

func pagesGiveEverything(t *testing.T, s *Store) {
	ctx := t.Context()
	groups := []chat.ConversationID{chat.GroupConversation(1), chat.GroupConversation(2), chat.GroupConversation(3)}
	var entries []timeline.Entry
	meant := map[MeantTable][]MeantRow{}
	ids := map[chat.ConversationID][]ClientID{}
	for _, c := range groups {
		for seq := int64(1); seq <= 6; seq++ {
			e := chat.Event{Conversation: c, Seq: seq, Kind: chat.KindMessage, MessageID: seq, Sender: chat.UserID(seq%2 + 1), ClientMsgID: fmt.Sprint("c", seq), SentAt: seq,
				Message: &chat.Message{Type: chat.TypeText, Content: json.RawMessage(`{"text":"x"}`), Recipients: []chat.UserID{7, 8}, Mentions: &chat.Mentions{UserIDs: []chat.UserID{7, 8}}}}
			if seq == 1 {
				e.Kind, e.Message, e.Create = chat.KindCreate, nil, &chat.Create{Name: "g", Members: []chat.UserID{1, 7, 8}}
			} else {
				for _, u := range []chat.UserID{7, 8} {
					place := Place{c, seq}
					meant[TableMentions] = append(meant[TableMentions], MeantRow{u, place, e.Sender})
					meant[TableAddressed] = append(meant[TableAddressed], MeantRow{u, place, 0})
				}
			}
			ids[c] = append(ids[c], ClientID{e.Sender, e.ClientMsgID, seq})
			entries = append(entries, timeline.Entry{Offset: int64(len(entries)), Event: e})
		}
	}
	if _, err := s.Apply(ctx, timeline.Position{}, timeline.Position{MessagesNext: 100}, entries); err != nil {
		t.Fatal(err)
	}
	for _, rows := range meant {
		slices.SortFunc(rows, func(a, b MeantRow) int {
			return slices.Compare([]int64{int64(a.User), a.Place.Conversation.A, a.Place.Seq}, []int64{int64(b.User), b.Place.Conversation.A, b.Place.Seq})
		})
	}
	for limit := 1; limit <= 8; limit++ {
		for table, want := range meant {
			got := pages(t, limit, func(last *MeantRow) ([]MeantRow, error) { return s.MeantAfter(ctx, table, last, limit) })
			if !slices.Equal(got, want) {
				t.Errorf("%s in pages of %d: %v, want %v", table, limit, got, want)
			}
			one := pages(t, limit, func(last *MeantRow) ([]MeantRow, error) {
				after := Place{Conversation: groups[1]}
				if last != nil {
					after = last.Place
				}
				return s.MeantIn(ctx, table, 7, after, limit)
			})
			if len(one) != 5 || one[4].Place != (Place{groups[1], 6}) {
				t.Errorf("%s of one user in pages of %d: %v", table, limit, one)
			}
		}
		heads := pages(t, limit, func(last *timeline.Conversation) ([]timeline.Conversation, error) {
			var after chat.ConversationID
			if last != nil {
				after = last.ID
			}
			return s.HeadsAfter(ctx, after, limit)
		})
		if len(heads) != 3 || heads[0].ID != groups[0] || heads[2].ID != groups[2] {
			t.Errorf("heads in pages of %d: %v", limit, heads)
		}
		members := pages(t, limit, func(last *timeline.Member) ([]timeline.Member, error) {
			var after chat.UserID
			if last != nil {
				after = last.User
			}
			return s.MembersAfter(ctx, groups[0], after, limit)
		})
		if len(members) != 4 || members[3].User != 8 {
			t.Errorf("members in pages of %d: %v", limit, members)
		}
		if limit < 2 {
			continue // a page of one would be the one that comes again
		}
		var got []ClientID
		for from := (ClientID{}); ; {
			page, err := s.ClientIDsFrom(ctx, groups[0], from, limit)
			if err != nil {
				t.Fatal(err)
			}
			full := len(page) == limit
			if len(page) > 0 && page[0] == from {
				page = page[1:]
			}
			got = append(got, page...)
			if !full {
				break
			}
			from = page[len(page)-1]
		}
		want := slices.Clone(ids[groups[0]])
		slices.SortFunc(want, func(a, b ClientID) int {
			return slices.Compare([]int64{int64(a.Sender), a.Seq}, []int64{int64(b.Sender), b.Seq})
		})
		if !slices.Equal(got, want) {
			t.Errorf("client ids in pages of %d: %v, want %v", limit, got, want)
		}
	}
	for _, table := range []ConversationTable{TableTimeline, TableMembers} {
		var got []chat.ConversationID
		for at := (chat.ConversationID{}); ; got = append(got, at) {
			next, err := s.NextIn(ctx, table, at)
			if err != nil {
				t.Fatal(err)
			}
			if at = next; at.IsZero() {
				break
			}
		}
		if !slices.Equal(got, groups) {
			t.Errorf("%s has %v", table, got)
		}
	}
	if _, err := s.NextIn(ctx, "users", groups[0]); err == nil {
		t.Error("a table that has no conversations was read")
	}
	if _, err := s.MeantAfter(ctx, "users", nil, 1); err == nil {
		t.Error("a table of nobody who is meant was read")
	}
}

// pages reads until a page is not full.
func pages[T any](t *testing.T, limit int, read func(last *T) ([]T, error)) []T {
	t.Helper()
	var all []T
	for {
		var last *T
		if len(all) > 0 {
			last = &all[len(all)-1]
		}
		page, err := read(last)
		if err != nil {
			t.Fatal(err)
		}
		if all = append(all, page...); len(page) < limit {
			return all
		}
	}
}

func TestOpenReader_ChangesNothing(t *testing.T) {
	cfg := Config{Driver: "sqlite", Path: filepath.Join(t.TempDir(), "store.db"), MaxOpen: 4, Timeout: time.Second}
	if s, err := OpenReader(t.Context(), cfg); err == nil {
		_ = s.Close()
		t.Fatal("a file that is not there was opened")
	}
	if found, err := filepath.Glob(cfg.Path + "*"); err != nil || len(found) > 0 {
		t.Fatalf("a reader has made %q: %v", found, err)
	}
	owner := openStore(t, cfg)
	reader, err := OpenReader(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	if err := reader.CheckSchema(context.Background()); err != nil {
		t.Error(err)
	}
	if err := reader.Park(t.Context(), Parked{Topic: "im.messages"}); err == nil {
		t.Error("a reader has written")
	}
	if err := owner.Park(t.Context(), Parked{Topic: "im.messages", Key: []byte{1}, Record: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	if list, err := reader.ListParked(t.Context(), "im.messages", -1, -1, 10); err != nil || len(list) != 1 {
		t.Errorf("beside its owner a reader sees %v: %v", list, err)
	}
}
