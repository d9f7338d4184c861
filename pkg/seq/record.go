package seq

import "tideline/pkg/chat"

// Record is one record of im.inbound as its owner reads it.
type Record struct {
	Offset int64
	// Last is the last offset of a stretch that cannot be read and gets one rejection; else 0. Offset is its first.
	Last int64
	// Command is what could be read of it; nil where nothing could.
	Command *chat.Command
	// Fault is why it cannot be a command, or nil.
	Fault *chat.Error
	// Home is the partition where the command's conversation belongs; it is looked at where the conversation is known.
	Home        int32
	Producer    string
	ContentType string
	Value       []byte         // as it came
	MovedFrom   *chat.Position // where it was produced to, if it was moved here
	// Attached belongs to the Log: it comes back with the outcome (who waits for it, what a move copies).
	Attached any
}

// Outcome is what becomes of one record: an Event, or a Rejection (of which moves are one kind, see MovedTo).
type Outcome struct {
	Record    *Record
	Event     *chat.Event
	Rejection *chat.Rejection
	// Known tells that a predecessor had written the rejection already: it is told again, not written again.
	Known bool
}

// Moves tells whether the record is to be produced to another partition of im.inbound.
func (o *Outcome) Moves() bool { return o.Rejection != nil && o.Rejection.Code == chat.CodeMoved }

// TailRecord is one record of im.messages.
type TailRecord struct {
	Offset int64
	Event  chat.Event
	// Unreadable says that the value cannot be read. Of Event only Conversation and Seq are set, from outside the value: the
	// number counts as used.
	Unreadable bool
}

// AsideRecord is one record of im.rejected.
type AsideRecord struct {
	Offset    int64
	Rejection chat.Rejection
}
