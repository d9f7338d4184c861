package seq

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"tideline/internal/schedules"
	"tideline/pkg/chat"
)

// windowWorld is a partition of one private conversation, whose owners come and go, with a store that lags behind, and beside
// them somebody naive who remembers everything.
type windowWorld struct {
	t   *testing.T
	rnd *rand.Rand
	now int64 // of a clock that jumps

	m       *Machine
	events  []chat.Event // the log: the offset is the index
	inbound int64
	stored  int64      // the store has the log up to here
	told    Checkpoint // the newest that the store gave; it may know more than that

	numbered map[string]chat.Event // everything that ever was, by client id
	names    []string              // that were ever used
	body     map[string]int        // of the first try

	// What an owner has to remember, worked out slowly: the ids that the store may lack, those with the highest stamps among the
	// others, and the highest stamp that was let go of or that a predecessor may have let go of.
	limit   int
	pending []string
	kept    []string
	gone    map[int64]bool // the stamps that were let go of
	floor   int64

	asked, spared int
}

var windowConversation = chat.PrivateConversation(11, 12)

func newWindowWorld(t *testing.T, seed uint64) *windowWorld {
	w := &windowWorld{t: t, rnd: rand.New(rand.NewPCG(seed, 3)), now: 1_000_000, numbered: map[string]chat.Event{}, body: map[string]int{}}
	w.takeOver()
	return w
}

// checkpoint gives what the store tells at this moment.
func (w *windowWorld) checkpoint() Checkpoint {
	cp := Checkpoint{MessagesNext: w.stored}
	for i := range w.events[:w.stored] {
		e := &w.events[i]
		cp.InboundNext = max(cp.InboundNext, e.InboundOffset+1)
		cp.HighestStamp = max(cp.HighestStamp, chat.Stamp(e.ClientMsgID))
	}
	return cp
}

// takeOver makes a new owner, with a window of another size than its predecessor's.
func (w *windowWorld) takeOver() {
	hasher, err := chat.NewHasher([]byte("a key for the tests"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.told, w.limit = w.checkpoint(), w.rnd.IntN(6)
	w.m = New(Config{Hasher: hasher, NextID: func() (int64, error) { return int64(len(w.events) + 1), nil }, WindowIDs: w.limit, CacheEntries: 2, MaxMembers: 5}, w.told)
	w.pending, w.kept, w.gone, w.floor = nil, nil, map[int64]bool{}, w.told.HighestStamp
	for i := w.told.MessagesNext; i < int64(len(w.events)); i++ {
		e := w.events[i]
		if err := w.m.Replay(i, &e); err != nil {
			w.t.Fatal(err)
		}
		if e.Kind != chat.KindProgress {
			w.pending = append(w.pending, e.ClientMsgID)
			w.floor = max(w.floor, chat.Stamp(e.ClientMsgID))
		}
	}
	if w.m.Resume() != w.settledInbound() {
		w.t.Fatalf("the owner goes on at %d, the log at %d", w.m.Resume(), w.settledInbound())
	}
	w.inbound = w.m.Resume()
}

func (w *windowWorld) settledInbound() int64 {
	if n := len(w.events); n > 0 {
		return w.events[n-1].InboundOffset + 1
	}
	return 0
}

// confirm lets the owner hear how far the store was a while ago, and lets the naive one forget what it may.
func (w *windowWorld) confirm() {
	cp := w.checkpoint()
	if cp.MessagesNext > w.told.MessagesNext && w.rnd.IntN(2) == 0 {
		cp.MessagesNext = w.told.MessagesNext + w.rnd.Int64N(cp.MessagesNext-w.told.MessagesNext+1)
	}
	w.m.Confirm(cp)
	for i := w.told.MessagesNext; i < cp.MessagesNext; i++ {
		id := w.events[i].ClientMsgID
		if w.events[i].Kind == chat.KindProgress {
			continue
		}
		w.pending = w.pending[1:]
		if chat.Stamp(id) == 0 {
			continue
		}
		w.kept = append(w.kept, id)
	}
	w.told.MessagesNext = cp.MessagesNext
	slices.SortFunc(w.kept, func(a, b string) int { return int(chat.Stamp(a) - chat.Stamp(b)) })
	for len(w.kept) > w.limit {
		lowest := chat.Stamp(w.kept[0])
		w.floor, w.gone[lowest] = max(w.floor, lowest), true
		w.kept = w.kept[1:]
	}
	if n := len(w.m.window.ids); n > w.limit+len(w.pending) {
		w.t.Fatalf("%d ids are in memory, with a window of %d and %d that the store may lack", n, w.limit, len(w.pending))
	}
}

// name makes a client id that is new: without a stamp, with one of the past, of about now, or of the future; many share one.
func (w *windowWorld) name() string {
	stamp := w.now
	switch w.rnd.IntN(6) {
	case 0:
		return fmt.Sprintf("plain-%d", len(w.names))
	case 1:
		stamp -= w.rnd.Int64N(500_000)
	case 2:
		stamp += w.rnd.Int64N(500_000)
	case 3:
		stamp = w.now / 1000 * 1000
	default:
		stamp -= w.rnd.Int64N(2000)
	}
	stamp = max(stamp, 1)
	return fmt.Sprintf("%08x-%04x-7000-8000-%012x", stamp>>16, stamp&0xffff, len(w.names))
}

// tries makes records, of which some repeat what was said before, near or far back, with the same body or another.
func (w *windowWorld) tries() []Record {
	var records []Record
	for range 1 + w.rnd.IntN(6) {
		var id string
		body := 0
		if len(w.names) > 0 && w.rnd.IntN(2) == 0 {
			at := w.rnd.IntN(len(w.names))
			if w.rnd.IntN(2) == 0 {
				at = max(0, len(w.names)-1-w.rnd.IntN(4))
			}
			id = w.names[at]
			if body = w.body[id]; w.rnd.IntN(4) == 0 {
				body++
			}
		} else {
			id = w.name()
			w.names = append(w.names, id)
		}
		content, _ := json.Marshal(map[string]string{"text": fmt.Sprint("body ", body)})
		records = append(records, Record{Offset: w.inbound, Command: &chat.Command{
			Type: chat.KindMessage, Conversation: windowConversation, Sender: 11, ClientMsgID: id, Message: &chat.Message{Type: chat.TypeText, Content: content},
		}})
		w.inbound++
	}
	return records
}

// mustAsk tells whether the store has to be asked about an id: nobody remembers it, and no rule says that it is new.
func (w *windowWorld) mustAsk(id string) bool {
	stamp := chat.Stamp(id)
	return !slices.Contains(w.pending, id) && !slices.Contains(w.kept, id) && (stamp == 0 || stamp > w.now || stamp <= w.floor)
}

// tied tells whether an id with the same stamp was let go of: of several with one stamp, it may have been any.
func (w *windowWorld) tied(id string) bool {
	return w.gone[chat.Stamp(id)] && !slices.Contains(w.pending, id)
}

// load answers as the store does: it knows at least what it told to know.
func (w *windowWorld) load(need Need, records []Record) Loaded {
	want := map[string]bool{}
	for _, r := range records {
		if w.mustAsk(r.Command.ClientMsgID) {
			want[r.Command.ClientMsgID] = true
		} else {
			w.spared++
		}
	}
	var out Loaded
	for _, k := range need.ClientIDs {
		if !want[k.ID] && !w.tied(k.ID) {
			w.t.Fatalf("the store is asked about %s, which need not be", k.ID)
		}
		delete(want, k.ID)
		w.asked++
		for i := range w.events[:w.stored] {
			if e := &w.events[i]; e.ClientMsgID == k.ID {
				out.ClientIDs = append(out.ClientIDs, Numbered{ClientID: k, FirstEvent: firstOf(e), Hash: e.BodyHash})
			}
		}
	}
	for id := range want {
		if w.tied(id) {
			continue
		}
		w.t.Fatalf("the store is not asked about %s", id)
	}
	out.Users = need.Users
	for range need.Conversations {
		row := Conversation{ID: windowConversation}
		for i := range w.events[:w.stored] {
			if e := &w.events[i]; e.Kind != chat.KindProgress {
				row.MaxSeq, row.Ordinal = e.Seq, e.Ordinal
			}
		}
		out.Conversations = append(out.Conversations, row)
	}
	return out
}

// work numbers a batch; the owner may die before it is written, in the middle of it, or before it is noted.
func (w *windowWorld) work() {
	records := w.tries()
	for len(records) > 0 {
		b := w.m.Begin(records, records[len(records)-1].Offset+1, w.now)
		if err := b.Decide(w.load(b.Need(), records)); err != nil {
			w.t.Fatal(err)
		}
		if w.rnd.IntN(12) == 0 {
			w.takeOver() // nothing of it was written
			return
		}
		for _, o := range b.Outcomes {
			w.judge(&o)
		}
		var offsets []int64
		for _, e := range b.Events() {
			offsets = append(offsets, int64(len(w.events)))
			w.events = append(w.events, *e)
			if e.Kind != chat.KindProgress {
				w.numbered[e.ClientMsgID] = *e
				w.pending = append(w.pending, e.ClientMsgID)
			}
		}
		if w.rnd.IntN(12) == 0 {
			w.takeOver() // written, and nobody noted it
			return
		}
		b.Settle(0, offsets)
		records = b.Rest
	}
}

func (w *windowWorld) judge(o *Outcome) {
	id := o.Record.Command.ClientMsgID
	first, before := w.numbered[id]
	switch {
	case o.Event != nil && before:
		w.t.Fatalf("%s was numbered %d, and is now numbered %d", id, first.Seq, o.Event.Seq)
	case o.Event != nil:
	case !before:
		w.t.Fatalf("%s was never numbered, and is refused: %s %s", id, o.Rejection.Code, o.Rejection.Message)
	case o.Rejection.First == nil || *o.Rejection.First != firstOf(&first):
		w.t.Fatalf("%s is said to be %+v, and was %d", id, o.Rejection.First, first.Seq)
	default:
		want := chat.CodeDuplicate
		if w.m.config.Hasher.Hash(o.Record.Command) != first.BodyHash {
			want = chat.CodeConflict
		}
		if o.Rejection.Code != want {
			w.t.Fatalf("%s is refused as %s, want %s", id, o.Rejection.Code, want)
		}
	}
}

// TestWindow_NumbersNothingTwiceAndAsksOnlyWhereItMust holds the machine to somebody who remembers everything, over clocks that
// jump, stamps of any time, windows of any size, owners that die at any point and a store that lags.
func TestWindow_NumbersNothingTwiceAndAsksOnlyWhereItMust(t *testing.T) {
	asked, spared := 0, 0
	schedules.Run(t, func(t *testing.T, seed uint64) {
		w := newWindowWorld(t, seed)
		for range 40 {
			switch w.rnd.IntN(8) {
			case 0:
				w.stored += w.rnd.Int64N(int64(len(w.events)) - w.stored + 1)
			case 1, 2:
				w.confirm()
			case 3:
				if w.now += w.rnd.Int64N(1000); w.rnd.IntN(3) == 0 {
					w.now = max(1, w.now+w.rnd.Int64N(1_000_000)-500_000)
				}
			case 4:
				if w.rnd.IntN(4) == 0 {
					w.takeOver()
				}
			default:
				w.work()
			}
		}
		for i, last := 0, int64(0); i < len(w.events); i++ {
			if e := &w.events[i]; e.Kind != chat.KindProgress {
				if last++; e.Seq != last || e.Ordinal != last {
					t.Fatalf("%d (ordinal %d) stands where %d belongs", e.Seq, e.Ordinal, last)
				}
			}
		}
		asked, spared = asked+w.asked, spared+w.spared
	})
	if !t.Failed() && (asked == 0 || spared == 0) {
		t.Fatal(errors.New("no schedule tried both roads"))
	}
	t.Logf("the store was asked %d times, and was spared %d times", asked, spared)
}
