package check

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// The model of one conversation, as porcupine wants it: a list of messages, each with the client id of its sender. Sending
// appends and answers with the place, unless the id is there: then it answers with the first one's place, or with a
// conflict where the body is another. Reading gives a beginning of the list, at least as long as the reader was told. The
// log, read at the end, is the list.
var model = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		list := strings.Split(strings.TrimSuffix(state.(string), "|"), "|")
		if state == "" {
			list = nil
		}
		switch in := input.(type) {
		case sending:
			i := slices.IndexFunc(list, func(m string) bool { return strings.HasPrefix(m, in.key+"=") })
			next := state
			if i < 0 {
				i, next = len(list), state.(string)+in.key+"="+in.body+"|"
			}
			same := i == len(list) || list[i] == in.key+"="+in.body
			switch out := output.(type) {
			case numbered:
				return same && int64(out) == int64(i+1), next
			case conflicting:
				return !same, state
			}
			return true, next // unknown
		case reading_:
			out, answered := output.(string)
			return !answered || strings.HasPrefix(state.(string), out) && strings.Count(out, "|") >= in.told, state
		case theLog:
			return output == state, state
		}
		return false, state
	},
}

type (
	sending     struct{ key, body string }
	reading_    struct{ told int }
	theLog      struct{}
	numbered    int64
	conflicting struct{}
	unknowing   struct{}
)

// operations gives a history as porcupine sees it. What has no answer may happen at any later time, or never: after the log
// was read.
func operations(records []history.Record) (ops []porcupine.Operation) {
	ends := map[history.Op]*history.Record{}
	for i := range records {
		if records[i].End != nil {
			ends[records[i].Op] = &records[i]
		}
	}
	log, rest := map[int64]string{}, int64(0)
	twice := false
	for i := range records {
		r := &records[i]
		switch {
		case r.Begin != nil:
			op := porcupine.Operation{Call: r.At, Return: never, Output: unknowing{}}
			if r.Begin.Call == history.CallSend {
				op.Input = sending{fmt.Sprintf("%d:%s", r.Client, r.Begin.ClientMsgID), string(r.Begin.Body)}
			} else {
				op.Input = reading_{int(r.Begin.Told)}
			}
			e := ends[r.Op]
			switch {
			case e == nil:
			case e.End.Pull != nil:
				text := ""
				for i, m := range e.End.Pull.Entries {
					if m.Seq != int64(i+1) {
						text += "hole|"
					}
					text += fmt.Sprintf("%d:%s=%s|", m.Sender, m.ClientMsgID, m.Body)
				}
				op.Output, op.Return = text, e.At
			case e.End.Outcome == history.OutcomeOK:
				op.Output, op.Return = numbered(e.End.Seq), e.At
			case e.End.Code == chat.CodeConflict:
				op.Output, op.Return = conflicting{}, e.At
			}
			ops = append(ops, op)
		case r.Event != nil && r.Event.Source == history.SourceLog:
			_, there := log[r.Event.Seq]
			twice = twice || there
			log[r.Event.Seq] = fmt.Sprintf("%d:%s=%s|", r.Event.Sender, r.Event.ClientMsgID, r.Event.Body)
		case r.Rest != nil:
			rest = r.At
		}
	}
	text := ""
	for n := range int64(len(log)) {
		if text += log[n+1]; log[n+1] == "" || twice {
			text += "hole|"
		}
	}
	return append(ops, porcupine.Operation{Input: theLog{}, Output: text, Call: rest, Return: rest})
}

// small makes a correct history of one private conversation, small enough for porcupine: each operation takes place at some
// moment between its begin and its end, and nobody knows when.
func small(rng *rand.Rand) []history.Record {
	c := chat.PrivateConversation(1, 2)
	type message struct {
		sender   chat.UserID
		key      string
		body     history.Body
		id, know int64
	}
	type pending struct {
		begin, point, end int64
		record            history.Record
		answer            *history.End
	}
	var list []*pending
	for i := range 6 + rng.IntN(8) {
		begin := 10 + rng.Int64N(600)
		p := &pending{begin: begin, point: begin + 1 + rng.Int64N(80)}
		p.end = p.point + 1 + rng.Int64N(80)
		b := history.Begin{Call: history.CallSend, Door: history.DoorHTTP, ClientMsgID: fmt.Sprintf("k%d", rng.IntN(8)), Body: history.Body(fmt.Sprintf("b%d", rng.IntN(2)))}
		if rng.IntN(3) == 0 {
			b = history.Begin{Call: history.CallPull, Door: history.DoorHTTP, After: new(int64)}
		}
		// Every operation has a connection of its own: what may not go back on one is no part of the model.
		p.record = history.Record{At: begin, Op: history.Op(i + 1), Client: chat.UserID(1 + rng.IntN(2)), Conn: history.Conn(i + 1), Conversation: c, Begin: &b}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *pending) int { return int(a.point - b.point) })
	var log []message
	for _, p := range list {
		b := p.record.Begin
		died := rng.IntN(8) == 0
		switch {
		case b.Call == history.CallSend && died && rng.IntN(2) == 0: // before it came to anything
		case b.Call == history.CallSend:
			i := slices.IndexFunc(log, func(m message) bool { return m.sender == p.record.Client && m.key == b.ClientMsgID })
			duplicate := i >= 0
			if !duplicate {
				i = len(log)
				log = append(log, message{p.record.Client, b.ClientMsgID, b.Body, int64(i + 1), p.end})
			}
			p.answer = &history.End{Outcome: history.OutcomeOK, Seq: int64(i + 1), Duplicate: duplicate}
			if log[i].body != b.Body {
				p.answer = &history.End{Outcome: history.OutcomeRefused, Code: chat.CodeConflict}
			}
		default:
			told := 0
			for i, m := range log {
				if m.know < p.begin {
					told = i + 1
				}
			}
			n := told + rng.IntN(len(log)-told+1)
			b.Told = int64(told)
			pull := &history.Pull{MinSeq: 1, MaxSeq: int64(n), Entries: []history.Entry{}}
			for i, m := range log[:n] {
				pull.Entries = append(pull.Entries, history.Entry{Seq: int64(i + 1), Type: "text", MessageID: m.id, Sender: m.sender, ClientMsgID: m.key, Body: m.body})
			}
			p.answer = &history.End{Outcome: history.OutcomeOK, Pull: pull}
		}
		if died {
			p.answer = nil
		}
	}
	// Something is broken all the time: that explains what has no answer.
	records := []history.Record{{At: 1, Fault: &history.Fault{ID: 1, Name: "everything"}}}
	for _, p := range list {
		records = append(records, p.record)
		if p.answer != nil {
			records = append(records, history.Record{At: p.end, Op: p.record.Op, End: p.answer})
		}
	}
	records = append(records, history.Record{At: 2000, Rest: &history.Rest{}})
	for i, m := range log {
		records = append(records, history.Record{At: 2001, Conversation: c, Event: &history.Event{
			Source: history.SourceLog, Seq: int64(i + 1), Kind: chat.KindMessage, MessageID: m.id, Sender: m.sender, ClientMsgID: m.key, Body: m.body, Offset: int64(i),
		}})
	}
	return append(records, history.Record{At: 2002, Source: &history.Source{Name: history.SourceLog, Count: int64(len(log))}})
}

// bend does something to a small history that may make it wrong, and may not.
func bend(rng *rand.Rand, records []history.Record) {
	pick := func(ok func(r *history.Record) bool) *history.Record {
		var list []*history.Record
		for i := range records {
			if ok(&records[i]) {
				list = append(list, &records[i])
			}
		}
		if len(list) == 0 {
			return &history.Record{Begin: &history.Begin{}, End: &history.End{Pull: &history.Pull{}}, Event: &history.Event{}}
		}
		return list[rng.IntN(len(list))]
	}
	event := func(r *history.Record) bool { return r.Event != nil }
	answer := func(r *history.Record) bool { return r.End != nil && r.End.Pull == nil }
	reading := func(r *history.Record) bool { return r.End != nil && r.End.Pull != nil && len(r.End.Pull.Entries) > 0 }
	switch rng.IntN(8) {
	case 0: // another number in an answer
		if e := pick(answer).End; e.Outcome == history.OutcomeOK {
			e.Seq = max(1, e.Seq+rng.Int64N(3)-1)
		}
	case 1: // two events change places
		a, b := pick(event).Event, pick(event).Event
		a.Sender, b.Sender, a.ClientMsgID, b.ClientMsgID, a.Body, b.Body, a.MessageID, b.MessageID = b.Sender, a.Sender, b.ClientMsgID, a.ClientMsgID, b.Body, a.Body, b.MessageID, a.MessageID
	case 2: // a reader misses the last ones
		p := pick(reading).End.Pull
		p.Entries = p.Entries[:rng.IntN(len(p.Entries)+1)]
		p.MaxSeq = int64(len(p.Entries))
	case 3: // a reader sees other words
		if p := pick(reading).End.Pull; len(p.Entries) > 0 {
			p.Entries[rng.IntN(len(p.Entries))].Body = history.Body(fmt.Sprintf("b%d", rng.IntN(3)))
		}
	case 4: // the log has other words
		pick(event).Event.Body = history.Body(fmt.Sprintf("b%d", rng.IntN(3)))
	case 5: // the log has another client id
		pick(event).Event.ClientMsgID = fmt.Sprintf("k%d", rng.IntN(9))
	case 6: // an operation takes place at another time
		begin := pick(func(r *history.Record) bool { return r.Begin != nil })
		by := rng.Int64N(900) - 450
		for i := range records {
			if r := &records[i]; r.Op == begin.Op && begin.At+by > 1 && (r.Begin != nil || r.End != nil) && r != begin {
				r.At = max(r.At+by, begin.At+by)
			}
		}
		begin.At = max(begin.At+by, 2)
		for i := range records {
			if r := &records[i]; r.Op == begin.Op && r.End != nil {
				r.At = max(r.At, begin.At)
			}
		}
	case 7: // a conflict where there was none, or none where there was one
		e := pick(answer).End
		if e.Outcome == history.OutcomeOK {
			*e = history.End{Outcome: history.OutcomeRefused, Code: chat.CodeConflict}
		} else {
			*e = history.End{Outcome: history.OutcomeOK, Seq: 1 + rng.Int64N(4)}
		}
	}
}

// A model that porcupine searches through and rules that look at pairs of lines come to the same verdict, on histories that
// are right and on such that may be wrong.
func TestCheck_AgreesWithAModelOfOneConversation(t *testing.T) {
	seeds := 6000
	if testing.Short() {
		seeds = 300
	}
	right, wrong := 0, 0
	// In the history of this seed a conflict tells that a number was given: the checker once did not listen to it.
	list := []uint64{114407}
	for seed := range uint64(seeds) {
		list = append(list, seed)
	}
	for _, seed := range list {
		rng := rand.New(rand.NewPCG(seed, 11))
		records := small(rng)
		if seed%4 > 0 {
			bend(rng, records)
		}
		for i := range records {
			records[i].Line = i + 2
		}
		verdict, _ := porcupine.CheckOperationsVerbose(model, operations(records), 10*time.Second)
		if verdict == porcupine.Unknown {
			t.Fatalf("seed %d: the model did not come to an end", seed)
		}
		if seed%4 == 0 && verdict != porcupine.Ok {
			t.Fatalf("seed %d: the model takes a right history for a wrong one", seed)
		}
		report := judge(t, records)
		if (report.Found() == 0) != (verdict == porcupine.Ok) {
			for _, r := range records {
				t.Logf("%d: %s", r.Line, Excerpt(&r, nil))
			}
			for _, r := range report.Results {
				for _, v := range r.Violations {
					t.Logf("%+v", v)
				}
			}
			t.Fatalf("seed %d: the checker found %d violations, the model says %s", seed, report.Found(), verdict)
		}
		if verdict == porcupine.Ok {
			right++
		} else {
			wrong++
		}
	}
	if right < seeds/4 || wrong < seeds/8 {
		t.Errorf("%d histories were right and %d wrong: that is no test of both", right, wrong)
	}
	t.Logf("%d right, %d wrong", right, wrong)
}
