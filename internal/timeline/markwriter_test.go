package timeline

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// startMarks runs a mark writer; the function that it gives stops it and waits.
func (r *rig) startMarks() (stop func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	w := NewMarkWriter(r.cfg, r.store, r.marks, quiet, NewMetrics(prometheus.NewRegistry()), "marks")
	go func() { done <- w.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			r.t.Errorf("the mark writer ended with %v", err)
		}
	})
	r.t.Cleanup(stop)
	return stop
}

func (r *rig) reads(seq int64) {
	r.t.Helper()
	m := chat.ReadMark{User: 2, Conversation: group, Seq: seq, At: 1_700_000_000_000 + seq}
	if err := r.producer.ProduceSync(r.t.Context(), &kgo.Record{Topic: kafka.TopicReceipts, Key: []byte("2"), Value: wire.EncodeReadMark(&m)}).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) marksAt(next int64) func() bool {
	return func() bool {
		at, err := r.store.MarkPositions(r.t.Context(), []int32{0})
		if err != nil {
			r.t.Fatal(err)
		}
		return at[0] >= next
	}
}

func (r *rig) missed() bool {
	r.t.Helper()
	noted, err := r.store.MarksMissed(r.t.Context(), []int32{0})
	if err != nil {
		r.t.Fatal(err)
	}
	return noted[0]
}

func TestMarkWriter_RaisesFastMarksAndInvalidatesNothingWhileRedisAnswers(t *testing.T) {
	r := newRig(t)
	stop := r.startMarks()
	r.reads(1)
	r.reads(2)
	r.until("both marks are durable", r.marksAt(2))
	stop()
	if r.marks.raised != 2 || r.marks.invalidated != 0 || r.missed() {
		t.Errorf("%d marks were raised, the sets were invalidated %d times, missed: %t", r.marks.raised, r.marks.invalidated, r.missed())
	}
}

func TestMarkWriter_InvalidatesFastMarksThatMissedSomethingOnceRedisAnswers(t *testing.T) {
	r := newRig(t)
	r.startMarks()
	r.marks.be(true)
	r.reads(1)
	r.until("the mark is durable though Redis is away", r.marksAt(1))
	if !r.missed() {
		t.Fatal("the position moved past a mark that Redis missed, and nothing says so")
	}
	r.marks.be(false)
	r.until("the sets are invalidated", func() bool { _, n := r.marks.counts(); return n > 0 })
	r.until("nothing is noted any more", func() bool { return !r.missed() })
}

func TestMarkWriter_MakesGoodWhatItsPredecessorNoted(t *testing.T) {
	r := newRig(t)
	stop := r.startMarks()
	r.marks.be(true)
	r.reads(1)
	r.until("the mark is durable though Redis is away", r.marksAt(1))
	stop()
	r.marks.be(false)
	r.startMarks()
	r.until("the successor invalidates the sets", func() bool { _, n := r.marks.counts(); return n > 0 })
	r.until("nothing is noted any more", func() bool { return !r.missed() })
}
