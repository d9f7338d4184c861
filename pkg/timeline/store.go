package timeline

import (
	"context"
	"errors"

	"tideline/pkg/chat"
)

// ErrFenced means that another writer has moved the position of the partition: this one was replaced, must drop its
// batch and give the partition up.
var ErrFenced = errors.New("the partition's position was moved by another writer")

// ErrUnstorable is wrapped by an error about one event that the store can never take, whatever is tried; see Unstorable.
var ErrUnstorable = errors.New("the store can never take this event")

// Position is how far the timeline of one partition has come. It is stored in the transaction that stores the rows.
// Offsets named Next are those behind everything that was dealt with; what is no record (markers of transactions) counts.
type Position struct {
	Partition    int32
	MessagesNext int64 // im.messages
	InboundNext  int64 // im.inbound: one past the inbound offset of the last event or progress record
	RejectedNext int64 // im.rejected: everything of earlier batches stands before it
	HighestStamp int64 // ms: the highest stamp of a client id that was numbered
	BatchFrom    int64 // MessagesNext before the last batch; what it told may have been lost
	// MarksDirty notes that the writer could not keep the fast read marks up to date since; see internal/marks.
	MarksDirty bool
}

// Entry is one record of im.messages on its way into the timeline.
type Entry struct {
	Offset int64 // in im.messages
	Event  chat.Event
	// Passed says that the record is parked: the conversation's head moves past its number, which has no row. The number is
	// used all the same, and readers see a void. Of Event only Conversation, Seq, Ordinal and SentAt are set; see Pass.
	Passed bool
}

// UnknownOrdinal is the ordinal of a passed event of which only the number is known.
const UnknownOrdinal = -1

// Pass returns the entry that a parked event leaves.
func Pass(offset int64, e *chat.Event) Entry {
	return Entry{Offset: offset, Passed: true, Event: chat.Event{Conversation: e.Conversation, Seq: e.Seq, Ordinal: e.Ordinal, SentAt: e.SentAt}}
}

// PassUnreadable returns the entry that a parked record leaves whose value cannot be read. It counts only where its number
// is the next of the conversation: nothing else is known of it.
func PassUnreadable(offset int64, id chat.ConversationID, seq, sentAt int64) Entry {
	return Entry{Offset: offset, Passed: true, Event: chat.Event{Conversation: id, Seq: seq, Ordinal: UnknownOrdinal, SentAt: sentAt}}
}

// Applied tells what a batch did.
type Applied struct {
	// Heads are the conversations of the batch as they are now.
	Heads []Conversation
	// Twins are events whose client id was taken: a broken promise that the index caught. They stand as tombstones.
	Twins []Twin
	// Skipped counts events that were there already, of a batch that is repeated.
	Skipped int
	// MissingTargets counts edits and recalls whose target the store does not have.
	MissingTargets int
	// Holes counts the numbers that the batch jumped over or passed: events that were parked. Their numbers have no row until
	// they are put back.
	Holes int64
	// Filled are numbers that had no row before, though the head was past them: readers may have seen a void.
	Filled []Filled
}

// Filled is a number that has a row now.
type Filled struct {
	Conversation chat.ConversationID
	Seq          int64
}

// Twin is an event that repeats the client id of another.
type Twin struct {
	Conversation chat.ConversationID
	Seq, First   int64
}

// Writer stores batches.
//
// Apply stores the entries of one partition and moves its position from one place to the next, all in one transaction:
//   - the rows, idempotent on (conversation, seq): a row that is there already is left alone;
//   - what the events do to conversations and members; members that a Join or a Create names start with their mark at
//     that number (0 in private conversations), a Leave keeps the row and sets LeftSeq;
//   - the sender's own mark, raised to the number of its message;
//   - edits and recalls on the rows that they aim at; a recall blanks the content for good and removes the mentions and
//     addressees of the row;
//   - the position, by compare-and-set on MessagesNext.
//
// A row whose (conversation, sender, client id) is taken by another number becomes a tombstone that points at the first;
// what it does to memberships it does all the same, because ingest has counted on it.
//
// An event whose number is below the head and has no row was parked and is put back: it is stored where it belongs.
// What newer events have said of conversation and members since is left alone; edits and recalls that have aimed at it since
// are applied to it.
//
// Apply returns ErrFenced where the position is not `from` any more (nothing was stored), an error wrapping
// ErrUnstorable where one entry can never be stored (nothing was stored; the caller finds out which by halving), any
// other error where it may be tried again. It is safe to repeat after an error whose outcome is unknown: if the commit
// had happened, the answer is ErrFenced and Positions tells that MessagesNext is at `to`.
//
// It is safe for concurrent use by different partitions.
type Writer interface {
	Positions(ctx context.Context, partitions []int32) ([]Position, error) // a partition never written: the zero position
	Apply(ctx context.Context, from, to Position, entries []Entry) (Applied, error)
}

// Reader gives what pulls, summaries and receipts need. All methods are safe for concurrent use; all return slices in
// the order stated and leave out what does not exist.
type Reader interface {
	// Rows gives the rows first..last of a conversation, ordered by seq: one range scan. The caller bounds the range.
	Rows(ctx context.Context, c chat.ConversationID, first, last int64) ([]Row, error)
	// SeqAt returns the lowest number whose row was sent at or after a time (ms), or 0 where there is none, also where
	// times do not grow with the numbers, as in what was imported out of order.
	SeqAt(ctx context.Context, c chat.ConversationID, at int64) (int64, error)
	// Conversations gives heads, in no order.
	Conversations(ctx context.Context, ids []chat.ConversationID) ([]Conversation, error)
	// Members gives memberships, present and past, in no order.
	Members(ctx context.Context, keys []MemberKey) ([]Member, error)
	// MembersPage lists present members by user id, beginning after one; limit is at most 1,000.
	MembersPage(ctx context.Context, c chat.ConversationID, after chat.UserID, limit int) ([]Member, error)
	// Memberships gives all memberships of a user with the heads of their conversations, in no order. With past, those
	// that ended are included. One statement.
	Memberships(ctx context.Context, u chat.UserID, past bool) ([]Membership, error)
	// Corrections counts, for each mark of a user, what a difference of ordinals does not know; see Unread. Marks
	// whose conversation has nothing above them are left out of the statements, and of the answer.
	Corrections(ctx context.Context, u chat.UserID, marks []MarkAt) (map[chat.ConversationID]Correction, error)
	// Marks gives the present members of a conversation with their marks: what the fast read marks are filled from.
	Marks(ctx context.Context, c chat.ConversationID) ([]MemberMark, error)
	// ReadCounts counts for each question in the members' rows, by index: for as long as the fast marks are cold.
	ReadCounts(ctx context.Context, c chat.ConversationID, asked []ReceiptQuestion) ([]ReceiptCount, error)
	// Readers lists present members who have read a number and had joined by then, by user id, beginning after one.
	Readers(ctx context.Context, c chat.ConversationID, seq int64, after chat.UserID, limit int) ([]MemberMark, error)
}

// MemberKey names a membership.
type MemberKey struct {
	Conversation chat.ConversationID
	User         chat.UserID
}

// Membership is a membership with the head of its conversation, read in one statement.
type Membership struct {
	Member       Member
	Conversation Conversation
}

// MarkAt is a read mark in a conversation whose head is known.
type MarkAt struct {
	Conversation *Conversation
	Seq          int64
}

// Correction is what a difference of ordinals does not know, counted above a mark.
type Correction struct {
	Recalled  int64 // countable messages that were recalled
	Addressed int64 // messages that are addressed to the user among a few, by others, not recalled
	Mentions  int64 // messages by others that mention the user or everybody, visible to the user, not recalled
}

// MemberMark is a member's read mark.
type MemberMark struct {
	User    chat.UserID
	JoinSeq int64
	Seq     int64
	Ordinal int64
}

// ReceiptQuestion asks who has read one message.
type ReceiptQuestion struct {
	Seq        int64
	Sender     chat.UserID
	Recipients []chat.UserID
}

// ReceiptCount answers a ReceiptQuestion: of the present members who had joined by then, without the sender.
type ReceiptCount struct {
	Seq         int64
	ReadCount   int64
	UnreadCount int64
}

// Unread counts what others said to a member after its mark (P7): countable messages by the difference of ordinals, less
// the recalled ones, and the messages addressed to it among a few. Its own sends do not count, as each has raised the mark.
func Unread(head, mark int64, c Correction) int64 { return max(head-mark-c.Recalled, 0) + c.Addressed }

// MarkWriter makes read marks durable.
//
// ApplyMarks raises the marks of present members (never lowers one; a mark beyond the conversation's end as it is known to
// the store counts as one at the end) and moves the position of the partition of im.receipts by compare-and-set, in one transaction; ErrFenced as
// for Writer.Apply. ReadOffset of a row that moved becomes the offset of its record.
type MarkWriter interface {
	MarkPositions(ctx context.Context, partitions []int32) (map[int32]int64, error) // the next offset; 0 where never written
	ApplyMarks(ctx context.Context, partition int32, from, to int64, marks []MarkEntry) error
}

// MarkEntry is one record of im.receipts.
type MarkEntry struct {
	Offset int64
	Mark   chat.ReadMark
}

// Mark is a place up to which somebody has read.
type Mark struct {
	Seq     int64
	Ordinal int64 // the conversation's ordinal at Seq
}
