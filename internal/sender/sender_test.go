package sender

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tideline/internal/ingest"
	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/seq"
)

const patience = 20 * time.Second

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// fakeStore answers what the test says; safe for concurrent use.
type fakeStore struct {
	mu          sync.Mutex // guards what follows
	asked       int
	outcome     func(ctx context.Context, asked int) (*seq.Numbered, *chat.Rejection, error)
	checkpoints func() (map[int32]seq.Checkpoint, error)
}

func (f *fakeStore) Outcome(ctx context.Context, _ chat.ConversationID, _ chat.UserID, _ string) (*seq.Numbered, *chat.Rejection, error) {
	f.mu.Lock()
	f.asked++
	n, answer := f.asked, f.outcome
	f.mu.Unlock()
	if answer == nil {
		return nil, nil, nil
	}
	return answer(ctx, n)
}

func (f *fakeStore) Checkpoints(context.Context, []int32) (map[int32]seq.Checkpoint, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.checkpoints == nil {
		return map[int32]seq.Checkpoint{}, nil
	}
	return f.checkpoints()
}

func (f *fakeStore) times() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// rig is a sender on a broker and a Redis that speak the real protocols.
type rig struct {
	*Sender
	broker *kfake.Cluster
	redis  *miniredis.Miniredis
	store  *fakeStore
}

func newRig(t *testing.T, change func(*Config), opts ...kgo.Opt) *rig {
	t.Helper()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, kafka.TopicInbound))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	kc := kafka.DefaultConfig()
	kc.Brokers, kc.Partitions = broker.ListenAddrs(), 1
	producer, err := kc.NewProducer("tests", quiet, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(producer.Close)
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	cfg := DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	store := &fakeStore{}
	return &rig{New(cfg, kc, producer, client, store, hasher(t), quiet, NewMetrics(prometheus.NewRegistry()), "me"), broker, server, store}
}

// running runs the sender until the test ends, and returns once it hears what is told to its instance.
func (r *rig) running(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	until(t, "it listens", func() bool {
		return r.redis.PubSubNumSub(ingest.OutcomeChannel("me"))[ingest.OutcomeChannel("me")] == 1
	})
}

func until(t *testing.T, what string, met func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !met() {
		select {
		case <-deadline:
			t.Fatalf("waited %s until %s", patience, what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func hasher(t *testing.T) *chat.Hasher {
	t.Helper()
	h, err := chat.NewHasher([]byte("a key for the tests"))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func command(id string) *chat.Command {
	return &chat.Command{
		Type: chat.KindMessage, Conversation: chat.GroupConversation(7), Sender: 11, ClientMsgID: id,
		Message: &chat.Message{Type: chat.TypeText, Content: []byte(`{"text":"hello"}`)},
	}
}

func (r *rig) begin(t *testing.T, id string) *Pending {
	t.Helper()
	p, err := r.Begin(t.Context(), command(id))
	if err != nil {
		t.Fatalf("%s was not begun: %v", id, err)
	}
	return p
}

func (r *rig) tell(instance string, outcomes ...wire.Outcome) {
	r.redis.Publish(ingest.OutcomeChannel(instance), string(wire.EncodeOutcomes(outcomes)))
}

func mustBe(t *testing.T, err error, code chat.Code) chat.Error {
	t.Helper()
	var refusal *chat.Error
	if !errors.As(err, &refusal) || refusal.Code != code {
		t.Fatalf("the answer is %v, not %s", err, code)
	}
	return *refusal
}

func TestSender_GivesEachWaiterItsOwnOutcome(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Wait = time.Minute })
	r.running(t)
	a, b, c, d := r.begin(t, "a"), r.begin(t, "b"), r.begin(t, "c"), r.begin(t, "d")
	// What another instance is told carries the same request numbers, what nobody can read must not end the listening, and
	// an outcome for nobody is one whose waiter has left.
	r.tell("other", wire.Outcome{Request: a.request, First: chat.FirstEvent{Seq: 99}})
	r.redis.Publish(ingest.OutcomeChannel("me"), "\xff\xff no outcomes")
	r.redis.Publish(ingest.OutcomeChannel("me"), "")
	r.tell("me",
		wire.Outcome{Request: 1 << 40, First: chat.FirstEvent{Seq: 98}},
		wire.Outcome{Request: b.request, First: chat.FirstEvent{Seq: 2, MessageID: 22, SentAt: 222}, Duplicate: true},
		wire.Outcome{Request: a.request, First: chat.FirstEvent{Seq: 1}},
		wire.Outcome{Request: c.request, Refused: chat.CodeMuted, Message: "100%s quiet", Field: "sender_id"},
		wire.Outcome{Request: d.request, Refused: chat.CodeConflict, First: chat.FirstEvent{Seq: 5}},
	)
	if o, err := a.Wait(t.Context()); err != nil || !o.Numbered || o.Duplicate || o.First.Seq != 1 {
		t.Errorf("a: %+v, %v", o, err)
	}
	if o, err := b.Wait(t.Context()); err != nil || !o.Numbered || !o.Duplicate || o.First != (chat.FirstEvent{Seq: 2, MessageID: 22, SentAt: 222}) {
		t.Errorf("b: %+v, %v", o, err)
	}
	_, err := c.Wait(t.Context())
	if refusal := mustBe(t, err, chat.CodeMuted); refusal.Message != "100%s quiet" || refusal.Field != "sender_id" {
		t.Errorf("c is told %+v", refusal)
	}
	if o, err := d.Wait(t.Context()); chat.CodeOf(err) != chat.CodeConflict || o.First.Seq != 5 {
		t.Errorf("d: %+v, %v", o, err)
	}
	// The same outcome again, for those who have left.
	r.tell("me", wire.Outcome{Request: a.request, First: chat.FirstEvent{Seq: 1}})
	e := r.begin(t, "e")
	r.tell("me", wire.Outcome{Request: e.request, First: chat.FirstEvent{Seq: 6}})
	if o, err := e.Wait(t.Context()); err != nil || o.First.Seq != 6 {
		t.Errorf("e, behind a late outcome: %+v, %v", o, err)
	}
	if len(r.waiting) != 0 {
		t.Errorf("%d waiters are remembered, and nobody waits", len(r.waiting))
	}
}

func TestSender_KeepsAnOutcomeThatComesBeforeTheWait(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Wait = time.Minute })
	r.running(t)
	p := r.begin(t, "early")
	r.tell("me", wire.Outcome{Request: p.request, First: chat.FirstEvent{Seq: 3}})
	until(t, "the outcome is there", func() bool { return len(p.outcome) == 1 })
	if o, err := p.Wait(t.Context()); err != nil || o.First.Seq != 3 {
		t.Errorf("%+v, %v", o, err)
	}
	if r.store.times() != 0 {
		t.Error("the store was asked for what was told")
	}
}

func TestSender_AsksTheStoreWhileRedisIsAway(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Wait = time.Minute })
	r.redis.Close()
	now := time.Now().UnixMilli()
	r.store.outcome = func(_ context.Context, asked int) (*seq.Numbered, *chat.Rejection, error) {
		switch asked {
		case 1:
			return nil, nil, errors.New("the store hiccups")
		case 2:
			return nil, nil, nil
		}
		return &seq.Numbered{FirstEvent: chat.FirstEvent{Seq: 8, SentAt: now + 1000}, Hash: r.hasher.Hash(command(""))}, nil, nil
	}
	o, err := r.Send(t.Context(), command("a"))
	if err != nil || !o.Numbered || o.Duplicate || o.First.Seq != 8 || r.store.times() != 3 {
		t.Errorf("%+v, %v after the store was asked %d times", o, err, r.store.times())
	}
}

func TestSender_TakesOnABoundedNumber(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxInFlight, c.Wait = 2, time.Minute })
	r.running(t)
	a, b := r.begin(t, "a"), r.begin(t, "b")
	_, err := r.Begin(t.Context(), command("c"))
	if refusal := mustBe(t, err, chat.CodeOverloaded); refusal.RetryAfter <= 0 {
		t.Error("it does not say when to come back")
	}
	r.tell("me", wire.Outcome{Request: a.request, First: chat.FirstEvent{Seq: 1}})
	if _, err := a.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.begin(t, "d")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = b.Wait(ctx)
	mustBe(t, err, chat.CodeTimeout) // who hangs up gives the place back too
	r.begin(t, "e")
	if _, err := r.Begin(t.Context(), command("f")); chat.CodeOf(err) != chat.CodeOverloaded {
		t.Errorf("a third one is taken on: %v", err)
	}
}

func TestSender_FailsAtOnceWhenTheBufferIsFull(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Wait = time.Minute }, kgo.MaxBufferedRecords(1))
	held := make(chan struct{})
	r.broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		r.broker.KeepControl()
		<-held
		return nil, nil, false
	})
	t.Cleanup(func() { close(held) })
	r.begin(t, "first")
	begun := make(chan *Pending, 1)
	go func() {
		p, err := r.Begin(context.Background(), command("second"))
		if err != nil {
			t.Error(err)
		}
		begun <- p
	}()
	select {
	case p := <-begun:
		_, err := p.Wait(t.Context())
		if refusal := mustBe(t, err, chat.CodeUnavailable); refusal.RetryAfter <= 0 {
			t.Error("it does not say when to come back")
		}
	case <-time.After(5 * time.Second): // well under the 10 s after which the first one is given up
		t.Error("a request waits for a place in the buffer, past its own deadline")
	}
}

func TestSender_SaysThatKafkaDoesNotTakeIt(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Wait = time.Minute })
	p := r.begin(t, "a")
	if err := <-p.written; err != nil { // the broker has it; what follows is a broker that had not
		t.Fatal(err)
	}
	p.written <- errors.New("not enough replicas")
	_, err := p.Wait(t.Context())
	mustBe(t, err, chat.CodeUnavailable)
}

func TestSender_RefusesPastTheBoundBeforeItProduces(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxLag, c.Wait = 3, time.Minute })
	r.store.checkpoints = func() (map[int32]seq.Checkpoint, error) { return map[int32]seq.Checkpoint{0: {InboundNext: 0}}, nil }
	for _, id := range []string{"a", "b", "c", "d"} {
		if err := <-r.begin(t, id).written; err != nil {
			t.Fatal(err)
		}
	}
	r.running(t)
	refused := func() bool {
		_, err := r.Begin(t.Context(), command("e"))
		return chat.CodeOf(err) == chat.CodeOverloaded
	}
	until(t, "4 that wait are too many for 3", func() bool { return r.lag[0].Load() == 4 })
	if !refused() {
		t.Error("a fifth one is produced")
	}
	r.store.mu.Lock()
	r.store.checkpoints = func() (map[int32]seq.Checkpoint, error) { return map[int32]seq.Checkpoint{0: {InboundNext: 4}}, nil }
	r.store.mu.Unlock()
	until(t, "the store has caught up", func() bool { return r.lag[0].Load() == 0 })
	if refused() {
		t.Error("it goes on refusing when nothing waits")
	}
}

// A store that is away is when the bound is needed: what it said last counts on.
func TestSender_ReachesTheBoundWhileTheStoreIsAway(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxLag, c.Wait = 3, time.Minute })
	answers := make(chan struct{}, 1)
	r.store.checkpoints = func() (map[int32]seq.Checkpoint, error) {
		select {
		case answers <- struct{}{}:
			return map[int32]seq.Checkpoint{0: {InboundNext: 0}}, nil
		default:
			return nil, errors.New("the store is away")
		}
	}
	r.running(t)
	until(t, "the store has answered once", func() bool { return len(answers) == 1 })
	for _, id := range []string{"a", "b", "c", "d"} {
		if err := <-r.begin(t, id).written; err != nil {
			t.Fatal(err)
		}
	}
	until(t, "sends are refused", func() bool { return r.lag[0].Load() > 3 })
	_, err := r.Begin(t.Context(), command("e"))
	mustBe(t, err, chat.CodeOverloaded)
}

func TestConfig_NamesEveryFault(t *testing.T) {
	if c := DefaultConfig(); c.Validate() != nil {
		t.Error(c.Validate())
	}
	err := (&Config{Wait: time.Hour}).Validate()
	if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != 3 {
		t.Errorf("of three faults it names: %v", err)
	}
}
