package check

import (
	"cmp"
	"slices"
	"sort"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// event is an event as one source has it.
type event struct {
	line       int32
	partition  int32
	kind       chat.Kind
	recalled   bool
	seq        int64
	messageID  int64
	key        key
	body       text
	target     int64
	offset     int64
	inbound    int64 // -1 where it is not known
	recipients []chat.UserID
	users      []chat.UserID
	few        []chat.UserID // of the log: where not empty, the only readers besides the sender

	historyVisible *bool
}

// addressed reports whether a reader may see an event. A message may be addressed to a few; an edit or a recall of one is seen by those and
// by the message's sender.
func (e *event) addressed(u chat.UserID) bool {
	return len(e.few) == 0 || e.key.sender == u || slices.Contains(e.few, u)
}

// act is a command, or a lookup of one, and what came of it.
type act struct {
	span
	call       history.Call
	door       history.Door
	key        key
	body       text
	target     int64
	recipients []chat.UserID
	outcome    history.Outcome
	code       chat.Code
	retryable  bool
	seq        int64
	messageID  int64
}

// numbered tells whether the sender was told the number.
func (a *act) numbered() bool { return a.outcome == history.OutcomeOK && a.call.IsCommand() }

// says tells whether an event is what the command asked for.
func (a *act) says(e *event) bool {
	switch a.call {
	case history.CallSend:
		return e.kind == chat.KindMessage && e.body == a.body && sameAudience(a.client, e.recipients, a.recipients)
	case history.CallEdit:
		return e.kind == chat.KindEdit && e.body == a.body && e.target == a.target
	case history.CallRecall:
		return e.kind == chat.KindRecall && e.target == a.target
	case history.CallCreate:
		return e.kind == chat.KindCreate || e.kind == chat.KindJoin // large groups are made by both
	case history.CallJoin:
		return e.kind == chat.KindJoin
	case history.CallLeave:
		return e.kind == chat.KindLeave
	}
	return true // a lookup
}

// alike tells whether two commands ask for the same.
func (a *act) alike(b *act) bool {
	return a.call == b.call && a.body == b.body && a.target == b.target && sameAudience(a.client, a.recipients, b.recipients)
}

// sameAudience tells whether two lists of recipients mean the same; the sender, who sees its messages anyway, makes no
// difference besides others.
func sameAudience(sender chat.UserID, a, b []chat.UserID) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	others := func(list []chat.UserID) []chat.UserID {
		list = slices.DeleteFunc(slices.Clone(list), func(u chat.UserID) bool { return u == sender })
		slices.Sort(list)
		return slices.Compact(list)
	}
	return slices.Equal(others(a), others(b))
}

type rejection struct {
	line, partition int32
	key             key
	code            chat.Code
	first, inbound  int64
}

type member struct {
	line             int32
	user             chat.UserID
	join, left, read int64
}

// sight is a number that somebody saw, by an operation or (begin = end) unasked.
type sight struct {
	begin, end, seq int64
	line            int32
}

// run is a run of numbers.
type run struct{ from, to int64 }

// pull is what is kept of an answer to a pull; what it showed is kept as forms.
type pull struct {
	span
	door             history.Door
	told             int64
	minSeq, maxSeq   int64
	from, to         int64 // the numbers that it accounts for; from > to where there are none
	voids            []run
	firstShown       int64 // the first number that is no void, or 0
	fault            string
	faultFrom, until int64
}

// form is a way in which pulls showed a number.
type form struct {
	typ       string
	messageID int64
	key       key
	body      text
	target    int64
	recalled  bool
}

// showing is when a form was shown: by which pull first, and by which that began last.
type showing struct {
	form
	firstLine     int32
	lastBeginAt   int64
	lastBeginLine int32
	lastEndLine   int32
}

type reading struct {
	span
	asked, seq, unread int64
	ok                 bool
}

type syncing struct {
	span
	door                 history.Door
	maxSeq, read, unread int64
}

type counting struct {
	span
	history.Receipt
}

// conversation is everything that the history has of one.
type conversation struct {
	id       chat.ConversationID
	rows     map[history.SourceName][]event // in order of seq
	acts     []act
	rejected []rejection
	members  []member
	pulls    []pull
	syncs    []syncing
	reads    []reading
	counts   []counting
	hints    map[history.Conn][]sight
	forms    map[int64][]showing

	// When each number was first seen as one that the conversation has reached: in the log at least, and in the store.
	seen, stored map[int64]sight

	// Made when all is read.
	log       []event // rows of the log
	logByKey  map[key][]int32
	aims      map[int64][]int32 // the edits and recalls of a number, in order
	actsByKey map[key][]int32
	nameless  []int32 // acts without a client id
	// Client ids that im.rejected has, but for retries of what stands.
	refusedKeys map[key]bool
	n           int64   // the highest number in the log
	whole       bool    // the log is 1..n, so that number n stands at n-1
	sent        []int64 // of each event of the log: when it was first asked for, or always where nobody is known to have
	sightings   []sight // of seen, in order of time, only those that raise the number
	storings    []sight // of stored, likewise
	stints      map[chat.UserID]*stint
	visibleAll  bool // members read what was said before they joined, or did so at some time
}

// stint is what the log says of a user's memberships.
type stint struct{ joins, leaves []int64 }

func newConversation(id chat.ConversationID) *conversation {
	return &conversation{
		id: id, rows: map[history.SourceName][]event{}, hints: map[history.Conn][]sight{}, forms: map[int64][]showing{}, seen: map[int64]sight{}, stored: map[int64]sight{},
	}
}

// number notes that somebody was told a number: it is in the log, and perhaps not yet in the store.
func (c *conversation) number(seq, at int64, line int32) { first(c.seen, seq, at, line) }

// see notes that somebody saw a number: the store has it.
func (c *conversation) see(seq, at int64, line int32) {
	first(c.seen, seq, at, line)
	first(c.stored, seq, at, line)
}

func first(of map[int64]sight, seq, at int64, line int32) {
	if s, ok := of[seq]; seq > 0 && (!ok || at < s.end) {
		of[seq] = sight{begin: at, end: at, seq: seq, line: line}
	}
}

// climbing gives sightings in order of time, only those that raise the number.
func climbing(of map[int64]sight) []sight {
	list := make([]sight, 0, len(of))
	for _, s := range of {
		list = append(list, s)
	}
	return higher(list)
}

// higher sorts sightings by time, and keeps those that raise the number.
func higher(list []sight) []sight {
	slices.SortFunc(list, func(a, b sight) int { return cmp.Or(cmp.Compare(a.end, b.end), cmp.Compare(a.seq, b.seq)) })
	top := int64(0)
	return slices.DeleteFunc(list, func(s sight) bool {
		raises := s.seq > top
		top = max(top, s.seq)
		return !raises
	})
}

// show notes how a pull showed a number.
func (c *conversation) show(seq int64, f form, at *span) {
	list := c.forms[seq]
	for i := range list {
		if s := &list[i]; s.form == f {
			if at.begin > s.lastBeginAt {
				s.lastBeginAt, s.lastBeginLine, s.lastEndLine = at.begin, at.beginLine, at.endLine
			}
			return
		}
	}
	c.forms[seq] = append(list, showing{f, at.endLine, at.begin, at.beginLine, at.endLine})
}

// close makes what the checks look things up in.
func (c *conversation) close() {
	for source, rows := range c.rows {
		slices.SortStableFunc(rows, func(a, b event) int { return cmp.Compare(a.seq, b.seq) })
		c.rows[source] = rows
	}
	c.log = c.rows[history.SourceLog]
	c.logByKey, c.actsByKey, c.aims = map[key][]int32{}, map[key][]int32{}, map[int64][]int32{}
	c.whole = true
	for i := range c.log {
		e := &c.log[i]
		c.n = max(c.n, e.seq)
		c.whole = c.whole && e.seq == int64(i)+1
		if e.key.id != 0 {
			c.logByKey[e.key] = append(c.logByKey[e.key], int32(i))
		}
		if e.few = e.recipients; e.target > 0 {
			c.aims[e.target] = append(c.aims[e.target], int32(i))
			if target := c.at(c.log, e.target); len(target) > 0 && len(target[0].recipients) > 0 {
				e.few = append(slices.Clone(target[0].recipients), target[0].key.sender)
			}
		}
	}
	slices.SortStableFunc(c.acts, func(a, b act) int { return cmp.Compare(a.begin, b.begin) })
	for i := range c.acts {
		if a := &c.acts[i]; a.key.id != 0 {
			c.actsByKey[a.key] = append(c.actsByKey[a.key], int32(i))
		} else {
			c.nameless = append(c.nameless, int32(i))
		}
	}
	c.refusedKeys = map[key]bool{}
	for i := range c.rejected {
		if code := c.rejected[i].code; code != chat.CodeMoved && code != chat.CodeDuplicate {
			c.refusedKeys[c.rejected[i].key] = true
		}
	}
	c.sent = make([]int64, len(c.log))
	for i := range c.log {
		c.sent[i] = c.asked(&c.log[i])
	}
	for i := range c.acts {
		// A conflict says that the first one has its number.
		a := &c.acts[i]
		if at := c.logByKey[a.key]; a.key.id != 0 && a.outcome == history.OutcomeRefused && a.code == chat.CodeConflict && len(at) > 0 {
			c.number(c.log[at[0]].seq, a.end, a.endLine)
		}
	}
	c.sightings, c.storings = climbing(c.seen), climbing(c.stored)
	c.join()
}

// asked gives when an event was first asked for.
func (c *conversation) asked(e *event) int64 {
	at := always
	for _, i := range c.actsByKey[e.key] {
		if a := &c.acts[i]; a.call.IsCommand() && a.says(e) && (at == always || a.begin < at) {
			at = a.begin
		}
	}
	return at
}

func (c *conversation) join() {
	c.stints = map[chat.UserID]*stint{}
	of := func(u chat.UserID) *stint {
		s := c.stints[u]
		if s == nil {
			s = &stint{}
			c.stints[u] = s
		}
		return s
	}
	if low, high, private := c.id.Peers(); private {
		of(low).joins, of(high).joins = []int64{0}, []int64{0}
	}
	for i := range c.log {
		e := &c.log[i]
		c.visibleAll = c.visibleAll || e.historyVisible != nil && *e.historyVisible
		switch e.kind {
		case chat.KindCreate, chat.KindJoin:
			if e.kind == chat.KindCreate {
				of(e.key.sender).joins = append(of(e.key.sender).joins, e.seq)
			}
			for _, u := range e.users {
				if e.kind == chat.KindJoin || u != e.key.sender {
					of(u).joins = append(of(u).joins, e.seq)
				}
			}
		case chat.KindLeave:
			for _, u := range e.users {
				of(u).leaves = append(of(u).leaves, e.seq)
			}
		}
	}
}

// at gives the events of the log with a number: one, where the log is what it should be.
func (c *conversation) at(rows []event, seq int64) []event {
	i := sort.Search(len(rows), func(i int) bool { return rows[i].seq >= seq })
	j := i
	for j < len(rows) && rows[j].seq == seq {
		j++
	}
	return rows[i:j]
}

// known gives the highest number that somebody had seen in the store before a time.
func (c *conversation) known(before int64) sight {
	i := sort.Search(len(c.storings), func(i int) bool { return c.storings[i].end >= before })
	if i == 0 {
		return sight{}
	}
	return c.storings[i-1]
}

// reached gives when somebody first saw a number, or one past it; at never where nobody did.
func reached(list []sight, seq int64) sight {
	i := sort.Search(len(list), func(i int) bool { return list[i].seq >= seq })
	if i == len(list) {
		return sight{begin: never, end: never}
	}
	return list[i]
}

// stayed tells whether a user became a member once and never left.
func (c *conversation) stayed(u chat.UserID) bool {
	s := c.stints[u]
	return s != nil && len(s.joins) == 1 && len(s.leaves) == 0
}
