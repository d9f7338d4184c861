package timelinetest

import (
	"encoding/json"
	"slices"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// model is the naive answer to every question: it walks over all events, each time.
type model struct {
	logs  map[chat.ConversationID][]timeline.Entry // what the store was given, in order of seq
	marks map[timeline.MemberKey][]mark            // what was applied, in order
	// partitions says where a conversation belongs.
	partitions map[chat.ConversationID]int32
}

// mark is a read mark with the moment at which it was applied: after so many events of its conversation.
type mark struct {
	seq    int64
	after  int64
	offset int64
}

func newModel() *model {
	return &model{
		logs: map[chat.ConversationID][]timeline.Entry{}, marks: map[timeline.MemberKey][]mark{},
		partitions: map[chat.ConversationID]int32{},
	}
}

func (m *model) add(partition int32, entries ...timeline.Entry) {
	for _, e := range entries {
		c := e.Event.Conversation
		m.partitions[c] = partition
		if e.Event.Seq > int64(len(m.logs[c])) {
			m.logs[c] = append(m.logs[c], e)
		}
	}
}

func (m *model) mark(at timeline.MarkEntry) {
	k := timeline.MemberKey{Conversation: at.Mark.Conversation, User: at.Mark.User}
	m.marks[k] = append(m.marks[k], mark{at.Mark.Seq, int64(len(m.logs[k.Conversation])), at.Offset})
}

// recallOf gives the recall that took a message back, if one did.
func (m *model) recallOf(c chat.ConversationID, seq int64) *chat.Event {
	for i := range m.logs[c] {
		if e := &m.logs[c][i].Event; e.Kind == chat.KindRecall && e.Recall.TargetSeq == seq {
			return e
		}
	}
	return nil
}

func (m *model) rows(c chat.ConversationID) []timeline.Row {
	var rows []timeline.Row
	for _, entry := range m.logs[c] {
		e := entry.Event
		r := timeline.Row{
			Conversation: c, Seq: e.Seq, Ordinal: m.countable(c, e.Seq), Kind: e.Kind, MessageID: e.MessageID, Sender: e.Sender,
			ClientMsgID: e.ClientMsgID, BodyHash: e.BodyHash, SentAt: e.SentAt,
		}
		switch e.Kind {
		case chat.KindMessage:
			r.Type, r.Content, r.Recipients = e.Message.Type, e.Message.Content, e.Message.Recipients
			r.Mentions, r.ReplyTo, r.Receipt = e.Message.Mentions, e.Message.ReplyTo, e.Message.Receipt
			for _, later := range m.logs[c] {
				if edit := later.Event.Edit; edit != nil && edit.TargetSeq == e.Seq {
					r.Content, r.EditedAt = edit.Content, later.Event.SentAt
					r.Changes++
				}
			}
			if recall := m.recallOf(c, e.Seq); recall != nil {
				r.Content, r.Mentions, r.RecalledAt, r.RecalledBy = nil, nil, recall.SentAt, recall.Sender
				r.Changes++
			}
		case chat.KindEdit:
			r.TargetSeq = e.Edit.TargetSeq
		case chat.KindRecall:
			r.TargetSeq = e.Recall.TargetSeq
		default:
			r.Type, r.Content = chat.TypeNotice, timeline.RowOf(&e).Content
		}
		rows = append(rows, r)
	}
	return rows
}

// countable counts the messages for everybody up to a number.
func (m *model) countable(c chat.ConversationID, seq int64) (n int64) {
	for i := range m.logs[c] {
		if e := &m.logs[c][i].Event; e.Seq <= seq && e.Kind == chat.KindMessage && len(e.Message.Recipients) == 0 {
			n++
		}
	}
	return n
}

// member is what the model knows of a membership.
type member struct {
	role          chat.Role
	join, left    int64
	muted         int64
	nickname      string
	changed       int64
	changedOffset int64
	read          int64
	readOffset    int64
}

// members folds the events, and the marks between them, into memberships.
func (m *model) members(c chat.ConversationID) map[chat.UserID]*member {
	members := map[chat.UserID]*member{}
	raise := func(u chat.UserID, after int64) {
		for _, mk := range m.marks[timeline.MemberKey{Conversation: c, User: u}] {
			if mk.after != after {
				continue
			}
			who := members[u]
			if seq := min(mk.seq, after); who != nil && who.left == 0 && seq > who.read {
				who.read, who.readOffset = seq, mk.offset
			}
		}
	}
	for i := range m.logs[c] {
		e, offset := &m.logs[c][i].Event, m.logs[c][i].Offset
		begin := func(role chat.Role, join int64, users ...chat.UserID) {
			for _, u := range users {
				members[u] = &member{role: role, join: join, changed: e.Seq, changedOffset: offset, read: join, readOffset: -1}
			}
		}
		touch := func(u chat.UserID, do func(*member)) {
			do(members[u])
			members[u].changed, members[u].changedOffset = e.Seq, offset
		}
		if lower, higher, private := c.Peers(); private && e.Seq == 1 {
			begin(chat.RoleMember, 0, lower, higher)
			members[lower].changed, members[higher].changed = 1, 1
		}
		switch e.Kind {
		case chat.KindMessage:
			members[e.Sender].read = max(members[e.Sender].read, e.Seq)
		case chat.KindCreate:
			begin(chat.RoleMember, e.Seq, e.Create.Members...)
			begin(chat.RoleOwner, e.Seq, e.Sender)
		case chat.KindJoin:
			begin(chat.RoleMember, e.Seq, e.Join.Users...)
		case chat.KindLeave:
			for _, u := range e.Leave.Users {
				touch(u, func(who *member) { who.left, who.role, who.muted = e.Seq, chat.RoleMember, 0 })
			}
		case chat.KindRole:
			touch(e.Role.User, func(who *member) { who.role = e.Role.Role })
			if e.Role.Role == chat.RoleOwner {
				touch(e.Sender, func(who *member) { who.role = chat.RoleAdmin })
			}
		case chat.KindMute:
			touch(e.Mute.User, func(who *member) { who.muted = e.Mute.Until })
		case chat.KindNickname:
			touch(e.Nickname.User, func(who *member) { who.nickname = e.Nickname.Nickname })
		}
		for u := range members {
			raise(u, e.Seq)
		}
	}
	return members
}

func (m *model) memberOf(c chat.ConversationID, u chat.UserID, who *member) timeline.Member {
	return timeline.Member{
		Conversation: c, User: u, Role: who.role, JoinSeq: who.join, LeftSeq: who.left, MutedUntil: who.muted, Nickname: who.nickname,
		ChangedSeq: who.changed, ChangedOffset: who.changedOffset, ReadSeq: who.read, ReadOrdinal: m.countable(c, who.read), ReadOffset: who.readOffset,
	}
}

func (m *model) conversation(c chat.ConversationID) timeline.Conversation {
	log := m.logs[c]
	last := log[len(log)-1]
	head := timeline.Conversation{
		ID: c, Partition: m.partitions[c], MaxSeq: int64(len(log)), Ordinal: m.countable(c, int64(len(log))),
		CreatedAt: log[0].Event.SentAt, LastAt: last.Event.SentAt, LastOffset: last.Offset,
	}
	if at := last.Event.NumberedAt; at != 0 {
		head.LastAt = at
	}
	for i := range log {
		e := &log[i].Event
		head.HighAt = max(head.HighAt, e.SentAt)
		switch e.Kind {
		case chat.KindMessage:
			if len(e.Message.Recipients) > 0 {
				head.MaxAddressedSeq = e.Seq
			}
			if m.recallOf(c, e.Seq) != nil {
				head.MaxRecalledSeq = e.Seq
			}
			if e.Message.Mentions != nil {
				head.MaxMentionSeq = e.Seq
			}
		case chat.KindCreate:
			head.Name, head.AvatarURL, head.HistoryVisible = e.Create.Name, e.Create.AvatarURL, e.Create.HistoryVisible
		case chat.KindUpdate:
			if e.Update.Name != nil {
				head.Name = *e.Update.Name
			}
			if e.Update.AvatarURL != nil {
				head.AvatarURL = *e.Update.AvatarURL
			}
			if e.Update.HistoryVisible != nil {
				head.HistoryVisible = *e.Update.HistoryVisible
			}
		case chat.KindDissolve:
			head.DissolvedSeq = e.Seq
		}
	}
	for u, who := range m.members(c) {
		if who.left == 0 {
			head.MemberCount++
			if who.role == chat.RoleOwner {
				head.Owner = u
			}
		}
	}
	return head
}

// unread counts what others said to a member after its mark.
func (m *model) unread(c chat.ConversationID, u chat.UserID, after int64) (n int64) {
	for i := range m.logs[c] {
		e := &m.logs[c][i].Event
		if e.Seq > after && e.Kind == chat.KindMessage && e.Sender != u && m.recallOf(c, e.Seq) == nil &&
			(len(e.Message.Recipients) == 0 || slices.Contains(e.Message.Recipients, u)) {
			n++
		}
	}
	return n
}

// mentions counts what others said after the mark that a member can see and that means it.
func (m *model) mentions(c chat.ConversationID, u chat.UserID, after int64) (n int64) {
	for i := range m.logs[c] {
		e := &m.logs[c][i].Event
		if e.Seq <= after || e.Kind != chat.KindMessage || e.Sender == u || e.Message.Mentions == nil || m.recallOf(c, e.Seq) != nil {
			continue
		}
		sees := len(e.Message.Recipients) == 0 || slices.Contains(e.Message.Recipients, u)
		meant := e.Message.Mentions.All || slices.Contains(e.Message.Mentions.UserIDs, u)
		if sees && meant {
			n++
		}
	}
	return n
}

// receipt counts who has read a message and who has not.
func (m *model) receipt(c chat.ConversationID, q timeline.ReceiptQuestion) timeline.ReceiptCount {
	count := timeline.ReceiptCount{Seq: q.Seq}
	for u, who := range m.members(c) {
		if who.left > 0 || who.join > q.Seq || u == q.Sender || (len(q.Recipients) > 0 && !slices.Contains(q.Recipients, u)) {
			continue
		}
		if who.read >= q.Seq {
			count.ReadCount++
		} else {
			count.UnreadCount++
		}
	}
	return count
}

func text(s string) json.RawMessage {
	b, _ := json.Marshal(map[string]string{"text": s}) // strings: cannot fail
	return b
}
