package marks

import (
	"context"
	"slices"

	"github.com/redis/go-redis/v9"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// moves are what some events, in order, do to the sets: at the end of it, for each membership.
type moves struct {
	list []*move
	at   map[timeline.MemberKey]*move
}

type move struct {
	timeline.MemberKey
	joined, left bool
	join         int64
	seq, ordinal int64
}

func (m *moves) of(c chat.ConversationID, u chat.UserID) *move {
	k := timeline.MemberKey{Conversation: c, User: u}
	v := m.at[k]
	if v == nil {
		v = &move{MemberKey: k}
		if m.at == nil {
			m.at = map[timeline.MemberKey]*move{}
		}
		m.at[k] = v
		m.list = append(m.list, v)
	}
	return v
}

func (m *moves) raise(c chat.ConversationID, u chat.UserID, seq, ordinal int64) {
	v := m.of(c, u)
	v.seq, v.ordinal = max(v.seq, seq), max(v.ordinal, ordinal)
}

func (m *moves) add(e *chat.Event) {
	for _, j := range timeline.Joined(e, 0, e.Seq == 1) {
		v := m.of(e.Conversation, j.User)
		v.joined, v.left, v.join = true, false, j.JoinSeq
		v.seq, v.ordinal = max(v.seq, j.ReadSeq), max(v.ordinal, j.ReadOrdinal)
	}
	switch e.Kind {
	case chat.KindLeave:
		for _, u := range e.Leave.Users {
			v := m.of(e.Conversation, u)
			v.joined, v.left = false, true
		}
	case chat.KindMessage:
		m.raise(e.Conversation, e.Sender, e.Seq, e.Ordinal)
	}
}

// grown lists the keys that members would be added to.
func (m *moves) grown() []string {
	var keys []string
	seen := map[chat.ConversationID]bool{}
	for _, v := range m.list {
		if !v.joined {
			continue
		}
		keys = append(keys, userKey(v.User))
		if !seen[v.Conversation] {
			seen[v.Conversation] = true
			keys = append(keys, conversationKey(v.Conversation))
		}
	}
	return keys
}

// commands gives one command for each set that a membership stands in; members are added where the set is there.
func (m *moves) commands(there map[string]bool) []command {
	var out []command
	var grown []string
	for _, v := range m.list {
		user, conversation := userKey(v.User), conversationKey(v.Conversation)
		switch {
		case v.left:
			out = append(out, remove(user, memberOfUser(v.Conversation)...), remove(conversation, memberOfConversation(v.User)...))
		case v.joined:
			// The mark of who comes back stands where it stood, or at the new join, which is beyond it.
			if there[user] {
				grown = append(grown, user)
				out = append(out, put(user, redis.ZAddArgs{GT: true, Members: inUser(v.Conversation, v.seq, v.ordinal)}))
			}
			if there[conversation] {
				grown = append(grown, conversation)
				out = append(out,
					put(conversation, redis.ZAddArgs{Members: []redis.Z{{Member: joinMember(v.User), Score: joinScore(v.join)}}}),
					put(conversation, redis.ZAddArgs{GT: true, Members: []redis.Z{{Member: v.User.String(), Score: float64(v.seq)}}}))
			}
		default:
			out = append(out, v.raise()...)
		}
	}
	// Should a set have vanished meanwhile, what was added is no complete set, says so, and must not stay for ever: only what is
	// there can be given an end, so that comes last.
	slices.Sort(grown)
	for _, k := range slices.Compact(grown) {
		out = append(out, func(p redis.Pipeliner) { p.Expire(context.Background(), k, keep) })
	}
	return out
}

// raises gives the commands of moves that only raise.
func (m *moves) raises() []command {
	var out []command
	for _, v := range m.list {
		out = append(out, v.raise()...)
	}
	return out
}

func (v *move) raise() []command {
	return []command{
		put(userKey(v.User), redis.ZAddArgs{XX: true, GT: true, Members: inUser(v.Conversation, v.seq, v.ordinal)}),
		put(conversationKey(v.Conversation), redis.ZAddArgs{XX: true, GT: true, Members: []redis.Z{{Member: v.User.String(), Score: float64(v.seq)}}}),
	}
}

func put(key string, args redis.ZAddArgs) command {
	return func(p redis.Pipeliner) { p.ZAddArgs(context.Background(), key, args) }
}

func remove(key string, members ...any) command {
	return func(p redis.Pipeliner) { p.ZRem(context.Background(), key, members...) }
}

func inUser(c chat.ConversationID, seq, ordinal int64) []redis.Z {
	return []redis.Z{{Member: c.String(), Score: float64(seq)}, {Member: ordinalMember(c), Score: float64(ordinal)}}
}

func memberOfUser(c chat.ConversationID) []any { return []any{c.String(), ordinalMember(c)} }
func memberOfConversation(u chat.UserID) []any { return []any{u.String(), joinMember(u)} }
