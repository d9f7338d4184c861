package timeline

import (
	"encoding/json"

	"tideline/pkg/chat"
)

// RowOf gives the row that an event becomes. Events that aim at others become rows without content: what they say stands
// in the row that they aim at, so that a recall leaves nothing behind.
func RowOf(e *chat.Event) Row {
	r := Row{
		Conversation: e.Conversation, Seq: e.Seq, Ordinal: e.Ordinal, Kind: e.Kind, MessageID: e.MessageID, Sender: e.Sender,
		ClientMsgID: e.ClientMsgID, BodyHash: e.BodyHash, SentAt: e.SentAt, TargetSeq: e.TargetSeq(),
	}
	switch {
	case e.Kind == chat.KindMessage && e.Message != nil:
		m := e.Message
		r.Type, r.Content, r.Mentions, r.Recipients, r.ReplyTo, r.Receipt = m.Type, m.Content, m.Mentions, m.Recipients, m.ReplyTo, m.Receipt
	case e.Kind.IsNotice():
		r.Type, r.Content = chat.TypeNotice, noticeOf(e)
	}
	return r
}

// Notice is the content of a message of type notice: what happened, and to whom. Fields that do not belong to the
// notice are absent.
type Notice struct {
	// Notice is the word: created, joined, left, removed, role, muted, unmuted, nickname, updated or dissolved.
	Notice         string        `json:"notice"`
	UserIDs        []chat.UserID `json:"user_ids,omitempty"`
	Name           *string       `json:"name,omitempty"`
	AvatarURL      *string       `json:"avatar_url,omitempty"`
	HistoryVisible *bool         `json:"history_visible,omitempty"`
	Role           chat.Role     `json:"role,omitempty"`
	Until          int64         `json:"until,omitempty"`
	Nickname       *string       `json:"nickname,omitempty"`
}

func noticeOf(e *chat.Event) json.RawMessage {
	var n Notice
	switch e.Kind {
	case chat.KindCreate:
		n = Notice{Notice: "created", UserIDs: e.Create.Members, Name: &e.Create.Name}
	case chat.KindJoin:
		n = Notice{Notice: "joined", UserIDs: e.Join.Users}
	case chat.KindLeave:
		n = Notice{Notice: "removed", UserIDs: e.Leave.Users}
		if len(e.Leave.Users) == 1 && e.Leave.Users[0] == e.Sender {
			n.Notice = "left"
		}
	case chat.KindRole:
		n = Notice{Notice: "role", UserIDs: []chat.UserID{e.Role.User}, Role: e.Role.Role}
	case chat.KindMute:
		n = Notice{Notice: "muted", UserIDs: []chat.UserID{e.Mute.User}, Until: e.Mute.Until}
		if e.Mute.Until == 0 {
			n.Notice = "unmuted"
		}
	case chat.KindNickname:
		n = Notice{Notice: "nickname", UserIDs: []chat.UserID{e.Nickname.User}, Nickname: &e.Nickname.Nickname}
	case chat.KindUpdate:
		n = Notice{Notice: "updated", Name: e.Update.Name, AvatarURL: e.Update.AvatarURL, HistoryVisible: e.Update.HistoryVisible}
	case chat.KindDissolve:
		n = Notice{Notice: "dissolved"}
	}
	text, _ := json.Marshal(n) // plain fields: cannot fail
	return text
}

// Advance moves the head of a conversation past an event that stands at an offset of im.messages. The zero Conversation
// is where a conversation begins.
func (c *Conversation) Advance(e *chat.Event, partition int32, offset int64) {
	c.pass(e, partition, offset)
	c.HighAt = max(c.HighAt, e.SentAt)
	switch e.Kind {
	case chat.KindMessage:
		if len(e.Message.Recipients) > 0 {
			c.MaxAddressedSeq = e.Seq
		}
		if e.Message.Mentions != nil {
			c.MaxMentionSeq = e.Seq
		}
	case chat.KindCreate:
		c.Name, c.AvatarURL, c.HistoryVisible, c.Owner = e.Create.Name, e.Create.AvatarURL, e.Create.HistoryVisible, e.Sender
		c.MemberCount = 1 + len(e.Create.Members)
	case chat.KindJoin:
		c.MemberCount += len(e.Join.Users)
	case chat.KindLeave:
		c.MemberCount -= len(e.Leave.Users)
	case chat.KindRole:
		if e.Role.Role == chat.RoleOwner {
			c.Owner = e.Role.User
		}
	case chat.KindUpdate:
		if e.Update.Name != nil {
			c.Name = *e.Update.Name
		}
		if e.Update.AvatarURL != nil {
			c.AvatarURL = *e.Update.AvatarURL
		}
		if e.Update.HistoryVisible != nil {
			c.HistoryVisible = *e.Update.HistoryVisible
		}
	case chat.KindRecall:
		c.MaxRecalledSeq = max(c.MaxRecalledSeq, e.Recall.TargetSeq)
	case chat.KindDissolve:
		c.DissolvedSeq = e.Seq
	}
}

// Pass moves the head past an entry that is parked, and reports whether it did: its number may be used already, or not be the
// next.
func (c *Conversation) Pass(e *Entry, partition int32) bool {
	unknown := e.Event.Ordinal == UnknownOrdinal
	if e.Event.Seq <= c.MaxSeq || unknown && e.Event.Seq != c.MaxSeq+1 {
		return false
	}
	event := e.Event
	if unknown {
		event.Ordinal = c.Ordinal
	}
	c.pass(&event, partition, e.Offset)
	return true
}

// pass moves the head to a number, whatever happened there.
func (c *Conversation) pass(e *chat.Event, partition int32, offset int64) {
	if c.MaxSeq == 0 {
		c.ID, c.Partition, c.CreatedAt = e.Conversation, partition, e.SentAt
		if e.Conversation.Kind == chat.KindPrivate {
			c.MemberCount = 2
		}
	}
	c.MaxSeq, c.Ordinal, c.LastAt, c.LastOffset = e.Seq, e.Ordinal, e.Numbered(), offset
}

// FillIn takes an event that comes after its successors: one that was parked and is put back. The head stays where it is,
// what adds up is added, and what a newer event may have said since is left alone.
func (c *Conversation) FillIn(e *chat.Event) {
	c.HighAt = max(c.HighAt, e.SentAt)
	switch e.Kind {
	case chat.KindMessage:
		if len(e.Message.Recipients) > 0 {
			c.MaxAddressedSeq = max(c.MaxAddressedSeq, e.Seq)
		}
		if e.Message.Mentions != nil {
			c.MaxMentionSeq = max(c.MaxMentionSeq, e.Seq)
		}
	case chat.KindCreate:
		c.MemberCount += 1 + len(e.Create.Members)
		if c.Name == "" {
			c.Name, c.AvatarURL, c.HistoryVisible = e.Create.Name, e.Create.AvatarURL, e.Create.HistoryVisible
		}
		if c.Owner == 0 {
			c.Owner = e.Sender
		}
	case chat.KindJoin:
		c.MemberCount += len(e.Join.Users)
	case chat.KindLeave:
		c.MemberCount -= len(e.Leave.Users)
	case chat.KindRecall:
		c.MaxRecalledSeq = max(c.MaxRecalledSeq, e.Recall.TargetSeq)
	case chat.KindDissolve:
		c.DissolvedSeq = e.Seq
	}
}

// Joined lists the memberships that an event begins, with their mark at its number; first tells that it is the first of
// its conversation, which begins both memberships of a private one.
func Joined(e *chat.Event, offset int64, first bool) []Member {
	begin := func(u chat.UserID, role chat.Role) Member {
		return Member{
			Conversation: e.Conversation, User: u, Role: role, JoinSeq: e.Seq, ChangedSeq: e.Seq, ChangedOffset: offset,
			ReadSeq: e.Seq, ReadOrdinal: e.Ordinal, ReadOffset: -1,
		}
	}
	var members []Member
	switch {
	case e.Kind == chat.KindCreate:
		members = append(members, begin(e.Sender, chat.RoleOwner))
		for _, u := range e.Create.Members {
			members = append(members, begin(u, chat.RoleMember))
		}
	case e.Kind == chat.KindJoin:
		for _, u := range e.Join.Users {
			members = append(members, begin(u, chat.RoleMember))
		}
	case first && e.Conversation.Kind == chat.KindPrivate:
		low, high, _ := e.Conversation.Peers()
		for _, u := range []chat.UserID{low, high} {
			m := begin(u, chat.RoleMember)
			m.JoinSeq, m.ReadSeq, m.ReadOrdinal = 0, 0, 0
			members = append(members, m)
		}
	}
	return members
}

// Changes lists the changes of membership that an event makes, for those who keep them in memory.
func Changes(e *chat.Event, first bool) []chat.MemberChange {
	var changes []chat.MemberChange
	for _, m := range Joined(e, 0, first) {
		changes = append(changes, chat.MemberChange{User: m.User, Seq: e.Seq, Joined: true})
	}
	switch e.Kind {
	case chat.KindLeave:
		for _, u := range e.Leave.Users {
			changes = append(changes, chat.MemberChange{User: u, Seq: e.Seq, Left: true})
		}
	case chat.KindRole:
		changes = append(changes, chat.MemberChange{User: e.Role.User, Seq: e.Seq})
		if e.Role.Role == chat.RoleOwner {
			changes = append(changes, chat.MemberChange{User: e.Sender, Seq: e.Seq})
		}
	case chat.KindMute:
		changes = append(changes, chat.MemberChange{User: e.Mute.User, Seq: e.Seq})
	case chat.KindNickname:
		changes = append(changes, chat.MemberChange{User: e.Nickname.User, Seq: e.Seq})
	}
	return changes
}

// Meant lists those for whom a message counts as a mention; everybody is user 0. A message that is addressed to a few
// mentions nobody else.
func Meant(e *chat.Event) []chat.UserID {
	m := e.Message
	if m == nil || m.Mentions == nil {
		return nil
	}
	if len(m.Recipients) == 0 {
		var meant []chat.UserID
		if m.Mentions.All {
			meant = append(meant, 0)
		}
		for _, u := range m.Mentions.UserIDs {
			if u != e.Sender {
				meant = append(meant, u)
			}
		}
		return meant
	}
	named := map[chat.UserID]bool{}
	for _, u := range m.Mentions.UserIDs {
		named[u] = true
	}
	var meant []chat.UserID
	for _, u := range m.Recipients {
		if u != e.Sender && (named[u] || m.Mentions.All) {
			meant = append(meant, u)
		}
	}
	return meant
}

// BlockSize is how many numbers a block has. Block b holds the numbers b*64+1 to b*64+64.
const BlockSize = 64

// BlockOf tells the block of a number, which is at least 1.
func BlockOf(seq int64) int64 { return (seq - 1) / BlockSize }

// BlockRange gives the first and the last number of a block.
func BlockRange(block int64) (first, last int64) { return block*BlockSize + 1, (block + 1) * BlockSize }
