package timeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/embedded"
	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/internal/tracing"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	core "tideline/pkg/timeline"
)

var quiet = slog.New(slog.DiscardHandler)

// faultyStore is a store whose Apply can be made to fail, before or after it has happened.
type faultyStore struct {
	*sqlstore.Store
	mu     sync.Mutex // guards before and after
	before func(from, to core.Position, entries []core.Entry) error
	after  func(from, to core.Position, entries []core.Entry) error
}

func (s *faultyStore) fail(before, after func(from, to core.Position, entries []core.Entry) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.after = before, after
}

func (s *faultyStore) Apply(ctx context.Context, from, to core.Position, entries []core.Entry) (core.Applied, error) {
	s.mu.Lock()
	before, after := s.before, s.after
	s.mu.Unlock()
	if before != nil {
		if err := before(from, to, entries); err != nil {
			return core.Applied{}, err
		}
	}
	applied, err := s.Store.Apply(ctx, from, to, entries)
	if err == nil && after != nil {
		if err := after(from, to, entries); err != nil {
			return core.Applied{}, err
		}
	}
	return applied, err
}

// fastMarks records what it was told, and fails while it is told to.
type fastMarks struct {
	mu          sync.Mutex // guards what follows
	away        bool
	followed    int
	raised      int
	invalidated int
}

var errAway = errors.New("away")

func (m *fastMarks) Follow(_ context.Context, entries []core.Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return errAway
	}
	m.followed += len(entries)
	return nil
}

func (m *fastMarks) Raise(_ context.Context, marks []chat.ReadMark) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return errAway
	}
	m.raised += len(marks)
	return nil
}

func (m *fastMarks) Invalidate(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return errAway
	}
	m.invalidated++
	return nil
}

func (m *fastMarks) counts() (followed, invalidated int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.followed, m.invalidated
}

func (m *fastMarks) be(away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = away
}

// rig is one partition of an embedded broker, a store, and as many writers one after the other as a test wants.
type rig struct {
	t        *testing.T
	cfg      kafka.Config
	store    *faultyStore
	marks    *fastMarks
	producer *kgo.Client
	seq      int64
	metrics  *Metrics
}

var group = chat.GroupConversation(42)

func newRig(t *testing.T) *rig {
	t.Helper()
	cfg := kafka.DefaultConfig()
	cfg.Plain = true
	broker, err := embedded.StartBroker(t.TempDir(), "127.0.0.1:0", "secret", kafka.MaxUnpackedBytes, quiet)
	if err != nil {
		t.Fatal(err)
	}
	stop, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() { defer close(stopped); _ = broker.Run(stop) }()
	t.Cleanup(func() { cancel(); <-stopped })
	broker.Join(&cfg)
	return newRigOn(t, cfg, broker.Addr())
}

func newRigOn(t *testing.T, cfg kafka.Config, addr string) *rig {
	t.Helper()
	cfg.Brokers, cfg.Partitions, cfg.Replication, cfg.MinInSync = []string{addr}, 1, 1, 1
	admin, err := cfg.NewAdmin("test", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if err := kafka.EnsureTopics(t.Context(), admin, cfg); err != nil {
		t.Fatal(err)
	}
	sc := sqlstore.DefaultConfig()
	sc.Driver, sc.Path = "sqlite", filepath.Join(t.TempDir(), "store.db")
	store, err := sqlstore.Open(t.Context(), sc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	producer, err := cfg.NewProducer("test", quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(producer.Close)
	return &rig{t: t, cfg: cfg, store: &faultyStore{Store: store}, marks: &fastMarks{}, producer: producer}
}

// start runs a writer; the function that it gives stops it and waits.
func (r *rig) start() (stop func()) {
	r.t.Helper()
	r.metrics = NewMetrics(prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	w := NewWriter(r.cfg, r.store, r.marks, r.producer, tracing.None(), quiet, r.metrics, "writer")
	go func() { done <- w.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				r.t.Errorf("the writer ended with %v", err)
			}
		})
	}
	r.t.Cleanup(stop)
	return stop
}

func (r *rig) event(kind chat.Kind) chat.Event {
	r.seq++
	return chat.Event{
		Conversation: group, Seq: r.seq, Ordinal: max(r.seq-1, 0), Kind: kind, MessageID: r.seq, Sender: 1, ClientMsgID: fmt.Sprintf("c%d", r.seq), SentAt: 1_700_000_000_000 + r.seq,
		InboundOffset: r.seq,
	}
}

func (r *rig) create() chat.Event {
	e := r.event(chat.KindCreate)
	e.Create = &chat.Create{Name: "all", Members: []chat.UserID{2, 3}}
	return e
}

func (r *rig) message() chat.Event {
	e := r.event(chat.KindMessage)
	e.Message = &chat.Message{Type: chat.TypeText, Content: []byte(`{"text":"hi"}`)}
	return e
}

func (r *rig) log(values ...[]byte) {
	r.t.Helper()
	var records []*kgo.Record
	for _, v := range values {
		records = append(records, &kgo.Record{Topic: kafka.TopicMessages, Key: []byte(group.String()), Value: v})
	}
	if err := r.producer.ProduceSync(r.t.Context(), records...).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) events(events ...chat.Event) {
	r.t.Helper()
	var values [][]byte
	for i := range events {
		values = append(values, wire.EncodeEvent(&events[i]))
	}
	r.log(values...)
}

// until waits for something that another goroutine brings about.
func (r *rig) until(what string, is func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !is() {
		if time.Now().After(deadline) {
			r.t.Fatalf("it did not come to it that %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// hints reads what was told so far.
func (r *rig) hints() []chat.Notify {
	r.t.Helper()
	var out []chat.Notify
	_, err := kafka.ReadToEnd(r.t.Context(), r.cfg, "test", quiet, kafka.TopicNotify, 0, 0, func(rec *kgo.Record) error {
		n, err := wire.DecodeNotify(rec.Value)
		out = append(out, n)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

func (r *rig) told(seq int64) bool {
	for _, n := range r.hints() {
		if n.MaxSeq >= seq {
			return true
		}
	}
	return false
}

func (r *rig) rows() []core.Row {
	r.t.Helper()
	rows, err := r.store.Rows(r.t.Context(), group, 1, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	return rows
}

func (r *rig) parked() []sqlstore.Parked {
	r.t.Helper()
	list, err := r.store.ListParked(r.t.Context(), kafka.TopicMessages, -1, -1, 100)
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

func TestWriter_TellsOnlyWhatTheStoreHas(t *testing.T) {
	r := newRig(t)
	var committed sync.Map
	r.store.fail(nil, func(_, _ core.Position, entries []core.Entry) error {
		for _, e := range entries {
			committed.Store(e.Event.Seq, true)
		}
		for _, n := range r.hints() {
			if _, there := committed.Load(n.MaxSeq); !there {
				t.Errorf("%d was told, and the store did not have it", n.MaxSeq)
			}
		}
		return nil
	})
	r.start()
	r.events(r.create())
	for range 20 {
		r.events(r.message(), r.message())
	}
	r.until("all is told", func() bool { return r.told(41) })
	if rows := r.rows(); len(rows) != 41 {
		t.Fatalf("%d rows", len(rows))
	}
	if followed, _ := r.marks.counts(); followed > 41 {
		t.Fatalf("the fast marks followed %d events", followed)
	}
	r.until("the fast marks have followed", func() bool { followed, _ := r.marks.counts(); return followed == 41 })
}

// A batch that the store cannot take within its time, or at all, comes through in pieces, and the next ones begin smaller.
func TestWriter_GivesTheStoreLessWhereItDoesNotTakeABatch(t *testing.T) {
	r := newRig(t)
	const most = 12
	var mu sync.Mutex
	refused := 0
	r.store.fail(func(_, _ core.Position, entries []core.Entry) error {
		mu.Lock()
		defer mu.Unlock()
		if len(entries) > most {
			refused++
			return context.DeadlineExceeded
		}
		return nil
	}, nil)
	events := []chat.Event{r.create()}
	for range 39 {
		events = append(events, r.message())
	}
	r.events(events...)
	r.start()
	r.until("all is told", func() bool { return r.told(40) })
	if rows := r.rows(); len(rows) != 40 {
		t.Errorf("%d rows, want 40", len(rows))
	}
	if parked := r.parked(); len(parked) != 0 {
		t.Errorf("%d records were parked, and nothing was wrong with them", len(parked))
	}
	mu.Lock()
	defer mu.Unlock()
	if refused == 0 || refused > 2*triesOfABatch {
		t.Errorf("the store was asked %d times for more than it takes", refused)
	}
}

// Whoever takes over numbering believes the position: a client id with a stamp above its highest was never numbered.
func TestWriter_NeverStoresARowWithAStampAboveItsPosition(t *testing.T) {
	r := newRig(t)
	create, first, hopeless := r.create(), r.message(), r.message()
	first.ClientMsgID = "01900000-2000-7000-8000-000000000001"
	hopeless.ClientMsgID = strings.Repeat("x", chat.MaxClientMsgIDBytes+1)
	var mu sync.Mutex
	steps := 0
	r.store.fail(func(_, to core.Position, entries []core.Entry) error {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range entries {
			if stamp := chat.Stamp(e.Event.ClientMsgID); stamp > to.HighestStamp {
				t.Errorf("the row of %d is stored with a position whose highest stamp is %d, below its %d", e.Event.Seq, to.HighestStamp, stamp)
			}
		}
		if to.MessagesNext < 3 {
			steps++
		}
		return nil
	}, nil)
	r.events(create, first, hopeless)
	r.start()
	r.until("the hopeless one is parked", func() bool { return len(r.parked()) == 1 })
	mu.Lock()
	defer mu.Unlock()
	if steps == 0 {
		t.Error("the batch was stored in one step, and shows nothing")
	}
}

func TestWriter_RepeatsTheHintsOfABatchAfterWhichItsPredecessorDied(t *testing.T) {
	r := newRig(t)
	stop := r.start()
	r.events(r.create())
	r.until("the group is told", func() bool { return r.told(1) })
	died := make(chan struct{})
	var once sync.Once
	// The commit happens, and before the writer can tell, a successor has moved the position on.
	r.store.fail(nil, func(_, to core.Position, _ []core.Entry) error {
		next := to
		next.HighestStamp++
		if _, err := r.store.Store.Apply(context.Background(), to, next, nil); err != nil {
			t.Errorf("moving on: %v", err)
		}
		once.Do(func() { close(died) })
		return core.ErrFenced
	})
	r.events(r.message(), r.message())
	<-died
	stop()
	if r.told(3) {
		t.Fatal("a writer that was replaced has told")
	}
	r.store.fail(nil, nil)
	r.start()
	r.until("the successor tells again", func() bool { return r.told(3) })
	last := r.hints()
	if n := last[len(last)-1]; !n.Repeat || n.MaxSeq != 3 {
		t.Fatalf("told %+v", n)
	}
	if rows := r.rows(); len(rows) != 3 {
		t.Fatalf("%d rows", len(rows))
	}
}

func TestWriter_GoesOnAfterACommitWhoseAnswerWasLost(t *testing.T) {
	r := newRig(t)
	r.start()
	lost := 0
	r.store.fail(nil, func(core.Position, core.Position, []core.Entry) error {
		if lost++; lost%2 == 1 {
			return errors.New("the connection broke")
		}
		return nil
	})
	r.events(r.create())
	for range 5 {
		r.events(r.message())
		r.until("it is told", func() bool { return r.told(r.seq) })
	}
	if rows := r.rows(); len(rows) != 6 {
		t.Fatalf("%d rows", len(rows))
	}
	if n := testutil.ToFloat64(r.metrics.retries); n == 0 {
		t.Fatal("no try was repeated")
	}
}

func TestWriter_WaitsForAStoreThatIsAwayAndLosesNothing(t *testing.T) {
	r := newRig(t)
	r.start()
	var mu sync.Mutex
	tries := 0
	r.store.fail(func(core.Position, core.Position, []core.Entry) error {
		mu.Lock()
		defer mu.Unlock()
		tries++
		return errAway
	}, nil)
	r.events(r.create(), r.message())
	r.until("it has tried three times", func() bool { mu.Lock(); defer mu.Unlock(); return tries >= 3 })
	if r.told(1) || len(r.rows()) > 0 || len(r.parked()) > 0 {
		t.Fatal("something was told, stored or parked while the store was away")
	}
	r.store.fail(nil, nil)
	r.until("all is told", func() bool { return r.told(2) })
}

func TestWriter_ParksWhatCanNeverBeStoredAndGoesOn(t *testing.T) {
	r := newRig(t)
	bad := func() chat.Event {
		e := r.message()
		e.ClientMsgID = strings.Repeat("x", chat.MaxClientMsgIDBytes+1)
		return e
	}
	r.events(r.create(), r.message(), bad(), r.message())
	r.log([]byte{0xff, 0xff})
	r.events(bad(), bad(), r.message(), bad())
	r.start()
	r.until("the last good one is told", func() bool { return r.told(7) })
	r.until("the last bad one is parked", func() bool { return len(r.parked()) == 5 })
	var seqs []int64
	for _, row := range r.rows() {
		seqs = append(seqs, row.Seq)
	}
	if fmt.Sprint(seqs) != "[1 2 4 7]" {
		t.Fatalf("stored %v", seqs)
	}
	r.until("the end of the conversation is told, though its event is parked", func() bool { return r.told(8) })
	if parked, holes := testutil.ToFloat64(r.metrics.parked), testutil.ToFloat64(r.metrics.holes); parked != 5 || holes != 4 {
		t.Fatalf("%v were counted as parked, and %v as holes", parked, holes)
	}
	r.events(r.message())
	r.until("it goes on", func() bool { return r.told(9) })
}

func TestWriter_MakesFastMarksFillAgainThatMissedSomething(t *testing.T) {
	r := newRig(t)
	stop := r.start()
	r.events(r.create())
	r.until("the marks have followed", func() bool { followed, _ := r.marks.counts(); return followed == 1 })
	r.marks.be(true)
	r.events(r.message())
	r.until("it is told all the same", func() bool { return r.told(2) })
	r.events(r.message())
	r.until("the store knows that they are dirty", func() bool {
		at, err := r.store.Positions(t.Context(), []int32{0})
		return err == nil && at[0].MarksDirty
	})
	stop()
	r.marks.be(false)
	r.start() // its successor knows it from the store
	r.until("the marks are invalidated", func() bool { _, n := r.marks.counts(); return n > 0 })
	r.events(r.message(), r.message())
	r.until("the store knows that they are clean", func() bool {
		at, err := r.store.Positions(t.Context(), []int32{0})
		return err == nil && !at[0].MarksDirty
	})
}

func TestHints_AreOneForEachConversationAndNameWhatChanged(t *testing.T) {
	other := chat.GroupConversation(43)
	entries := []core.Entry{
		{Event: chat.Event{Conversation: group, Seq: 5, Ordinal: 3, Kind: chat.KindMessage, Sender: 1, Message: &chat.Message{Receipt: true}}},
		{Event: chat.Event{Conversation: other, Seq: 1, Kind: chat.KindCreate, Sender: 9, Create: &chat.Create{Members: []chat.UserID{8}}}},
		{Event: chat.Event{Conversation: group, Seq: 6, Ordinal: 3, Kind: chat.KindRecall, Sender: 1, Recall: &chat.Recall{TargetSeq: 2}}},
		{Event: chat.Event{Conversation: group, Seq: 7, Ordinal: 3, Kind: chat.KindLeave, Sender: 4, Leave: &chat.Leave{Users: []chat.UserID{4}}}},
	}
	hints := Hints(entries, false, 99)
	want := `[{g-42 7 3 [2] [{4 7 false true}] false false 99 [{5 1}]} {g-43 1 0 [] [{9 1 true false} {8 1 true false}] true false 99 []}]`
	var got []string
	for _, h := range hints {
		got = append(got, fmt.Sprintf("{%s %d %d %v %v %t %t %d %v}", h.Conversation, h.MaxSeq, h.Ordinal, h.ChangedSeqs, h.Members, h.Meta, h.Repeat, h.At, h.Asked))
	}
	if fmt.Sprint(got) != want {
		t.Fatalf("got\n%v, want\n%s", got, want)
	}
}
