package seq

import (
	"errors"
	"fmt"

	"tideline/pkg/chat"
)

// ErrInconsistent means that the store and the log's tail contradict each other: a number is missing between them.
// Nobody can number on from there.
var ErrInconsistent = errors.New("the store and the log's tail contradict each other")

// ErrReplaced means that somebody else has numbered records of the partition since it was taken over: whoever finds that
// out has slept, and is not the owner any more. Nothing is wrong.
var ErrReplaced = errors.New("somebody else owns the partition by now")

// ErrUnknownKind means that the log's tail has an event of a kind that this version does not know. What it changes is not
// known either, so the partition is not numbered on by this version.
var ErrUnknownKind = errors.New("the log's tail has an event of a kind that this version does not know")

// fact is what must be remembered of an event until the store has it: whatever is loaded meanwhile may lack it.
type fact struct {
	seq     int64
	offset  int64 // in im.messages; -1 until it is written
	ordinal int64
	kind    chat.Kind
	id      idKey
	// unreadable: only the number is known, and that it is used. It leaves the ordinal as it was.
	unreadable bool

	// Of messages, for edits and recalls that aim at them.
	sender     chat.UserID
	msgType    chat.MessageType
	recipients []chat.UserID
	// Of edits and recalls.
	target int64
	// Of what changes the group or its members: the event itself, which is small or bounded.
	event *chat.Event
}

// conversation is the state of one conversation in memory: what the store knew when it was loaded, with every fact
// applied that the store may have lacked.
type conversation struct {
	loaded bool
	Conversation
	members map[chat.UserID]*Member // those that were needed; absent people have Left set
	facts   []fact                  // what the store may not have yet, in order of seq without a hole
	// recalled are targets of recalls among the facts.
	recalled map[int64]bool
}

func newConversation(id chat.ConversationID) *conversation {
	return &conversation{Conversation: Conversation{ID: id}, members: map[chat.UserID]*Member{}, recalled: map[int64]bool{}}
}

// remember adds a fact; the state is changed by apply.
func (c *conversation) remember(f fact) error {
	if n := len(c.facts); n > 0 && c.facts[n-1].seq+1 != f.seq {
		return fmt.Errorf("%w: %s has %d behind %d", ErrInconsistent, c.ID, f.seq, c.facts[n-1].seq)
	}
	c.facts = append(c.facts, f)
	if f.kind == chat.KindRecall {
		c.recalled[f.target] = true
	}
	return nil
}

// forget drops the oldest fact, which the store has.
func (c *conversation) forget() {
	f := c.facts[0]
	if f.kind == chat.KindRecall {
		delete(c.recalled, f.target)
	}
	c.facts[0] = fact{} // let go of what it points at
	c.facts = c.facts[1:]
	if len(c.facts) == 0 {
		c.facts = nil
	}
}

// load takes the store's row (the zero row where it has none) and applies what it lacks.
func (c *conversation) load(row Conversation) error {
	row.ID = c.ID
	c.Conversation, c.loaded = row, true
	for i := range c.facts {
		f := &c.facts[i]
		if f.seq <= row.MaxSeq {
			continue
		}
		if f.seq != c.MaxSeq+1 {
			return fmt.Errorf("%w: the store has %s up to %d, and what follows in the tail is %d", ErrInconsistent, c.ID, c.MaxSeq, f.seq)
		}
		c.apply(f)
	}
	return nil
}

// loadMember takes the store's row of a membership (the zero row where it has none) and applies what it lacks.
func (c *conversation) loadMember(key MemberKey, row Member, found bool) {
	m := row
	m.MemberKey = key
	if !found {
		m.Left = true
	}
	for i := range c.facts {
		if f := &c.facts[i]; f.seq > m.ChangedSeq && f.event != nil {
			changeMember(&m, f.event)
		}
	}
	c.members[key.User] = &m
}

// apply moves the conversation and the members that are in memory past one event.
func (c *conversation) apply(f *fact) {
	c.MaxSeq = f.seq
	if !f.unreadable {
		c.Ordinal = f.ordinal
	}
	if f.event == nil {
		return
	}
	switch e := f.event; e.Kind {
	case chat.KindCreate:
		c.MemberCount, c.HistoryVisible = 1+len(e.Create.Members), e.Create.HistoryVisible
	case chat.KindJoin:
		c.MemberCount += len(e.Join.Users)
	case chat.KindLeave:
		c.MemberCount -= len(e.Leave.Users)
	case chat.KindUpdate:
		if v := e.Update.HistoryVisible; v != nil {
			c.HistoryVisible = *v
		}
	case chat.KindDissolve:
		c.Dissolved = true
	}
	for _, u := range usersOf(f.event) {
		if m := c.members[u]; m != nil && m.ChangedSeq < f.seq {
			changeMember(m, f.event)
		}
	}
}

// present reports whether a user is a member now. Of a group the membership must have been asked for.
func (c *conversation) present(u chat.UserID) bool {
	if c.ID.Kind == chat.KindPrivate {
		return c.ID.HasPeer(u)
	}
	m := c.members[u]
	return m != nil && !m.Left
}

// leftFrom reports whether a membership was begun by a user and ended by the member.
func (m *Member) leftFrom(adder chat.UserID) bool {
	return m.Left && m.AddedBy == adder && m.LeftBy == m.User
}

// usersOf lists those whose membership an event may change.
func usersOf(e *chat.Event) []chat.UserID {
	switch e.Kind {
	case chat.KindCreate:
		return append([]chat.UserID{e.Sender}, e.Create.Members...)
	case chat.KindJoin:
		return e.Join.Users
	case chat.KindLeave:
		return e.Leave.Users
	case chat.KindRole:
		return []chat.UserID{e.Role.User, e.Sender}
	case chat.KindMute:
		return []chat.UserID{e.Mute.User}
	}
	return nil
}

// changeMember applies what an event does to one membership; it does nothing where the event is not about it.
func changeMember(m *Member, e *chat.Event) {
	joins := func(role chat.Role) {
		*m = Member{MemberKey: m.MemberKey, Role: role, JoinSeq: e.Seq, AddedBy: e.Sender, ChangedSeq: e.Seq}
	}
	switch e.Kind {
	case chat.KindCreate:
		if m.User == e.Sender {
			joins(chat.RoleOwner)
		} else if contains(e.Create.Members, m.User) {
			joins(chat.RoleMember)
		}
	case chat.KindJoin:
		if contains(e.Join.Users, m.User) {
			joins(chat.RoleMember)
		}
	case chat.KindLeave:
		if contains(e.Leave.Users, m.User) {
			m.Left, m.Role, m.MutedUntil, m.ChangedSeq = true, chat.RoleMember, 0, e.Seq
			m.LeftBy, m.LeftAt = e.Sender, e.SentAt
		}
	case chat.KindRole:
		switch m.User {
		case e.Role.User:
			m.Role, m.ChangedSeq = e.Role.Role, e.Seq
		case e.Sender:
			if e.Role.Role == chat.RoleOwner { // the group has one owner: who gives that away stays an admin
				m.Role, m.ChangedSeq = chat.RoleAdmin, e.Seq
			}
		}
	case chat.KindMute:
		if m.User == e.Mute.User {
			m.MutedUntil, m.ChangedSeq = e.Mute.Until, e.Seq
		}
	}
}

// known reports whether a membership is in memory and there is or was one.
func (m *Member) known() bool { return m != nil && m.ChangedSeq > 0 }

func contains(ids []chat.UserID, u chat.UserID) bool {
	for _, id := range ids {
		if id == u {
			return true
		}
	}
	return false
}

// target gives an event that is aimed at, from the facts; false where the store has to be asked.
func (c *conversation) target(seq int64) (Target, bool) {
	if len(c.facts) == 0 || seq < c.facts[0].seq || seq > c.facts[len(c.facts)-1].seq {
		return Target{}, false
	}
	f := &c.facts[seq-c.facts[0].seq]
	return Target{
		TargetKey: TargetKey{c.ID, seq}, Kind: f.kind, Type: f.msgType, Sender: f.sender, Recipients: f.recipients, Recalled: c.recalled[seq],
	}, true
}
