package check

import (
	"slices"
	"sort"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// ordinals counts the messages of a conversation that are unread for a user, in any stretch of numbers. It wants a log
// that is 1..n.
type ordinals struct {
	c         *conversation
	everybody []int64                 // of each number: the messages to everybody up to it
	own       map[chat.UserID][]int64 // numbers of those that a user sent
	few       map[chat.UserID][]int64 // numbers of messages that are addressed to a user and others
	recalled  []taken                 // by number
	lateness  []int64                 // of each number: the first time at which it or one after it was asked for
}

// taken is a message that was taken back.
type taken struct {
	seq         int64
	asked, sure int64 // since when it may have been, and has been
	line        int32
}

func (l *ledger) ordinals(c *conversation) *ordinals {
	n := len(c.log)
	o := &ordinals{c: c, everybody: make([]int64, n+1), own: map[chat.UserID][]int64{}, few: map[chat.UserID][]int64{}, lateness: make([]int64, n+2)}
	for i := range c.log {
		e := &c.log[i]
		o.everybody[i+1] = o.everybody[i]
		switch {
		case e.kind == chat.KindRecall:
			t := taken{e.target, c.sent[i], never, e.line}
			if a := c.answer(e, false); a != nil {
				t.sure = a.end
			}
			if l.rested() {
				t.sure = min(t.sure, l.rest)
			}
			o.recalled = append(o.recalled, t)
		case e.kind != chat.KindMessage:
		case len(e.recipients) == 0:
			o.everybody[i+1]++
			o.own[e.key.sender] = append(o.own[e.key.sender], e.seq)
		default:
			for _, u := range e.recipients {
				if u != e.key.sender {
					o.few[u] = append(o.few[u], e.seq)
				}
			}
		}
	}
	o.lateness[n+1] = never
	for i := n - 1; i >= 0; i-- {
		o.lateness[i+1] = min(o.lateness[i+2], c.sent[i])
	}
	slices.SortFunc(o.recalled, func(a, b taken) int { return int(a.seq - b.seq) })
	return o
}

func between(list []int64, after, upTo int64) int64 {
	i := sort.Search(len(list), func(i int) bool { return list[i] > after })
	j := sort.Search(len(list), func(i int) bool { return list[i] > upTo })
	return int64(max(j-i, 0))
}

// counts tells whether a message, where it was not taken back, is unread for a user.
func (o *ordinals) counts(seq int64, u chat.UserID) bool {
	e := &o.c.log[seq-1]
	return e.kind == chat.KindMessage && e.key.sender != u && e.addressed(u)
}

// to counts the messages to a user behind a number and up to another, whether they were taken back or not.
func (o *ordinals) to(u chat.UserID, after, upTo int64) int64 {
	n := int64(len(o.c.log))
	after, upTo = min(max(after, 0), n), min(upTo, n)
	if after >= upTo {
		return 0
	}
	return o.everybody[upTo] - o.everybody[after] - between(o.own[u], after, upTo) + between(o.few[u], after, upTo)
}

// bounds gives the least and the most that a user may be told is unread behind its mark, by an answer that was under way
// from begin to end, and knew of at least the numbers up to upTo. Each message and each recall that was under way at the
// same time may be counted or not; at rest nothing is, and both bounds are the one right number.
func (o *ordinals) bounds(u chat.UserID, mark, upTo, begin, end int64) (least, most int64) {
	n := int64(len(o.c.log))
	upTo = min(upTo, n)
	least, most = o.to(u, mark, upTo), o.to(u, mark, upTo)
	for seq := max(upTo, mark) + 1; seq <= n && o.lateness[seq] < end; seq++ {
		if o.c.sent[seq-1] < end && o.counts(seq, u) {
			most++
		}
	}
	i := sort.Search(len(o.recalled), func(i int) bool { return o.recalled[i].seq > mark })
	for _, t := range o.recalled[i:] {
		if t.seq > n || !o.counts(t.seq, u) {
			continue
		}
		if t.asked < end {
			least-- // also one behind upTo: its recall may be known where its number was not
		}
		if t.sure < begin && (t.seq <= upTo || o.c.sent[t.seq-1] < end) {
			most--
		}
	}
	return max(least, 0), most
}

// P7: what is unread is what others said to me behind my read mark, without notices and what was taken back. An answer to
// a sync or a read is bounded by what was in flight while it was given (see bounds); its own mark is taken for granted, and
// of a read, which does not tell how far it looked, what anybody had seen before it was asked. At rest the number is exact,
// and a sync knows the end of the conversation.
var unread = rule{
	"unread", "P7", "unread counts are exact at rest, and within what was in flight before",
	func(l *ledger, f *findings) {
		if !l.has(history.SourceLog) {
			return
		}
		for _, c := range l.order {
			if !c.whole || len(c.syncs)+len(c.reads) == 0 {
				continue
			}
			o := l.ordinals(c)
			judge := func(s *span, mark, upTo, got int64) {
				f.look(1)
				least, most := o.bounds(s.client, mark, upTo, s.begin, s.end)
				if got < least || got > most {
					f.add(c.id, append(s.lines(), o.around(s.client, mark, upTo)...), []int64{mark, upTo}, "user %d was told that %d are unread behind %d, and there are %s", s.client, got, mark, fromTo(least, most))
				}
			}
			for i := range c.syncs {
				s := &c.syncs[i]
				if s.begin > l.rest && s.maxSeq != c.n && !c.left(s.client) {
					f.look(1)
					f.add(c.id, append(s.lines(), lineOf(c.at(c.log, c.n))), []int64{c.n}, "at rest a sync of user %d knows %d numbers, and there are %d", s.client, s.maxSeq, c.n)
					continue
				}
				judge(&s.span, s.read, s.maxSeq, s.unread)
			}
			for i := range c.reads {
				if r := &c.reads[i]; r.ok {
					upTo := c.known(r.begin).seq
					if r.begin > l.rest {
						upTo = c.n
					}
					judge(&r.span, r.seq, upTo, r.unread)
				}
			}
		}
	},
}

// around gives the lines of what may be counted wrongly: what is behind a mark and counts, where it is not too much to read.
func (o *ordinals) around(u chat.UserID, mark, upTo int64) []int32 {
	const enough = 10
	var lines []int32
	for seq := max(mark, 0) + 1; seq <= min(upTo, int64(len(o.c.log))) && len(lines) < enough; seq++ {
		if o.counts(seq, u) {
			lines = append(lines, o.c.log[seq-1].line)
		}
	}
	for _, t := range o.recalled {
		if t.seq > mark && len(lines) < 2*enough {
			lines = append(lines, t.line)
		}
	}
	return lines
}

// P6: a final mark is not below one that was answered, nor, for a present member, below its own last message, nor past the
// end; a read is answered at least with what was asked, as far as anybody had seen numbers before; and at rest a sync shows
// the final mark.
var marks = rule{
	"marks", "P6", "read marks are never below what was answered, and survive",
	func(l *ledger, f *findings) {
		for _, c := range l.order {
			for i := range c.reads {
				r := &c.reads[i]
				if !r.ok {
					continue
				}
				f.look(1)
				if seen := c.known(r.begin); r.seq < min(r.asked, seen.seq) {
					f.add(c.id, append(r.lines(), seen.line), []int64{r.seq, r.asked}, "user %d read up to %d, which existed, and the mark was answered to stand at %d", r.client, r.asked, r.seq)
				}
			}
			if !l.has(history.SourceMembers) {
				continue
			}
			final := map[chat.UserID]*member{}
			for i := range c.members {
				final[c.members[i].user] = &c.members[i]
			}
			c.finalMarks(l, final, f)
		}
	},
}

func (c *conversation) finalMarks(l *ledger, final map[chat.UserID]*member, f *findings) {
	highest := map[chat.UserID]*reading{}
	moved := map[chat.UserID]bool{} // after the rest
	for i := range c.reads {
		r := &c.reads[i]
		if r.begin > l.rest {
			moved[r.client] = true
		}
		if was := highest[r.client]; r.ok && (was == nil || r.seq > was.seq) {
			highest[r.client] = r
		}
	}
	spoke := map[chat.UserID]*event{}
	for i := range c.log {
		if e := &c.log[i]; e.kind == chat.KindMessage {
			spoke[e.key.sender] = e
		}
	}
	for i := range c.members {
		m := &c.members[i]
		if m.left > 0 {
			continue // leaving ends the mark
		}
		f.look(1)
		if r := highest[m.user]; r != nil && m.read < r.seq {
			f.add(c.id, append(r.lines(), m.line), []int64{r.seq, m.read}, "user %d was answered a read mark of %d, and in the end it is %d", m.user, r.seq, m.read)
		}
		if e := spoke[m.user]; e != nil && m.read < e.seq {
			f.add(c.id, []int32{e.line, m.line}, []int64{e.seq, m.read}, "user %d spoke at %d, and in the end the read mark is %d", m.user, e.seq, m.read)
		}
		if l.has(history.SourceLog) && m.read > c.n {
			f.add(c.id, []int32{m.line}, []int64{m.read}, "the read mark of user %d is %d, and the log ends at %d", m.user, m.read, c.n)
		}
	}
	for i := range c.syncs {
		s := &c.syncs[i]
		m := final[s.client]
		if s.begin <= l.rest || m == nil || m.left > 0 || moved[s.client] {
			continue
		}
		f.look(1)
		if s.read != m.read {
			f.add(c.id, append(s.lines(), m.line), []int64{s.read, m.read}, "at rest a sync of user %d shows the read mark %d, and the store has %d", s.client, s.read, m.read)
		}
	}
}
