package seq

import (
	"tideline/pkg/chat"
)

// judge decides whether a command that is well-formed and no duplicate may become an event, and gives the event's body
// in the form that was decided. It reads the state and changes nothing. The error is the refusal.
func (b *Batch) judge(c *conversation, r *Record, now int64) (*chat.Event, *chat.Error) {
	cmd := r.Command
	if cmd.ExpiresAt > 0 && cmd.ExpiresAt <= now {
		return nil, chat.Refuse(chat.CodeExpired, "expires_at had passed before the command could be numbered")
	}
	if cmd.OriginalAt > now+chat.MaxOriginalAheadMS {
		// It would stand at the top of everybody's list for as long, and come out of order in every view by time.
		return nil, chat.RefuseField(chat.CodeInvalidField, "original_at", "lies more than a day ahead")
	}
	if c.ID.Kind == chat.KindPrivate {
		return b.judgePrivate(c, cmd)
	}
	return b.judgeGroup(c, r, now)
}

func (b *Batch) judgePrivate(c *conversation, cmd *chat.Command) (*chat.Event, *chat.Error) {
	if !c.ID.HasPeer(cmd.Sender) {
		return nil, chat.Refuse(chat.CodeNotAMember, "the sender is none of the two people of this conversation")
	}
	if c.MaxSeq == 0 {
		low, high, _ := c.ID.Peers()
		for _, u := range []chat.UserID{low, high} {
			if !b.users[u] {
				return nil, chat.Refuse(chat.CodeUserUnknown, "there is no user %s", u)
			}
		}
	}
	return b.judgeSaying(c, cmd, &Member{Role: chat.RoleMember})
}

func (b *Batch) judgeGroup(c *conversation, r *Record, now int64) (*chat.Event, *chat.Error) {
	cmd := r.Command
	if cmd.Type == chat.KindCreate {
		return b.judgeCreate(c, cmd)
	}
	if c.MaxSeq == 0 {
		return nil, chat.Refuse(chat.CodeConversationUnknown, "there is no such conversation")
	}
	sender := c.members[cmd.Sender]
	if sender == nil || sender.Left {
		return nil, chat.Refuse(chat.CodeNotAMember, "the sender is not a member of the conversation")
	}
	if c.Dissolved && !leavesAlone(cmd) {
		return nil, chat.Refuse(chat.CodeDissolved, "the group was dissolved")
	}
	if sender.MutedUntil > now && (cmd.Type == chat.KindMessage || cmd.Type == chat.KindEdit) {
		return nil, chat.Refuse(chat.CodeMuted, "the sender may not speak for now")
	}
	switch cmd.Type {
	case chat.KindMessage, chat.KindEdit, chat.KindRecall:
		return b.judgeSaying(c, cmd, sender)
	case chat.KindJoin:
		return b.judgeJoin(c, r, sender)
	case chat.KindLeave:
		return b.judgeLeave(c, cmd, sender)
	case chat.KindRole:
		return b.judgeRole(c, cmd, sender)
	case chat.KindMute:
		return b.judgeMute(c, cmd, sender)
	case chat.KindNickname:
		return b.judgeNickname(c, cmd, sender)
	case chat.KindUpdate:
		if rank(sender.Role) < rank(chat.RoleAdmin) {
			return nil, chat.Refuse(chat.CodeForbidden, "only the owner and admins change the group")
		}
		if cmd.Update.HistoryVisible != nil && sender.Role != chat.RoleOwner {
			// An admin who joined late could otherwise read what was said before.
			return nil, chat.RefuseField(chat.CodeForbidden, "update.history_visible", "only the owner changes history_visible")
		}
		return &chat.Event{Update: cmd.Update}, nil
	case chat.KindDissolve:
		if sender.Role != chat.RoleOwner {
			return nil, chat.Refuse(chat.CodeForbidden, "only the owner dissolves the group")
		}
		return &chat.Event{Dissolve: cmd.Dissolve}, nil
	}
	return nil, chat.RefuseField(chat.CodeUnsupported, "type", "%s is not known here", cmd.Type)
}

func rank(r chat.Role) int {
	switch r {
	case chat.RoleOwner:
		return 3
	case chat.RoleAdmin:
		return 2
	}
	return 1
}

// judgeSaying judges messages, edits and recalls.
func (b *Batch) judgeSaying(c *conversation, cmd *chat.Command, sender *Member) (*chat.Event, *chat.Error) {
	switch cmd.Type {
	case chat.KindMessage:
		if cmd.Message.ReplyTo > c.MaxSeq {
			return nil, chat.RefuseField(chat.CodeInvalidField, "message.reply_to", "the conversation has no number %d yet", cmd.Message.ReplyTo)
		}
		return b.judgeAudience(c, cmd)
	case chat.KindEdit:
		t, refusal := b.aim(c, cmd.Sender, sender, cmd.Edit.TargetSeq)
		if refusal != nil {
			return nil, refusal
		}
		if t.Sender != cmd.Sender {
			return nil, chat.Refuse(chat.CodeForbidden, "only the sender edits a message")
		}
		content, err := chat.ValidateContent(t.Type, cmd.Edit.Content)
		if err != nil {
			return nil, asRefusal(err)
		}
		return &chat.Event{Edit: &chat.Edit{TargetSeq: t.Seq, Content: content}}, nil
	case chat.KindRecall:
		t, refusal := b.aim(c, cmd.Sender, sender, cmd.Recall.TargetSeq)
		if refusal != nil {
			return nil, refusal
		}
		if t.Sender != cmd.Sender && rank(sender.Role) < rank(chat.RoleAdmin) {
			return nil, chat.Refuse(chat.CodeForbidden, "only the sender, the owner and admins recall a message")
		}
		return &chat.Event{Recall: cmd.Recall}, nil
	}
	return nil, chat.RefuseField(chat.CodeUnsupported, "type", "%s is not known here", cmd.Type)
}

// judgeAudience refuses recipients who are not members and drops mentions of people who are not: people leave while others
// type. The command keeps its mentions, and so does its hash: a retry says the same.
func (b *Batch) judgeAudience(c *conversation, cmd *chat.Command) (*chat.Event, *chat.Error) {
	for _, u := range cmd.Message.Recipients {
		if !c.present(u) {
			return nil, chat.RefuseField(chat.CodeRecipient, "message.recipients", "user %s is not a member of the conversation", u)
		}
	}
	message := *cmd.Message
	if m := message.Mentions; m != nil {
		kept := chat.Mentions{All: m.All}
		for _, u := range m.UserIDs {
			if c.present(u) {
				kept.UserIDs = append(kept.UserIDs, u)
			}
		}
		if message.Mentions = &kept; len(kept.UserIDs) == 0 && !kept.All {
			message.Mentions = nil
		}
	}
	return &chat.Event{Message: &message}, nil
}

// leavesAlone reports whether a command ends nothing but its sender's own membership, which a dissolved group allows.
func leavesAlone(cmd *chat.Command) bool {
	return cmd.Type == chat.KindLeave && len(cmd.Leave.Users) == 1 && cmd.Leave.Users[0] == cmd.Sender
}

// aim finds the message that an edit or a recall is about. A number that its sender may not see is refused as one that is no message:
// the refusal must not say what is there.
func (b *Batch) aim(c *conversation, user chat.UserID, sender *Member, seq int64) (Target, *chat.Error) {
	t, found := c.target(seq)
	if !found {
		t, found = b.targets[TargetKey{c.ID, seq}]
		t.Recalled = t.Recalled || c.recalled[seq]
	}
	switch {
	case !found || t.Kind != chat.KindMessage || seq < sender.JoinSeq && !c.HistoryVisible || !t.visibleTo(user):
		return Target{}, chat.Refuse(chat.CodeMessageUnknown, "number %d is not a message of this conversation", seq)
	case t.Recalled:
		return Target{}, chat.Refuse(chat.CodeRecalled, "the message was recalled")
	}
	return t, nil
}

func (b *Batch) judgeCreate(c *conversation, cmd *chat.Command) (*chat.Event, *chat.Error) {
	if c.MaxSeq > 0 {
		return nil, chat.Refuse(chat.CodeExists, "the group exists already")
	}
	if !b.users[cmd.Sender] {
		return nil, chat.Refuse(chat.CodeUserUnknown, "there is no user %s", cmd.Sender)
	}
	create := *cmd.Create
	create.Members = without(create.Members, cmd.Sender)
	if refusal := b.exist(create.Members); refusal != nil {
		return nil, refusal
	}
	return &chat.Event{Create: &create}, nil
}

func (b *Batch) judgeJoin(c *conversation, r *Record, sender *Member) (*chat.Event, *chat.Error) {
	cmd := r.Command
	if rank(sender.Role) < rank(chat.RoleAdmin) {
		return nil, chat.Refuse(chat.CodeForbidden, "only the owner and admins add members")
	}
	if refusal := b.exist(cmd.Join.Users); refusal != nil {
		return nil, refusal
	}
	var fresh []chat.UserID
	for _, u := range cmd.Join.Users {
		m := c.members[u]
		if m != nil && !m.Left {
			continue
		}
		if m != nil && m.leftFrom(cmd.Sender) && b.now < m.LeftAt+RejoinAfter.Milliseconds() && r.Producer == b.machine.config.ClientProducer {
			return nil, chat.RefuseField(chat.CodeLeftRecently, "join.users", "user %s left within the last day, and was added by the sender before", u)
		}
		fresh = append(fresh, u)
	}
	switch {
	case len(fresh) == 0:
		return nil, chat.Refuse(chat.CodeNothingToDo, "all of them are members already")
	case c.MemberCount+len(fresh) > b.machine.config.MaxMembers:
		return nil, chat.Refuse(chat.CodeGroupFull, "the group has %d members, and at most %d are possible", c.MemberCount, b.machine.config.MaxMembers)
	}
	return &chat.Event{Join: &chat.Join{Users: fresh}}, nil
}

func (b *Batch) judgeLeave(c *conversation, cmd *chat.Command, sender *Member) (*chat.Event, *chat.Error) {
	var leaving []chat.UserID
	for _, u := range cmd.Leave.Users {
		m := c.members[u]
		if m == nil || m.Left {
			continue
		}
		switch {
		case m.Role == chat.RoleOwner && u == cmd.Sender && !c.Dissolved:
			return nil, chat.Refuse(chat.CodeForbidden, "the owner hands the group over, or dissolves it, before leaving")
		case u != cmd.Sender && rank(sender.Role) <= rank(m.Role):
			return nil, chat.Refuse(chat.CodeForbidden, "the sender's role does not allow to remove user %s", u)
		}
		leaving = append(leaving, u)
	}
	if len(leaving) == 0 {
		return nil, chat.Refuse(chat.CodeNothingToDo, "none of them is a member")
	}
	return &chat.Event{Leave: &chat.Leave{Users: leaving}}, nil
}

func (b *Batch) judgeRole(c *conversation, cmd *chat.Command, sender *Member) (*chat.Event, *chat.Error) {
	if sender.Role != chat.RoleOwner {
		return nil, chat.Refuse(chat.CodeForbidden, "only the owner gives roles")
	}
	m := c.members[cmd.Role.User]
	switch {
	case m == nil || m.Left:
		return nil, chat.RefuseField(chat.CodeUserUnknown, "role.user", "is not a member of the group")
	case m.Role == cmd.Role.Role:
		return nil, chat.Refuse(chat.CodeNothingToDo, "the member has this role already")
	case cmd.Role.User == cmd.Sender:
		return nil, chat.Refuse(chat.CodeForbidden, "the owner stays the owner until somebody else is")
	}
	return &chat.Event{Role: cmd.Role}, nil
}

func (b *Batch) judgeMute(c *conversation, cmd *chat.Command, sender *Member) (*chat.Event, *chat.Error) {
	m := c.members[cmd.Mute.User]
	switch {
	case m == nil || m.Left:
		return nil, chat.RefuseField(chat.CodeUserUnknown, "mute.user", "is not a member of the group")
	case rank(sender.Role) < rank(chat.RoleAdmin) || rank(sender.Role) <= rank(m.Role):
		return nil, chat.Refuse(chat.CodeForbidden, "the sender's role does not allow to mute this member")
	case m.MutedUntil == cmd.Mute.Until:
		return nil, chat.Refuse(chat.CodeNothingToDo, "that is how it is")
	}
	return &chat.Event{Mute: cmd.Mute}, nil
}

func (b *Batch) judgeNickname(c *conversation, cmd *chat.Command, sender *Member) (*chat.Event, *chat.Error) {
	m := c.members[cmd.Nickname.User]
	switch {
	case m == nil || m.Left:
		return nil, chat.RefuseField(chat.CodeUserUnknown, "nickname.user", "is not a member of the group")
	case cmd.Nickname.User != cmd.Sender && rank(sender.Role) <= rank(m.Role):
		return nil, chat.Refuse(chat.CodeForbidden, "the sender's role does not allow to name this member")
	}
	return &chat.Event{Nickname: cmd.Nickname}, nil
}

func (b *Batch) exist(users []chat.UserID) *chat.Error {
	for _, u := range users {
		if !b.users[u] {
			return chat.Refuse(chat.CodeUserUnknown, "there is no user %s", u)
		}
	}
	return nil
}

func without(ids []chat.UserID, u chat.UserID) []chat.UserID {
	var out []chat.UserID
	for _, id := range ids {
		if id != u {
			out = append(out, id)
		}
	}
	return out
}
