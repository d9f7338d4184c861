package timeline

import (
	"encoding/json"

	"tideline/pkg/chat"
)

// Row is one event as the timeline keeps it, in its present form: an edit or a recall changes the row that it aims at.
type Row struct {
	Conversation chat.ConversationID
	Seq          int64
	Ordinal      int64 // countable messages up to and including this row
	Kind         chat.Kind
	MessageID    int64
	Sender       chat.UserID
	ClientMsgID  string
	BodyHash     chat.BodyHash // of the command as it came; an edit does not change it
	SentAt       int64         // ms

	Type       chat.MessageType // text, custom, notice; "" for events that only aim at others
	Content    json.RawMessage  // canonical JSON object; nil once recalled, and for events that only aim at others
	Mentions   *chat.Mentions
	Recipients []chat.UserID // sorted; where not empty, the only readers besides the sender
	ReplyTo    int64
	Receipt    bool
	TargetSeq  int64 // of an edit or a recall; of a tombstone: the first of the twins

	EditedAt   int64 // ms of the last edit, or 0
	RecalledAt int64 // ms, or 0
	RecalledBy chat.UserID
	// Changes counts the edits and recalls that reached this row; it makes block versions.
	Changes int32
	// Tombstone marks a twin that the unique index caught: the number stands, the content is the first one's.
	Tombstone bool
}

// Conversation is the head of a conversation's log and what the group is.
type Conversation struct {
	ID        chat.ConversationID
	Partition int32
	MaxSeq    int64
	Ordinal   int64 // of the row at MaxSeq
	// The highest numbers of: a recalled message, a message addressed to a few, one that mentions somebody.
	// They tell without a look into the small tables that there is nothing to correct above a mark.
	MaxRecalledSeq, MaxAddressedSeq, MaxMentionSeq int64

	Name           string
	AvatarURL      string
	Owner          chat.UserID
	HistoryVisible bool
	MemberCount    int
	DissolvedSeq   int64 // the number of the dissolution, or 0
	CreatedAt      int64 // ms
	LastAt         int64 // ms: when the last event was numbered
	HighAt         int64 // ms: the highest SentAt of the conversation's events
	// LastOffset is the offset in im.messages of the last event; with Partition it is the clock of sync.
	LastOffset int64
}

// Member is a membership, present or past.
type Member struct {
	Conversation chat.ConversationID
	User         chat.UserID
	Role         chat.Role
	JoinSeq      int64 // number of the join; 0 in private conversations
	LeftSeq      int64 // number of the leave, or 0 while a member
	MutedUntil   int64 // ms
	Nickname     string
	// ChangedSeq is the number of the last event that changed this row (join, leave, role, mute, nickname).
	ChangedSeq int64
	// ChangedOffset is that event's offset in im.messages.
	ChangedOffset int64

	ReadSeq     int64 // the read mark: at least JoinSeq, never beyond the conversation's end
	ReadOrdinal int64 // the conversation's ordinal at ReadSeq
	// ReadOffset is the offset in im.receipts of the mark that moved ReadSeq last, or -1: the user's half of the sync clock.
	ReadOffset int64
}

// Present tells whether the membership stands.
func (m *Member) Present() bool { return m.LeftSeq == 0 }

// Visible gives the numbers that the member may read: both ends belong to the range. It is empty where first > last.
func (m *Member) Visible(c *Conversation) (first, last int64) {
	first = max(m.JoinSeq, 1)
	if c.HistoryVisible {
		first = 1
	}
	last = c.MaxSeq
	if m.LeftSeq > 0 {
		last = min(last, m.LeftSeq)
	}
	return first, last
}

// Readable reports whether every client can read the row's content. Where not, the row was numbered before such content was
// refused: its number is shown as void until an edit or a recall replaces the content.
func (r *Row) Readable() bool {
	return r.Kind != chat.KindMessage || len(r.Content) == 0 || chat.CheckContent("content", r.Content) == nil
}

// VisibleTo tells whether a reader within the range may see the row itself; otherwise its number stands as void.
func (r *Row) VisibleTo(reader chat.UserID) bool {
	if r.Tombstone {
		return false
	}
	if len(r.Recipients) == 0 || r.Sender == reader {
		return true
	}
	for _, u := range r.Recipients {
		if u == reader {
			return true
		}
	}
	return false
}
