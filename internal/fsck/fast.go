package fsck

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/marks"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// lookAtFast compares every set of fast marks that is ready with the store.
func (c *Checker) lookAtFast(ctx context.Context) error {
	look := func(key string) error {
		c.say("redis: %d members, up to %s", c.results[checkFastMembers].Looked, key)
		return c.settle(ctx, func(ctx context.Context, f *found) error { return c.set(ctx, key, f) })
	}
	if only := c.options.Conversation; !only.IsZero() {
		return look(marks.KeyOf(only))
	}
	return c.fast.Each(ctx, look)
}

// entry is a membership as a set has it and as the store has it.
type entry struct {
	conversation chat.ConversationID
	user         chat.UserID
	member       string // of the set
	fast         marks.Standing
	there        bool // in the store
	seq, other   int64
	otherIs      string
}

// set looks at one set. It is read before the store: what has moved between is looked at again.
func (c *Checker) set(ctx context.Context, key string, f *found) error {
	set, err := c.fast.Read(ctx, key)
	if err != nil {
		return err
	}
	if !set.Ready {
		return nil // nobody believes it
	}
	for _, s := range set.Strange {
		f.breach(checkFastMembers, Place{Key: key, Member: s}, "nothing of ours has such a name")
	}
	var list []entry
	if set.User != 0 {
		list, err = c.ofUser(ctx, set)
	} else {
		list, err = c.ofConversation(ctx, set)
	}
	if err != nil {
		return err
	}
	open, err := c.mayBeUnseen(ctx, list)
	if err != nil {
		return err
	}
	for i := range list {
		if err := c.entry(ctx, key, &list[i], open, f); err != nil {
			return err
		}
	}
	return nil
}

func (c *Checker) ofUser(ctx context.Context, set marks.Set) ([]entry, error) {
	mine, err := c.store.Memberships(ctx, set.User, false)
	if err != nil {
		return nil, err
	}
	list := make([]entry, 0, len(mine))
	for i := range mine {
		m := &mine[i].Member
		list = append(list, entry{
			conversation: m.Conversation, user: set.User, member: m.Conversation.String(), fast: set.OfConversations[m.Conversation],
			there: true, seq: m.ReadSeq, other: m.ReadOrdinal, otherIs: "ordinal",
		})
		delete(set.OfConversations, m.Conversation)
	}
	for id, v := range set.OfConversations {
		list = append(list, entry{conversation: id, user: set.User, member: id.String(), fast: v})
	}
	return list, nil
}

func (c *Checker) ofConversation(ctx context.Context, set marks.Set) ([]entry, error) {
	members, err := c.store.Marks(ctx, set.Conversation)
	if err != nil {
		return nil, err
	}
	list := make([]entry, 0, len(members))
	for i := range members {
		m := &members[i]
		list = append(list, entry{
			conversation: set.Conversation, user: m.User, member: m.User.String(), fast: set.OfUsers[m.User],
			there: true, seq: m.Seq, other: m.JoinSeq, otherIs: "join",
		})
		delete(set.OfUsers, m.User)
	}
	for u, v := range set.OfUsers {
		list = append(list, entry{conversation: set.Conversation, user: u, member: u.String(), fast: v})
	}
	return list, nil
}

// mayBeUnseen tells for which conversations the fast marks may not have been moved yet: those of the writer's last batch,
// which it or its successor follows again, and of partitions whose writer knows that it has missed something.
func (c *Checker) mayBeUnseen(ctx context.Context, list []entry) (map[chat.ConversationID]bool, error) {
	if c.options.AtRest {
		return nil, nil
	}
	seen := map[chat.ConversationID]bool{}
	var ids []chat.ConversationID
	for i := range list {
		if id := list[i].conversation; !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	open := map[chat.ConversationID]bool{}
	at, err := c.store.Positions(ctx, c.partitions)
	if err != nil {
		return nil, err
	}
	for from := 0; from < len(ids); from += pageRows {
		heads, err := c.store.Conversations(ctx, ids[from:min(from+pageRows, len(ids))])
		if err != nil {
			return nil, err
		}
		for i := range heads {
			if p := int(heads[i].Partition); p < len(at) && (at[p].MarksDirty || heads[i].LastOffset >= at[p].BatchFrom) {
				open[heads[i].ID] = true
			}
		}
	}
	return open, nil
}

// entry looks at one membership in a set.
func (c *Checker) entry(ctx context.Context, key string, e *entry, open map[chat.ConversationID]bool, f *found) error {
	f.count(checkFastMembers, 1)
	f.count(checkFastMarks, 1)
	at := Place{Key: key, Member: e.member}
	has := e.fast.HasSeq || e.fast.HasOther
	wrong := func(check, format string, args ...any) {
		if open[e.conversation] {
			f.undecided[check]++
			return
		}
		f.breach(check, at, format, args...)
	}
	switch {
	case has && !e.there:
		wrong(checkFastMembers, "user %s is no member of %s by the store", e.user, e.conversation)
		return nil
	case !has:
		wrong(checkFastMembers, "user %s is a member of %s by the store, and is not in the set", e.user, e.conversation)
		return nil
	case !e.fast.HasSeq || !e.fast.HasOther:
		f.breach(checkFastMembers, at, "half of the entry is missing")
		return nil
	case e.otherIs == "join" && e.fast.Other != e.other:
		wrong(checkFastMembers, "the join is at number %d, by the store at %d", e.fast.Other, e.other)
		return nil
	}
	switch {
	case e.fast.Seq < e.seq:
		wrong(checkFastMarks, "the mark is at number %d, by the store at %d", e.fast.Seq, e.seq)
	case e.fast.Seq > e.seq:
		justified, err := c.inReceipts(ctx, e)
		if err != nil {
			return err
		}
		if justified {
			f.undecided[checkFastMarks]++
		} else {
			f.breach(checkFastMarks, at, "the mark is at number %d, by the store at %d, and no record of im.receipts is on its way", e.fast.Seq, e.seq)
		}
	case e.otherIs == "ordinal" && e.fast.Other != e.other:
		wrong(checkFastMarks, "the ordinal at number %d is %d, by the store %d", e.seq, e.fast.Other, e.other)
	}
	return nil
}

// inReceipts tells whether a mark that the store does not have is on its way to it. A member of a conversation that is
// open has none in the writer's last batch either: own sends are in the store before they are in Redis.
func (c *Checker) inReceipts(ctx context.Context, e *entry) (bool, error) {
	if c.options.AtRest || c.logs == nil || c.skipped(PartLog) {
		return false, nil
	}
	p := chat.Partition(e.user.String(), int32(c.options.Partitions))
	at, err := c.store.MarkPositions(ctx, []int32{p})
	if err != nil {
		return false, err
	}
	b, err := c.boundsOf(ctx, kafka.TopicReceipts, p)
	if err != nil {
		return false, err
	}
	there := false
	err = c.logs.Read(ctx, kafka.TopicReceipts, p, max(at[p], b.Start), b.End, func(r *kgo.Record) error {
		m, err := wire.DecodeReadMark(r.Value)
		if err == nil && m.User == e.user && m.Conversation == e.conversation && m.Seq >= e.fast.Seq {
			there = true
			return errOne
		}
		return nil
	})
	if errors.Is(err, errOne) {
		err = nil
	}
	return there, err
}
