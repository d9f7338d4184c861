package fsck

import (
	"context"
	"errors"
	"fmt"

	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// loadParked notes what is parked: its numbers have no row, and that is said once.
func (c *Checker) loadParked(ctx context.Context) error {
	c.parked, c.parkedAt = map[sqlstore.Place]bool{}, map[chat.Position]bool{}
	if c.store == nil {
		if err := c.options.Broken[PartStore]; err != nil {
			return fmt.Errorf("there is no store to compare with: %w", err)
		}
		return errors.New("there is no store to compare with")
	}
	f := newFound()
	partition, offset := int32(-1), int64(-1)
	for {
		list, err := c.store.ListParked(ctx, kafka.TopicMessages, partition, offset, pageRows)
		if err != nil {
			return err
		}
		for i := range list {
			p := &list[i]
			partition, offset = p.Partition, p.Offset
			c.parkedAt[chat.Position{Partition: p.Partition, Offset: p.Offset}] = true
			id, seq := p.Conversation, p.Seq
			if e, err := wire.DecodeEvent(p.Record); seq == 0 && err == nil { // parked by a version that did not note it
				id, seq = e.Conversation, e.Seq
			}
			if seq > 0 {
				c.parked[sqlstore.Place{Conversation: id, Seq: seq}] = true
				if only := c.options.Conversation; !only.IsZero() && id != only {
					continue
				}
			}
			f.count(checkParked, 1)
			f.breach(checkParked, atOffset(p.Topic, p.Partition, p.Offset), "the record with the key %.128q is parked: %s", p.Key, p.Reason)
		}
		if len(list) < pageRows {
			c.note(f)
			return nil
		}
	}
}

// lookAtStore goes through the conversations, and then through what could belong to none.
func (c *Checker) lookAtStore(ctx context.Context) error {
	if only := c.options.Conversation; !only.IsZero() {
		heads, err := c.store.Conversations(ctx, []chat.ConversationID{only})
		if err != nil {
			return err
		}
		if len(heads) == 0 {
			return fmt.Errorf("there is no conversation %s", only)
		}
		if err := c.settle(ctx, func(ctx context.Context, f *found) error { return c.conversation(ctx, only, f) }); err != nil {
			return err
		}
		return c.meantInOne(ctx, only)
	}
	n := 0
	err := c.eachHead(ctx, func(page []timeline.Conversation) error {
		for i := range page {
			id := page[i].ID
			if err := c.settle(ctx, func(ctx context.Context, f *found) error { return c.conversation(ctx, id, f) }); err != nil {
				return fmt.Errorf("%s: %w", id, err)
			}
			n++
			c.say("store: %d conversations, %d rows", n, c.results[checkRows].Looked)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, table := range []sqlstore.ConversationTable{sqlstore.TableTimeline, sqlstore.TableMembers, sqlstore.TableRecalled} {
		if err := c.orphans(ctx, table); err != nil {
			return err
		}
	}
	for _, table := range []sqlstore.MeantTable{sqlstore.TableMentions, sqlstore.TableAddressed} {
		if err := c.meantInAll(ctx, table); err != nil {
			return err
		}
	}
	return nil
}

// eachHead gives all heads, a page at a time.
func (c *Checker) eachHead(ctx context.Context, each func(page []timeline.Conversation) error) error {
	var after chat.ConversationID
	for {
		page, err := c.store.HeadsAfter(ctx, after, pageRows)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return nil
		}
		if err := each(page); err != nil {
			return err
		}
		after = page[len(page)-1].ID
	}
}

// orphans looks for rows of conversations that have no head. Heads are written with the first row and never removed, so
// that one that is read later than the row is there.
func (c *Checker) orphans(ctx context.Context, table sqlstore.ConversationTable) error {
	var after chat.ConversationID
	for done := false; !done; {
		ids := make([]chat.ConversationID, 0, pageRows)
		for len(ids) < pageRows {
			next, err := c.store.NextIn(ctx, table, after)
			if err != nil {
				return err
			}
			if done = next.IsZero(); done {
				break
			}
			ids, after = append(ids, next), next
		}
		heads, err := c.store.Conversations(ctx, ids)
		if err != nil {
			return err
		}
		there := make(map[chat.ConversationID]bool, len(heads))
		for i := range heads {
			there[heads[i].ID] = true
		}
		f := newFound()
		f.count(checkOrphans, len(ids))
		for _, id := range ids {
			if !there[id] {
				f.breach(checkOrphans, Place{Table: string(table), Conversation: id.String()}, "there are rows, and no head")
			}
		}
		c.note(f)
		c.say("store: conversations of the table %s up to %s", table, after)
	}
	return nil
}
