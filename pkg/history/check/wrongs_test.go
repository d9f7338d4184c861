package check

import (
	"slices"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

func anyOp(_, _ *history.Record) bool { return true }

var wrongs = slices.Concat(wrongCommands, wrongReads, wrongCounts)

// What commands became, and what the sources have.
var wrongCommands = []wrong{
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
	{"addressed to a person who was never a member", "audience", "", func(b *bent) []int {
		e := b.event(history.SourceLog, "message to a few", func(_ *history.Record, e *history.Event) bool {
			return e.Kind == chat.KindMessage && len(e.Recipients) > 0
		})
		b.readdress(e.Conversation, e.Event.Seq, append(slices.Clone(e.Event.Recipients), 77))
		return lines(e)
	}},
	{"addressed to a person who had left", "audience", "?unread ?receipts ?complete ?visible", func(b *bent) []int {
		var leave *history.Record
		e := b.event(history.SourceLog, "message to a few behind a leave", func(r *history.Record, e *history.Event) bool {
			if e.Kind != chat.KindMessage || len(e.Recipients) == 0 {
				return false
			}
			leave = nil
			for i := range b.records {
				x := &b.records[i]
				if x.Event == nil || x.Event.Source != history.SourceLog || x.Conversation != r.Conversation || x.Event.Seq > e.Seq {
					continue
				}
				switch {
				case x.Event.Kind == chat.KindLeave:
					leave = x
				case x.Event.Kind == chat.KindJoin && leave != nil && slices.Equal(x.Event.Users, leave.Event.Users):
					leave = nil
				}
			}
			return leave != nil
		})
		b.readdress(e.Conversation, e.Event.Seq, append(slices.Clone(e.Event.Recipients), leave.Event.Users[0]))
		return lines(leave, e)
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
}
