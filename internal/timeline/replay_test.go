package timeline

import (
	"strings"
	"testing"

	"tideline/internal/sqlstore"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

func TestReplayer_PutsBackWhatCanBeStoredNowAndTellsOfIt(t *testing.T) {
	r := newRig(t)
	r.start()
	r.events(r.create())
	parked := r.message() // what was wrong with it was the store's fault, and has been mended
	parked.Message.Mentions = &chat.Mentions{UserIDs: []chat.UserID{2}}
	hopeless := r.message()
	hopeless.ClientMsgID = strings.Repeat("x", chat.MaxClientMsgIDBytes+1)
	r.log([]byte{1}, []byte{2}, []byte{3}) // they take the places of the parked ones in the log
	r.until("they are parked", func() bool { return len(r.parked()) == 3 })
	for i, e := range []chat.Event{parked, hopeless} {
		old := r.parked()[i]
		if err := r.store.Unpark(t.Context(), old.Topic, old.Partition, old.Offset); err != nil {
			t.Fatal(err)
		}
		old.Record = wire.EncodeEvent(&e)
		if err := r.store.Park(t.Context(), old); err != nil {
			t.Fatal(err)
		}
	}
	r.events(r.message())
	r.until("the writer has passed them", func() bool { return r.told(4) })

	// The writer goes on meanwhile: the position moves under the replayer's hands.
	writing := make(chan struct{})
	more := make([]chat.Event, 50)
	for i := range more {
		more[i] = r.message()
	}
	go func() {
		defer close(writing)
		for i := range more {
			r.events(more[i])
		}
	}()
	done, err := NewReplayer(r.store, r.marks, r.producer, quiet).Run(t.Context())
	<-writing
	if err != nil || done != (Replayed{Stored: 1, Left: 2}) {
		t.Fatalf("%+v, %v", done, err)
	}
	r.until("all is told", func() bool { return r.told(54) })
	rows := r.rows()
	if len(rows) != 53 || rows[1].Seq != 2 || rows[2].Seq != 4 {
		t.Fatalf("%d rows, the second is %d", len(rows), rows[1].Seq)
	}
	changed := false
	for _, n := range r.hints() {
		for _, seq := range n.ChangedSeqs {
			changed = changed || seq == 2 && n.MaxSeq >= 4
		}
	}
	if !changed {
		t.Fatal("nobody was told that number 2 is there now")
	}
	if _, invalidated := r.marks.counts(); invalidated == 0 {
		t.Fatal("the fast marks do not know that they missed something")
	}
	if list := r.parked(); len(list) != 2 {
		t.Fatalf("%d stay parked", len(list))
	}
	again, err := NewReplayer(r.store, r.marks, r.producer, quiet).Run(t.Context())
	if err != nil || again.Stored != 0 || len(r.rows()) < 53 {
		t.Fatalf("%+v, %v", again, err)
	}
}

var _ ReplayStore = (*sqlstore.Store)(nil)
