package check

import (
	"cmp"
	"fmt"
	"slices"
	"sort"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// step is a read mark that has reached a number at a time.
type step struct{ at, seq int64 }

// rising keeps of steps in order of time those that reach further.
func rising(list []step) []step {
	slices.SortFunc(list, func(a, b step) int { return cmp.Compare(a.at, b.at) })
	top := int64(0)
	return slices.DeleteFunc(list, func(s step) bool {
		higher := s.seq > top
		top = max(top, s.seq)
		return !higher
	})
}

// reader is a member with what is known of how far it had read when.
type reader struct {
	*member
	stayed bool
	joined int64  // when somebody first saw that the store has the join
	may    []step // begins of what could raise the mark
	sure   []step // ends of what did
}

// has tells when a mark reached a number; never where it did not.
func reachedAt(list []step, seq int64) int64 {
	if i := sort.Search(len(list), func(i int) bool { return list[i].seq >= seq }); i < len(list) {
		return list[i].at
	}
	return never
}

// P7, the counts of receipts: how many of the present members who had joined by then, without the sender (and only of the
// recipients, where a message has some), have read a message. At rest it is exact: the members with their final marks.
// Before, each member counts as a reader who surely was one (its read was answered, a while ago in which nothing was
// broken), does not count who surely was none (nothing that could raise its mark that far had begun), and all others may
// count or not; so may those who left, came more than once, or came a moment ago.
var receipts = rule{
	"receipts", "P7", "read and unread counts of messages are exact at rest, and within what was in flight before",
	func(l *ledger, f *findings) {
		if !l.has(history.SourceLog) || !l.has(history.SourceMembers) {
			return
		}
		for _, c := range l.order {
			if len(c.counts) == 0 {
				continue
			}
			people := c.readers()
			for i := range c.counts {
				r := &c.counts[i]
				here := c.at(c.log, r.Seq)
				if len(here) != 1 {
					continue
				}
				f.look(1)
				b := l.countReaders(people, &here[0], r)
				if r.ReadCount < b.read[0] || r.ReadCount > b.read[1] || r.UnreadCount < b.unread[0] || r.UnreadCount > b.unread[1] {
					lines := append(r.lines(), here[0].line)
					for i := range people {
						if len(people) <= 10 {
							lines = append(lines, people[i].line)
						}
					}
					f.add(c.id, lines, []int64{r.Seq}, "number %d was said to be read by %d and not by %d, and it is %s and %s",
						r.Seq, r.ReadCount, r.UnreadCount, fromTo(b.read[0], b.read[1]), fromTo(b.unread[0], b.unread[1]))
				}
			}
		}
	},
}

func fromTo(least, most int64) string {
	if least == most {
		return fmt.Sprint(least)
	}
	return fmt.Sprintf("%d to %d", least, most)
}

func (c *conversation) readers() []reader {
	list := make([]reader, len(c.members))
	at := map[chat.UserID]*reader{}
	for i := range c.members {
		m := &c.members[i]
		list[i] = reader{member: m, stayed: c.stayed(m.user), joined: reached(c.storings, m.join).end}
		at[c.members[i].user] = &list[i]
	}
	for i := range c.reads {
		r := &c.reads[i]
		p := at[r.client]
		if p == nil {
			continue
		}
		p.may = append(p.may, step{r.begin, r.asked})
		if r.ok {
			p.sure = append(p.sure, step{r.end, r.seq})
		}
	}
	for i := range c.log {
		if e := &c.log[i]; e.kind == chat.KindMessage && at[e.key.sender] != nil {
			at[e.key.sender].may = append(at[e.key.sender].may, step{c.sent[i], e.seq})
		}
	}
	for i := range list {
		list[i].may, list[i].sure = rising(list[i].may), rising(list[i].sure)
	}
	return list
}

type bounds struct{ read, unread [2]int64 }

func (l *ledger) countReaders(people []reader, e *event, r *counting) (b bounds) {
	atRest := r.begin > l.rest
	for i := range people {
		p := &people[i]
		if p.user == e.key.sender || len(e.recipients) > 0 && !slices.Contains(e.recipients, p.user) {
			continue
		}
		if atRest || p.stayed && p.left == 0 && l.settled(p.joined, r) {
			if p.left > 0 || p.join > e.seq {
				continue
			}
			may := p.read >= e.seq
			sure := may
			if !atRest {
				// A mark that nothing in the history explains was raised at a time that nobody knows.
				at := reachedAt(p.may, e.seq)
				may = may && (at == never || at < r.end)
				at = reachedAt(p.sure, e.seq)
				sure = may && l.settled(at, r)
			}
			b.count(may, sure)
			continue
		}
		b.read[1]++
		b.unread[1]++
	}
	return b
}

// settled tells whether what was so at a time must be in what others are told by an answer.
func (l *ledger) settled(at int64, r *counting) bool {
	return at != never && at+int64(l.o.Settle) < r.begin && l.calm(at, r.end)
}

// count adds a member who may have read, or surely has.
func (b *bounds) count(may, sure bool) {
	switch {
	case sure:
		b.read[0]++
		b.read[1]++
	case may:
		b.read[1]++
		b.unread[1]++
	default:
		b.unread[0]++
		b.unread[1]++
	}
}

// P11: whoever asks is told. An operation whose outcome is unknown is explained by a fault at that time, by the end of its
// connection after it began, or by the end of the history; anything else was dropped in silence.
var answered = rule{
	"answered", "P11", "what was asked is answered, unless something was broken or the client went away",
	func(l *ledger, f *findings) {
		f.look(int(l.tally.operations()))
		slices.SortFunc(l.unended, func(a, b *operation) int { return cmp.Compare(a.beginLine, b.beginLine) })
		for _, op := range l.unended {
			c := l.conns[op.conn]
			gone := c != nil && c.closed != never && c.closed >= op.begin
			end := min(op.end, op.begin+int64(patience))
			if gone || op.end == never && op.begin+int64(patience) > l.last || !l.calm(op.begin, end) {
				continue
			}
			f.add(op.conversation, op.lines(), nil, "a %s of user %d was never answered, and nothing was broken", op.call.Call, op.client)
		}
	},
}

// patience is how long a client waits for an answer at least.
const patience = 30e9 // ns
