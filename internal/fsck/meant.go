package fsck

import (
	"context"
	"fmt"
	"slices"

	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// meantBy gives those for whom a row has to have rows in a table.
func meantBy(table sqlstore.MeantTable, r *timeline.Row) []chat.UserID {
	if r.Kind != chat.KindMessage || r.RecalledAt > 0 || r.Tombstone {
		return nil
	}
	if table == sqlstore.TableMentions {
		return timeline.Meant(&chat.Event{Sender: r.Sender, Message: &chat.Message{Mentions: r.Mentions, Recipients: r.Recipients}})
	}
	return slices.DeleteFunc(slices.Clone(r.Recipients), func(u chat.UserID) bool { return u == r.Sender })
}

func ofMeant(table sqlstore.MeantTable, v sqlstore.MeantRow) Place {
	return Place{Table: string(table), Conversation: v.Place.Conversation.String(), Seq: v.Place.Seq, User: v.User.String()}
}

// meantBy looks whether those whom the messages of a page are for have their rows.
func (s *scan) meantBy(ctx context.Context, rows []timeline.Row) error {
	for _, table := range []sqlstore.MeantTable{sqlstore.TableMentions, sqlstore.TableAddressed} {
		var want []sqlstore.MeantRow
		for i := range rows {
			for _, u := range meantBy(table, &rows[i]) {
				want = append(want, sqlstore.MeantRow{User: u, Place: sqlstore.Place{Conversation: s.id, Seq: rows[i].Seq}})
			}
		}
		there, err := s.store.MeantAt(ctx, table, want)
		if err != nil {
			return err
		}
		s.f.count(checkMeant, len(want))
		for _, v := range want {
			if !there[v] {
				s.f.breach(checkMeant, ofMeant(table, v), "the message is for the user, and there is no row")
			}
		}
	}
	return nil
}

// meantInAll looks at every row of a table of those who are meant.
func (c *Checker) meantInAll(ctx context.Context, table sqlstore.MeantTable) error {
	var after *sqlstore.MeantRow
	for {
		var page []sqlstore.MeantRow
		err := c.settle(ctx, func(ctx context.Context, f *found) error {
			var err error
			if page, err = c.store.MeantAfter(ctx, table, after, pageRows); err != nil {
				return err
			}
			return c.meantRows(ctx, table, page, f)
		})
		if err != nil || len(page) < pageRows {
			return err
		}
		after = &page[len(page)-1]
		c.say("store: rows of the table %s up to user %s", table, after.User)
	}
}

// meantInOne looks at the rows of everybody who ever was in a conversation, and of everybody at once (user 0).
func (c *Checker) meantInOne(ctx context.Context, id chat.ConversationID) error {
	users := []chat.UserID{0}
	last := chat.UserID(0)
	for {
		for _, table := range []sqlstore.MeantTable{sqlstore.TableMentions, sqlstore.TableAddressed} {
			for _, u := range users {
				for seq, more := int64(0), true; more; {
					var page []sqlstore.MeantRow
					err := c.settle(ctx, func(ctx context.Context, f *found) error {
						var err error
						if page, err = c.store.MeantIn(ctx, table, u, sqlstore.Place{Conversation: id, Seq: seq}, pageRows); err != nil {
							return err
						}
						return c.meantRows(ctx, table, page, f)
					})
					if err != nil {
						return err
					}
					if more = len(page) == pageRows; more {
						seq = page[len(page)-1].Place.Seq
					}
				}
			}
		}
		members, err := c.store.MembersAfter(ctx, id, last, membersPage)
		if err != nil || len(members) == 0 {
			return err
		}
		users = users[:0]
		for i := range members {
			users = append(users, members[i].User)
		}
		last = users[len(users)-1]
	}
}

// meantRows looks whether rows of those who are meant have a message that means them.
func (c *Checker) meantRows(ctx context.Context, table sqlstore.MeantTable, page []sqlstore.MeantRow, f *found) error {
	places := make([]sqlstore.Place, len(page))
	for i := range page {
		places[i] = page[i].Place
	}
	slices.SortFunc(places, func(a, b sqlstore.Place) int { return slices.Compare([]byte(key(a)), []byte(key(b))) })
	rows, err := c.store.RowsAt(ctx, slices.Compact(places))
	if err != nil {
		return err
	}
	f.count(checkMeant, len(page))
	for _, v := range page {
		r, found := rows[v.Place]
		at := ofMeant(table, v)
		switch {
		case !found:
			f.breach(checkMeant, at, "there is a row for the user, and none of a message")
		case r.RecalledAt > 0:
			f.breach(checkRecalled, at, "the message was recalled, and the row is still there")
		case !slices.Contains(meantBy(table, &r), v.User):
			f.breach(checkMeant, at, "there is a row for the user, and the message is not for them")
		case table == sqlstore.TableMentions && v.Sender != r.Sender:
			f.breach(checkMeant, at, "the row says that user %s sent the message, which user %s did", v.Sender, r.Sender)
		}
	}
	return nil
}

func key(p sqlstore.Place) string { return fmt.Sprintf("%s\x00%020d", p.Conversation.Bytes(), p.Seq) }
