package history

import (
	"errors"
	"fmt"

	"tideline/pkg/chat"
)

// Version is the version of the format that this package writes. A reader refuses versions, and fields,
// that it does not know: what is skipped unseen could hide a fault.
const Version = 1

// Header is the first line.
type Header struct {
	Version int `json:"tideline_history"`
	// BeganAt is when the history began, ms since 1970. Nothing rests on it: times in records are monotonic.
	BeganAt int64 `json:"began_at"`
	// Driver names the program that wrote the history, and Settings what it was run with (a seed, the number of clients).
	Driver   string            `json:"driver,omitempty"`
	Settings map[string]string `json:"settings,omitempty"`
}

// Op names an operation within its history: the Begin and the End of one operation carry the same. 0 is none.
type Op uint64

// Conn names one run of one client: a socket, or a client of the HTTP door between its start and its death. What may
// never go back may not do so on one Conn. 0 is none, as for a backend at the Kafka door.
type Conn uint64

// Record is one line: a moment, who it is about, and exactly one of the bodies.
//
// Times are nanoseconds since the history began, from one monotonic clock. Lines stand about in the order of time, not
// exactly; but the Begin of an operation stands before its End.
type Record struct {
	At int64 `json:"t"`
	// Op is set with Begin and End.
	Op Op `json:"op,omitempty"`
	// Client and Conn are set with Begin, Hint, Open and Close.
	Client chat.UserID `json:"client,omitempty"`
	Conn   Conn        `json:"conn,omitempty"`
	// Conversation is set with Begin, Hint, Event, Rejected and Member. A sync has none; a create learns its own with its End.
	Conversation chat.ConversationID `json:"c,omitzero"`

	Begin *Begin `json:"begin,omitempty"`
	End   *End   `json:"end,omitempty"`
	Hint  *Hint  `json:"hint,omitempty"`
	Open  *Open  `json:"open,omitempty"`
	Close *Close `json:"close,omitempty"`

	Fault    *Fault    `json:"fault,omitempty"`
	FaultEnd *FaultEnd `json:"fault_end,omitempty"`

	Rest     *Rest     `json:"rest,omitempty"`
	Event    *Event    `json:"event,omitempty"`
	Rejected *Rejected `json:"rejected,omitempty"`
	Member   *Member   `json:"member,omitempty"`
	Source   *Source   `json:"source,omitempty"`

	// Line is where the Reader found the record, from 1; the header is line 1. It is not written.
	Line int `json:"-"`
}

// Call is the word for what a client asks for.
type Call string

// The calls. The first ones are commands: what they ask for becomes a numbered event.
const (
	CallSend   Call = "send"
	CallEdit   Call = "edit"
	CallRecall Call = "recall"
	CallCreate Call = "create"
	CallJoin   Call = "join"
	CallLeave  Call = "leave"

	CallPull     Call = "pull"
	CallSync     Call = "sync"   // also of one conversation (GET /conversations/{cid})
	CallLookup   Call = "lookup" // what became of a client id
	CallRead     Call = "read"   // raises the read mark
	CallReceipts Call = "receipts"
)

// IsCommand tells whether the call becomes a numbered event where it succeeds.
func (c Call) IsCommand() bool {
	switch c {
	case CallSend, CallEdit, CallRecall, CallCreate, CallJoin, CallLeave:
		return true
	}
	return false
}

func (c Call) known() bool {
	switch c {
	case CallPull, CallSync, CallLookup, CallRead, CallReceipts:
		return true
	}
	return c.IsCommand()
}

// Door is where a client knocks.
type Door string

// The doors.
const (
	DoorHTTP   Door = "http"
	DoorSocket Door = "socket"
	DoorKafka  Door = "kafka"
)

// Begin is what a client asks for. It is recorded before the request leaves, so that nothing that the request does lies
// before its time. A retry is an operation of its own, with the client id of the first.
type Begin struct {
	Call Call `json:"call"`
	Door Door `json:"door,omitempty"`

	// Of commands. ClientMsgID may be empty where none was given; then only the answer ties the operation to an event.
	ClientMsgID string        `json:"client_msg_id,omitempty"`
	Body        Body          `json:"body,omitempty"`       // of send and edit: the fingerprint of the content
	Recipients  []chat.UserID `json:"recipients,omitempty"` // of send, where it is addressed to a few
	TargetSeq   int64         `json:"target_seq,omitempty"` // of edit and recall
	Users       []chat.UserID `json:"users,omitempty"`      // of create, join and leave

	// Of pull: at most one place; with none, the newest were asked for.
	After  *int64 `json:"after,omitempty"`
	Before *int64 `json:"before,omitempty"`
	Around *int64 `json:"around,omitempty"`
	Limit  int    `json:"limit,omitempty"`
	Told   int64  `json:"told,omitempty"` // the number that the client passed as the one that it was told

	Seq  int64   `json:"seq,omitempty"`  // of read: the number that was asked for
	Seqs []int64 `json:"seqs,omitempty"` // of receipts
}

// Outcome is the word for how an operation ended. An operation without an End, because the client or the server died, is
// as one whose outcome is unknown.
type Outcome string

// The outcomes.
const (
	OutcomeOK       Outcome = "ok"       // answered as asked; commands have their number
	OutcomeAccepted Outcome = "accepted" // 202, or acknowledged by Kafka: taken, the number not known yet
	OutcomeRefused  Outcome = "refused"  // answered with an error
	OutcomeUnknown  Outcome = "unknown"  // no answer, half an answer, or (lookup) answered that nothing is known
)

// End is how an operation ended. It is recorded after the whole answer was read.
type End struct {
	Outcome   Outcome   `json:"outcome"`
	Code      chat.Code `json:"code,omitempty"`      // of refused, and of a lookup that found a rejection
	Retryable bool      `json:"retryable,omitempty"` // of refused

	// Of commands and lookups that are ok.
	Seq       int64 `json:"seq,omitempty"`
	Duplicate bool  `json:"duplicate,omitempty"`
	MessageID int64 `json:"message_id,string,omitempty"`

	Pull     *Pull     `json:"pull,omitempty"`
	Sync     []Synced  `json:"sync,omitempty"`
	ReadSeq  int64     `json:"read_seq,omitempty"` // of read: where the mark stands
	Unread   int64     `json:"unread,omitempty"`   // of read
	Receipts []Receipt `json:"receipts,omitempty"`
}

// Pull is the answer to a pull.
type Pull struct {
	Entries []Entry `json:"entries"` // as they came
	MinSeq  int64   `json:"min_seq"`
	MaxSeq  int64   `json:"max_seq"`
	HasMore bool    `json:"has_more,omitempty"`
}

// TypeVoid is the type of an entry that stands for numbers which the reader may not see.
const TypeVoid = "void"

// Entry is one entry of a pull.
type Entry struct {
	Seq         int64       `json:"seq"`
	ToSeq       int64       `json:"to_seq,omitempty"` // of void: the last number of the run
	Type        string      `json:"type"`             // text, custom, notice, edit, recall, …, or void
	MessageID   int64       `json:"message_id,string,omitempty"`
	Sender      chat.UserID `json:"sender_id,omitempty"`
	ClientMsgID string      `json:"client_msg_id,omitempty"`
	Body        Body        `json:"body,omitempty"` // of the content as it was shown; empty where there was none
	Recalled    bool        `json:"recalled,omitempty"`
	Edited      bool        `json:"edited,omitempty"`
	TargetSeq   int64       `json:"target_seq,omitempty"`
}

// Last is the last number that the entry stands for.
func (e *Entry) Last() int64 { return max(e.Seq, e.ToSeq) }

// Synced is one conversation of the answer to a sync.
type Synced struct {
	Conversation chat.ConversationID `json:"c"`
	MaxSeq       int64               `json:"max_seq"`
	ReadSeq      int64               `json:"read_seq"`
	Unread       int64               `json:"unread"`
}

// Receipt is how many have read one message.
type Receipt struct {
	Seq         int64 `json:"seq"`
	ReadCount   int64 `json:"read_count"`
	UnreadCount int64 `json:"unread_count"`
}

// Hint is what a connection heard unasked: its conversation is at Seq. A frame with several conversations is several
// records.
type Hint struct {
	Seq int64 `json:"seq"`
}

// Open says that a client's run begins: the socket's auth was answered, or the client starts to use the HTTP door.
type Open struct {
	Door Door `json:"door"` // only connections at DoorSocket hear hints
}

// Close says that a client's run has ended; what it had begun and has no End stays unknown.
type Close struct {
	Code   int    `json:"code,omitempty"` // the close code of a socket
	Reason string `json:"reason,omitempty"`
}

// FaultID names a fault within its history.
type FaultID uint64

// Fault says that something was broken on purpose.
type Fault struct {
	ID   FaultID `json:"id"`
	Name string  `json:"name"`
}

// FaultEnd says that it is whole again. Allowed is how long after that, in nanoseconds, everybody must have been told.
type FaultEnd struct {
	ID      FaultID `json:"id"`
	Allowed int64   `json:"allowed"`
}

// Rest says that all clients are done, all faults are over and all logs are read to their ends: nothing moves after it.
// Questions that are asked after it have exact answers. There is at most one.
type Rest struct{}

// SourceName is the word for where final state was read.
type SourceName string

// The sources. Log, store and archive have events.
const (
	SourceLog      SourceName = "log"      // im.messages
	SourceStore    SourceName = "store"    // the timeline, in MySQL or SQLite
	SourceArchive  SourceName = "archive"  // messages, in ClickHouse
	SourceRejected SourceName = "rejected" // im.rejected
	SourceMembers  SourceName = "members"  // members and their marks, in MySQL or SQLite
)

// Event is an event as a source has it, after all came to rest.
type Event struct {
	Source      SourceName  `json:"source"`
	Seq         int64       `json:"seq"`
	Kind        chat.Kind   `json:"kind"`
	MessageID   int64       `json:"message_id,string,omitempty"` // the archive has none
	Sender      chat.UserID `json:"sender_id,omitempty"`
	ClientMsgID string      `json:"client_msg_id,omitempty"`
	// Body is the fingerprint of the content of messages: in the log as it was sent (of an edit: the new content), in store
	// and archive in the present form, empty once recalled.
	Body       Body          `json:"body,omitempty"`
	TargetSeq  int64         `json:"target_seq,omitempty"`
	Recalled   bool          `json:"recalled,omitempty"` // of store and archive
	Recipients []chat.UserID `json:"recipients,omitempty"`

	// Of the log: where it stands, and from where it came. The archive has the first two besides (offset -1 for rows that
	// were filled in from the store).
	Partition     int32  `json:"partition,omitempty"`
	Offset        int64  `json:"offset,omitempty"`
	InboundOffset *int64 `json:"inbound_offset,omitempty"`
	// Of the log: the users of create, join and leave as they were decided, and (create, update) whether members read what
	// was said before they joined; nil where the event does not say.
	Users          []chat.UserID `json:"users,omitempty"`
	HistoryVisible *bool         `json:"history_visible,omitempty"`
}

// Rejected is a record of im.rejected: what did not become an event.
type Rejected struct {
	Sender      chat.UserID `json:"sender_id,omitempty"`
	ClientMsgID string      `json:"client_msg_id,omitempty"`
	Code        chat.Code   `json:"code"`
	FirstSeq    int64       `json:"first_seq,omitempty"` // the event that a duplicate or a conflict repeats
	// The inbound record that was rejected.
	Partition     int32 `json:"partition,omitempty"`
	InboundOffset int64 `json:"inbound_offset,omitempty"`
}

// Member is a membership, present or past, with its final read mark.
type Member struct {
	User    chat.UserID `json:"user"`
	JoinSeq int64       `json:"join_seq"`
	LeftSeq int64       `json:"left_seq,omitempty"` // 0 while a member
	ReadSeq int64       `json:"read_seq"`
}

// Source says that a source was read to its end and how many of its records stand in the history. A source without it is
// one that nobody looked at: nothing is concluded from what it does not have.
type Source struct {
	Name  SourceName `json:"name"`
	Count int64      `json:"count"`
}

// Validate tells what keeps a record from being one. The error names the field.
func (r *Record) Validate() error {
	if r.At < 0 {
		return errors.New("t is negative")
	}
	bodies := 0
	for _, there := range [...]bool{
		r.Begin != nil, r.End != nil, r.Hint != nil, r.Open != nil, r.Close != nil, r.Fault != nil, r.FaultEnd != nil,
		r.Rest != nil, r.Event != nil, r.Rejected != nil, r.Member != nil, r.Source != nil,
	} {
		if there {
			bodies++
		}
	}
	if bodies != 1 {
		return fmt.Errorf("has %d bodies, and one is needed", bodies)
	}
	if (r.Begin != nil || r.End != nil) != (r.Op > 0) {
		return errors.New("op belongs to begin and end, and to nothing else")
	}
	if (r.Hint != nil || r.Open != nil || r.Close != nil) && (r.Conn == 0 || r.Client <= 0) {
		return errors.New("has no conn or no client")
	}
	inConversation := r.Hint != nil || r.Event != nil || r.Rejected != nil || r.Member != nil || r.Begin != nil && r.Begin.Call != CallSync && r.Begin.Call != CallCreate
	if inConversation && r.Conversation.IsZero() {
		return errors.New("c is missing")
	}
	switch {
	case r.Begin != nil:
		return r.Begin.validate(r)
	case r.End != nil:
		return r.End.validate()
	case r.Hint != nil && r.Hint.Seq < 1:
		return errors.New("hint.seq is not positive")
	case r.FaultEnd != nil && r.FaultEnd.Allowed < 0:
		return errors.New("fault_end.allowed is negative")
	case r.Event != nil:
		return r.Event.validate()
	case r.Member != nil && r.Member.User <= 0:
		return errors.New("member.user is missing")
	case r.Source != nil && !r.Source.Name.known():
		return fmt.Errorf("source.name %.20q is not known", r.Source.Name)
	}
	return nil
}

func (b *Begin) validate(r *Record) error {
	switch {
	case !b.Call.known():
		return fmt.Errorf("begin.call %.20q is not known", b.Call)
	case r.Client <= 0:
		return errors.New("client is missing")
	case (b.Call == CallEdit || b.Call == CallRecall) && b.TargetSeq < 1:
		return errors.New("begin.target_seq is missing")
	case b.Call == CallLookup && b.ClientMsgID == "":
		return errors.New("begin.client_msg_id is missing")
	}
	return nil
}

func (e *End) validate() error {
	switch e.Outcome {
	case OutcomeOK, OutcomeAccepted, OutcomeUnknown:
	case OutcomeRefused:
		if e.Code == "" {
			return errors.New("end.code is missing")
		}
	default:
		return fmt.Errorf("end.outcome %.20q is not known", e.Outcome)
	}
	return nil
}

func (e *Event) validate() error {
	switch e.Source {
	case SourceLog, SourceStore, SourceArchive:
	default:
		return fmt.Errorf("event.source %.20q has no events", e.Source)
	}
	if e.Kind == 0 {
		return errors.New("event.kind is missing")
	}
	return nil
}

func (n SourceName) known() bool {
	switch n {
	case SourceLog, SourceStore, SourceArchive, SourceRejected, SourceMembers:
		return true
	}
	return false
}
