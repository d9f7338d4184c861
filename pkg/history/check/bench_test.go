package check

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// large writes a history of about ten records for each message: it is sent and answered, heard three times, pulled with
// nine before it, and found in three sources; with reads, syncs and receipts between.
func large(out io.Writer, messages int) (records int64, err error) {
	const rooms, people = 50, 500
	w := history.NewWriter(out, history.Header{Driver: "benchmark"})
	at := int64(0)
	write := func(r history.Record) {
		at += 1000
		r.At = at
		records++
		w.Write(r)
	}
	op := history.Op(0)
	ask := func(u chat.UserID, c chat.ConversationID, b history.Begin, e history.End) {
		op++
		write(history.Record{Op: op, Client: u, Conn: history.Conn(u), Conversation: c, Begin: &b})
		write(history.Record{Op: op, End: &e})
	}
	for u := range people {
		write(history.Record{Client: chat.UserID(u + 1), Conn: history.Conn(u + 1), Open: &history.Open{Door: history.DoorSocket}})
	}
	type message struct {
		sender chat.UserID
		id     string
		body   history.Body
	}
	logs := make([][]message, rooms)
	room := func(i int) chat.ConversationID { return chat.GroupConversation(int64(i + 1)) }
	member := func(i, n int) chat.UserID { return chat.UserID(i*people/rooms + n%(people/rooms) + 1) }
	for n := range messages {
		i := n % rooms
		c, seq := room(i), int64(len(logs[i])+2)
		m := message{member(i, n/rooms), fmt.Sprintf("%08x-0000-7000-8000-%012x", n, n), history.Body(fmt.Sprintf("%016x", n*2654435761))}
		logs[i] = append(logs[i], m)
		ask(m.sender, c, history.Begin{Call: history.CallSend, Door: history.DoorHTTP, ClientMsgID: m.id, Body: m.body}, history.End{Outcome: history.OutcomeOK, Seq: seq, MessageID: int64(n + 1)})
		for k := range 3 {
			u := member(i, n/rooms+k)
			write(history.Record{Client: u, Conn: history.Conn(u), Conversation: c, Hint: &history.Hint{Seq: seq}})
		}
		after := max(seq-10, 1)
		p := &history.Pull{MinSeq: 1, MaxSeq: seq}
		for x := after + 1; x <= seq; x++ {
			e := logs[i][x-2]
			p.Entries = append(p.Entries, history.Entry{Seq: x, Type: "text", MessageID: (x-2)*rooms + int64(i) + 1, Sender: e.sender, ClientMsgID: e.id, Body: e.body})
		}
		ask(member(i, n/rooms+1), c, history.Begin{Call: history.CallPull, Door: history.DoorSocket, After: &after, Told: seq}, history.End{Outcome: history.OutcomeOK, Pull: p})
		if n%10 == 0 {
			u := member(i, n/rooms+2)
			ask(u, chat.ConversationID{}, history.Begin{Call: history.CallSync, Door: history.DoorHTTP}, history.End{Outcome: history.OutcomeOK, Sync: []history.Synced{{Conversation: c, MaxSeq: seq, ReadSeq: seq}}})
		}
	}
	write(history.Record{Rest: &history.Rest{}})
	n := int64(0)
	for i, log := range logs {
		for _, source := range eventSources {
			e := history.Event{Source: source, Seq: 1, Kind: chat.KindCreate, Sender: member(i, 0), ClientMsgID: "create", Partition: int32(i)}
			if source == history.SourceLog {
				e.InboundOffset = new(int64)
				for k := 1; k < people/rooms; k++ {
					e.Users = append(e.Users, member(i, k))
				}
			}
			write(history.Record{Conversation: room(i), Event: &e})
			for j, m := range log {
				e := history.Event{Source: source, Seq: int64(j + 2), Kind: chat.KindMessage, MessageID: int64(j*rooms + i + 1), Sender: m.sender, ClientMsgID: m.id, Body: m.body, Partition: int32(i), Offset: int64(j + 1)}
				if source == history.SourceLog {
					inbound := int64(j + 1)
					e.InboundOffset = &inbound
					n++
				}
				write(history.Record{Conversation: room(i), Event: &e})
			}
		}
	}
	for _, source := range eventSources {
		write(history.Record{Source: &history.Source{Name: source, Count: n + rooms}})
	}
	return records, w.Close()
}

// BenchmarkCheck judges a file of two million records, and beside it only reads it: that is the floor.
func BenchmarkCheck(b *testing.B) {
	path := filepath.Join(b.TempDir(), "large.jsonl")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	records, err := large(f, 200_000)
	if err != nil || f.Close() != nil {
		b.Fatal(err)
	}
	open := func() *history.Reader {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = f.Close() })
		r, err := history.NewReader(f)
		if err != nil {
			b.Fatal(err)
		}
		return r
	}
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			for _, err := range open().All() {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
	})
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			report, err := Read(open(), DefaultOptions())
			if err != nil {
				b.Fatal(err)
			}
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			b.ReportMetric(float64(m.Sys)/(1<<20), "MiB")
			for _, r := range report.Results {
				if r.Found > 0 {
					b.Fatalf("%+v", r.Violations)
				}
			}
		}
		b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
	})
}

func TestCheck_FindsNothingWrongInALargeHistory(t *testing.T) {
	var out bytes.Buffer
	if _, err := large(&out, 2000); err != nil {
		t.Fatal(err)
	}
	r, err := history.NewReader(&out)
	if err != nil {
		t.Fatal(err)
	}
	report, err := Read(r, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Results {
		for _, v := range c.Violations {
			t.Errorf("%+v", v)
		}
	}
}
