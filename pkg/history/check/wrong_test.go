package check

import (
	"slices"
	"strings"
	"testing"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// bent is a history that is being made wrong.
type bent struct {
	t       *testing.T
	records []history.Record
	begins  map[history.Op]int // where operations begin; nil after records were moved
}

// find gives the first record for which a condition holds; the test fails where there is none.
func (b *bent) find(what string, ok func(r *history.Record) bool) *history.Record {
	b.t.Helper()
	for i := range b.records {
		if ok(&b.records[i]) {
			return &b.records[i]
		}
	}
	b.t.Fatalf("the history has no %s", what)
	return nil
}

// last is find from the end.
func (b *bent) last(what string, ok func(r *history.Record) bool) *history.Record {
	b.t.Helper()
	for i := len(b.records) - 1; i >= 0; i-- {
		if ok(&b.records[i]) {
			return &b.records[i]
		}
	}
	b.t.Fatalf("the history has no %s", what)
	return nil
}

func (b *bent) begin(op history.Op) *history.Record {
	b.t.Helper()
	if b.begins == nil {
		b.begins = map[history.Op]int{}
		for i := range b.records {
			if r := &b.records[i]; r.Begin != nil {
				b.begins[r.Op] = i
			}
		}
	}
	return &b.records[b.begins[op]]
}

// op finds an operation that ended.
func (b *bent) op(what string, ok func(begin, end *history.Record) bool) (begin, end *history.Record) {
	b.t.Helper()
	begins := map[history.Op]*history.Record{}
	for i := range b.records {
		r := &b.records[i]
		if r.Begin != nil {
			begins[r.Op] = r
		}
		if r.End != nil && ok(begins[r.Op], r) {
			return begins[r.Op], r
		}
	}
	b.t.Fatalf("the history has no %s", what)
	return nil, nil
}

// event finds an event of a source.
func (b *bent) event(source history.SourceName, what string, ok func(r *history.Record, e *history.Event) bool) *history.Record {
	b.t.Helper()
	return b.find(what, func(r *history.Record) bool { return r.Event != nil && r.Event.Source == source && ok(r, r.Event) })
}

func (b *bent) at(source history.SourceName, c chat.ConversationID, seq int64) *history.Record {
	b.t.Helper()
	return b.event(source, "number", func(r *history.Record, e *history.Event) bool { return r.Conversation == c && e.Seq == seq })
}

// remove takes a record out, and keeps the count of its source right.
func (b *bent) remove(r *history.Record, source history.SourceName) {
	b.count(source, -1)
	line := r.Line
	b.begins = nil
	b.records = slices.DeleteFunc(b.records, func(x history.Record) bool { return x.Line == line })
}

func (b *bent) count(source history.SourceName, by int64) {
	b.find("source", func(r *history.Record) bool { return r.Source != nil && r.Source.Name == source }).Source.Count += by
}

// insert puts a record where its time is.
func (b *bent) insert(r history.Record) (line int) {
	line = 1_000_000 + len(b.records)
	r.Line = line
	b.begins = nil
	i := slices.IndexFunc(b.records, func(x history.Record) bool { return x.At > r.At })
	if i < 0 {
		i = len(b.records)
	}
	b.records = slices.Insert(b.records, i, r)
	return line
}

// tries tells how often a client id was sent.
func (b *bent) tries(begin *history.Record) (n int) {
	for i := range b.records {
		if r := &b.records[i]; r.Begin != nil && r.Client == begin.Client && r.Conversation == begin.Conversation && r.Begin.ClientMsgID == begin.Begin.ClientMsgID {
			n++
		}
	}
	return n
}

func (b *bent) rest() int64 {
	return b.find("rest", func(r *history.Record) bool { return r.Rest != nil }).At
}

func (b *bent) end(c chat.ConversationID) (n int64) {
	for i := range b.records {
		if r := &b.records[i]; r.Event != nil && r.Event.Source == history.SourceLog && r.Conversation == c {
			n = max(n, r.Event.Seq)
		}
	}
	return n
}

// single finds a send that was asked for once and answered with a number.
func (b *bent) single(what string, ok func(begin, end *history.Record) bool) (begin, end *history.Record) {
	b.t.Helper()
	return b.op(what, func(begin, end *history.Record) bool {
		return begin.Begin.Call == history.CallSend && end.End.Outcome == history.OutcomeOK && !end.End.Duplicate && b.tries(begin) == 1 && ok(begin, end)
	})
}

// retry finds a send that was answered as a duplicate, and was begun well after the first answer.
func (b *bent) retry() (begin, end *history.Record) {
	b.t.Helper()
	return b.op("retry", func(begin, end *history.Record) bool {
		if begin.Begin.Call != history.CallSend || !end.End.Duplicate {
			return false
		}
		for i := range b.records {
			if r := &b.records[i]; r.End != nil && r.End.Outcome == history.OutcomeOK && !r.End.Duplicate && r.At < begin.At && r.End.Seq == end.End.Seq {
				first := b.begin(r.Op)
				if first.Conversation == begin.Conversation && first.Client == begin.Client && first.Begin.ClientMsgID == begin.Begin.ClientMsgID {
					return true
				}
			}
		}
		return false
	})
}

// wholePull finds a pull after the rest that showed a number.
func (b *bent) wholePull(ok func(begin *history.Record, e *history.Entry) bool) (begin, end *history.Record, entry *history.Entry) {
	b.t.Helper()
	begin, end = b.op("pull of everything", func(begin, end *history.Record) bool {
		if end.End.Pull == nil || begin.At < b.rest() {
			return false
		}
		for i := range end.End.Pull.Entries {
			if ok(begin, &end.End.Pull.Entries[i]) {
				entry = &end.End.Pull.Entries[i]
				return true
			}
		}
		return false
	})
	return begin, end, entry
}

func (b *bent) targeted(kind chat.Kind) *history.Record {
	b.t.Helper()
	return b.event(history.SourceLog, kind.String(), func(_ *history.Record, e *history.Event) bool { return e.Kind == kind })
}

// wrong is a way in which a history is wrong.
type wrong struct {
	name  string
	check string
	also  string // other checks that see it as well, by necessity; with a ? where it depends on the rest of the history
	do    func(b *bent) (lines []int)
}

func TestCheck_FindsEachWayInWhichAHistoryIsWrong(t *testing.T) {
	seeds := 2
	if testing.Short() {
		seeds = 1
	}
	tried := map[string]bool{}
	for _, w := range wrongs {
		tried[w.check] = true
		t.Run(w.check+": "+w.name, func(t *testing.T) {
			for seed := range uint64(seeds) {
				b := &bent{t: t, records: play(seed)}
				want := w.do(b)
				report := judge(t, b.records)
				byLine := map[int]*history.Record{}
				for i := range b.records {
					byLine[b.records[i].Line] = &b.records[i]
				}
				shown := false
				for _, r := range report.Results {
					also := strings.Fields(w.also)
					expected := r.Check == w.check || slices.Contains(also, r.Check)
					if expected != (r.Found > 0) && !slices.Contains(also, "?"+r.Check) {
						t.Errorf("seed %d: the check %s found %d violations", seed, r.Check, r.Found)
						for _, v := range r.Violations {
							t.Log(v)
						}
					}
					for _, v := range r.Violations {
						has := r.Check == w.check
						for _, line := range want {
							has = has && slices.Contains(v.Lines, line)
						}
						shown = shown || has
						for _, line := range v.Lines {
							if byLine[line] == nil {
								t.Errorf("seed %d: %v names a line that is not there", seed, v)
							}
						}
						if len(v.Lines) == 0 || len(v.Lines) > 40 {
							t.Errorf("seed %d: %d lines are not the smallest piece that shows %s", seed, len(v.Lines), v.Message)
						}
					}
				}
				if !shown {
					t.Errorf("seed %d: no violation of %s shows the lines %v", seed, w.check, want)
				}
				if t.Failed() {
					return
				}
			}
		})
	}
	for _, r := range rules() {
		if !tried[r.name] {
			t.Errorf("nobody has seen the check %s fail", r.name)
		}
	}
}

func lines(rs ...*history.Record) (list []int) {
	for _, r := range rs {
		list = append(list, r.Line)
	}
	return list
}

// rename gives an event another client id, in every source and every pull.
func (b *bent) rename(c chat.ConversationID, sender chat.UserID, from, to string) {
	for i := range b.records {
		r := &b.records[i]
		if r.Conversation == c && r.Event != nil && r.Event.Sender == sender && r.Event.ClientMsgID == from {
			r.Event.ClientMsgID = to
		}
		if r.End != nil && r.End.Pull != nil && b.begin(r.Op).Conversation == c {
			for j := range r.End.Pull.Entries {
				if e := &r.End.Pull.Entries[j]; e.Sender == sender && e.ClientMsgID == from {
					e.ClientMsgID = to
				}
			}
		}
	}
}

// reword gives a message another content, in every source and every pull.
func (b *bent) reword(c chat.ConversationID, seq int64, from, to history.Body) {
	for i := range b.records {
		r := &b.records[i]
		if r.Conversation == c && r.Event != nil && r.Event.Seq == seq && r.Event.Body == from {
			r.Event.Body = to
		}
		if r.End != nil && r.End.Pull != nil && b.begin(r.Op).Conversation == c {
			for j := range r.End.Pull.Entries {
				if e := &r.End.Pull.Entries[j]; e.Seq == seq && e.Body == from {
					e.Body = to
				}
			}
		}
	}
}

// readdress addresses a message to others, in every source and in what its sender asked for.
func (b *bent) readdress(c chat.ConversationID, seq int64, to []chat.UserID) {
	e := *b.at(history.SourceLog, c, seq).Event
	for i := range b.records {
		r := &b.records[i]
		if r.Conversation != c {
			continue
		}
		if r.Event != nil && r.Event.Seq == seq {
			r.Event.Recipients = to
		}
		if r.Begin != nil && r.Client == e.Sender && r.Begin.ClientMsgID == e.ClientMsgID {
			r.Begin.Recipients = to
		}
	}
}

// showAimed shows an edit or a recall of a message that is addressed to others.
func (b *bent) showAimed(kind chat.Kind) []int {
	b.t.Helper()
	begin, end, e := b.wholePull(func(begin *history.Record, e *history.Entry) bool {
		return e.Type == history.TypeVoid && b.at(history.SourceLog, begin.Conversation, e.Seq).Event.Kind == kind
	})
	x := b.at(history.SourceLog, begin.Conversation, e.Seq)
	*e = history.Entry{Seq: e.Seq, Type: kind.String(), MessageID: x.Event.MessageID, Sender: x.Event.Sender, ClientMsgID: x.Event.ClientMsgID, TargetSeq: x.Event.TargetSeq}
	return lines(begin, end, x)
}

// numbered tells whether a send has an event.
func (b *bent) numbered(begin *history.Record) bool {
	return slices.ContainsFunc(b.records, func(r history.Record) bool {
		return r.Event != nil && r.Conversation == begin.Conversation && r.Event.Sender == begin.Client && r.Event.ClientMsgID == begin.Begin.ClientMsgID
	})
}

// aimedAt tells whether the log has an event of a kind that aims at a number.
func (b *bent) aimedAt(c chat.ConversationID, seq int64, kind chat.Kind) bool {
	return slices.ContainsFunc(b.records, func(r history.Record) bool {
		return r.Event != nil && r.Conversation == c && r.Event.Kind == kind && r.Event.TargetSeq == seq
	})
}

// plain tells whether an event is a message of the Kafka door to everybody, which was sent once.
func (b *bent) plain(e *history.Event) bool {
	return e.Sender == 5 && e.Kind == chat.KindMessage && e.Recipients == nil && !slices.ContainsFunc(b.records, func(r history.Record) bool {
		return r.Rejected != nil && r.Rejected.Sender == 5 && r.Rejected.ClientMsgID == e.ClientMsgID
	})
}

// lastingEdit finds an edit, answered well before the end, of a message that everybody may see and nobody recalled.
func (b *bent) lastingEdit() *history.Record {
	b.t.Helper()
	return b.event(history.SourceLog, "edit", func(r *history.Record, e *history.Event) bool {
		return e.Kind == chat.KindEdit && !b.aimedAt(r.Conversation, e.TargetSeq, chat.KindRecall) && b.at(history.SourceLog, r.Conversation, e.TargetSeq).Event.Recipients == nil &&
			slices.ContainsFunc(b.records, func(x history.Record) bool {
				if x.Begin == nil || x.Begin.ClientMsgID != e.ClientMsgID || x.Client != e.Sender {
					return false
				}
				return slices.ContainsFunc(b.records, func(y history.Record) bool { return y.Op == x.Op && y.End != nil && y.End.Outcome == history.OutcomeOK })
			})
	})
}

// finalRead finds a present member who read, and the answer to the read that reached furthest.
func (b *bent) finalRead() (m, read *history.Record) {
	b.t.Helper()
	m = b.find("member who read", func(r *history.Record) bool {
		if r.Member == nil || r.Member.LeftSeq > 0 {
			return false
		}
		for i := range b.records {
			x := &b.records[i]
			if x.End == nil || x.End.ReadSeq == 0 || read != nil && x.End.ReadSeq <= read.End.ReadSeq {
				continue
			}
			if begin := b.begin(x.Op); begin.Client == r.Member.User && begin.Conversation == r.Conversation {
				read = x
			}
		}
		return read != nil
	})
	return m, read
}

// plainUnread counts as the definition says, at rest.
func (b *bent) plainUnread(c chat.ConversationID, u chat.UserID, mark, upTo int64) (n int64) {
	for i := range b.records {
		r := &b.records[i]
		if r.Event == nil || r.Event.Source != history.SourceLog || r.Conversation != c || r.Event.Seq <= mark || r.Event.Seq > upTo || r.Event.Kind != chat.KindMessage || r.Event.Sender == u {
			continue
		}
		if (r.Event.Recipients == nil || slices.Contains(r.Event.Recipients, u)) && !b.aimedAt(c, r.Event.Seq, chat.KindRecall) {
			n++
		}
	}
	return n
}

// highest gives the highest hint of a connection up to a time.
func (b *bent) highest(c chat.ConversationID, conn history.Conn, at int64) (n int64) {
	for i := range b.records {
		if r := &b.records[i]; r.Hint != nil && r.Conn == conn && r.Conversation == c && r.At <= at {
			n = max(n, r.Hint.Seq)
		}
	}
	return n
}

// storedBefore gives the highest number that was heard before a time.
func (b *bent) storedBefore(c chat.ConversationID, at int64) (n int64) {
	for i := range b.records {
		if r := &b.records[i]; r.Hint != nil && r.Conversation == c && r.At < at {
			n = max(n, r.Hint.Seq)
		}
	}
	return n
}
