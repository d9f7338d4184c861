package heads

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

var quiet = slog.New(slog.DiscardHandler)

// rig is a broker with the topics, a producer, and a follower that has begun.
type rig struct {
	t        *testing.T
	producer *kgo.Client
	follower *Follower
	stop     func() // ends what run began
}

func newRig(t *testing.T, prepare func(*Follower)) *rig {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cfg := kafka.DefaultConfig()
	cfg.Brokers, cfg.Partitions, cfg.Replication, cfg.MinInSync = cluster.ListenAddrs(), 2, 1, 1
	producer, err := cfg.NewProducer("test", quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(producer.Close)
	if err := kafka.EnsureTopics(t.Context(), producer, cfg); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, producer: producer, follower: New(cfg, quiet, "test")}
	if prepare != nil {
		prepare(r.follower)
	}
	r.run()
	t.Cleanup(func() { r.stop() })
	select {
	case <-r.follower.Started():
	case <-time.After(10 * time.Second):
		t.Fatal("the follower did not begin")
	}
	return r
}

// run lets the follower run.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.follower.Run(ctx) }()
	r.stop = func() { cancel(); <-done }
}

// forget removes what im.notify has, as retention does.
func (r *rig) forget(ctx context.Context) {
	r.t.Helper()
	adm := kadm.NewClient(r.producer)
	ends, err := adm.ListEndOffsets(ctx, kafka.TopicNotify)
	if err == nil {
		_, err = adm.DeleteRecords(ctx, ends.Offsets())
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) tell(n chat.Notify) {
	r.t.Helper()
	err := r.producer.ProduceSync(r.t.Context(), &kgo.Record{Topic: kafka.TopicNotify, Key: []byte(n.Conversation.String()), Value: wire.EncodeNotify(&n)}).FirstErr()
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestFollower_WakesWhoWaitsForANumber(t *testing.T) {
	r := newRig(t, nil)
	c := chat.GroupConversation(5)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 2)
	for _, seq := range []int64{2, 3} {
		go func() { done <- r.follower.WaitFor(ctx, c, seq) }()
	}
	r.tell(chat.Notify{Conversation: c, MaxSeq: 3, Ordinal: 1})
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if h, known := r.follower.Head(c); !known || h != (Head{3, 1}) {
		t.Fatalf("the head is %+v", h)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.follower.WaitFor(short, c, 4); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("waiting for what does not come ended with %v", err)
	}
}

func TestFollower_TellsThoseWhoRememberBeforeItWakesOrIsFresh(t *testing.T) {
	telling, told := make(chan struct{}), make(chan struct{})
	r := newRig(t, func(f *Follower) {
		f.Subscribe(func(chat.Notify) {
			close(telling)
			<-told
		})
	})
	c := chat.GroupConversation(5)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	woken := make(chan error, 1)
	go func() { woken <- r.follower.WaitFor(ctx, c, 3) }()
	r.tell(chat.Notify{Conversation: c, MaxSeq: 3})
	select {
	case <-telling:
	case <-ctx.Done():
		t.Fatal("nobody was told")
	}
	r.follower.mu.Lock()
	read := r.follower.next[0] + r.follower.next[1]
	r.follower.mu.Unlock()
	if _, known := r.follower.Head(c); known || read != 0 {
		t.Errorf("a cache has not dropped what is untrue yet, and it counts as read: head %v, %d read", known, read)
	}
	close(told)
	if err := <-woken; err != nil {
		t.Fatal(err)
	}
	if h, known := r.follower.Head(c); !known || h.MaxSeq != 3 {
		t.Fatalf("the head is %+v", h)
	}
}

// Whoever was away for longer than im.notify keeps does not know what has changed. Those who remember something are told when
// the place is known from which on everything is heard: what they began before that may have missed something as well.
func TestFollower_TellsOfWhatWasMissedOnceItKnowsWhereItBeginsAgain(t *testing.T) {
	var gaps atomic.Int64
	knew := make(chan bool, 1)
	r := newRig(t, func(f *Follower) {
		f.OnGap(func() {
			gaps.Add(1)
			f.mu.Lock()
			defer f.mu.Unlock()
			knew <- len(f.next) == f.cfg.Partitions && time.Since(f.confirmed) > staleAfter
		})
	})
	c := chat.GroupConversation(5)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r.tell(chat.Notify{Conversation: c, MaxSeq: 1})
	if err := r.follower.WaitFor(ctx, c, 1); err != nil {
		t.Fatal(err)
	}
	r.stop()
	for i := range int64(5) {
		r.tell(chat.Notify{Conversation: c, MaxSeq: i + 2})
	}
	r.forget(ctx)
	r.run()
	select {
	case known := <-knew:
		if !known {
			t.Error("it was told before it was known from where on everything is heard")
		}
	case <-ctx.Done():
		t.Fatal("nobody was told")
	}
	if _, known := r.follower.Head(c); known {
		t.Error("what is remembered is still trusted")
	}
	// From here on everything is heard.
	r.tell(chat.Notify{Conversation: c, MaxSeq: 7})
	if err := r.follower.WaitFor(ctx, c, 7); err != nil {
		t.Fatal(err)
	}
	for !r.follower.Fresh() {
		select {
		case <-ctx.Done():
			t.Fatal("it is not fresh again")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if n := gaps.Load(); n != 1 {
		t.Errorf("it was told %d times", n)
	}
}
