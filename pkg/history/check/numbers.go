package check

import (
	"maps"
	"slices"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// The history itself: each source that is said to be read to its end has as many records as it is said to have.
var whole = rule{
	"whole", "", "each source has as many records as the history says",
	func(l *ledger, f *findings) {
		for _, name := range slices.Sorted(maps.Keys(l.declared)) {
			d := l.declared[name]
			f.look(1)
			if l.counted[name] != d.count {
				f.add(chat.ConversationID{}, []int32{d.line}, nil, "source %s is said to have %d records, and the history has %d", name, d.count, l.counted[name])
			}
		}
	},
}

// P2: numbers are 1, 2, 3 … n, without a gap and without a twin, in every source that was read to its end.
var contiguous = rule{
	"contiguous", "P2", "numbers are 1 to n without gap or twin, in log, store and archive",
	func(l *ledger, f *findings) {
		for _, c := range l.order {
			for _, source := range eventSources {
				if !l.has(source) {
					continue
				}
				last, line := int64(0), int32(0)
				for i := range c.rows[source] {
					e := &c.rows[source][i]
					f.look(1)
					switch {
					case e.seq == last:
						f.add(c.id, []int32{line, e.line}, []int64{e.seq}, "number %d stands twice in %s", e.seq, source)
					case e.seq > last+1:
						f.add(c.id, []int32{line, e.line}, []int64{last, e.seq}, "%s has no number %d: %d follows %d", source, last+1, e.seq, last)
					case e.seq < 1:
						f.add(c.id, []int32{e.line}, []int64{e.seq}, "%s has a number %d", source, e.seq)
					}
					last, line = e.seq, e.line
				}
			}
		}
	},
}

// P2: in the log a conversation stands in one partition, and the order of offsets is the order of numbers.
var order = rule{
	"order", "P2", "the order of im.messages is the order of numbers",
	func(l *ledger, f *findings) {
		for _, c := range l.order {
			for i := 1; i < len(c.log); i++ {
				a, b := &c.log[i-1], &c.log[i]
				f.look(1)
				switch {
				case a.partition != b.partition:
					f.add(c.id, []int32{a.line, b.line}, []int64{a.seq, b.seq}, "number %d stands in partition %d and number %d in %d", a.seq, a.partition, b.seq, b.partition)
				case a.offset >= b.offset && a.seq != b.seq:
					f.add(c.id, []int32{a.line, b.line}, []int64{a.seq, b.seq}, "number %d stands at offset %d and number %d at %d", a.seq, a.offset, b.seq, b.offset)
				}
			}
		}
	},
}

// P2, in real time: a command that was answered, or accepted over HTTP or the socket, before another one of the same
// conversation was begun has the lower number. Acceptances are left out at the Kafka door, where a record that was produced
// into a foreign partition is ordered when it is moved; and where the command was, or may have been, refused afterwards, so
// that the number is a later retry's.
var realtime = rule{
	"realtime", "P2", "what was answered before another was begun has the lower number",
	func(l *ledger, f *findings) {
		for _, c := range l.order {
			if !c.whole {
				continue // numbers that stand twice or nowhere have no order
			}
			// From the last number down: the earliest answer that a number further up had.
			earliest := (*act)(nil)
			var higher int64
			for i := len(c.log) - 1; i >= 0; i-- {
				e := &c.log[i]
				if began := c.sent[i]; began != always {
					f.look(1)
					if earliest != nil && earliest.end < began {
						first := c.firstAct(e)
						f.add(c.id, append(append(earliest.lines(), first.beginLine), e.line, c.log[higher-1].line), []int64{e.seq, higher},
							"number %d was answered before number %d was begun", higher, e.seq)
					}
				}
				if a := c.answer(e, l.has(history.SourceRejected) && !c.refusedKeys[e.key]); a != nil && (earliest == nil || a.end < earliest.end) {
					earliest, higher = a, e.seq
				}
			}
		}
	},
}

// answer gives the operation that ended first of those after which an event must have been numbered, or in line to be.
func (c *conversation) answer(e *event, acceptances bool) (first *act) {
	for _, i := range c.actsByKey[e.key] {
		a := &c.acts[i]
		sure := a.numbered() && a.seq == e.seq || acceptances && a.call.IsCommand() && a.outcome == history.OutcomeAccepted && a.door != history.DoorKafka
		if sure && a.says(e) && (first == nil || a.end < first.end) {
			first = a
		}
	}
	return first
}

// firstAct gives the operation that asked first for an event.
func (c *conversation) firstAct(e *event) (first *act) {
	for _, i := range c.actsByKey[e.key] {
		if a := &c.acts[i]; a.call.IsCommand() && a.says(e) && (first == nil || a.begin < first.begin) {
			first = a
		}
	}
	return first
}

// P2 (visible before committed): nobody sees a number that the log does not have, nor a number before anybody asked for
// it; and what the log has was asked for, in these words, where its sender is a client of this history. The last part is
// left out for what has no client id of the sender's.
var invented = rule{
	"invented", "P2", "nobody sees a number that the log does not have, nothing is seen before it was sent, and nothing is in the log that was not",
	func(l *ledger, f *findings) {
		if !l.has(history.SourceLog) {
			return
		}
		for _, c := range l.order {
			f.look(len(c.seen))
			if n := len(c.sightings); n > 0 && c.sightings[n-1].seq > c.n {
				s := c.sightings[n-1]
				f.add(c.id, []int32{s.line}, []int64{s.seq}, "somebody saw number %d, and the log ends at %d", s.seq, c.n)
			}
			for i := range c.log {
				e := &c.log[i]
				if began := c.sent[i]; began != always {
					f.look(1)
					if s := reached(c.sightings, e.seq); s.end < began {
						f.add(c.id, []int32{s.line, c.firstAct(e).beginLine, e.line}, []int64{e.seq, s.seq}, "somebody saw number %d before number %d was sent", s.seq, e.seq)
					}
					continue
				}
				switch e.kind {
				case chat.KindMessage, chat.KindEdit, chat.KindRecall:
				default:
					continue // one request may be several commands, whose client ids are the api's
				}
				if !l.talkers[e.key.sender] || e.key.id == 0 || c.anonymous(e) {
					continue
				}
				f.look(1)
				lines := []int32{e.line}
				for _, j := range c.actsByKey[e.key] {
					lines = append(lines, c.acts[j].beginLine)
				}
				f.add(c.id, lines, []int64{e.seq}, "number %d says what user %d never sent", e.seq, e.key.sender)
			}
		}
	},
}

// anonymous tells whether an event may be the work of a command that had no client id, which the api then made.
func (c *conversation) anonymous(e *event) bool {
	for _, i := range c.nameless {
		if a := &c.acts[i]; a.client == e.key.sender && a.says(e) {
			return true
		}
	}
	return false
}
