package chat

import "encoding/json"

// Kind is what a command asks for and what an event is. The words travel in Kafka headers and JSON, the numbers are
// stored: both are public and never change their meaning. Consumers of others skip kinds that they do not know; ours keep
// their events until a version that knows them starts.
type Kind uint8

// The kinds. A command of a kind becomes an event of the same kind. KindProgress is never numbered: it only notes how far
// an owner of a partition has come.
const (
	KindMessage  Kind = 1
	KindCreate   Kind = 2  // a group, with its first members
	KindJoin     Kind = 3  // one or more people become members
	KindLeave    Kind = 4  // one or more members leave or are removed
	KindRole     Kind = 5  // a member's role changes
	KindMute     Kind = 6  // a member is silenced until a time, or is not any more
	KindNickname Kind = 7  // a member's name in this group changes
	KindUpdate   Kind = 8  // the group's name, picture or settings change
	KindEdit     Kind = 9  // a message's content is replaced
	KindRecall   Kind = 10 // a message's content is taken back
	KindDissolve Kind = 11 // the group ends; it can still be read
	KindProgress Kind = 100
)

// Kinds 12 (reaction) and 13 (pin) are kept free for what the contract names.

var kindWords = map[Kind]string{
	KindMessage: "message", KindCreate: "create", KindJoin: "join", KindLeave: "leave", KindRole: "role", KindMute: "mute",
	KindNickname: "nickname", KindUpdate: "update", KindEdit: "edit", KindRecall: "recall", KindDissolve: "dissolve",
	KindProgress: "progress",
}

var kindOfWord = func() map[string]Kind {
	m := make(map[string]Kind, len(kindWords))
	for k, w := range kindWords {
		m[w] = k
	}
	return m
}()

// String gives the kind's word.
func (k Kind) String() string {
	if w, ok := kindWords[k]; ok {
		return w
	}
	return "unknown"
}

// ParseKind gives the kind of a word; ok is false for words that name none.
func ParseKind(word string) (k Kind, ok bool) { k, ok = kindOfWord[word]; return k, ok }

// MarshalText gives the word.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads the word of a kind that can be commanded.
func (k *Kind) UnmarshalText(b []byte) error {
	v, _ := ParseKind(string(b))
	if !v.IsCommanded() {
		return RefuseField(CodeInvalidField, "type", "%.40q is no type of command", b)
	}
	*k = v
	return nil
}

// IsCommanded reports whether a command can ask for the kind: it is known here, and is numbered.
func (k Kind) IsCommanded() bool { return kindWords[k] != "" && k != KindProgress }

// IsKnown reports whether this version knows the kind.
func (k Kind) IsKnown() bool { return kindWords[k] != "" }

// since has the kinds that came after the first version of the list, each with its version.
var since = map[Kind]int{}

// Since returns the version of the list of kinds in which the kind was added; the first is 1. Events of later kinds carry it
// in a header, so that a process which does not know the kind can say what is needed.
func (k Kind) Since() int { return max(since[k], 1) }

// KindsVersion returns the version of the list of kinds that this binary knows.
func KindsVersion() int {
	v := 1
	for _, n := range since {
		v = max(v, n)
	}
	return v
}

// bodiless has the commanded kinds whose events have no body.
var bodiless = map[Kind]bool{}

// HasBody reports whether events of the kind have a body.
func (k Kind) HasBody() bool { return k.IsCommanded() && !bodiless[k] }

// IsNotice tells whether events of this kind are shown to people as a notice ("joined", "renamed", …).
func (k Kind) IsNotice() bool {
	switch k {
	case KindCreate, KindJoin, KindLeave, KindRole, KindMute, KindNickname, KindUpdate, KindDissolve:
		return true
	}
	return false
}

// IsShown tells whether events of this kind are shown to people and so count towards the limit of a page.
func (k Kind) IsShown() bool { return k == KindMessage || k.IsNotice() }

// HasTarget tells whether events of this kind aim at an earlier event of the same conversation.
func (k Kind) HasTarget() bool { return k == KindEdit || k == KindRecall }

// Role is what a member may do. The words are public.
type Role string

// The roles of a group.
const (
	RoleOwner  Role = "owner"  // one per group; everything, dissolving and naming admins included
	RoleAdmin  Role = "admin"  // adds, removes, mutes, recalls, renames
	RoleMember Role = "member" // reads and speaks
)

// Command asks for one change of one conversation. It travels through im.inbound and becomes exactly one event, one
// rejection, or one move to the partition where it belongs. Its JSON form is what backends produce; exactly the body that
// Type names must be set.
//
// Times are milliseconds since 1970.
type Command struct {
	Type         Kind           `json:"type"`
	Conversation ConversationID `json:"conversation_id"`
	Sender       UserID         `json:"sender_id"`
	// ClientMsgID is the sender's own name for this command: 1 to 64 bytes of UTF-8 without control characters, unique
	// per sender and conversation, the same on every retry. Best a UUIDv7.
	ClientMsgID string `json:"client_msg_id"`
	// OriginalAt is when an imported message was said; 0 means now. At most MaxOriginalAheadMS ahead when it is numbered.
	OriginalAt int64 `json:"original_at,omitempty"`
	// ExpiresAt is until when the command is worth numbering; 0 means always.
	ExpiresAt int64 `json:"expires_at,omitempty"`

	Message  *Message  `json:"message,omitempty"`
	Create   *Create   `json:"create,omitempty"`
	Join     *Join     `json:"join,omitempty"`
	Leave    *Leave    `json:"leave,omitempty"`
	Role     *SetRole  `json:"role,omitempty"`
	Mute     *Mute     `json:"mute,omitempty"`
	Nickname *Nickname `json:"nickname,omitempty"`
	Update   *Update   `json:"update,omitempty"`
	Edit     *Edit     `json:"edit,omitempty"`
	Recall   *Recall   `json:"recall,omitempty"`
	Dissolve *Dissolve `json:"dissolve,omitempty"`
}

// MessageType is the word for the form of a message's content.
type MessageType string

// The types of message. Those with files come with the file store; notices are made by the system from other events.
const (
	TypeText   MessageType = "text"   // {"text": "…"}
	TypeCustom MessageType = "custom" // any JSON object; the platform does not look into it
	TypeNotice MessageType = "notice" // made by the system
)

// Message is what a person says.
type Message struct {
	Type MessageType `json:"type"`
	// Content is a JSON object in the form that Type names, at most MaxContentBytes in canonical form.
	Content json.RawMessage `json:"content"`
	// Mentions lists the users to notify, at most MaxMentions, or all members. The event keeps those who are
	// members when it is numbered.
	Mentions *Mentions `json:"mentions,omitempty"`
	// Recipients, where not empty, are the only ones besides the sender who may see the message, at most MaxRecipients. They must
	// be members.
	Recipients []UserID `json:"recipients,omitempty"`
	// ReplyTo is the number of the message that this one answers, or 0.
	ReplyTo int64 `json:"reply_to,omitempty"`
	// Receipt asks for the sender to be told when somebody reads the message.
	Receipt bool `json:"receipt,omitempty"`
}

// Mentions names who is meant by a message.
type Mentions struct {
	UserIDs []UserID `json:"user_ids,omitempty"`
	All     bool     `json:"all,omitempty"`
}

// Create makes a group whose id was reserved; the sender becomes its owner and need not be listed.
type Create struct {
	Name      string `json:"name"`
	AvatarURL string `json:"avatar_url,omitempty"`
	// HistoryVisible lets members read what was said before they joined. Unread counts begin at the join all the same.
	HistoryVisible bool     `json:"history_visible,omitempty"`
	Members        []UserID `json:"members,omitempty"` // at most MaxMembersPerCommand
}

// Join makes people members.
type Join struct {
	Users []UserID `json:"users"` // at most MaxMembersPerCommand
}

// Leave ends memberships: the sender's own, or those of others by somebody whose role allows it.
type Leave struct {
	Users []UserID `json:"users"` // at most MaxMembersPerCommand
}

// SetRole gives a member a role. Giving RoleOwner makes the sender, who must be the owner, an admin.
type SetRole struct {
	User UserID `json:"user"`
	Role Role   `json:"role"`
}

// Mute silences a member until a time, or ends that with 0.
type Mute struct {
	User  UserID `json:"user"`
	Until int64  `json:"until"`
}

// Nickname is the name of a member in this group; "" goes back to the person's own.
type Nickname struct {
	User     UserID `json:"user"`
	Nickname string `json:"nickname"`
}

// Update changes what a group is; a nil field stays as it is.
type Update struct {
	Name           *string `json:"name,omitempty"`
	AvatarURL      *string `json:"avatar_url,omitempty"`
	HistoryVisible *bool   `json:"history_visible,omitempty"`
}

// Edit replaces the content of a message of the sender's own; the message keeps its type.
type Edit struct {
	TargetSeq int64           `json:"target_seq"`
	Content   json.RawMessage `json:"content"`
}

// Recall takes a message's content back, for everybody and for good.
type Recall struct {
	TargetSeq int64 `json:"target_seq"`
}

// Dissolve ends a group. It has no fields.
type Dissolve struct{}

// Event is a numbered fact of a conversation's log, as it stands in im.messages. What a command asked for stands in the
// body that Kind names, in the form that was decided (a Join lists only those who were not members yet).
type Event struct {
	Conversation ConversationID
	Seq          int64 // 1, 2, 3 … in its conversation
	// Ordinal is how many countable messages (see Countable) the conversation has up to and including this event.
	Ordinal     int64
	Kind        Kind
	MessageID   int64  // a sonyflake number, unique everywhere
	Sender      UserID // who acted
	ClientMsgID string
	BodyHash    BodyHash // of the command as it came
	SentAt      int64    // ms; the command's OriginalAt, or when it was numbered
	NumberedAt  int64    // ms; when it was numbered, where SentAt is the command's OriginalAt, else 0 (see Numbered)
	Producer    string   // name of the service that produced the command

	// InboundOffset is the offset, in the inbound partition of the same number, of the record that became this event.
	InboundOffset int64
	// MovedFrom is where the record was produced to, if it had to be moved.
	MovedFrom *Position
	// RejectedNext is an offset of im.rejected at or before which the owner had written everything of earlier batches.
	RejectedNext int64

	Message  *Message
	Create   *Create
	Join     *Join
	Leave    *Leave
	Role     *SetRole
	Mute     *Mute
	Nickname *Nickname
	Update   *Update
	Edit     *Edit
	Recall   *Recall
	Dissolve *Dissolve
}

// Numbered returns when the event was numbered, in milliseconds. For events that were imported before NumberedAt existed
// that time is not known, and Numbered returns SentAt.
func (e *Event) Numbered() int64 {
	if e.NumberedAt > 0 {
		return e.NumberedAt
	}
	return e.SentAt
}

// Position is a place in a topic.
type Position struct {
	Partition int32
	Offset    int64
}

// Countable tells whether the event counts as unread for the members who may read it: a message that is not addressed to
// a few only. Those are counted per addressee.
func (e *Event) Countable() bool {
	return e.Kind == KindMessage && e.Message != nil && len(e.Message.Recipients) == 0
}

// TargetSeq is the number of the event that this one aims at, or 0.
func (e *Event) TargetSeq() int64 {
	switch {
	case e.Kind == KindEdit && e.Edit != nil:
		return e.Edit.TargetSeq
	case e.Kind == KindRecall && e.Recall != nil:
		return e.Recall.TargetSeq
	}
	return 0
}

// Rejection says what became of a command that did not become an event. It stands in im.rejected in the partition of the
// same number as the inbound record.
type Rejection struct {
	Code    Code
	Message string // a sentence for people
	Field   string
	// First is the event that a duplicate repeats; for CodeDuplicate and CodeConflict.
	First *FirstEvent
	// MovedTo is the inbound partition that the record was moved to; for CodeMoved.
	MovedTo int32

	Inbound Position // where the record came from
	// InboundLast is the last offset of a stretch that could not be read and was rejected as a whole; else 0.
	InboundLast int64
	RejectedAt  int64 // ms
	Producer    string
	ContentType string // of Record, as the header of the inbound record said
	Record      []byte // the command as it came; of a huge one the beginning, see Bound
	// RecordBytes and RecordHash (SHA-256) are of the whole record, where Record is only its beginning; else they are empty.
	RecordBytes int64
	RecordHash  []byte
	// Conversation, Sender and ClientMsgID are the command's, where it could be read that far.
	Conversation ConversationID
	Sender       UserID
	ClientMsgID  string
}

// FirstEvent is what a sender needs to know of the event that its retry repeats.
type FirstEvent struct {
	Seq       int64
	MessageID int64
	SentAt    int64
}

// ReadMark says how far a user has read a conversation. Marks only advance.
type ReadMark struct {
	User         UserID
	Conversation ConversationID
	Seq          int64
	Ordinal      int64  // the conversation's ordinal at Seq
	PreviousSeq  int64  // where the mark stood before, as far as the writer of this one knew
	At           int64  // ms
	Session      string // the session that read, so that the user's others can be told
}

// Notify says that the store has moved on: everything up to MaxSeq can be read. It is internal.
type Notify struct {
	Conversation ConversationID
	MaxSeq       int64
	Ordinal      int64
	// ChangedSeqs are numbers below this batch whose rows were changed by edits and recalls.
	ChangedSeqs []int64
	// Members are changes of membership in this batch, in order.
	Members []MemberChange
	// Asked are messages of this batch whose sender asked for receipts.
	Asked []Asked
	// Meta tells that the conversation itself changed (name, picture, settings, dissolution).
	Meta bool
	// Repeat tells that a restarted writer says this again: nothing may be new.
	Repeat bool
	// At is when the store had it, ms.
	At int64
}

// MemberChange says that a membership began, ended or changed (role, mute, nickname) at a number.
type MemberChange struct {
	User   UserID
	Seq    int64
	Joined bool // began with this event
	Left   bool // ended with this event
}

// Asked names a message whose sender wants receipts.
type Asked struct {
	Seq    int64
	Sender UserID
}
