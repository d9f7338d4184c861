package seqtest

import (
	"context"
	"slices"
	"sync"

	"tideline/pkg/chat"
	"tideline/pkg/seq"
)

// Store is a seq.Store that knows a log up to some place, as a writer that lags behind does.
type Store struct {
	mu    sync.Mutex // guards what follows
	cp    seq.Checkpoint
	users []chat.UserID
	model model
}

// NewStore makes a store that knows some people and nothing else.
func NewStore(users ...chat.UserID) *Store { return &Store{users: users, model: newModel()} }

// CatchUp takes the records of a log up to an offset, which does not belong to them.
func (s *Store) CatchUp(log []seq.TailRecord, to int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range log {
		r := &log[i]
		if r.Offset < s.cp.MessagesNext || r.Offset >= to {
			continue
		}
		s.cp.MessagesNext = r.Offset + 1
		s.cp.InboundNext = max(s.cp.InboundNext, r.Event.InboundOffset+1)
		s.cp.RejectedNext = max(s.cp.RejectedNext, r.Event.RejectedNext)
		s.cp.HighestStamp = max(s.cp.HighestStamp, chat.Stamp(r.Event.ClientMsgID))
		if r.Event.Kind != chat.KindProgress {
			s.model.apply(&r.Event)
		}
	}
}

// Checkpoint implements seq.Store.
func (s *Store) Checkpoint(context.Context, int32) (seq.Checkpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cp, nil
}

// Load implements seq.Store.
func (s *Store) Load(_ context.Context, need seq.Need) (seq.Loaded, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out seq.Loaded
	for _, id := range need.Conversations {
		if c := s.model.conversations[id]; c != nil {
			out.Conversations = append(out.Conversations, *c)
		}
	}
	for _, k := range need.Members {
		if m, there := s.model.members[k]; there {
			out.Members = append(out.Members, m)
		}
	}
	for _, u := range need.Users {
		if slices.Contains(s.users, u) {
			out.Users = append(out.Users, u)
		}
	}
	for _, k := range need.Targets {
		if t, there := s.model.targets[k]; there {
			out.Targets = append(out.Targets, t)
		}
	}
	for _, id := range need.ClientIDs {
		if n, there := s.model.ids[id]; there {
			out.ClientIDs = append(out.ClientIDs, n)
		}
	}
	return out, nil
}

// model is a naive reading of a log: maps and nothing clever.
type model struct {
	conversations map[chat.ConversationID]*seq.Conversation
	members       map[seq.MemberKey]seq.Member
	targets       map[seq.TargetKey]seq.Target
	ids           map[seq.ClientID]seq.Numbered
}

func newModel() model {
	return model{
		map[chat.ConversationID]*seq.Conversation{}, map[seq.MemberKey]seq.Member{}, map[seq.TargetKey]seq.Target{}, map[seq.ClientID]seq.Numbered{},
	}
}

func (m *model) apply(e *chat.Event) {
	c := m.conversations[e.Conversation]
	if c == nil {
		c = &seq.Conversation{ID: e.Conversation}
		m.conversations[e.Conversation] = c
	}
	c.MaxSeq, c.Ordinal = e.Seq, e.Ordinal
	m.ids[seq.ClientID{Conversation: e.Conversation, Sender: e.Sender, ID: e.ClientMsgID}] = seq.Numbered{
		ClientID:   seq.ClientID{Conversation: e.Conversation, Sender: e.Sender, ID: e.ClientMsgID},
		FirstEvent: chat.FirstEvent{Seq: e.Seq, MessageID: e.MessageID, SentAt: e.SentAt}, Hash: e.BodyHash,
	}
	t := seq.Target{TargetKey: seq.TargetKey{Conversation: e.Conversation, Seq: e.Seq}, Kind: e.Kind, Sender: e.Sender}
	if e.Message != nil {
		t.Type, t.Recipients = e.Message.Type, e.Message.Recipients
	}
	m.targets[t.TargetKey] = t
	set := func(u chat.UserID, change func(*seq.Member)) {
		k := seq.MemberKey{Conversation: e.Conversation, User: u}
		v := m.members[k]
		v.MemberKey, v.ChangedSeq = k, e.Seq
		change(&v)
		m.members[k] = v
	}
	join := func(u chat.UserID, role chat.Role) {
		set(u, func(v *seq.Member) {
			*v = seq.Member{MemberKey: v.MemberKey, Role: role, JoinSeq: e.Seq, AddedBy: e.Sender, ChangedSeq: e.Seq}
		})
		c.MemberCount++
	}
	switch e.Kind {
	case chat.KindCreate:
		c.HistoryVisible = e.Create.HistoryVisible
		join(e.Sender, chat.RoleOwner)
		for _, u := range e.Create.Members {
			join(u, chat.RoleMember)
		}
	case chat.KindJoin:
		for _, u := range e.Join.Users {
			join(u, chat.RoleMember)
		}
	case chat.KindLeave:
		for _, u := range e.Leave.Users {
			set(u, func(v *seq.Member) {
				v.Left, v.Role, v.MutedUntil, v.LeftBy, v.LeftAt = true, chat.RoleMember, 0, e.Sender, e.SentAt
			})
			c.MemberCount--
		}
	case chat.KindRole:
		if e.Role.Role == chat.RoleOwner {
			set(e.Sender, func(v *seq.Member) { v.Role = chat.RoleAdmin })
		}
		set(e.Role.User, func(v *seq.Member) { v.Role = e.Role.Role })
	case chat.KindMute:
		set(e.Mute.User, func(v *seq.Member) { v.MutedUntil = e.Mute.Until })
	case chat.KindRecall:
		k := seq.TargetKey{Conversation: e.Conversation, Seq: e.Recall.TargetSeq}
		old := m.targets[k]
		old.Recalled = true
		m.targets[k] = old
	case chat.KindUpdate:
		if v := e.Update.HistoryVisible; v != nil {
			c.HistoryVisible = *v
		}
	case chat.KindDissolve:
		c.Dissolved = true
	}
}
