package seq

import (
	"errors"
	"testing"

	"tideline/pkg/chat"
)

// alone is a machine with a group of which user 1 is the owner, who has said one thing.
type alone struct {
	t      *testing.T
	m      *Machine
	hasher *chat.Hasher
	inside int64 // of im.inbound
	out    int64 // of im.messages
	log    []TailRecord
}

var aloneIn = chat.GroupConversation(7)

func newAlone(t *testing.T) *alone {
	t.Helper()
	hasher, err := chat.NewHasher([]byte("a key for the tests"))
	if err != nil {
		t.Fatal(err)
	}
	a := &alone{t: t, hasher: hasher}
	a.m = a.fresh()
	a.do(&chat.Command{Type: chat.KindCreate, ClientMsgID: "create", Create: &chat.Create{Name: "one"}})
	a.do(&chat.Command{Type: chat.KindMessage, ClientMsgID: "first", Message: &chat.Message{Type: chat.TypeCustom, Content: []byte(`{"a":1}`)}})
	return a
}

func (a *alone) fresh() *Machine {
	var id int64
	return New(Config{Hasher: a.hasher, NextID: func() (int64, error) { id++; return id, nil }, WindowIDs: 100, CacheEntries: 100, MaxMembers: 10}, Checkpoint{})
}

func (a *alone) do(c *chat.Command) Outcome {
	a.t.Helper()
	c.Conversation, c.Sender = aloneIn, 1
	b := a.m.Begin([]Record{{Offset: a.inside, Command: c}}, a.inside+1, 1_700_000_000_000)
	a.inside++
	if err := b.Decide(Loaded{Users: []chat.UserID{1}}); err != nil {
		a.t.Fatal(err)
	}
	offsets := make([]int64, len(b.Events()))
	for i, e := range b.Events() {
		offsets[i] = a.out
		a.log = append(a.log, TailRecord{Offset: a.out, Event: *e})
		a.out++
	}
	b.Settle(0, offsets)
	return b.Outcomes[0]
}

var unreadableContents = map[string]string{
	"infinite": `{"a":1e400}`, "key twice": `{"a":1,"a":2}`, "lone surrogate": `{"a":"\ud800"}`,
	"too deep": `{"a":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}`,
}

func TestMachine_RefusesContentThatClientsCannotRead(t *testing.T) {
	for name, text := range unreadableContents {
		t.Run(name, func(t *testing.T) {
			a := newAlone(t)
			for _, c := range []*chat.Command{
				{Type: chat.KindMessage, ClientMsgID: "m", Message: &chat.Message{Type: chat.TypeCustom, Content: []byte(text)}},
				{Type: chat.KindEdit, ClientMsgID: "e", Edit: &chat.Edit{TargetSeq: 2, Content: []byte(text)}},
			} {
				if o := a.do(c); o.Rejection == nil || o.Rejection.Code != chat.CodeInvalidField && o.Rejection.Code != chat.CodeMalformed {
					t.Errorf("a %s became %+v %+v", c.Type, o.Event, o.Rejection)
				}
			}
		})
	}
}

// P3: a version without the rule has numbered it, and its sender asks again.
func TestMachine_AnswersTheRetryOfContentThatWasNumberedBeforeItWasRefused(t *testing.T) {
	for name, text := range unreadableContents {
		t.Run(name, func(t *testing.T) {
			a := newAlone(t)
			command := func() *chat.Command {
				return &chat.Command{Type: chat.KindMessage, Conversation: aloneIn, Sender: 1, ClientMsgID: "old", Message: &chat.Message{Type: chat.TypeCustom, Content: []byte(text)}}
			}
			canonical := command()
			if err := canonical.Validate(); err != nil {
				t.Fatal(err)
			}
			old := chat.Event{
				Conversation: aloneIn, Seq: 3, Ordinal: 2, Kind: chat.KindMessage, MessageID: 9, Sender: 1, ClientMsgID: "old", BodyHash: a.hasher.Hash(canonical), InboundOffset: a.inside,
				Message: canonical.Message,
			}
			if err := a.m.Replay(a.out, &old); err != nil {
				t.Fatal(err)
			}
			a.inside++
			if o := a.do(command()); o.Rejection == nil || o.Rejection.Code != chat.CodeDuplicate || o.Rejection.First.Seq != 3 {
				t.Errorf("the retry became %+v", o.Rejection)
			}
			other := command()
			other.Message.Content = []byte(`{"a":1e401}`)
			if o := a.do(other); o.Rejection == nil || o.Rejection.Code != chat.CodeConflict {
				t.Errorf("another body became %+v", o.Rejection)
			}
		})
	}
}

func TestMachine_DoesNotTakeOverBehindAnUnknownKind(t *testing.T) {
	a := newAlone(t)
	for kind := range 256 {
		err := a.fresh().Replay(0, &chat.Event{Conversation: aloneIn, Seq: 1, Kind: chat.Kind(kind)})
		if known := chat.Kind(kind).IsKnown(); errors.Is(err, ErrUnknownKind) == known {
			t.Errorf("kind %d, which is known: %t, is replayed with %v", kind, known, err)
		}
	}
}

// What a record says of its number outside its value holds for the next owner, whatever comes before and behind it.
func TestMachine_CountsTheNumberOfAnUnreadableRecordAsUsed(t *testing.T) {
	for _, c := range []struct {
		name    string
		numbers []int64 // of unreadable records behind 1 and 2
		real    bool    // the last of them has the number of an event that comes behind it
		next    int64   // 0: there is a contradiction
	}{
		{"Next", []int64{3}, false, 4},
		{"SeveralInARow", []int64{3, 4, 5}, false, 6},
		{"UsedBefore", []int64{1, 2, 2}, false, 3},
		{"GivenAgainByAnOwnerThatHadNotSeenIt", []int64{3}, true, 4},
		{"TwiceAndGivenAgain", []int64{3, 3}, true, 4},
		{"FarAhead", []int64{1000}, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAlone(t)
			former := a.m
			a.m = a.fresh()
			for _, r := range a.log {
				if err := a.m.Replay(r.Offset, &r.Event); err != nil {
					t.Fatal(err)
				}
			}
			var err error
			for _, n := range c.numbers {
				if err = a.m.ReplayUnreadable(a.out, aloneIn, n); err != nil {
					break
				}
				a.out++
			}
			if c.next == 0 {
				if !errors.Is(err, ErrInconsistent) {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.real {
				taker := a.m
				a.m = former
				o := a.do(&chat.Command{Type: chat.KindMessage, ClientMsgID: "real", Message: &chat.Message{Type: chat.TypeText, Content: []byte(`{"text":"hi"}`)}})
				if a.m = taker; o.Event == nil || o.Event.Seq != 3 {
					t.Fatalf("the former owner made %+v", o)
				}
				if err := a.m.Replay(a.out-1, o.Event); err != nil {
					t.Fatal(err)
				}
			}
			o := a.do(&chat.Command{Type: chat.KindMessage, ClientMsgID: "after", Message: &chat.Message{Type: chat.TypeText, Content: []byte(`{"text":"hi"}`)}})
			if o.Event == nil || o.Event.Seq != c.next {
				t.Fatalf("the next is %+v %+v, want %d", o.Event, o.Rejection, c.next)
			}
			want := int64(2)
			if c.real {
				want = 3
			}
			if o.Event.Ordinal != want {
				t.Errorf("its ordinal is %d, want %d", o.Event.Ordinal, want)
			}
			a.m.Confirm(Checkpoint{MessagesNext: a.out})
			if n := a.m.Unconfirmed(); n != 0 {
				t.Errorf("%d stay unconfirmed though the store has everything", n)
			}
		})
	}
}
