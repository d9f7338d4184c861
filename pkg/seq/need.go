package seq

import "tideline/pkg/chat"

// asked builds a Need without naming anything twice.
type asked struct {
	need          *Need
	conversations map[chat.ConversationID]bool
	members       map[MemberKey]bool
	users         map[chat.UserID]bool
	targets       map[TargetKey]bool
	ids           map[idKey]bool

	// outsider is set while a command is looked at whose sender is not known to be or to have been a member. What it needs is asked for
	// whatever is in memory: otherwise the time of the refusal says whether the conversation exists and is in use.
	outsider bool
}

func newAsked(need *Need) *asked {
	return &asked{
		need: need, conversations: map[chat.ConversationID]bool{}, members: map[MemberKey]bool{}, users: map[chat.UserID]bool{},
		targets: map[TargetKey]bool{}, ids: map[idKey]bool{},
	}
}

func (a *asked) clientID(k idKey, id ClientID) {
	if !a.ids[k] {
		a.ids[k] = true
		a.need.ClientIDs = append(a.need.ClientIDs, id)
	}
}

func (a *asked) user(u chat.UserID) {
	if u > 0 && !a.users[u] {
		a.users[u] = true
		a.need.Users = append(a.need.Users, u)
	}
}

func (a *asked) member(c *conversation, u chat.UserID) {
	k := MemberKey{c.ID, u}
	if (c.members[u] == nil || a.outsider) && !a.members[k] {
		a.members[k] = true
		a.need.Members = append(a.need.Members, k)
	}
}

// command asks for everything that a valid command may need, whatever comes before it in the batch.
func (a *asked) command(c *conversation, cmd *chat.Command) {
	a.outsider = c.ID.Kind != chat.KindPrivate && cmd.Type != chat.KindCreate && !c.members[cmd.Sender].known()
	if (!c.loaded || a.outsider) && !a.conversations[c.ID] {
		a.conversations[c.ID] = true
		a.need.Conversations = append(a.need.Conversations, c.ID)
	}
	if c.ID.Kind == chat.KindPrivate {
		if (!c.loaded || c.MaxSeq == 0) && c.ID.HasPeer(cmd.Sender) {
			low, high, _ := c.ID.Peers()
			a.user(low)
			a.user(high)
		}
	} else if cmd.Type != chat.KindCreate {
		a.member(c, cmd.Sender)
	}
	switch cmd.Type {
	case chat.KindMessage:
		if c.ID.Kind == chat.KindGroup {
			a.audience(c, cmd.Message)
		}
	case chat.KindCreate:
		a.user(cmd.Sender)
		for _, u := range cmd.Create.Members {
			a.user(u)
		}
	case chat.KindJoin:
		for _, u := range cmd.Join.Users {
			a.user(u)
			a.member(c, u)
		}
	case chat.KindLeave:
		for _, u := range cmd.Leave.Users {
			a.member(c, u)
		}
	case chat.KindRole:
		a.member(c, cmd.Role.User)
	case chat.KindMute:
		a.member(c, cmd.Mute.User)
	case chat.KindNickname:
		a.member(c, cmd.Nickname.User)
	case chat.KindEdit:
		a.target(c, cmd.Edit.TargetSeq)
	case chat.KindRecall:
		a.target(c, cmd.Recall.TargetSeq)
	}
}

// audience asks for the memberships of those whom a message names.
func (a *asked) audience(c *conversation, m *chat.Message) {
	for _, u := range m.Recipients {
		a.member(c, u)
	}
	if m.Mentions != nil {
		for _, u := range m.Mentions.UserIDs {
			a.member(c, u)
		}
	}
}

func (a *asked) target(c *conversation, seq int64) {
	k := TargetKey{c.ID, seq}
	if _, here := c.target(seq); (!here || a.outsider) && !a.targets[k] {
		a.targets[k] = true
		a.need.Targets = append(a.need.Targets, k)
	}
}

// learn takes what the store knew of what was asked for; what it left out does not exist.
func (b *Batch) learn(loaded Loaded) error {
	m := b.machine
	rows := make(map[chat.ConversationID]Conversation, len(loaded.Conversations))
	for _, row := range loaded.Conversations {
		rows[row.ID] = row
	}
	for _, id := range b.need.Conversations {
		c := m.conversation(id)
		if c.loaded {
			continue // asked for an outsider; what is in memory is newer
		}
		if err := c.load(rows[id]); err != nil {
			return err
		}
	}
	members := make(map[MemberKey]Member, len(loaded.Members))
	for _, row := range loaded.Members {
		members[row.MemberKey] = row
	}
	for _, k := range b.need.Members {
		c := m.conversation(k.Conversation)
		if c.members[k.User] != nil {
			continue
		}
		row, found := members[k]
		c.loadMember(k, row, found)
		m.entries++
	}
	for _, u := range loaded.Users {
		b.users[u] = true
	}
	for _, t := range loaded.Targets {
		b.targets[t.TargetKey] = t
	}
	for _, n := range loaded.ClientIDs {
		b.known[keyOf(n.Conversation, n.Sender, n.ID)] = idEntry{first: n.FirstEvent, hash: n.Hash}
	}
	return nil
}

// forgetStrangers drops what was loaded of people who never were members. Messages may name any ids, and a conversation
// that is written to all the time is never evicted: its memory must be bounded by its members.
func (b *Batch) forgetStrangers() {
	for _, k := range b.need.Members {
		c := b.machine.conversations[k.Conversation]
		if c == nil {
			continue
		}
		if m := c.members[k.User]; m != nil && m.Left && m.JoinSeq == 0 {
			delete(c.members, k.User)
			b.machine.entries--
		}
	}
}
