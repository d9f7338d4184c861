package check

import (
	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// What was counted, taken back and answered.
var wrongCounts = []wrong{
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
