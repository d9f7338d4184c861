package check

import (
	"slices"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

func anyOp(_, _ *history.Record) bool { return true }

var wrongs = []wrong{
	{"a source is cut short", "whole", "", func(b *bent) []int {
		s := b.find("source", func(r *history.Record) bool { return r.Source != nil && r.Source.Name == history.SourceArchive })
		s.Source.Count++
		return lines(s)
	}},

	{"answered with the number of another", "acknowledged", "", func(b *bent) []int {
		begin, end := b.single("send", func(_, end *history.Record) bool { return end.End.Seq > 3 })
		end.End.Seq--
		return lines(begin, end)
	}},
	{"answered with another message id", "acknowledged", "", func(b *bent) []int {
		begin, end := b.single("send", anyOp)
		end.End.MessageID++
		return lines(begin, end)
	}},
	{"accepted and lost", "acknowledged", "", func(b *bent) []int {
		x := b.find("rejection of what was accepted", func(r *history.Record) bool {
			return r.Rejected != nil && r.Rejected.Sender == 5 && r.Rejected.Code == chat.CodeNotAMember
		})
		begin := b.find("send", func(r *history.Record) bool {
			return r.Begin != nil && r.Client == 5 && r.Conversation == x.Conversation && r.Begin.ClientMsgID == x.Rejected.ClientMsgID
		})
		for { // and of its retries
			var again *history.Record
			for i := range b.records {
				if r := &b.records[i]; r.Rejected != nil && r.Rejected.ClientMsgID == begin.Begin.ClientMsgID {
					again = r
				}
			}
			if again == nil {
				return lines(begin)
			}
			b.remove(again, history.SourceRejected)
		}
	}},

	{"refused and numbered", "refused", "", func(b *bent) []int {
		begin, end := b.single("send", anyOp)
		end.End = &history.End{Outcome: history.OutcomeRefused, Code: chat.CodeMuted}
		return lines(begin, end)
	}},

	{"one inbound record, two events", "once", "", func(b *bent) []int {
		e := b.event(history.SourceLog, "event", func(_ *history.Record, e *history.Event) bool { return e.Seq == 9 })
		var before *history.Record
		for i := range b.records {
			if r := &b.records[i]; r.Event != nil && r.Event.Source == history.SourceLog && r.Event.Offset < e.Event.Offset && (before == nil || before.Event.Offset < r.Event.Offset) {
				before = r
			}
		}
		e.Event.InboundOffset = before.Event.InboundOffset
		return lines(before, e)
	}},
	{"numbered and rejected", "once", "", func(b *bent) []int {
		e := b.at(history.SourceLog, chat.GroupConversation(7), 5)
		x := b.find("rejection", func(r *history.Record) bool { return r.Rejected != nil && r.Rejected.Code == chat.CodeNotAMember })
		x.Rejected.InboundOffset = *e.Event.InboundOffset
		return lines(e, x)
	}},

	{"a retry numbered again", "twin", "acknowledged invented", func(b *bent) []int {
		// The second of two messages of the Kafka door takes the client id of the first, in every source.
		one := b.event(history.SourceLog, "message of 5", func(_ *history.Record, e *history.Event) bool { return b.plain(e) })
		two := b.event(history.SourceLog, "message of 5", func(r *history.Record, e *history.Event) bool {
			return r.Conversation == one.Conversation && b.plain(e) && e.Seq > one.Event.Seq
		})
		old := two.Event.ClientMsgID
		b.rename(two.Conversation, 5, old, one.Event.ClientMsgID)
		return lines(one, two)
	}},
	{"a retry answered with another number", "twin", "acknowledged", func(b *bent) []int {
		begin, end := b.retry()
		end.End.Seq--
		return lines(begin, end)
	}},

	{"another body taken for a retry", "conflict", "acknowledged", func(b *bent) []int {
		begin, end := b.op("conflict", func(begin, end *history.Record) bool { return end.End.Code == chat.CodeConflict })
		first := b.event(history.SourceLog, "first", func(r *history.Record, e *history.Event) bool {
			return r.Conversation == begin.Conversation && e.Sender == begin.Client && e.ClientMsgID == begin.Begin.ClientMsgID
		})
		end.End = &history.End{Outcome: history.OutcomeOK, Seq: first.Event.Seq, Duplicate: true}
		return lines(begin, end, first)
	}},
	{"a retry taken for a conflict", "conflict", "", func(b *bent) []int {
		begin, end := b.retry()
		end.End = &history.End{Outcome: history.OutcomeRefused, Code: chat.CodeConflict}
		return lines(begin, end)
	}},
	{"a retry judged anew", "conflict", "", func(b *bent) []int {
		begin, end := b.retry()
		end.End = &history.End{Outcome: history.OutcomeRefused, Code: chat.CodeMuted}
		return lines(begin, end)
	}},
	{"a conflict with nothing", "conflict", "", func(b *bent) []int {
		begin, end := b.op("refusal", func(begin, end *history.Record) bool {
			return begin.Begin.Call == history.CallSend && end.End.Code == chat.CodeNotAMember && b.tries(begin) == 1
		})
		end.End.Code = chat.CodeConflict
		return lines(begin, end)
	}},
	{"a duplicate of something else", "conflict", "", func(b *bent) []int {
		x := b.find("duplicate", func(r *history.Record) bool { return r.Rejected != nil && r.Rejected.Code == chat.CodeDuplicate })
		x.Rejected.FirstSeq--
		return lines(x)
	}},

	{"a row missing in the store", "contiguous", "agree", func(b *bent) []int {
		e := b.at(history.SourceStore, chat.GroupConversation(7), 9)
		b.remove(e, history.SourceStore)
		return lines(b.at(history.SourceStore, chat.GroupConversation(7), 8), b.at(history.SourceStore, chat.GroupConversation(7), 10))
	}},
	{"a row twice in the archive", "contiguous", "archived", func(b *bent) []int {
		e := *b.at(history.SourceArchive, chat.GroupConversation(7), 9)
		b.count(history.SourceArchive, 1)
		return append(lines(b.at(history.SourceArchive, chat.GroupConversation(7), 9)), b.insert(e))
	}},
	{"a gap in the log", "contiguous", "agree archived pulled", func(b *bent) []int {
		e := b.event(history.SourceLog, "message of the Kafka door", func(_ *history.Record, e *history.Event) bool { return b.plain(e) })
		c, seq := e.Conversation, e.Event.Seq
		begin := b.find("send", func(r *history.Record) bool {
			return r.Begin != nil && r.Client == 5 && r.Begin.ClientMsgID == e.Event.ClientMsgID
		})
		b.count(history.SourceRejected, 1) // so that nothing is missed but the number
		b.insert(history.Record{At: e.At, Conversation: c, Rejected: &history.Rejected{
			Sender: 5, ClientMsgID: begin.Begin.ClientMsgID, Code: chat.CodeExpired, InboundOffset: *e.Event.InboundOffset,
		}})
		b.remove(b.at(history.SourceLog, c, seq), history.SourceLog)
		return lines(b.at(history.SourceLog, c, seq-1), b.at(history.SourceLog, c, seq+1))
	}},

	{"two offsets the wrong way round", "order", "", func(b *bent) []int {
		c := chat.GroupConversation(8)
		for _, source := range []history.SourceName{history.SourceArchive, history.SourceLog} {
			one, two := b.at(source, c, 11), b.at(source, c, 12)
			one.Event.Offset, two.Event.Offset = two.Event.Offset, one.Event.Offset
			one.Event.InboundOffset, two.Event.InboundOffset = two.Event.InboundOffset, one.Event.InboundOffset
		}
		return lines(b.at(history.SourceLog, c, 11), b.at(history.SourceLog, c, 12))
	}},

	{"answered before another was begun, and behind it", "realtime", "invented", func(b *bent) []int {
		low, lowEnd := b.single("send", func(_, end *history.Record) bool { return end.End.Seq > 20 })
		high, highEnd := b.single("later send", func(begin, end *history.Record) bool {
			return begin.Conversation == low.Conversation && end.End.Seq > lowEnd.End.Seq+3 && begin.Client != low.Client
		})
		high.At, highEnd.At = low.At-2, low.At-1
		return lines(low, high, highEnd)
	}},
	{"accepted before another was begun, and behind it", "realtime", "", func(b *bent) []int {
		low, lowEnd := b.single("send", func(_, end *history.Record) bool { return end.End.Seq > 20 })
		high, highEnd := b.single("later send", func(begin, end *history.Record) bool {
			return begin.Conversation == low.Conversation && end.End.Seq > lowEnd.End.Seq+3 && begin.Client != low.Client
		})
		highEnd.End = &history.End{Outcome: history.OutcomeAccepted}
		high.At, highEnd.At = low.At-2, low.At-1
		return lines(low, high, highEnd)
	}},

	{"a hint past the end", "invented", "", func(b *bent) []int {
		h := b.last("hint", func(r *history.Record) bool { return r.Hint != nil })
		h.Hint.Seq = b.end(h.Conversation) + 1
		return lines(h)
	}},
	{"seen before it was sent", "invented", "?unread", func(b *bent) []int {
		h := b.last("hint", func(r *history.Record) bool { return r.Hint != nil && r.Hint.Seq == b.end(r.Conversation) })
		begin := b.last("send", func(r *history.Record) bool {
			return r.Begin != nil && r.Begin.Call == history.CallSend && r.Conversation == h.Conversation && b.tries(r) == 1 && b.numbered(r)
		})
		early := b.insert(history.Record{At: begin.At - 1, Client: h.Client, Conn: 999, Conversation: h.Conversation, Hint: &history.Hint{Seq: h.Hint.Seq}})
		return append(lines(begin), early)
	}},
	{"words that nobody sent", "invented", "acknowledged", func(b *bent) []int {
		e := b.event(history.SourceLog, "message that was accepted", func(r *history.Record, e *history.Event) bool {
			return e.Sender == 5 && e.Kind == chat.KindMessage && b.find("store", func(x *history.Record) bool {
				return x.Event != nil && x.Event.Source == history.SourceStore && x.Conversation == r.Conversation && x.Event.Seq == e.Seq
			}).Event.Body == e.Body
		})
		b.reword(e.Conversation, e.Event.Seq, e.Event.Body, "ffffffffffffffff")
		return lines(e)
	}},

	{"other words in the store", "agree", "", func(b *bent) []int {
		e := b.event(history.SourceStore, "message", func(_ *history.Record, e *history.Event) bool { return e.Kind == chat.KindMessage && !e.Recalled })
		e.Event.Body = "ffffffffffffffff"
		return append(lines(e), b.at(history.SourceLog, e.Conversation, e.Event.Seq).Line)
	}},
	{"another sender in the store", "agree", "", func(b *bent) []int {
		e := b.event(history.SourceStore, "message", func(_ *history.Record, e *history.Event) bool { return e.Kind == chat.KindMessage })
		e.Event.Sender++
		return lines(e)
	}},
	{"an edit that did not reach the store", "agree", "", func(b *bent) []int {
		edit := b.lastingEdit()
		row := b.at(history.SourceStore, edit.Conversation, edit.Event.TargetSeq)
		row.Event.Body = b.at(history.SourceLog, edit.Conversation, edit.Event.TargetSeq).Event.Body
		return lines(edit, row)
	}},
	{"an edit that did not reach the archive", "archived", "", func(b *bent) []int {
		edit := b.lastingEdit()
		row := b.at(history.SourceArchive, edit.Conversation, edit.Event.TargetSeq)
		row.Event.Body = b.at(history.SourceLog, edit.Conversation, edit.Event.TargetSeq).Event.Body
		return lines(edit, row)
	}},
	{"another offset in the archive", "archived", "", func(b *bent) []int {
		e := b.at(history.SourceArchive, chat.GroupConversation(7), 4)
		e.Event.Offset++
		return lines(e)
	}},
	{"a row too many in the archive", "archived", "contiguous", func(b *bent) []int {
		c := chat.GroupConversation(7)
		e := *b.at(history.SourceArchive, c, 4)
		ev := *e.Event
		ev.Seq = b.end(c) + 2
		ev.ClientMsgID = ""
		e.Event = &ev
		b.count(history.SourceArchive, 1)
		return []int{b.insert(e)}
	}},

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

	{"one too many unread at rest", "unread", "", func(b *bent) []int {
		begin, end := b.op("sync at rest", func(begin, end *history.Record) bool {
			return begin.Begin.Call == history.CallSync && begin.At > b.rest() && len(end.End.Sync) > 0
		})
		end.End.Sync[0].Unread++
		return lines(begin, end)
	}},
	{"one unread forgotten at rest", "unread", "", func(b *bent) []int {
		begin, end := b.op("sync at rest", func(begin, end *history.Record) bool {
			if begin.Begin.Call != history.CallSync || begin.At < b.rest() {
				return false
			}
			for i := range end.End.Sync {
				if end.End.Sync[i].Unread > 0 {
					end.End.Sync[i].Unread--
					return true
				}
			}
			return false
		})
		return lines(begin, end)
	}},
	{"the end not known at rest", "unread", "", func(b *bent) []int {
		begin, end := b.op("sync at rest", func(begin, end *history.Record) bool {
			return begin.Begin.Call == history.CallSync && begin.Client == 2 && begin.At > b.rest()
		})
		// The connection is another one, so that nothing goes back on it.
		begin.Conn = 0
		end.End.Sync[0].MaxSeq--
		return lines(begin, end)
	}},
	{"own messages counted before the rest", "unread", "", func(b *bent) []int {
		begin, end := b.op("read", func(begin, end *history.Record) bool {
			return begin.Begin.Call == history.CallRead && end.End.Outcome == history.OutcomeOK && begin.At < b.rest()
		})
		end.End.Unread += 50
		return lines(begin, end)
	}},

	{"one reader too many at rest", "receipts", "", func(b *bent) []int {
		begin, end := b.op("receipts at rest", func(begin, end *history.Record) bool { return len(end.End.Receipts) > 0 && begin.At > b.rest() })
		end.End.Receipts[0].ReadCount++
		return lines(begin, end)
	}},
	{"a reader forgotten before the rest", "receipts", "", func(b *bent) []int {
		begin, end := b.op("receipts in calm", func(begin, end *history.Record) bool {
			return len(end.End.Receipts) > 0 && begin.At < b.rest() && end.End.Receipts[0].UnreadCount > 0
		})
		end.End.Receipts[0].UnreadCount += 7
		return lines(begin, end)
	}},

	{"a recalled message shown", "recalled", "", func(b *bent) []int {
		begin, end, e := b.wholePull(func(begin *history.Record, e *history.Entry) bool {
			return e.Recalled && !b.aimedAt(begin.Conversation, e.Seq, chat.KindEdit)
		})
		e.Recalled, e.Body = false, b.at(history.SourceLog, begin.Conversation, e.Seq).Event.Body
		recall, ok := b.op("recall", func(r, x *history.Record) bool {
			return r.Begin.Call == history.CallRecall && r.Conversation == begin.Conversation && r.Begin.TargetSeq == e.Seq && x.End.Outcome == history.OutcomeOK
		})
		return lines(recall, ok, begin, end)
	}},
	{"shown as recalled, with its words", "recalled", "", func(b *bent) []int {
		begin, end, e := b.wholePull(func(_ *history.Record, e *history.Entry) bool { return e.Recalled })
		e.Body = b.at(history.SourceLog, begin.Conversation, e.Seq).Event.Body
		return lines(end)
	}},
	{"its words left in the store", "recalled", "", func(b *bent) []int {
		recall := b.targeted(chat.KindRecall)
		row := b.at(history.SourceStore, recall.Conversation, recall.Event.TargetSeq)
		row.Event.Body = b.at(history.SourceLog, recall.Conversation, recall.Event.TargetSeq).Event.Body
		return lines(recall, row)
	}},
	{"its words left in the archive", "recalled", "", func(b *bent) []int {
		recall := b.targeted(chat.KindRecall)
		row := b.at(history.SourceArchive, recall.Conversation, recall.Event.TargetSeq)
		row.Event.Body = "ffffffffffffffff"
		return lines(recall, row)
	}},

	{"an edited message shown as it was", "stale", "", func(b *bent) []int {
		var edit *history.Record
		begin, end, e := b.wholePull(func(begin *history.Record, e *history.Entry) bool {
			edit = b.lastingEdit()
			return begin.Conversation == edit.Conversation && e.Seq == edit.Event.TargetSeq && e.Type == "text"
		})
		e.Body = b.at(history.SourceLog, begin.Conversation, e.Seq).Event.Body
		return lines(begin, end)
	}},

	{"no answer, and nothing broken", "answered", "", func(b *bent) []int {
		last := b.last("connection of user 2", func(r *history.Record) bool { return r.Open != nil && r.Client == 2 })
		begin, end := b.op("pull before anything breaks", func(begin, end *history.Record) bool {
			return begin.Conn == last.Conn && begin.Begin.Call == history.CallReceipts && begin.At > 36_000*ms && begin.At < b.rest()
		})
		end.End = &history.End{Outcome: history.OutcomeUnknown}
		return lines(begin, end)
	}},
}
