package check

import (
	"slices"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// bodies gives the contents that a message had, in order: as it was sent, then each edit.
func (c *conversation) bodies(e *event) []text {
	list := []text{e.body}
	for _, i := range c.aims[e.seq] {
		if a := &c.log[i]; a.kind == chat.KindEdit {
			list = append(list, a.body)
		}
	}
	return list
}

// recallOf gives the event that took a message back, or nil.
func (c *conversation) recallOf(seq int64) *event {
	for _, i := range c.aims[seq] {
		if a := &c.log[i]; a.kind == chat.KindRecall {
			return a
		}
	}
	return nil
}

// P1: the store has the events of the log and no others, each with the content that edits and recalls have left it.
var agree = rule{
	"agree", "P1", "the store has what the log has, in its present form",
	func(l *ledger, f *findings) { l.agree(history.SourceStore, f) },
}

// P9: the archive has the events of the log and no others, each once, in its present form, with the offset of the log (or
// -1, where the row was filled in from the store).
var archived = rule{
	"archived", "P9", "the archive has what the log has, each once and in its present form",
	func(l *ledger, f *findings) { l.agree(history.SourceArchive, f) },
}

func (l *ledger) agree(source history.SourceName, f *findings) {
	if !l.has(source) || !l.has(history.SourceLog) {
		return
	}
	for _, c := range l.order {
		rows := c.rows[source]
		for i := range c.log {
			e := &c.log[i]
			f.look(1)
			here := c.at(rows, e.seq)
			if len(here) == 0 {
				f.add(c.id, []int32{e.line}, []int64{e.seq}, "%s has no number %d, and the log has", source, e.seq)
				continue
			}
			for j := range here {
				c.same(source, e, &here[j], f)
			}
			if len(here) > 1 {
				f.add(c.id, []int32{here[0].line, here[1].line}, []int64{e.seq}, "%s has number %d %d times", source, e.seq, len(here))
			}
		}
		for i := range rows {
			if len(c.at(c.log, rows[i].seq)) == 0 {
				f.add(c.id, []int32{rows[i].line}, []int64{rows[i].seq}, "%s has number %d, and the log has not", source, rows[i].seq)
			}
		}
	}
}

// same judges a row against the event that it is of.
func (c *conversation) same(source history.SourceName, e, row *event, f *findings) {
	lines := []int32{e.line, row.line}
	wrong := func(what string) {
		f.add(c.id, lines, []int64{e.seq}, "number %d has another %s in %s than in the log", e.seq, what, source)
	}
	switch {
	case row.kind != e.kind:
		wrong("kind")
		return
	case row.key != e.key:
		wrong("sender or client id")
		return
	case source == history.SourceStore && row.messageID != e.messageID:
		wrong("message id")
		return
	case row.target != e.target:
		wrong("target")
		return
	case source == history.SourceArchive && row.offset != -1 && (row.offset != e.offset || row.partition != e.partition):
		wrong("offset")
		return
	case e.kind != chat.KindMessage:
		return // what a notice says is made from the event, and an edit's row says nothing
	case !sameAudience(e.key.sender, row.recipients, e.recipients):
		wrong("list of recipients")
		return
	}
	list := c.bodies(e)
	want := list[len(list)-1]
	recall := c.recallOf(e.seq)
	for _, i := range c.aims[e.seq] {
		lines = append(lines, c.log[i].line)
	}
	switch {
	case recall != nil && row.body != 0:
		// The check of recalls tells of it.
	case row.recalled != (recall != nil):
		wrong("recalled")
	case recall == nil && row.body != want:
		wrong("content")
	}
}

// P2: what pulls show is what the log has, at the same number: the same sender, client id and message id, and of its
// content one of those that it had.
var pulled = rule{
	"pulled", "P2", "what pulls show is what the log has at that number",
	func(l *ledger, f *findings) {
		if !l.has(history.SourceLog) {
			return
		}
		for _, c := range l.order {
			for _, seq := range c.shown() {
				list := c.forms[seq]
				here := c.at(c.log, seq)
				if len(here) == 0 {
					f.look(1)
					if seq <= c.n { // what is past the end is told of as seen and not there
						f.add(c.id, []int32{list[0].firstLine}, []int64{seq}, "a pull showed number %d, and the log has none", seq)
					}
					continue
				}
				for i := range list {
					f.look(1)
					if what := c.differs(&list[i].form, &here[0]); what != "" {
						f.add(c.id, []int32{list[i].firstLine, here[0].line}, []int64{seq}, "a pull showed number %d with another %s than the log has", seq, what)
					}
				}
			}
		}
	},
}

// shown gives the numbers that pulls showed, in order.
func (c *conversation) shown() []int64 {
	list := make([]int64, 0, len(c.forms))
	for seq := range c.forms {
		list = append(list, seq)
	}
	slices.Sort(list)
	return list
}

// differs names what an entry has otherwise than the event, or gives "".
func (c *conversation) differs(s *form, e *event) string {
	kind := chat.KindMessage
	switch s.typ {
	case string(chat.TypeText), string(chat.TypeCustom):
	case string(chat.TypeNotice):
		if !e.kind.IsNotice() {
			return "type"
		}
		kind = e.kind
	default:
		k, ok := chat.ParseKind(s.typ)
		if !ok {
			k = chat.KindMessage // a type of message that is not known here
		}
		kind = k
	}
	switch {
	case kind != e.kind:
		return "type"
	case s.key != e.key:
		return "sender or client id"
	case s.messageID != e.messageID:
		return "message id"
	case s.target != e.target:
		return "target"
	case e.kind != chat.KindMessage:
		return ""
	case s.recalled && c.recallOf(e.seq) == nil:
		return "state: it was recalled"
	case !s.recalled && !slices.Contains(c.bodies(e), s.body):
		return "content"
	}
	return ""
}

// P10: after the 200 of a recall and the grace, no pull that begins shows the content; what is shown as recalled has none at
// any time; and at rest neither store nor archive has it, nor that of an edit.
var recalled = rule{
	"recalled", "P10", "what was recalled cannot be read again, by pulls, in the store or in the archive",
	func(l *ledger, f *findings) {
		for _, c := range l.order {
			for _, seq := range c.shown() {
				for _, s := range c.forms[seq] {
					if s.recalled && s.body != 0 {
						f.add(c.id, []int32{s.firstLine}, []int64{seq}, "a pull showed number %d as recalled, and with its content", seq)
					}
				}
			}
			for i := range c.acts {
				a := &c.acts[i]
				if a.call != history.CallRecall || a.outcome != history.OutcomeOK {
					continue
				}
				f.look(1)
				for _, s := range c.forms[a.target] {
					if !s.recalled && s.lastBeginAt > a.end+int64(l.o.Grace) {
						f.add(c.id, append(a.lines(), s.lastBeginLine, s.lastEndLine), []int64{a.target}, "number %d was recalled, and a pull that began %s later showed it", a.target, since(a.end, s.lastBeginAt))
					}
				}
			}
			for i := range c.log {
				if e := &c.log[i]; e.kind == chat.KindRecall {
					c.gone(e, f)
				}
			}
		}
	},
}

// gone judges what store and archive have left of a message that was recalled.
func (c *conversation) gone(recall *event, f *findings) {
	for _, source := range []history.SourceName{history.SourceStore, history.SourceArchive} {
		rows := c.rows[source]
		left := slices.Clone(c.at(rows, recall.target))
		for _, i := range c.aims[recall.target] {
			left = append(left, c.at(rows, c.log[i].seq)...)
		}
		for i := range left {
			f.look(1)
			if left[i].body != 0 {
				f.add(c.id, []int32{recall.line, left[i].line}, []int64{recall.target, left[i].seq}, "number %d was recalled, and %s has its content at %d", recall.target, source, left[i].seq)
			}
		}
	}
}

// The contract of pulls (messages stand in their present form): after the 200 of an edit and the grace, no pull that begins
// shows an older content.
var stale = rule{
	"stale", "P10", "what was edited is not shown as it was before",
	func(l *ledger, f *findings) {
		for _, c := range l.order {
			for i := range c.acts {
				a := &c.acts[i]
				if a.call != history.CallEdit || a.outcome != history.OutcomeOK {
					continue
				}
				here := c.at(c.log, a.target)
				if len(here) == 0 {
					continue
				}
				f.look(1)
				list := c.bodies(&here[0])
				place := 1 // of this edit
				for _, j := range c.aims[a.target] {
					if e := &c.log[j]; e.kind == chat.KindEdit && e.seq < a.seq {
						place++
					}
				}
				for _, s := range c.forms[a.target] {
					if s.recalled || s.lastBeginAt <= a.end+int64(l.o.Grace) || place > len(list) || !slices.Contains(list[:place], s.body) || slices.Contains(list[place:], s.body) {
						continue
					}
					f.add(c.id, append(a.lines(), s.lastBeginLine, s.lastEndLine), []int64{a.target}, "number %d was edited, and a pull that began %s later showed it as it was", a.target, since(a.end, s.lastBeginAt))
				}
			}
		}
	},
}
