package check

import (
	"fmt"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// ended files an operation that has an end.
func (l *ledger) ended(op *operation, e *history.End) {
	l.tally.ended(op, e)
	if e.Outcome == history.OutcomeUnknown && op.call.Call != history.CallLookup {
		l.unended = append(l.unended, op)
	}
	switch op.call.Call {
	case history.CallSync:
		for i := range e.Sync {
			s := &e.Sync[i]
			c := l.conversation(s.Conversation)
			c.syncs = append(c.syncs, syncing{op.span, op.call.Door, s.MaxSeq, s.ReadSeq, s.Unread})
			c.see(s.MaxSeq, op.end, op.endLine)
		}
	case history.CallPull:
		if e.Outcome == history.OutcomeOK && e.Pull != nil {
			l.pulled(op, e.Pull)
		}
	case history.CallRead:
		c := l.conversation(op.conversation)
		r := reading{span: op.span, asked: op.call.Seq, seq: e.ReadSeq, unread: e.Unread, ok: e.Outcome == history.OutcomeOK}
		if e.Outcome != history.OutcomeRefused || e.Retryable {
			c.reads = append(c.reads, r)
		}
		c.see(e.ReadSeq, op.end, op.endLine)
	case history.CallReceipts:
		c := l.conversation(op.conversation)
		for _, r := range e.Receipts {
			c.counts = append(c.counts, counting{op.span, r})
			c.see(r.Seq, op.end, op.endLine)
		}
	default:
		l.acted(op, e)
	}
}

// acted files a command or a lookup.
func (l *ledger) acted(op *operation, e *history.End) {
	if op.conversation.IsZero() {
		return // a group that never came to have a name that is known
	}
	c, b := l.conversation(op.conversation), op.call
	a := act{
		span: op.span, call: b.Call, door: b.Door, key: key{op.client, l.intern(b.ClientMsgID)}, body: l.intern(string(b.Body)), target: b.TargetSeq,
		recipients: b.Recipients, outcome: e.Outcome, code: e.Code, retryable: e.Retryable, seq: e.Seq, messageID: e.MessageID,
	}
	switch {
	case a.outcome != history.OutcomeOK:
	case a.call == history.CallSend:
		c.number(a.seq, op.end, op.endLine) // answered when it is numbered; all others when they are applied
	default:
		c.see(a.seq, op.end, op.endLine)
	}
	c.acts = append(c.acts, a)
}

// pulled files the answer to a pull: what it accounts for, and how it showed each number.
func (l *ledger) pulled(op *operation, a *history.Pull) {
	c := l.conversation(op.conversation)
	p := pull{span: op.span, door: op.call.Door, told: op.call.Told, minSeq: a.MinSeq, maxSeq: a.MaxSeq, from: 1, to: 0}
	c.see(a.MaxSeq, op.end, op.endLine)
	for i := range a.Entries {
		e := &a.Entries[i]
		switch {
		case i == 0:
			p.from = e.Seq
		case e.Seq != p.to+1 && p.fault == "":
			p.fault, p.faultFrom, p.until = fmt.Sprintf("number %d follows %d", e.Seq, p.to), p.to, e.Seq
		}
		p.to = e.Last()
		if e.Type == history.TypeVoid {
			p.voids = append(p.voids, run{e.Seq, e.Last()})
			continue
		}
		if p.firstShown == 0 {
			p.firstShown = e.Seq
		}
		c.see(e.Seq, op.end, op.endLine)
		c.show(e.Seq, form{
			typ: e.Type, messageID: e.MessageID, key: key{e.Sender, l.intern(e.ClientMsgID)}, body: l.intern(string(e.Body)), target: e.TargetSeq, recalled: e.Recalled,
		}, &op.span)
	}
	if p.fault == "" {
		p.fault, p.faultFrom, p.until = edges(op.call, a, &p)
	}
	c.pulls = append(c.pulls, p)
}

// edges tells what is wrong with where an answer begins and ends, given that it has no hole.
func edges(b *history.Begin, a *history.Pull, p *pull) (fault string, from, to int64) {
	empty := len(a.Entries) == 0
	switch {
	case !empty && p.to > a.MaxSeq:
		return fmt.Sprintf("it shows %d, and its max_seq is %d", p.to, a.MaxSeq), a.MaxSeq, p.to
	case empty && a.HasMore:
		return "it is empty and has more", a.MinSeq, a.MaxSeq
	case b.Around != nil:
		return "", 0, 0
	case b.After != nil:
		next := *b.After + 1
		switch {
		case !empty && p.from != next:
			return fmt.Sprintf("after %d it begins with %d", *b.After, p.from), next, p.from
		case empty && next <= a.MaxSeq && a.MinSeq <= a.MaxSeq:
			return fmt.Sprintf("after %d it is empty, and its max_seq is %d", *b.After, a.MaxSeq), next, a.MaxSeq
		case !empty && !a.HasMore && p.to < a.MaxSeq:
			return fmt.Sprintf("it ends at %d and has no more, and its max_seq is %d", p.to, a.MaxSeq), p.to, a.MaxSeq
		}
		return "", 0, 0
	}
	last := a.MaxSeq
	if b.Before != nil {
		last = min(last, *b.Before-1)
	}
	switch {
	case empty && last >= a.MinSeq:
		return fmt.Sprintf("it is empty, and the reader may see %d to %d", a.MinSeq, last), a.MinSeq, last
	case !empty && p.to != last:
		return fmt.Sprintf("it ends at %d and not at %d", p.to, last), p.to, last
	case !empty && !a.HasMore && p.from > max(a.MinSeq, 1):
		return fmt.Sprintf("it begins with %d and has no more, and the reader may see from %d on", p.from, a.MinSeq), a.MinSeq, p.from
	}
	return "", 0, 0
}

// close files what has no end, and makes what the checks look things up in.
func (l *ledger) close() {
	for _, op := range l.open {
		l.unended = append(l.unended, op)
		l.tally.unended(op)
		c := op.call
		switch {
		case c.Call.IsCommand():
			l.acted(op, &history.End{Outcome: history.OutcomeUnknown})
		case c.Call == history.CallRead:
			at := l.conversation(op.conversation)
			at.reads = append(at.reads, reading{span: op.span, asked: c.Seq})
		}
	}
	l.open = nil
	for _, c := range l.order {
		c.close()
	}
}

// isMany tells whether one request may become several commands: some may stand where the request was refused.
func isMany(c history.Call) bool { return c == history.CallCreate || c == history.CallJoin }

// isLate tells whether a code is one that is only given after it was judged whether the command is a retry.
func isLate(code chat.Code) bool {
	switch code {
	case chat.CodeNotAMember, chat.CodeConversationUnknown, chat.CodeMuted, chat.CodeDissolved, chat.CodeExpired, chat.CodeForbidden, chat.CodeRecalled, chat.CodeMessageUnknown, chat.CodeNothingToDo,
		chat.CodeRecipient, chat.CodeLeftRecently:
		return true
	}
	return false
}
