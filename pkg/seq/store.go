package seq

import (
	"context"

	"tideline/pkg/chat"
)

// Checkpoint is how far the timeline's writer has stored a partition. Offsets named Next are those of the first record
// that is not stored yet.
type Checkpoint struct {
	MessagesNext int64 // im.messages
	InboundNext  int64 // im.inbound
	RejectedNext int64 // im.rejected: everything of earlier batches stands before it
	HighestStamp int64 // ms: the highest stamp of a client id that was numbered
}

// Store is what an owner of a partition asks the timeline's store. What it answers may be as old as the last Checkpoint
// that it gave, and is never older. It is safe for concurrent use.
type Store interface {
	// Checkpoint tells how far a partition is stored; the zero Checkpoint where nothing was.
	Checkpoint(ctx context.Context, partition int32) (Checkpoint, error)
	// Load gives what a batch misses, one statement for each list that is not empty. What does not exist is left out.
	Load(ctx context.Context, need Need) (Loaded, error)
}

// Need names what a batch misses.
type Need struct {
	Conversations []chat.ConversationID
	Members       []MemberKey
	Users         []chat.UserID // do these exist?
	Targets       []TargetKey
	ClientIDs     []ClientID
}

// Empty tells whether nothing is missing.
func (n *Need) Empty() bool {
	return len(n.Conversations) == 0 && len(n.Members) == 0 && len(n.Users) == 0 && len(n.Targets) == 0 && len(n.ClientIDs) == 0
}

// MemberKey names a membership.
type MemberKey struct {
	Conversation chat.ConversationID
	User         chat.UserID
}

// TargetKey names an event that an edit or a recall aims at.
type TargetKey struct {
	Conversation chat.ConversationID
	Seq          int64
}

// ClientID names a command by its sender's own name for it.
type ClientID struct {
	Conversation chat.ConversationID
	Sender       chat.UserID
	ID           string
}

// Loaded is what the store knew.
type Loaded struct {
	Conversations []Conversation
	Members       []Member
	Users         []chat.UserID
	Targets       []Target
	ClientIDs     []Numbered
}

// Conversation is what numbering needs to know of a conversation.
type Conversation struct {
	ID          chat.ConversationID
	MaxSeq      int64
	Ordinal     int64
	MemberCount int
	Dissolved   bool
	// HistoryVisible tells that members may read what was said before they joined.
	HistoryVisible bool
}

// Member is what numbering needs to know of a membership; those that ended are given too, with Left set. AddedBy is the
// sender of the event at JoinSeq. LeftBy and LeftAt (ms) are the sender and the time of the event that ended it.
type Member struct {
	MemberKey
	Role       chat.Role
	JoinSeq    int64
	Left       bool
	AddedBy    chat.UserID
	LeftBy     chat.UserID
	LeftAt     int64
	MutedUntil int64 // ms
	ChangedSeq int64 // number of the last event that changed the membership
}

// Target is what numbering needs to know of an event that is aimed at.
type Target struct {
	TargetKey
	Kind       chat.Kind
	Type       chat.MessageType
	Sender     chat.UserID
	Recipients []chat.UserID
	Recalled   bool // or a tombstone
}

// visibleTo reports whether a member may see the target: one that is addressed to a few is seen by those and its sender.
func (t *Target) visibleTo(u chat.UserID) bool {
	return len(t.Recipients) == 0 || t.Sender == u || contains(t.Recipients, u)
}

// Numbered is a command that was numbered before.
type Numbered struct {
	ClientID
	chat.FirstEvent
	Hash chat.BodyHash
}
