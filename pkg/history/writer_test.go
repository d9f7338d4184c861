package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"tideline/pkg/chat"
)

var group = chat.GroupConversation(7)

func TestWriter_KeepsEveryLineWholeWhenManyWrite(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out, Header{Driver: "test"})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			who := w.Opened(chat.UserID(i+1), DoorSocket)
			for range 200 {
				op := w.Begin(who, group, Begin{Call: CallSend, Door: DoorSocket, ClientMsgID: "a", Body: BodyOf([]byte(`{"text":"x"}`))})
				w.End(op, End{Outcome: OutcomeOK, Seq: 1, MessageID: 1 << 60})
			}
			w.Closed(who, 1000, "done")
		})
	}
	wg.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSuffix(out.Bytes(), []byte("\n")), []byte("\n"))
	if want := 1 + 8*(2+2*200); len(lines) != want {
		t.Fatalf("%d lines, want %d", len(lines), want)
	}
	begun := map[Op]int64{}
	for _, line := range lines[1:] {
		var r Record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		switch {
		case r.Begin != nil:
			if _, twice := begun[r.Op]; twice {
				t.Fatalf("operation %d begins twice", r.Op)
			}
			begun[r.Op] = r.At
		case r.End != nil:
			if at, ok := begun[r.Op]; !ok || at > r.At {
				t.Fatalf("operation %d ends before it begins", r.Op)
			}
		}
	}
}

func TestWriter_NeverWritesOverAHistory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h.jsonl")
	w, err := Create(path, Header{})
	if err != nil {
		t.Fatal(err)
	}
	w.Rest()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(path, Header{}); !errors.Is(err, os.ErrExist) {
		t.Errorf("beginning a second history in a file gave %v", err)
	}
	w.Rest()
	if err := w.Flush(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a writer that was closed gave %v", err)
	}
}

func TestWriter_KeepsItsFirstError(t *testing.T) {
	broken := errors.New("the disk is full")
	w := NewWriter(writerFunc(func([]byte) (int, error) { return 0, broken }), Header{})
	w.Rest()
	if err := w.Flush(); !errors.Is(err, broken) {
		t.Fatalf("flushing gave %v", err)
	}
	w.Rest()
	if err := w.Close(); !errors.Is(err, broken) || !errors.Is(w.Err(), broken) {
		t.Errorf("closing gave %v, and the error is %v", err, w.Err())
	}
}

func TestWriter_RefusesWhatIsNoRecord(t *testing.T) {
	for name, r := range map[string]Record{
		"no body":            {},
		"two bodies":         {Rest: &Rest{}, Source: &Source{Name: SourceLog}},
		"an unknown call":    {Op: 1, Client: 1, Conversation: group, Begin: &Begin{Call: "sing"}},
		"no conversation":    {Op: 1, Client: 1, Begin: &Begin{Call: CallSend}},
		"no client":          {Op: 1, Conversation: group, Begin: &Begin{Call: CallSend}},
		"no operation":       {End: &End{Outcome: OutcomeOK}},
		"an unknown outcome": {Op: 1, End: &End{Outcome: "so so"}},
		"no code":            {Op: 1, End: &End{Outcome: OutcomeRefused}},
		"a negative time":    {At: -1, Rest: &Rest{}},
		"no event's source":  {Conversation: group, Event: &Event{Source: SourceMembers, Kind: chat.KindMessage}},
		"no kind":            {Conversation: group, Event: &Event{Source: SourceLog}},
		"nobody's hint":      {Conversation: group, Hint: &Hint{Seq: 1}},
	} {
		w := NewWriter(io.Discard, Header{})
		w.Write(r)
		if w.Err() == nil {
			t.Errorf("%s: was written", name)
		}
	}
}

func TestWriter_NamesFaultsAndWaits(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out, Header{})
	a, b := w.Break("kill ingest"), w.Break("cut redis")
	w.Mended(b, time.Second)
	w.Mended(a, 0)
	if a == b {
		t.Error("two faults have one name")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(out.Bytes(), []byte(`"fault_end":{"id":2,"allowed":1000000000}`)); n != 1 {
		t.Errorf("the end of the second fault stands there %d times in %s", n, out.Bytes())
	}
}

func TestBodyOf_SeesContentNotForm(t *testing.T) {
	a, b := BodyOf([]byte(`{"text":"<3","a":1}`)), BodyOf([]byte(` { "a":1, "text":"<3"}`))
	if a != b || len(a) != 16 {
		t.Errorf("one content has the fingerprints %q and %q", a, b)
	}
	if a == BodyOf([]byte(`{"text":"<4","a":1}`)) {
		t.Error("two contents have one fingerprint")
	}
	if BodyOf(nil) != "" || BodyOf([]byte("no object")) == "" {
		t.Error("no content has a fingerprint, or what is no object has none")
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
