package check

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

func since(from, to int64) time.Duration { return time.Duration(to - from).Round(time.Microsecond) }

// P5, and the contract of pulls: an answer accounts for every number of its range, in order; where it has no more, it
// reaches the end that it names; and only what a reader may not see stands as void.
var complete = rule{
	"complete", "P5", "a pull accounts for every number of its range, and hides nothing that its reader may see",
	func(l *ledger, f *findings) {
		for _, c := range l.order {
			for i := range c.pulls {
				p := &c.pulls[i]
				f.look(1)
				if p.fault != "" {
					f.add(c.id, p.lines(), []int64{p.faultFrom, p.until}, "a pull of user %d is not complete: %s", p.client, p.fault)
					continue
				}
				for _, v := range p.voids {
					for seq := max(v.from, p.minSeq); seq <= min(v.to, p.maxSeq); seq++ {
						here := c.at(c.log, seq)
						if len(here) == 0 || !here[0].addressed(p.client) {
							continue
						}
						f.add(c.id, append(p.lines(), here[0].line), []int64{seq}, "a pull hid number %d from user %d, who may see it", seq, p.client)
						break
					}
				}
			}
		}
	},
}

// P7 (not what I may not see): a pull shows nothing that is addressed to others, no edit or recall of that, and nothing from before the reader's first
// join where the group never showed history.
var visible = rule{
	"visible", "P7", "a pull shows nothing that its reader may not see",
	func(l *ledger, f *findings) {
		if !l.has(history.SourceLog) {
			return
		}
		for _, c := range l.order {
			var few []*event
			for i := range c.log {
				if len(c.log[i].few) > 0 {
					few = append(few, &c.log[i])
				}
			}
			for i := range c.pulls {
				p := &c.pulls[i]
				f.look(1)
				if s := c.stints[p.client]; !c.visibleAll && p.firstShown > 0 && (s == nil || p.firstShown < s.joins[0]) {
					f.add(c.id, p.lines(), []int64{p.firstShown}, "a pull showed number %d to user %d, who had not joined by then", p.firstShown, p.client)
				}
				from, _ := slices.BinarySearchFunc(few, p.from, func(e *event, seq int64) int { return cmp.Compare(e.seq, seq) })
				for _, e := range few[from:] {
					if e.seq > p.to {
						break
					}
					hidden := slices.ContainsFunc(p.voids, func(v run) bool { return v.from <= e.seq && e.seq <= v.to })
					if !hidden && !e.addressed(p.client) {
						f.add(c.id, append(p.lines(), e.line), []int64{e.seq}, "a pull showed number %d to user %d, to whom it is not addressed", e.seq, p.client)
					}
				}
			}
		}
	},
}

// P7: a message that is addressed to a few is addressed to members: each recipient is one when the message is numbered. The log alone
// decides, so that people may join and leave meanwhile.
var audience = rule{
	"audience", "P7", "the recipients of a message are members when it is numbered",
	func(l *ledger, f *findings) {
		if !l.has(history.SourceLog) {
			return
		}
		for _, c := range l.order {
			for i := range c.log {
				e := &c.log[i]
				for _, u := range e.recipients {
					f.look(1)
					if change, member := c.memberAt(u, e.seq); !member {
						f.add(c.id, []int32{e.line, lineOf(c.at(c.log, change))}, []int64{change, e.seq}, "number %d is addressed to user %d, who was not a member", e.seq, u)
					}
				}
			}
		}
	},
}

// memberAt reports whether the log makes a user a member just before a number, and returns the number of the change that decides it; 0
// where there is none.
func (c *conversation) memberAt(u chat.UserID, seq int64) (change int64, member bool) {
	s := c.stints[u]
	if s == nil {
		return 0, false
	}
	joined, in := lastBefore(s.joins, seq)
	left, out := lastBefore(s.leaves, seq)
	return max(joined, left), in && (!out || left < joined)
}

// lastBefore returns the last of some ascending numbers that is lower than seq.
func lastBefore(list []int64, seq int64) (last int64, found bool) {
	i, _ := slices.BinarySearch(list, seq)
	if i == 0 {
		return 0, false
	}
	return list[i-1], true
}

// P5: a pull that passes the number that it was told, and is answered, reaches that number. Those who have left are not
// looked at: their conversation ends where they did.
var told = rule{
	"told", "P5", "a pull with the number that was told reaches it",
	func(l *ledger, f *findings) {
		for _, c := range l.order {
			for i := range c.pulls {
				p := &c.pulls[i]
				if p.told == 0 || c.left(p.client) {
					continue
				}
				f.look(1)
				if p.maxSeq < p.told {
					f.add(c.id, p.lines(), []int64{p.told}, "user %d pulled with %d as the number told, and was given up to %d", p.client, p.told, p.maxSeq)
				}
			}
		}
	},
}

func (c *conversation) left(u chat.UserID) bool {
	s := c.stints[u]
	return s != nil && len(s.leaves) > 0
}

// P5 and P11: a socket that is open, of somebody who joined before and never left, hears of every number within what is
// allowed: after the moment at which anybody first knew of it, and after the end of the faults that came between. Hints may
// be coalesced: any at or above the number counts, and so does an answer on the same connection that showed as much. Only
// connections are looked at that were open all that time, and before the event was asked for: what the store had before
// they opened is theirs to ask for. Of each conversation on each only the first miss is told.
var informed = rule{
	"informed", "P5", "an online member is told of every number within what is allowed",
	func(l *ledger, f *findings) {
		for _, c := range l.order {
			if len(c.sightings) == 0 || !c.whole {
				continue
			}
			heard := c.heard(l)
			due := make([]int64, len(c.sightings))
			for i, s := range c.sightings {
				due[i] = l.due(s.end, int64(l.o.Told))
			}
			for _, e := range l.connOrder {
				if e.door == history.DoorSocket && c.stayed(e.client) {
					c.listened(l, e, c.stints[e.client].joins[0], heard[e.id], due, f)
				}
			}
		}
	},
}

// heard gives what each connection saw of a conversation, in order of time, only what raised the number.
func (c *conversation) heard(l *ledger) map[history.Conn][]sight {
	all := map[history.Conn][]sight{}
	for id, list := range c.hints {
		all[id] = slices.Clone(list)
	}
	add := func(s *span, seq int64) {
		if l.conns[s.conn] != nil && s.end != never {
			all[s.conn] = append(all[s.conn], sight{s.end, s.end, seq, s.endLine})
		}
	}
	for i := range c.pulls {
		add(&c.pulls[i].span, c.pulls[i].maxSeq)
	}
	for i := range c.syncs {
		add(&c.syncs[i].span, c.syncs[i].maxSeq)
	}
	for i := range c.acts {
		if c.acts[i].outcome == history.OutcomeOK {
			add(&c.acts[i].span, c.acts[i].seq)
		}
	}
	for id, list := range all {
		all[id] = higher(list)
	}
	return all
}

// listened judges one connection. What had to be heard are the numbers at which somebody first saw the conversation.
func (c *conversation) listened(l *ledger, e *conn, join int64, heard []sight, due []int64, f *findings) {
	next := 0
	for i, s := range c.sightings {
		if s.seq <= join || s.seq > c.n || c.sent[s.seq-1] < e.opened || due[i] >= e.closed || due[i] > l.last {
			continue
		}
		f.look(1)
		for next < len(heard) && heard[next].seq < s.seq {
			next++
		}
		if next < len(heard) && heard[next].end <= due[i] {
			continue
		}
		lines, late := []int32{e.opLine, s.line}, "never"
		if next < len(heard) {
			lines, late = append(lines, heard[next].line), "only "+since(s.end, heard[next].end).String()+" later"
		}
		for _, x := range l.faults {
			if x.from <= due[i] && x.to >= s.end {
				lines = append(lines, x.line, x.endLine)
			}
		}
		f.add(c.id, lines, []int64{s.seq}, "connection %d of user %d was open, and heard %s of number %d, which was known", e.id, e.client, late, s.seq)
		return
	}
}

// P5 and P6: on one connection nothing goes back. An answer is compared with those that had ended before it was begun:
// read marks of reads and syncs; the end of the conversation in pulls and syncs at one door (two doors are two processes, and a
// client that goes from one to the other passes the number that it was told); hints with hints. The end of a conversation is
// not looked at for those who have left.
var monotonic = rule{
	"monotonic", "P6", "max_seq, hints and read marks never go back on one connection",
	func(l *ledger, f *findings) {
		type lane struct {
			conn history.Conn
			what string
			door history.Door
		}
		for _, c := range l.order {
			lanes := map[lane][]sight{}
			add := func(what string, door history.Door, s *span, seq int64) {
				if s.conn != 0 {
					k := lane{s.conn, what, door}
					lanes[k] = append(lanes[k], sight{s.begin, s.end, seq, s.endLine})
				}
			}
			for i := range c.pulls {
				if p := &c.pulls[i]; !c.left(p.client) {
					add("the max_seq", p.door, &p.span, p.maxSeq)
				}
			}
			for i := range c.syncs {
				s := &c.syncs[i]
				if !c.left(s.client) {
					add("the max_seq", s.door, &s.span, s.maxSeq)
				}
				add("the read mark", "", &s.span, s.read)
			}
			for i := range c.reads {
				if r := &c.reads[i]; r.ok {
					add("the read mark", "", &r.span, r.seq)
				}
			}
			for id, list := range c.hints {
				lanes[lane{id, "a hint", ""}] = list
			}
			byConn := func(a, b lane) int {
				return cmp.Or(cmp.Compare(a.conn, b.conn), cmp.Compare(a.what, b.what), cmp.Compare(a.door, b.door))
			}
			for _, k := range slices.SortedFunc(maps.Keys(lanes), byConn) {
				list := lanes[k]
				f.look(len(list))
				if a, b, ok := goneBack(list); ok {
					f.add(c.id, []int32{a.line, b.line}, []int64{b.seq, a.seq}, "%s of connection %d went back from %d to %d", k.what, k.conn, a.seq, b.seq)
				}
			}
		}
	},
}

// goneBack finds an observation that is lower than one that had ended before it began.
func goneBack(list []sight) (a, b sight, found bool) {
	ended := slices.Clone(list)
	slices.SortStableFunc(ended, func(a, b sight) int { return cmp.Compare(a.end, b.end) })
	begun := slices.Clone(list)
	slices.SortStableFunc(begun, func(a, b sight) int { return cmp.Compare(a.begin, b.begin) })
	i := 0
	for _, b := range begun {
		for i < len(ended) && ended[i].end < b.begin {
			if ended[i].seq > a.seq {
				a = ended[i]
			}
			i++
		}
		if b.seq < a.seq {
			return a, b, true
		}
	}
	return a, b, false
}
