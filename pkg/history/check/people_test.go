package check

import (
	"fmt"
	"slices"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// live does something, and something else a little later, whether the first is done or not.
func (p *platform) live(u *person) {
	if p.closing {
		return
	}
	p.after(p.between(5*ms, 400*ms), func() { p.live(u) })
	if u.who == 0 {
		return
	}
	r := p.rooms[p.rng.IntN(len(p.rooms))]
	door := []history.Door{history.DoorHTTP, history.DoorSocket}[p.rng.IntN(2)]
	switch n := p.rng.IntN(100); {
	case n < 30:
		b := history.Begin{Call: history.CallSend, Door: door, ClientMsgID: p.fresh(), Body: p.words()}
		if p.rng.IntN(8) == 0 {
			b.Recipients = []chat.UserID{chat.UserID(p.between(1, 5)), u.id}
		}
		if u.id == 5 {
			b.Door = history.DoorKafka
		}
		p.command(u, r, b)
	case n < 36 && len(u.sent) > 0: // again, as it was or not
		l := u.sent[p.rng.IntN(len(u.sent))]
		if p.rng.IntN(3) == 0 {
			l.begin.Body = p.words()
		}
		p.command(u, l.room, l.begin)
	case n < 44:
		if mine := r.asked[u.id]; len(mine) > 0 {
			b := history.Begin{Call: history.CallEdit, Door: history.DoorHTTP, ClientMsgID: p.fresh(), TargetSeq: mine[p.rng.IntN(len(mine))], Body: p.words()}
			if p.rng.IntN(2) == 0 {
				b.Call, b.Body = history.CallRecall, ""
			}
			p.command(u, r, b)
		}
	case n < 52 && u.id == 1 && len(r.log) > 0 && r.id.Kind == chat.KindGroup:
		b := history.Begin{Call: history.CallJoin, Door: history.DoorHTTP, ClientMsgID: p.fresh(), Users: []chat.UserID{chat.UserID(p.between(4, 6))}}
		if p.rng.IntN(2) == 0 {
			b.Call = history.CallLeave
		}
		p.command(u, r, b)
	case n < 70:
		p.pull(u, r, door)
	case n < 80:
		p.sync(u)
	case n < 90:
		p.read(u, r, max(u.told[r]-int64(p.rng.IntN(3)), 0))
	default:
		p.receipts(u, r)
	}
}

func (p *platform) words() history.Body {
	return history.BodyOf(fmt.Appendf(nil, `{"text":"%d"}`, p.rng.IntN(1_000_000_000)))
}

// sight gives what a user may see of what the store has; false where it never was a member.
func (r *room) range_(u chat.UserID) (first, last int64, present, ok bool) {
	if r.id.Kind == chat.KindPrivate {
		return 1, int64(r.applied), true, r.id.HasPeer(u) && r.applied > 0
	}
	all := false
	for _, e := range r.log[:r.applied] {
		all = all || e.HistoryVisible != nil && *e.HistoryVisible
		if !slices.Contains(e.Users, u) && (e.Kind != chat.KindCreate || e.Sender != u) {
			continue
		}
		if present = e.Kind != chat.KindLeave; present {
			first, last, ok = e.Seq, 0, true
		} else {
			last = e.Seq
		}
	}
	if present {
		last = int64(r.applied)
	}
	if all {
		first = 1
	}
	return first, last, present, ok
}

func refusal(code chat.Code) history.End {
	return history.End{Outcome: history.OutcomeRefused, Code: code, Retryable: code == chat.CodeUnavailable}
}

func (p *platform) pull(u *person, r *room, door history.Door) {
	b := history.Begin{Call: history.CallPull, Door: door, Limit: int(p.between(1, 30))}
	if p.rng.IntN(4) > 0 {
		b.Told = u.told[r]
	}
	place := p.rng.Int64N(int64(len(r.log)) + 1)
	switch p.rng.IntN(4) {
	case 0:
		b.Before = &place
	case 1:
		place = max(0, u.told[r]-10)
		b.After = &place
	case 2:
		b.After = &place
	}
	p.ask(u, r.id, b, func(reply func(history.End)) { reply(p.answer(u, r, &b)) }, func(e history.End) {
		if e.Pull != nil {
			u.told[r] = max(u.told[r], e.Pull.MaxSeq)
		}
	})
}

func (p *platform) answer(u *person, r *room, b *history.Begin) history.End {
	first, last, _, ok := r.range_(u.id)
	switch {
	case !ok:
		return refusal(chat.CodeConversationUnknown)
	case b.Told > int64(r.applied):
		return refusal(chat.CodeUnavailable)
	}
	a := &history.Pull{MinSeq: first, MaxSeq: last, Entries: []history.Entry{}}
	asOf := p.now - p.between(0, 900*ms) // the cache is late
	if b.After != nil {
		from := *b.After + 1
		if from < first && first <= last {
			a.Entries = append(a.Entries, history.Entry{Seq: from, ToSeq: first - 1, Type: history.TypeVoid})
			from = first
		}
		to := min(last, from+int64(b.Limit)-1)
		for seq := from; seq <= to; seq++ {
			a.Entries = append(a.Entries, r.entry(u.id, seq, asOf))
		}
		a.HasMore = to < last
	} else {
		if b.Before != nil {
			last = min(last, *b.Before-1)
		}
		from := max(first, last-int64(b.Limit)+1)
		for seq := from; seq <= last; seq++ {
			a.Entries = append(a.Entries, r.entry(u.id, seq, asOf))
		}
		a.HasMore = from > first && len(a.Entries) > 0
	}
	return history.End{Outcome: history.OutcomeOK, Pull: a}
}

func (r *room) entry(u chat.UserID, seq, asOf int64) history.Entry {
	e := r.log[seq-1]
	few := e.Recipients
	if e.TargetSeq > 0 {
		if target := r.log[e.TargetSeq-1]; len(target.Recipients) > 0 {
			few = append(slices.Clone(target.Recipients), target.Sender)
		}
	}
	if len(few) > 0 && e.Sender != u && !slices.Contains(few, u) {
		return history.Entry{Seq: seq, ToSeq: seq, Type: history.TypeVoid}
	}
	out := history.Entry{Seq: seq, Type: e.Kind.String(), MessageID: e.MessageID, Sender: e.Sender, ClientMsgID: e.ClientMsgID, TargetSeq: e.TargetSeq}
	switch {
	case e.Kind.IsNotice():
		out.Type = string(chat.TypeNotice)
	case e.Kind == chat.KindMessage:
		out.Type = string(chat.TypeText)
		out.Body, out.Recalled = r.present(e, asOf)
	}
	return out
}

// present gives the content of a message as the store had it at a time.
func (r *room) present(m *entry, at int64) (body history.Body, recalled bool) {
	body = m.Body
	for _, e := range r.log {
		if e.Kind == chat.KindEdit && e.TargetSeq == m.Seq && e.at <= at {
			body = e.Body
		}
	}
	if r.recalled(m.Seq, at) {
		return "", true
	}
	return body, false
}

func (r *room) unread(u chat.UserID, mark int64) (n int64) {
	for _, e := range r.log[:r.applied] {
		if e.Seq > mark && e.Kind == chat.KindMessage && e.Sender != u && (len(e.Recipients) == 0 || slices.Contains(e.Recipients, u)) && !r.recalled(e.Seq, never-1) {
			n++
		}
	}
	return n
}

// corrected counts as ordinals do: what was said to everybody up to a number, and, as the store is now, without what was
// taken back and with what is addressed to the user, wherever that stands.
func (r *room) corrected(u chat.UserID, mark, upTo int64) (n int64) {
	for _, e := range r.log[:r.applied] {
		if e.Seq <= mark || e.Kind != chat.KindMessage || e.Sender == u {
			continue
		}
		gone := r.recalled(e.Seq, never-1)
		if len(e.Recipients) == 0 {
			if e.Seq <= upTo {
				n++
			}
			if gone {
				n--
			}
		} else if slices.Contains(e.Recipients, u) && !gone {
			n++
		}
	}
	return max(n, 0)
}

func (p *platform) sync(u *person) {
	p.ask(u, chat.ConversationID{}, history.Begin{Call: history.CallSync, Door: history.DoorHTTP}, func(reply func(history.End)) {
		// Marks and ends of conversations are read first, and what corrects the difference of ordinals a moment later.
		e := history.End{Outcome: history.OutcomeOK}
		rooms := map[int]*room{}
		for _, r := range p.rooms {
			if _, last, present, ok := r.range_(u.id); ok && present {
				rooms[len(e.Sync)] = r
				e.Sync = append(e.Sync, history.Synced{Conversation: r.id, MaxSeq: last, ReadSeq: r.mark(u.id, p.now)})
			}
		}
		p.after(p.between(0, 40*ms), func() {
			for i := range e.Sync {
				e.Sync[i].Unread = rooms[i].corrected(u.id, e.Sync[i].ReadSeq, e.Sync[i].MaxSeq)
			}
			reply(e)
		})
	}, func(e history.End) {
		for _, s := range e.Sync {
			for _, r := range p.rooms {
				if r.id == s.Conversation {
					u.told[r] = max(u.told[r], s.MaxSeq)
				}
			}
		}
	})
}

func (p *platform) read(u *person, r *room, seq int64) {
	p.ask(u, r.id, history.Begin{Call: history.CallRead, Door: history.DoorHTTP, Seq: seq}, func(reply func(history.End)) {
		_, last, present, ok := r.range_(u.id)
		if !ok || !present {
			reply(refusal(chat.CodeNotAMember))
			return
		}
		r.raise(u.id, p.now, min(seq, last))
		mark := r.mark(u.id, p.now)
		reply(history.End{Outcome: history.OutcomeOK, ReadSeq: mark, Unread: r.unread(u.id, mark)})
	}, nil)
}

func (p *platform) receipts(u *person, r *room) {
	n := u.told[r]
	if n == 0 {
		return
	}
	b := history.Begin{Call: history.CallReceipts, Door: history.DoorHTTP, Seqs: []int64{p.between(1, n), n}}
	p.ask(u, r.id, b, func(reply func(history.End)) {
		if _, _, present, _ := r.range_(u.id); !present {
			reply(refusal(chat.CodeNotAMember))
			return
		}
		e := history.End{Outcome: history.OutcomeOK}
		for _, seq := range b.Seqs {
			if seq <= int64(r.applied) && r.log[seq-1].Kind == chat.KindMessage {
				e.Receipts = append(e.Receipts, p.receipt(r, r.log[seq-1]))
			}
		}
		reply(e)
	}, nil)
}

func (p *platform) receipt(r *room, m *entry) history.Receipt {
	out := history.Receipt{Seq: m.Seq}
	asOf := p.now
	if !p.closing {
		asOf -= p.between(0, 1000*ms) // a mark reaches others late
	}
	for _, u := range p.people {
		_, _, present, ok := r.range_(u.id)
		join := r.joined(u.id)
		if !ok || !present || join > m.Seq || u.id == m.Sender || len(m.Recipients) > 0 && !slices.Contains(m.Recipients, u.id) {
			continue
		}
		if r.mark(u.id, asOf) >= m.Seq {
			out.ReadCount++
		} else {
			out.UnreadCount++
		}
	}
	return out
}

func (r *room) joined(u chat.UserID) (seq int64) {
	for _, e := range r.log[:r.applied] {
		if e.Kind == chat.KindCreate && e.Sender == u || e.Kind != chat.KindLeave && slices.Contains(e.Users, u) {
			seq = e.Seq
		}
	}
	return seq
}

// finish records the rest, asks everybody once more, and writes down what the sources have.
func (p *platform) finish() {
	p.agenda = nil
	p.write(history.Record{Rest: &history.Rest{}})
	for _, u := range p.people {
		p.after(p.between(ms, 50*ms), func() { p.sync(u) })
		for _, r := range p.rooms {
			b := history.Begin{Call: history.CallReceipts, Door: history.DoorHTTP}
			for _, e := range r.log {
				if e.Kind == chat.KindMessage {
					b.Seqs = append(b.Seqs, e.Seq)
				}
			}
			if _, _, present, ok := r.range_(u.id); !ok || !present {
				continue
			}
			after := int64(0)
			p.after(p.between(ms, 50*ms), func() {
				p.ask(u, r.id, b, func(reply func(history.End)) {
					e := history.End{Outcome: history.OutcomeOK}
					for _, seq := range b.Seqs {
						e.Receipts = append(e.Receipts, p.receipt(r, r.log[seq-1]))
					}
					reply(e)
				}, nil)
				whole := history.Begin{Call: history.CallPull, Door: history.DoorHTTP, Limit: 100_000, After: &after, Told: int64(len(r.log))}
				p.ask(u, r.id, whole, func(reply func(history.End)) { reply(p.answer(u, r, &whole)) }, nil)
			})
		}
	}
	p.after(500*ms, p.sources)
}

func (p *platform) sources() {
	counts := map[history.SourceName]int64{history.SourceRejected: int64(len(p.refused))}
	for _, r := range p.rooms {
		for _, e := range r.log {
			for _, source := range eventSources {
				ev := e.Event
				ev.Source = source
				if source != history.SourceLog {
					ev.InboundOffset, ev.Users, ev.HistoryVisible = nil, nil, nil
					ev.Body = ""
					if e.Kind == chat.KindMessage {
						ev.Body, ev.Recalled = r.present(e, never-1)
					}
				}
				if source == history.SourceStore {
					ev.Partition, ev.Offset = 0, 0
				}
				if source == history.SourceArchive {
					ev.MessageID = 0
				}
				counts[source]++
				p.write(history.Record{Conversation: r.id, Event: &ev})
			}
		}
		for _, u := range p.people {
			_, last, present, ok := r.range_(u.id)
			if !ok {
				continue
			}
			m := history.Member{User: u.id, JoinSeq: r.joined(u.id), ReadSeq: r.mark(u.id, p.now)}
			if !present {
				m.LeftSeq = last
			}
			counts[history.SourceMembers]++
			p.write(history.Record{Conversation: r.id, Member: &m})
		}
	}
	for _, x := range p.refused {
		p.write(x)
	}
	for _, name := range []history.SourceName{history.SourceLog, history.SourceStore, history.SourceArchive, history.SourceRejected, history.SourceMembers} {
		p.write(history.Record{Source: &history.Source{Name: name, Count: counts[name]}})
	}
}
