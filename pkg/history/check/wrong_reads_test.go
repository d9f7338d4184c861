package check

import (
	"slices"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// What clients were shown and told.
var wrongReads = []wrong{
	{"another message id", "pulled", "", func(b *bent) []int {
		_, end, e := b.wholePull(func(_ *history.Record, e *history.Entry) bool { return e.Type == "text" })
		e.MessageID++
		return lines(end)
	}},
	{"another sender", "pulled", "", func(b *bent) []int {
		_, end, e := b.wholePull(func(_ *history.Record, e *history.Entry) bool { return e.Type == "edit" })
		e.Sender++
		return lines(end)
	}},
	{"other words", "pulled", "", func(b *bent) []int {
		_, end, e := b.wholePull(func(_ *history.Record, e *history.Entry) bool { return e.Type == "text" && !e.Recalled })
		e.Body = "ffffffffffffffff"
		return lines(end)
	}},
	{"recalled by nobody", "pulled", "", func(b *bent) []int {
		_, end, e := b.wholePull(func(_ *history.Record, e *history.Entry) bool { return e.Type == "text" && !e.Recalled })
		e.Body, e.Recalled = "", true
		return lines(end)
	}},

	{"a hole in a pull", "complete", "", func(b *bent) []int {
		begin, end, e := b.wholePull(func(_ *history.Record, e *history.Entry) bool { return e.Seq > 9 && e.Type == "text" })
		end.End.Pull.Entries = slices.DeleteFunc(end.End.Pull.Entries, func(x history.Entry) bool { return x.Seq == e.Seq })
		return lines(begin, end)
	}},
	{"a pull that ends too early", "complete", "", func(b *bent) []int {
		begin, end, _ := b.wholePull(func(_ *history.Record, e *history.Entry) bool { return e.Seq == 9 })
		end.End.Pull.Entries = end.End.Pull.Entries[:len(end.End.Pull.Entries)-1]
		return lines(begin, end)
	}},
	{"a pull that begins too late", "complete", "", func(b *bent) []int {
		begin, end, _ := b.wholePull(func(_ *history.Record, e *history.Entry) bool { return e.Seq == 9 })
		end.End.Pull.Entries = end.End.Pull.Entries[1:]
		return lines(begin, end)
	}},
	{"the newest pulled without the last", "complete", "", func(b *bent) []int {
		begin, end := b.op("pull of the newest", func(begin, end *history.Record) bool {
			return end.End.Pull != nil && begin.Begin.After == nil && begin.Begin.Before == nil && len(end.End.Pull.Entries) > 2
		})
		end.End.Pull.Entries = end.End.Pull.Entries[:len(end.End.Pull.Entries)-1]
		return lines(begin, end)
	}},
	{"hidden from who may see it", "complete", "", func(b *bent) []int {
		begin, end, e := b.wholePull(func(_ *history.Record, e *history.Entry) bool { return e.Type == "text" })
		*e = history.Entry{Seq: e.Seq, ToSeq: e.Seq, Type: history.TypeVoid}
		return append(lines(begin, end), b.at(history.SourceLog, begin.Conversation, e.Seq).Line)
	}},

	{"shown to whom it was not addressed", "visible", "", func(b *bent) []int {
		begin, end, e := b.wholePull(func(begin *history.Record, e *history.Entry) bool {
			if e.Type != history.TypeVoid {
				return false
			}
			x := b.at(history.SourceLog, begin.Conversation, e.Seq).Event
			return x.Recipients != nil && !b.aimedAt(begin.Conversation, e.Seq, chat.KindRecall)
		})
		x := b.at(history.SourceLog, begin.Conversation, e.Seq).Event
		*e = history.Entry{Seq: e.Seq, Type: "text", MessageID: x.MessageID, Sender: x.Sender, ClientMsgID: x.ClientMsgID, Body: b.at(history.SourceStore, begin.Conversation, e.Seq).Event.Body}
		return lines(begin, end)
	}},
	{"an edit shown to a reader to whom its message was not addressed", "visible", "", func(b *bent) []int { return b.showAimed(chat.KindEdit) }},
	{"a recall shown to a reader to whom its message was not addressed", "visible", "", func(b *bent) []int { return b.showAimed(chat.KindRecall) }},
	{"shown to who is no member", "visible", "?complete", func(b *bent) []int {
		begin, end, _ := b.wholePull(func(begin *history.Record, _ *history.Entry) bool { return begin.Conversation.Kind == chat.KindPrivate })
		for i := range b.records {
			if r := &b.records[i]; r.Op == begin.Op && r.Begin != nil {
				r.Client = 3
			}
		}
		return lines(begin, end)
	}},

	{"told a number, and not given it", "told", "", func(b *bent) []int {
		begin, end := b.op("pull", func(begin, end *history.Record) bool {
			return end.End.Pull != nil && begin.Client == 2 && end.End.Pull.MaxSeq > 5
		})
		begin.Begin.Told = end.End.Pull.MaxSeq + 1
		return lines(begin, end)
	}},

	{"a connection that nobody tells anything", "informed", "", func(b *bent) []int {
		who := b.find("connection of user 2", func(r *history.Record) bool { return r.Open != nil && r.Client == 2 })
		return []int{b.insert(history.Record{At: who.At, Client: 2, Conn: 999, Open: &history.Open{Door: history.DoorSocket}})}
	}},
	{"a connection that is told too late after a fault", "informed", "", func(b *bent) []int {
		who := b.find("connection of user 2", func(r *history.Record) bool { return r.Open != nil && r.Client == 2 })
		end := b.last("end of a fault", func(r *history.Record) bool { return r.FaultEnd != nil })
		due := end.At + end.FaultEnd.Allowed
		open := b.insert(history.Record{At: who.At, Client: 2, Conn: 999, Open: &history.Open{Door: history.DoorSocket}})
		for _, c := range []chat.ConversationID{chat.GroupConversation(7), chat.GroupConversation(8), chat.PrivateConversation(1, 2)} {
			// It hears all that is heard at once, until the fault; and what was said during it, a second too late.
			for _, r := range slices.Clone(b.records) {
				if r.Hint != nil && r.Client != 2 && r.Conversation == c && (r.At < end.At-4000*ms || r.At > end.At) && b.highest(c, 999, r.At) < r.Hint.Seq {
					at := r.At
					if at > end.At {
						at = max(at, due+1000*ms+int64(DefaultOptions().Told))
					}
					b.insert(history.Record{At: at, Client: 2, Conn: 999, Conversation: c, Hint: &history.Hint{Seq: r.Hint.Seq}})
				}
			}
		}
		return []int{open}
	}},

	{"a hint that goes back", "monotonic", "", func(b *bent) []int {
		h := b.last("hint", func(r *history.Record) bool { return r.Hint != nil && r.Hint.Seq > 5 })
		back := b.insert(history.Record{At: h.At + 1, Client: h.Client, Conn: h.Conn, Conversation: h.Conversation, Hint: &history.Hint{Seq: h.Hint.Seq - 1}})
		return append(lines(h), back)
	}},
	{"an answer to a pull that goes back", "monotonic", "", func(b *bent) []int {
		last := b.last("open connection", func(r *history.Record) bool { return r.Open != nil && r.Client == 2 })
		begin, end := b.op("pull of user 2", func(begin, end *history.Record) bool {
			return end.End.Pull != nil && begin.Conn == last.Conn && begin.Begin.Door == history.DoorHTTP && begin.At < b.rest()-30_000*ms/2 && end.End.Pull.MaxSeq > 5
		})
		again, answer := *begin, *end
		again.Op, answer.Op = 1_000_000, 1_000_000
		again.At, answer.At = b.rest()-2, b.rest()-1
		told := *begin.Begin
		told.Told = 0
		again.Begin = &told
		pull := *end.End.Pull
		pull.Entries = nil
		after := pull.MaxSeq
		told.After, told.Before = &after, nil
		answer.End = &history.End{Outcome: history.OutcomeOK, Pull: &pull}
		pull.HasMore = false
		b.insert(again)
		return []int{b.insert(answer)}
	}},
	{"a sync that goes back behind a pull", "monotonic", "", func(b *bent) []int {
		var answer *history.Record
		_, end := b.op("sync that gives what a pull was the first to give", func(begin, end *history.Record) bool {
			if begin.Begin.Call != history.CallSync || begin.Begin.Door != history.DoorHTTP || begin.At > b.rest() || len(end.End.Sync) == 0 {
				return false
			}
			s := &end.End.Sync[0]
			for i := range b.records {
				r := &b.records[i]
				if r.At >= begin.At {
					return false
				}
				if r.End == nil || r.End.Outcome != history.OutcomeOK {
					continue
				}
				before := b.begin(r.Op)
				if before.Conn != begin.Conn || before.Begin.Door != begin.Begin.Door {
					continue
				}
				if r.End.Pull != nil && before.Conversation == s.Conversation && r.End.Pull.MaxSeq >= s.MaxSeq {
					answer = r
					return true
				}
				if slices.ContainsFunc(r.End.Sync, func(o history.Synced) bool { return o.Conversation == s.Conversation && o.MaxSeq >= s.MaxSeq }) {
					return false // another sync was the first
				}
			}
			return false
		})
		end.End.Sync[0].MaxSeq--
		return lines(answer, end)
	}},
	{"a read mark that goes back", "monotonic", "", func(b *bent) []int {
		begin, end := b.op("sync with all read", func(begin, end *history.Record) bool {
			return begin.Begin.Call == history.CallSync && len(end.End.Sync) > 0 && end.End.Sync[0].Unread == 0 && end.End.Sync[0].ReadSeq > 1 && begin.At < b.rest()
		})
		again, answer := *begin, *end
		again.Op, answer.Op = 1_000_000, 1_000_000
		again.At, answer.At = end.At+1, end.At+2
		s := end.End.Sync[0]
		s.ReadSeq--
		answer.End = &history.End{Outcome: history.OutcomeOK, Sync: []history.Synced{s}}
		if b.at(history.SourceLog, s.Conversation, s.ReadSeq+1).Event.Sender != begin.Client {
			// The one number more is unread now, or not, whatever it is: as the correct platform would count.
			answer.End.Sync[0].Unread = b.plainUnread(s.Conversation, begin.Client, s.ReadSeq, s.MaxSeq)
		}
		b.insert(again)
		return []int{b.insert(answer)}
	}},

	{"a final mark below what was answered", "marks", "receipts", func(b *bent) []int {
		m, read := b.finalRead()
		m.Member.ReadSeq = 0
		return lines(read, m)
	}},
	{"a mark past the end", "marks", "", func(b *bent) []int {
		m, _ := b.finalRead()
		m.Member.ReadSeq = b.end(m.Conversation) + 7
		for i := range b.records { // receipts and syncs at rest agree with the wrong mark
			r := &b.records[i]
			if r.End != nil && r.At > b.rest() {
				r.End.Receipts, r.End.Sync = nil, nil
			}
		}
		return lines(m)
	}},
	{"a read that does not reach what exists", "marks", "", func(b *bent) []int {
		begin, end := b.op("read", func(begin, end *history.Record) bool {
			return begin.Begin.Call == history.CallRead && end.End.Outcome == history.OutcomeOK && begin.At > b.rest()/2 && end.End.ReadSeq < b.storedBefore(begin.Conversation, begin.At)
		})
		begin.Begin.Seq = end.End.ReadSeq + 1
		return lines(begin, end)
	}},
	{"another mark in a sync at rest", "marks", "", func(b *bent) []int {
		begin, end := b.op("sync at rest with a mark on what is its own or no message", func(begin, end *history.Record) bool {
			if begin.Begin.Call != history.CallSync || begin.At < b.rest() {
				return false
			}
			for i := range end.End.Sync {
				s := &end.End.Sync[i]
				if s.ReadSeq > 1 && b.plainUnread(s.Conversation, begin.Client, s.ReadSeq-1, s.MaxSeq) == s.Unread {
					s.ReadSeq--
					begin.Conn = 0 // another one, so that nothing goes back on it
					return true
				}
			}
			return false
		})
		return lines(begin, end)
	}},
}
