package timeline

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/servers"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	core "tideline/pkg/timeline"
)

func TestMain(m *testing.M) {
	code := m.Run()
	servers.Stop()
	os.Exit(code)
}

// newFencedRig is a rig whose log is written in transactions, by an owner that is the test.
func newFencedRig(t *testing.T) (*rig, *kgo.Client) {
	t.Helper()
	cfg := kafka.DefaultConfig()
	cfg.SessionTimeout = time.Second
	r := newRigOn(t, cfg, servers.StartKafka(t).Addr)
	owner, err := r.cfg.NewOwnerProducer("test", "tideline-ingest-0", quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(owner.Close)
	return r, owner
}

// transaction writes values to a topic as an owner does.
func (r *rig) transaction(owner *kgo.Client, topic string, values ...[]byte) {
	r.t.Helper()
	if err := owner.BeginTransaction(); err != nil {
		r.t.Fatal(err)
	}
	for _, v := range values {
		if err := owner.ProduceSync(r.t.Context(), &kgo.Record{Topic: topic, Value: v}).FirstErr(); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := owner.EndTransaction(r.t.Context(), kgo.TryCommit); err != nil {
		r.t.Fatal(err)
	}
}

// empty does what retention does to a partition in which nothing is said for long, once it ends at an offset.
func (r *rig) empty(topic string, end int64) {
	r.t.Helper()
	bounds := func() (int64, int64) {
		start, end, err := kafka.Bounds(r.t.Context(), r.cfg, "test", quiet, topic, 0)
		if err != nil {
			r.t.Fatal(err)
		}
		return start, end
	}
	r.until("the marker is written", func() bool { _, is := bounds(); return is == end })
	admin, err := r.cfg.NewAdmin("test", quiet)
	if err != nil {
		r.t.Fatal(err)
	}
	defer admin.Close()
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, 0, end, -1)
	answers, err := kadm.NewClient(admin).DeleteRecords(r.t.Context(), offsets)
	if err = errors.Join(err, answers.Error()); err != nil {
		r.t.Fatal(err)
	}
	if start, is := bounds(); start != end || is != end {
		r.t.Fatalf("the log goes from %d to %d", start, is)
	}
}

func (r *rig) position() core.Position {
	r.t.Helper()
	at, err := r.store.Positions(r.t.Context(), []int32{0})
	if err != nil {
		r.t.Fatal(err)
	}
	return at[0]
}

func TestWriter_GoesOnWhereRetentionHasEmptiedAnIdlePartition(t *testing.T) {
	r, owner := newFencedRig(t)
	stop := r.start()
	create, hello := r.create(), r.message()
	r.transaction(owner, kafka.TopicMessages, wire.EncodeEvent(&create), wire.EncodeEvent(&hello))
	r.until("the position is behind the marker", func() bool { return r.position().MessagesNext == 3 })
	stop()
	r.empty(kafka.TopicMessages, 3)
	r.start()
	more := r.message()
	r.transaction(owner, kafka.TopicMessages, wire.EncodeEvent(&more))
	r.until("what was said since is stored", func() bool { return len(r.rows()) == 3 })
	if n := testutil.ToFloat64(r.metrics.stuck); n != 0 {
		t.Errorf("%v alarms, and nothing was lost", n)
	}
}

// Versions that did not count markers left positions right behind the last record.
func TestWriter_GoesOnFromAPositionBeforeAMarkerThatRetentionRemoved(t *testing.T) {
	r, owner := newFencedRig(t)
	create, more := r.create(), r.message()
	r.transaction(owner, kafka.TopicMessages, wire.EncodeEvent(&create))
	if _, err := r.store.Apply(t.Context(), core.Position{}, core.Position{MessagesNext: 1, InboundNext: 2}, []core.Entry{{Event: create}}); err != nil {
		t.Fatal(err)
	}
	r.empty(kafka.TopicMessages, 2)
	r.start()
	r.until("the position is behind the marker", func() bool { return r.position().MessagesNext == 2 })
	r.transaction(owner, kafka.TopicMessages, wire.EncodeEvent(&more))
	r.until("what was said since is stored", func() bool { return len(r.rows()) == 2 })
}

func TestWriter_StopsLoudlyWhereRetentionHasRemovedARecord(t *testing.T) {
	r, owner := newFencedRig(t)
	create, lost := r.create(), r.message()
	r.transaction(owner, kafka.TopicMessages, wire.EncodeEvent(&create))
	r.transaction(owner, kafka.TopicMessages, wire.EncodeEvent(&lost))
	if _, err := r.store.Apply(t.Context(), core.Position{}, core.Position{MessagesNext: 1}, []core.Entry{{Event: create}}); err != nil {
		t.Fatal(err)
	}
	r.empty(kafka.TopicMessages, 4)
	r.start()
	r.until("it is told", func() bool { return testutil.ToFloat64(r.metrics.stuck) > 0 })
	if at := r.position().MessagesNext; at != 1 {
		t.Errorf("the position was moved to %d over a record that was lost", at)
	}
}

func TestRejectionRecorder_DoesNotCallAMarkerALoss(t *testing.T) {
	r, owner := newFencedRig(t)
	metrics := NewMetrics(prometheus.NewRegistry())
	start := func() (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = NewRejectionRecorder(r.cfg, r.store, quiet, metrics, "recorder").Run(ctx)
		}()
		stop = func() { cancel(); <-done }
		t.Cleanup(stop)
		return stop
	}
	at := func(want int64) func() bool {
		return func() bool {
			positions, err := r.store.RejectionPositions(t.Context(), []int32{0})
			return err == nil && positions[0] == want
		}
	}
	rejection := wire.EncodeRejection(&chat.Rejection{Code: chat.CodeMalformed})
	stop := start()
	r.transaction(owner, kafka.TopicRejected, rejection)
	r.until("the position is behind the marker", at(2))
	stop()
	r.empty(kafka.TopicRejected, 2)
	start()
	r.transaction(owner, kafka.TopicRejected, rejection)
	r.until("the position is behind the next marker", at(4))
	if n := testutil.ToFloat64(metrics.stuck); n != 0 {
		t.Errorf("%v alarms, and nothing was lost", n)
	}
}
