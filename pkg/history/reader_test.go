package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"

	"tideline/pkg/chat"
)

var update = flag.Bool("update", false, "write the golden samples anew: only for fields that were added")

func num[T any](v T) *T { return &v }

// sample has every body and every field.
func sample() []Record {
	at := func(ms int64, r Record) Record { r.At = ms * 1_000_000; return r }
	in := group
	return []Record{
		at(1, Record{Client: 11, Conn: 1, Open: &Open{DoorSocket}}),
		at(2, Record{Op: 1, Client: 11, Conn: 1, Begin: &Begin{Call: CallCreate, Door: DoorHTTP, ClientMsgID: "k1", Users: []chat.UserID{12}}}),
		at(3, Record{Op: 1, Conversation: in, End: &End{Outcome: OutcomeOK, Seq: 1}}),
		at(4, Record{Op: 2, Client: 11, Conn: 1, Conversation: in, Begin: &Begin{Call: CallSend, Door: DoorSocket, ClientMsgID: "k2", Body: "00112233445566aa", Recipients: []chat.UserID{12}}}),
		at(5, Record{Fault: &Fault{1, "kill ingest"}}),
		at(6, Record{Op: 2, End: &End{Outcome: OutcomeAccepted}}),
		at(7, Record{Op: 3, Client: 11, Conversation: in, Begin: &Begin{Call: CallSend, Door: DoorKafka, ClientMsgID: "k2", Body: "00112233445566aa", Recipients: []chat.UserID{12}}}),
		at(8, Record{Op: 3, End: &End{Outcome: OutcomeRefused, Code: chat.CodeUnavailable, Retryable: true}}),
		at(9, Record{FaultEnd: &FaultEnd{1, 5_000_000_000}}),
		at(10, Record{Client: 11, Conn: 1, Conversation: in, Hint: &Hint{2}}),
		at(11, Record{Op: 4, Client: 11, Conn: 1, Conversation: in, Begin: &Begin{Call: CallPull, Door: DoorHTTP, After: num[int64](0), Before: num[int64](9), Around: num[int64](4), Limit: 50, Told: 2}}),
		at(12, Record{Op: 4, End: &End{Outcome: OutcomeOK, Pull: &Pull{Entries: []Entry{
			{Seq: 1, ToSeq: 1, Type: TypeVoid},
			{Seq: 2, Type: "text", MessageID: 1 << 60, Sender: 11, ClientMsgID: "k2", Body: "00112233445566aa", Recalled: true, Edited: true, TargetSeq: 1},
		}, MinSeq: 1, MaxSeq: 2, HasMore: true}}}),
		at(13, Record{Op: 5, Client: 11, Conn: 1, Begin: &Begin{Call: CallSync, Door: DoorHTTP}}),
		at(14, Record{Op: 5, End: &End{Outcome: OutcomeOK, Sync: []Synced{{in, 2, 1, 1}}}}),
		at(15, Record{Op: 6, Client: 11, Conn: 1, Conversation: in, Begin: &Begin{Call: CallRead, Door: DoorHTTP, Seq: 2}}),
		at(16, Record{Op: 6, End: &End{Outcome: OutcomeOK, ReadSeq: 2, Unread: 1}}),
		at(17, Record{Op: 7, Client: 11, Conn: 1, Conversation: in, Begin: &Begin{Call: CallReceipts, Door: DoorHTTP, Seqs: []int64{2}}}),
		at(18, Record{Op: 7, End: &End{Outcome: OutcomeOK, Receipts: []Receipt{{2, 1, 0}}}}),
		at(19, Record{Op: 8, Client: 11, Conn: 1, Conversation: in, Begin: &Begin{Call: CallEdit, Door: DoorHTTP, TargetSeq: 2, Body: "00112233445566bb"}}),
		at(20, Record{Op: 8, End: &End{Outcome: OutcomeOK, Seq: 3, Duplicate: true, MessageID: 5}}),
		at(21, Record{Op: 9, Client: 11, Conn: 1, Conversation: in, Begin: &Begin{Call: CallLookup, Door: DoorHTTP, ClientMsgID: "k2"}}),
		at(22, Record{Op: 9, End: &End{Outcome: OutcomeUnknown}}),
		at(23, Record{Client: 11, Conn: 1, Close: &Close{4001, "draining"}}),
		at(24, Record{Rest: &Rest{}}),
		at(25, Record{Conversation: in, Event: &Event{Source: SourceLog, Seq: 1, Kind: chat.KindCreate, MessageID: 4, Sender: 11, ClientMsgID: "k1", Partition: 3, Offset: 17, InboundOffset: num[int64](0), Users: []chat.UserID{12}, HistoryVisible: num(false)}}),
		at(25, Record{Conversation: in, Event: &Event{Source: SourceStore, Seq: 2, Kind: chat.KindMessage, MessageID: 5, Sender: 11, ClientMsgID: "k2", Body: "00112233445566aa", Recipients: []chat.UserID{12}}}),
		at(25, Record{Conversation: in, Event: &Event{Source: SourceArchive, Seq: 3, Kind: chat.KindRecall, Sender: 11, TargetSeq: 2, Recalled: true, Offset: -1}}),
		at(26, Record{Conversation: in, Rejected: &Rejected{Sender: 11, ClientMsgID: "k2", Code: chat.CodeDuplicate, FirstSeq: 2, Partition: 3, InboundOffset: 2}}),
		at(27, Record{Conversation: in, Member: &Member{User: 12, JoinSeq: 1, LeftSeq: 9, ReadSeq: 2}}),
		at(28, Record{Source: &Source{SourceLog, 1}}),
	}
}

const golden = "testdata/version1.jsonl"

func TestFormat_IsTheOneOfTheGoldenSample(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out, Header{BeganAt: 1_700_000_000_000, Driver: "sample", Settings: map[string]string{"seed": "1"}})
	for _, r := range sample() {
		w.Write(r)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("the format is not the one of the golden sample any more; it is\n%s", out.Bytes())
	}
	r, err := NewReader(bytes.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	list := sample()
	i := 0
	for got, err := range r.All() {
		if err != nil {
			t.Fatal(err)
		}
		wanted := list[i]
		wanted.Line = i + 2
		if !reflect.DeepEqual(*got, wanted) {
			t.Errorf("line %d is read as %+v, and was %+v", got.Line, got, wanted)
		}
		i++
	}
	if i != len(list) || r.Torn() || r.Header.Driver != "sample" || r.Header.Settings["seed"] != "1" {
		t.Errorf("%d of %d records, torn: %t, header %+v", i, len(list), r.Torn(), r.Header)
	}
}

func TestReader_SurvivesATornLastLine(t *testing.T) {
	whole, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	header := len(lines[0])
	for cut := header; cut < len(whole); cut += 7 {
		r, err := NewReader(bytes.NewReader(whole[:cut]))
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		n := 0
		for _, err := range r.All() {
			if err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			n++
		}
		left := whole[header:cut]
		want, rest := bytes.Count(left, []byte("\n")), left[bytes.LastIndexByte(left, '\n')+1:]
		torn := len(rest) > 0 && !json.Valid(rest)
		if len(rest) > 0 && !torn {
			want++ // only the end of the line was lost
		}
		if n != want || r.Torn() != torn {
			t.Errorf("cut at %d: %d records and torn %t, want %d and %t", cut, n, r.Torn(), want, torn)
		}
	}
}

func TestReader_NamesTheLineThatIsNone(t *testing.T) {
	const header = `{"tideline_history":1,"began_at":1}` + "\n"
	const rest = `{"t":1,"rest":{}}` + "\n"
	for name, c := range map[string]struct{ text, want string }{
		"nothing":            {"", "empty"},
		"another file":       {"{\"text\":\"hi\"}\n", "line 1"},
		"half a header":      {`{"tideline_hist`, "line 1 is torn"},
		"a later version":    {`{"tideline_history":2,"began_at":1}` + "\n", "version 2"},
		"broken JSON":        {header + rest + "{\"t\":\n" + rest, "line 3"},
		"two on a line":      {header + rest + `{"t":1,"rest":{}} {"t":1,"rest":{}}` + "\n", "line 3: is more than one"},
		"a field too many":   {header + `{"t":1,"rest":{},"mood":"good"}` + "\n", `line 2: json: unknown field "mood"`},
		"no body":            {header + rest + rest + `{"t":1}` + "\n", "line 4: has 0 bodies"},
		"an empty line":      {header + "\n" + rest, "line 2"},
		"no conversation":    {header + `{"t":1,"client":"1","conn":1,"hint":{"seq":1}}` + "\n", "line 2: c is missing"},
		"a strange kind":     {header + `{"t":1,"c":"g-1","event":{"source":"log","seq":1,"kind":"dance"}}` + "\n", "line 2"},
		"a line too long":    {header + `{"t":1,"fault":{"id":1,"name":"` + strings.Repeat("x", MaxLineBytes+1) + "\"}}\n", "line 2: is longer than"},
		"a wrong user":       {header + `{"t":1,"client":"x","conn":1,"open":{"door":"http"}}` + "\n", "line 2"},
		"a torn but no last": {header + `{"t":1,"re` + "\n", "line 2"},
	} {
		_, err := readAll([]byte(c.text))
		if !errors.Is(err, ErrNotAHistory) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %.200v, want %q", name, err, c.want)
		}
	}
	broken := errors.New("the disk is gone")
	if _, err := NewReader(io.MultiReader(strings.NewReader(header[:10]), errReader{broken})); !errors.Is(err, broken) {
		t.Errorf("a broken disk gave %v", err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func readAll(text []byte) ([]Record, error) {
	r, err := NewReader(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	var list []Record
	for rec, err := range r.All() {
		if err != nil {
			return list, err
		}
		list = append(list, *rec)
	}
	return list, nil
}

// Whatever the bytes are: the reader ends; every error says that it is no history and nothing else; lines count up by one;
// what was read can be written, and is read as the same.
func FuzzReader(f *testing.F) {
	whole, err := os.ReadFile(golden)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-20])
	f.Add([]byte(`{"tideline_history":1,"began_at":1}` + "\n" + `{"t":1,"rest":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := readAll(text)
		if err != nil && !errors.Is(err, ErrNotAHistory) {
			t.Fatalf("%v", err)
		}
		var out bytes.Buffer
		w := NewWriter(&out, Header{})
		for i, r := range list {
			if r.Line != i+2 {
				t.Fatalf("record %d stands on line %d", i, r.Line)
			}
			w.Write(r)
		}
		if err := w.Close(); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := readAll(out.Bytes())
		if err != nil || len(again) != len(list) {
			t.Fatalf("%d of %d records come back: %v", len(again), len(list), err)
		}
		for i := range list {
			a, _ := json.Marshal(list[i]) // both were read: they can be written
			b, _ := json.Marshal(again[i])
			// A moment of 0 becomes now when it is written.
			if list[i].At > 0 && !bytes.Equal(a, b) {
				t.Fatalf("%s comes back as %s", a, b)
			}
		}
	})
}
