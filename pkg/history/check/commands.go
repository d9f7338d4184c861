package check

import (
	"maps"
	"slices"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// P1: what was answered with a number is in the log exactly there, as the sender's own; what was accepted without one is in
// the log or in im.rejected. Not looked at: acceptances without a client id, and those where im.rejected was not read.
var acknowledged = rule{
	"acknowledged", "P1", "what was answered 200 is in the log at that number, what was answered 202 is in the log or in im.rejected",
	func(l *ledger, f *findings) {
		if !l.has(history.SourceLog) {
			return
		}
		for _, c := range l.order {
			for i := range c.acts {
				a := &c.acts[i]
				switch {
				case a.outcome == history.OutcomeOK:
					f.look(1)
					c.standsAt(a, f)
				case a.outcome == history.OutcomeAccepted && a.key.id != 0 && l.has(history.SourceRejected):
					f.look(1)
					said := slices.ContainsFunc(c.logByKey[a.key], func(j int32) bool { return a.says(&c.log[j]) })
					if !said && !c.refusedKeys[a.key] {
						f.add(c.id, a.lines(), nil, "a %s of user %d was accepted, and neither the log nor im.rejected has it", a.call, a.client)
					}
				}
			}
		}
	},
}

// standsAt judges an answer with a number.
func (c *conversation) standsAt(a *act, f *findings) {
	here := c.at(c.log, a.seq)
	for i := range here {
		e := &here[i]
		if e.key.sender == a.client && (a.key.id == 0 || e.key.id == a.key.id || isMany(a.call)) && a.says(e) &&
			(a.messageID == 0 || e.messageID == 0 || a.messageID == e.messageID) {
			return
		}
	}
	lines := a.lines()
	for i := range here {
		lines = append(lines, here[i].line)
	}
	for _, i := range c.logByKey[a.key] {
		if e := &c.log[i]; e.seq != a.seq {
			f.add(c.id, append(lines, e.line), []int64{a.seq, e.seq}, "a %s of user %d was answered with number %d, and the log has it at %d", a.call, a.client, a.seq, e.seq)
			return
		}
	}
	what := "the log has no such number"
	if len(here) > 0 {
		what = "the log has something else there"
	}
	f.add(c.id, lines, []int64{a.seq}, "a %s of user %d was answered with number %d, and %s", a.call, a.client, a.seq, what)
}

// P1: what was refused for good, each time that it was asked for, is not in the log. Requests that become several commands
// (large groups) are left out: some of them may stand.
var refused = rule{
	"refused", "P1", "what was refused for good never becomes an event",
	func(l *ledger, f *findings) {
		for _, c := range l.order {
			for i := range c.log {
				e := &c.log[i]
				var lines []int32
				hope := false
				for _, j := range c.actsByKey[e.key] {
					a := &c.acts[j]
					if !a.call.IsCommand() || !a.says(e) {
						continue
					}
					hope = hope || a.outcome != history.OutcomeRefused || a.retryable || chat.ReasonFor(a.code).Retryable || isMany(a.call)
					lines = append(lines, a.lines()...)
				}
				if len(lines) == 0 {
					continue
				}
				f.look(1)
				if !hope {
					f.add(c.id, append(lines, e.line), []int64{e.seq}, "user %d was refused, and the log has it at %d", e.key.sender, e.seq)
				}
			}
		}
	},
}

// P1: an inbound record becomes one event or one rejection, and a partition is numbered in the order in which it came.
var once = rule{
	"once", "P1", "an inbound record has one outcome, and a partition's events come in the order of their inbound records",
	func(l *ledger, f *findings) {
		type located struct {
			c *conversation
			e *event
		}
		partitions := map[int32][]located{}
		for _, c := range l.order {
			for i := range c.log {
				if e := &c.log[i]; e.inbound >= 0 {
					partitions[e.partition] = append(partitions[e.partition], located{c, e})
				}
			}
		}
		type place struct {
			partition int32
			inbound   int64
		}
		aside := map[place]*rejection{}
		for _, c := range l.order {
			for i := range c.rejected {
				r := &c.rejected[i]
				aside[place{r.partition, r.inbound}] = r
			}
		}
		for _, p := range slices.Sorted(maps.Keys(partitions)) {
			list := partitions[p]
			f.look(len(list))
			slices.SortFunc(list, func(a, b located) int { return int(a.e.offset - b.e.offset) })
			for i, at := range list {
				if r := aside[place{p, at.e.inbound}]; r != nil {
					f.add(at.c.id, []int32{at.e.line, r.line}, []int64{at.e.seq}, "the record %d of inbound partition %d became event %d, and was rejected", at.e.inbound, p, at.e.seq)
				}
				if i == 0 || list[i-1].e.inbound < at.e.inbound {
					continue
				}
				before := list[i-1]
				what := "comes behind a later one in the log"
				if before.e.inbound == at.e.inbound {
					what = "became two events"
				}
				f.add(at.c.id, []int32{before.e.line, at.e.line}, []int64{before.e.seq, at.e.seq}, "the record %d of inbound partition %d %s", at.e.inbound, p, what)
			}
		}
	},
}

// P3: one client id of one sender has one number in a conversation, in every source and in every answer.
var twin = rule{
	"twin", "P3", "one client id never stands at two numbers",
	func(l *ledger, f *findings) {
		for _, c := range l.order {
			for _, source := range eventSources {
				first := make(map[key]*event, len(c.rows[source]))
				for i := range c.rows[source] {
					e := &c.rows[source][i]
					if e.key.id == 0 {
						continue
					}
					f.look(1)
					if was := first[e.key]; was == nil {
						first[e.key] = e
					} else if was.seq != e.seq {
						f.add(c.id, []int32{was.line, e.line}, []int64{was.seq, e.seq}, "user %d has one client id at %d and at %d (%s)", e.key.sender, was.seq, e.seq, source)
					}
				}
			}
			told := map[key]*act{}
			for i := range c.acts {
				a := &c.acts[i]
				if a.outcome != history.OutcomeOK || a.key.id == 0 || isMany(a.call) {
					continue
				}
				f.look(1)
				if was := told[a.key]; was == nil {
					told[a.key] = a
				} else if was.seq != a.seq {
					f.add(c.id, append(was.lines(), a.lines()...), []int64{was.seq, a.seq}, "user %d was answered %d and %d for one client id", a.client, was.seq, a.seq)
				}
			}
		}
	},
}

var eventSources = []history.SourceName{history.SourceLog, history.SourceStore, history.SourceArchive}

// P3: the same client id with another body is a conflict and is told so; with the same body it is the same message, and is
// no conflict. What a retry must repeat besides content, recipients and target (mentions, reply_to, receipt) is not
// recorded: whoever writes a history repeats it. A refusal that is given before anything is judged (a limit, a session that
// ended) says nothing here. A conflict is with something that was sent before and is in the log.
var conflict = rule{
	"conflict", "P3", "the same client id with another body is answered client_msg_id_conflict, with the same body it is the first one",
	func(l *ledger, f *findings) {
		for _, c := range l.order {
			for i := range c.acts {
				k := c.acts[i].key
				list := c.actsByKey[k]
				if k.id == 0 || list[0] != int32(i) {
					continue
				}
				if at := c.logByKey[k]; len(at) > 0 {
					c.contested(&c.log[at[0]], list, f)
				} else {
					c.alone(list, l.has(history.SourceLog), f)
				}
			}
			for i := range c.rejected {
				r := &c.rejected[i]
				if r.first == 0 || r.key.id == 0 || !l.has(history.SourceLog) {
					continue
				}
				f.look(1)
				if here := c.at(c.log, r.first); len(here) == 0 || here[0].key != r.key {
					f.add(c.id, []int32{r.line, lineOf(here)}, []int64{r.first}, "im.rejected says that a command of user %d repeats number %d, and that is not so", r.key.sender, r.first)
				}
			}
		}
	},
}

func lineOf(list []event) int32 {
	if len(list) == 0 {
		return 0
	}
	return list[0].line
}

// contested judges the commands that had the client id of an event.
func (c *conversation) contested(e *event, list []int32, f *findings) {
	var first *act // the one that was answered first with the number
	for _, i := range list {
		if a := &c.acts[i]; a.numbered() && a.says(e) && (first == nil || a.end < first.end) {
			first = a
		}
	}
	for _, i := range list {
		a := &c.acts[i]
		if !a.call.IsCommand() {
			continue
		}
		f.look(1)
		lines := append(a.lines(), e.line)
		switch same := a.says(e); {
		case !same && a.outcome == history.OutcomeOK:
			f.add(c.id, lines, []int64{e.seq}, "user %d sent another body under the client id of number %d, and was answered with number %d", a.client, e.seq, a.seq)
		case !same && a.outcome == history.OutcomeRefused && a.code == chat.CodeConflict && c.whole && a.end < c.sent[e.seq-1]:
			f.add(c.id, append(lines, c.firstAct(e).beginLine), []int64{e.seq}, "user %d was told of a conflict before number %d was sent", a.client, e.seq)
		case same && a.outcome == history.OutcomeRefused && a.code == chat.CodeConflict:
			f.add(c.id, lines, []int64{e.seq}, "user %d repeated number %d as it was, and was told of a conflict", a.client, e.seq)
		case first != nil && first.end < a.begin && a.outcome == history.OutcomeRefused && isLate(a.code):
			what := "user %d repeated number %d as it was, and was refused with %s"
			if !same {
				what = "user %d sent another body under the client id of number %d, and was told %s"
			}
			f.add(c.id, append(lines, first.lines()...), []int64{e.seq}, what, a.client, e.seq, a.code)
		}
	}
}

// alone judges commands whose client id the log does not have: there is nothing that a conflict could be with. Where the log
// was not read, something else must at least have been sent. A group may be reserved without an event.
func (c *conversation) alone(list []int32, read bool, f *findings) {
	for _, i := range list {
		a := &c.acts[i]
		if a.outcome != history.OutcomeRefused || a.code != chat.CodeConflict || isMany(a.call) {
			continue
		}
		f.look(1)
		if read {
			f.add(c.id, a.lines(), nil, "user %d was told of a conflict, and the log has nothing under that client id", a.client)
		} else if !slices.ContainsFunc(list, func(j int32) bool { return c.acts[j].call.IsCommand() && !c.acts[j].alike(a) }) {
			f.add(c.id, a.lines(), nil, "user %d was told of a conflict, and nothing else was ever sent under that client id", a.client)
		}
	}
}
