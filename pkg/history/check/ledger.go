package check

import (
	"fmt"
	"math"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// never is the time of what did not happen; always that of what was there from the beginning.
const (
	never  = int64(math.MaxInt64)
	always = int64(math.MinInt64)
)

// text is an interned string; 0 is the empty one.
type text uint32

// key is a sender's own name for a command, within a conversation.
type key struct {
	sender chat.UserID
	id     text
}

// ledger is a history in memory, by conversation.
type ledger struct {
	o             Options
	conversations map[chat.ConversationID]*conversation
	order         []*conversation // as they came first
	conns         map[history.Conn]*conn
	connOrder     []*conn
	faults        []*fault
	faultByID     map[history.FaultID]*fault
	declared      map[history.SourceName]declaration
	counted       map[history.SourceName]int64
	rest          int64 // never, where nothing came to rest
	restLine      int32
	last          int64 // time of the last record
	lastLine      int32

	ids     map[string]text
	open    map[history.Op]*operation
	unended []*operation // of outcome unknown, or without an end
	talkers map[chat.UserID]bool
	tally   tally
}

type declaration struct {
	count int64
	line  int32
}

// span is an operation's place in the history.
type span struct {
	begin, end         int64 // end is never where the operation has none
	beginLine, endLine int32
	client             chat.UserID
	conn               history.Conn
}

func (s *span) lines() []int32 { return []int32{s.beginLine, s.endLine} }

// operation is one that has begun.
type operation struct {
	span
	conversation chat.ConversationID
	call         *history.Begin
}

// conn is one run of a client.
type conn struct {
	id               history.Conn
	client           chat.UserID
	door             history.Door
	opened, closed   int64 // closed is never while it is open
	opLine, shutLine int32
}

// fault is from when until when everybody may be late.
type fault struct {
	name     string
	from, to int64 // to includes what is allowed after the end; never where it has no end
	line     int32
	endLine  int32
}

func newLedger(o Options) *ledger {
	return &ledger{
		o: o, conversations: map[chat.ConversationID]*conversation{}, conns: map[history.Conn]*conn{}, faultByID: map[history.FaultID]*fault{},
		declared: map[history.SourceName]declaration{}, counted: map[history.SourceName]int64{}, rest: never,
		ids: map[string]text{"": 0}, open: map[history.Op]*operation{}, talkers: map[chat.UserID]bool{}, tally: newTally(),
	}
}

func (l *ledger) intern(s string) text {
	if t, ok := l.ids[s]; ok {
		return t
	}
	t := text(len(l.ids))
	l.ids[s] = t
	return t
}

func (l *ledger) conversation(id chat.ConversationID) *conversation {
	c := l.conversations[id]
	if c == nil {
		c = newConversation(id)
		l.conversations[id] = c
		l.order = append(l.order, c)
	}
	return c
}

func (l *ledger) rested() bool { return l.rest != never }

// has tells whether a source was read to its end.
func (l *ledger) has(s history.SourceName) bool { _, ok := l.declared[s]; return ok }

func notOne(line int, format string, args ...any) error {
	return fmt.Errorf("%w: line %d: %s", history.ErrNotAHistory, line, fmt.Sprintf(format, args...))
}

// take adds a record.
func (l *ledger) take(r *history.Record) error {
	line := int32(r.Line)
	l.last, l.lastLine = max(l.last, r.At), line
	l.tally.records++
	switch {
	case r.Begin != nil:
		if l.open[r.Op] != nil {
			return notOne(r.Line, "operation %d begins twice", r.Op)
		}
		op := &operation{call: r.Begin, conversation: r.Conversation}
		op.span = span{begin: r.At, end: never, beginLine: line, client: r.Client, conn: r.Conn}
		l.open[r.Op] = op
		if r.Begin.Call.IsCommand() {
			l.talkers[r.Client] = true
		}
	case r.End != nil:
		op := l.open[r.Op]
		if op == nil {
			return notOne(r.Line, "operation %d ends, and it has not begun or ended before", r.Op)
		}
		if r.At < op.begin {
			return notOne(r.Line, "operation %d ends before it begins", r.Op)
		}
		delete(l.open, r.Op)
		op.end, op.endLine = r.At, line
		if op.conversation.IsZero() {
			op.conversation = r.Conversation
		}
		l.ended(op, r.End)
	case r.Hint != nil:
		c := l.conversation(r.Conversation)
		c.see(r.Hint.Seq, r.At, line)
		c.hints[r.Conn] = append(c.hints[r.Conn], sight{begin: r.At, end: r.At, seq: r.Hint.Seq, line: line})
		l.tally.hints++
	case r.Open != nil:
		if l.conns[r.Conn] != nil {
			return notOne(r.Line, "connection %d opens twice", r.Conn)
		}
		c := &conn{id: r.Conn, client: r.Client, door: r.Open.Door, opened: r.At, closed: never, opLine: line}
		l.conns[r.Conn] = c
		l.connOrder = append(l.connOrder, c)
	case r.Close != nil:
		c := l.conns[r.Conn]
		if c == nil || c.closed != never {
			return notOne(r.Line, "connection %d closes, and it is not open", r.Conn)
		}
		c.closed, c.shutLine = r.At, line
	case r.Fault != nil:
		if l.faultByID[r.Fault.ID] != nil {
			return notOne(r.Line, "fault %d begins twice", r.Fault.ID)
		}
		f := &fault{name: r.Fault.Name, from: r.At, to: never, line: line}
		l.faultByID[r.Fault.ID] = f
		l.faults = append(l.faults, f)
	case r.FaultEnd != nil:
		f := l.faultByID[r.FaultEnd.ID]
		if f == nil || f.to != never {
			return notOne(r.Line, "fault %d ends, and it is none", r.FaultEnd.ID)
		}
		f.to, f.endLine = r.At+r.FaultEnd.Allowed, line
	case r.Rest != nil:
		if l.rested() {
			return notOne(r.Line, "it comes to rest twice")
		}
		l.rest, l.restLine = r.At, line
	case r.Source != nil:
		if l.has(r.Source.Name) {
			return notOne(r.Line, "source %s is read to its end twice", r.Source.Name)
		}
		l.declared[r.Source.Name] = declaration{r.Source.Count, line}
	default:
		l.found(r, line)
	}
	return nil
}

// found adds a piece of final state.
func (l *ledger) found(r *history.Record, line int32) {
	c := l.conversation(r.Conversation)
	switch {
	case r.Event != nil:
		e := r.Event
		ev := event{
			line: line, seq: e.Seq, kind: e.Kind, messageID: e.MessageID, key: key{e.Sender, l.intern(e.ClientMsgID)}, body: l.intern(string(e.Body)),
			target: e.TargetSeq, recalled: e.Recalled, recipients: e.Recipients, partition: e.Partition, offset: e.Offset, inbound: -1,
			users: e.Users, historyVisible: e.HistoryVisible,
		}
		if e.InboundOffset != nil {
			ev.inbound = *e.InboundOffset
		}
		l.counted[e.Source]++
		c.rows[e.Source] = append(c.rows[e.Source], ev)
	case r.Rejected != nil:
		l.counted[history.SourceRejected]++
		x := r.Rejected
		c.rejected = append(c.rejected, rejection{
			line: line, key: key{x.Sender, l.intern(x.ClientMsgID)}, code: x.Code, first: x.FirstSeq, partition: x.Partition, inbound: x.InboundOffset,
		})
	case r.Member != nil:
		l.counted[history.SourceMembers]++
		m := r.Member
		c.members = append(c.members, member{line: line, user: m.User, join: m.JoinSeq, left: m.LeftSeq, read: m.ReadSeq})
	}
}

// calm tells whether nothing was broken, and nobody could be late for it, at any time between two.
func (l *ledger) calm(from, to int64) bool {
	for _, f := range l.faults {
		if f.from <= to && f.to >= from {
			return false
		}
	}
	return true
}

// due gives until when something that was known at a time must have reached everybody: after a while in which nothing was
// broken, or after the end of the faults in between and what is allowed then.
func (l *ledger) due(at, within int64) int64 {
	d := at + within
	for again := true; again; {
		again = false
		for _, f := range l.faults {
			if f.from <= d && f.to >= at && f.to > d {
				if f.to == never {
					return never
				}
				d, again = f.to, true
			}
		}
	}
	return d
}
