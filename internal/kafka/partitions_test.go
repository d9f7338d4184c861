package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/pkg/chat"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

const partitions = 4

func broker(t *testing.T) Config {
	t.Helper()
	b, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, TopicInbound),
		kfake.BrokerConfigs(map[string]string{"group.min.session.timeout.ms": "500"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	cfg := DefaultConfig()
	cfg.Brokers, cfg.Partitions, cfg.SessionTimeout = b.ListenAddrs(), partitions, time.Second
	return cfg
}

// write puts records into a partition whose values are 0, 1, 2 …
func write(t *testing.T, cfg Config, partition int32, n int) {
	t.Helper()
	cl, err := cfg.NewOwnerProducer("tests", "", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i := range n {
		r := &kgo.Record{Topic: TopicInbound, Partition: partition, Value: []byte(strconv.Itoa(i))}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// removeBefore does what retention does.
func removeBefore(t *testing.T, cfg Config, partition int32, offset int64) {
	t.Helper()
	cl, err := cfg.NewAdmin("tests", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	offsets := kadm.Offsets{}
	offsets.AddOffset(TopicInbound, partition, offset, -1)
	answers, err := kadm.NewClient(cl).DeleteRecords(t.Context(), offsets)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, cfg Config, id int32) *Partition {
	t.Helper()
	p, closeIt := OpenPartition(cfg, "tests", TopicInbound, id, quiet)
	t.Cleanup(closeIt)
	return p
}

func TestPartition_ReadsFromAnOffsetInOrder(t *testing.T) {
	cfg := broker(t)
	write(t, cfg, 2, 10)
	p := open(t, cfg, 2)
	if err := p.Start(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	if got := p.Lag(); got != 7 {
		t.Errorf("before reading it lags by %d, want 7", got)
	}
	var got []string
	for len(got) < 7 {
		records, err := p.Poll(t.Context(), 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(records) > 2 {
			t.Errorf("a poll for 2 gave %d", len(records))
		}
		for _, r := range records {
			got = append(got, string(r.Value))
		}
	}
	if want := []string{"3", "4", "5", "6", "7", "8", "9"}; !slices.Equal(got, want) || p.Lag() != 0 {
		t.Errorf("got %v, and lags by %d", got, p.Lag())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.Poll(ctx, 2); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("at the end a poll gives %v, want the end of its context", err)
	}
}

// A batch that may have company waits for it only where the one before had much, and never takes more than it may.
func TestPartition_WaitsForCompanyOnlyInACrowd(t *testing.T) {
	cfg := broker(t)
	write(t, cfg, 0, 1)
	p := open(t, cfg, 0)
	p.Company = time.Hour
	if err := p.Start(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if records, err := p.Poll(t.Context(), 100); err != nil || len(records) != 1 { // it would wait for an hour
		t.Fatalf("a lone record: %d, %v", len(records), err)
	}
	write(t, cfg, 0, 2*crowd)
	got := 0
	for !p.crowd {
		records, err := p.Poll(t.Context(), crowd)
		if err != nil {
			t.Fatal(err)
		}
		got += len(records)
	}
	p.Company = 20 * time.Millisecond
	for got < 2*crowd {
		records, err := p.Poll(t.Context(), crowd)
		if err != nil || len(records) > crowd {
			t.Fatalf("a batch of %d, %v", len(records), err)
		}
		got += len(records)
	}
}

// What a batch costs its owner to hold and to write is bounded, however well it was compressed.
func TestPartition_GivesNoMoreBytesThanABatchMayHave(t *testing.T) {
	cfg := broker(t)
	cl, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	const n, size = 20, 1 << 20
	for range n {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: TopicInbound, Value: make([]byte, size)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	p := open(t, cfg, 0)
	p.Company = time.Millisecond
	if err := p.Start(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for got := int64(0); got < n; {
		records, err := p.Poll(t.Context(), 500)
		if err != nil {
			t.Fatal(err)
		}
		if len(records)*size > pollBytes {
			t.Fatalf("a poll gave %d MiB", len(records))
		}
		for _, r := range records {
			if r.Offset != got {
				t.Fatalf("%d follows %d", r.Offset, got-1)
			}
			got++
		}
		if p.Lag() != n-got {
			t.Errorf("it lags by %d behind %d of %d", p.Lag(), got, n)
		}
	}
}

// Reading on from where the log does not reach any more, or not yet, would lose records silently or double them.
func TestReading_RefusesALogThatDoesNotFit(t *testing.T) {
	cfg := broker(t)
	write(t, cfg, 1, 10)
	removeBefore(t, cfg, 1, 4)
	p := open(t, cfg, 1)
	read := func(from int64) error {
		_, err := ReadToEnd(t.Context(), cfg, "tests", quiet, TopicInbound, 1, from, func(*kgo.Record) error { return nil })
		return err
	}
	for from, ok := range map[int64]bool{3: false, 4: true, 10: true, 11: false} {
		for what, err := range map[string]error{"an owner": p.Start(t.Context(), from), "reading to the end": read(from)} {
			if (err == nil) != ok || from < 4 != errors.Is(err, ErrTruncated) {
				t.Errorf("%s from %d: %v", what, from, err)
			}
		}
	}
	if err := open(t, cfg, partitions).Start(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "no such partition") {
		t.Errorf("a partition that is not there: %v", err)
	}
	if err := p.Start(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Poll(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
}

// Where every record is written in a transaction the last offset is a marker, and can be missed; nothing else can.
func TestReading_MissesNothingInAnEmptyLogThatLacksOneMarker(t *testing.T) {
	for _, c := range []struct {
		what             string
		plain            bool
		topic            string
		from, start, end int64
		ok               bool
	}{
		{"the marker was removed", false, TopicMessages, 9, 10, 10, true},
		{"the same for rejections", false, TopicRejected, 9, 10, 10, true},
		{"a record and its marker were removed", false, TopicMessages, 8, 10, 10, false},
		{"what was removed may belong to what is there", false, TopicMessages, 9, 10, 12, false},
		{"without transactions it was a record", true, TopicMessages, 9, 10, 10, false},
		{"others write to im.inbound as they like", false, TopicInbound, 9, 10, 10, false},
	} {
		at, err := (&Config{Plain: c.plain}).begin(c.topic, 0, c.from, c.start, c.end)
		if c.ok && (err != nil || at != c.end) || !c.ok && !errors.Is(err, ErrTruncated) {
			t.Errorf("%s: it begins at %d, %v", c.what, at, err)
		}
	}
}

func TestPartition_CountsWhatIsNoRecord(t *testing.T) {
	cfg := broker(t)
	cl, err := cfg.NewOwnerProducer("tests", "tests-0", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	transaction := func(how kgo.TransactionEndTry, n int) {
		t.Helper()
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for range n {
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: TopicInbound, Partition: 3}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if err := cl.EndTransaction(t.Context(), how); err != nil {
			t.Fatal(err)
		}
	}
	transaction(kgo.TryCommit, 2) // 0, 1, and a marker at 2
	p := open(t, cfg, 3)
	if err := p.Start(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	poll := func(limit, records int, next int64) {
		t.Helper()
		got, err := p.Poll(t.Context(), limit)
		if err != nil || len(got) != records || p.Next() != next {
			t.Fatalf("a poll gave %d records and is at %d, want %d and %d: %v", len(got), p.Next(), records, next, err)
		}
	}
	poll(2, 2, 3) // the marker comes along with a full batch
	transaction(kgo.TryAbort, 3)
	poll(10, 0, 7) // nothing but what was taken back
	transaction(kgo.TryAbort, 1)
	transaction(kgo.TryCommit, 1)
	for p.Next() < 11 {
		if _, err := p.Poll(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
	}
	if p.Lag() != 0 {
		t.Errorf("at the end it lags by %d", p.Lag())
	}
}

// Retention may overtake an owner that was at its place when it began.
func TestPartition_TellsWhenRetentionOvertakesIt(t *testing.T) {
	cfg := broker(t)
	write(t, cfg, 1, 10)
	removeBefore(t, cfg, 1, 5)
	p := open(t, cfg, 1)
	p.next = 3 // as Start left it, before the records went
	if err := p.open(); err != nil {
		t.Fatal(err)
	}
	if records, err := p.Poll(t.Context(), 100); !errors.Is(err, kerr.OffsetOutOfRange) {
		t.Errorf("records were jumped over in silence: %d records, %v", len(records), err)
	}
}

// What an aborted transaction wrote never happened, and the markers of transactions are no records; the end is found behind both.
func TestReadToEnd_SeesCommittedRecordsOnly(t *testing.T) {
	cfg := broker(t)
	cl, err := cfg.NewOwnerProducer("tests", "tests-0", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i, commit := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit, kgo.TryAbort} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		r := &kgo.Record{Topic: TopicInbound, Partition: 3, Value: []byte(strconv.Itoa(i))}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	end, err := ReadToEnd(t.Context(), cfg, "tests", quiet, TopicInbound, 3, 0, func(r *kgo.Record) error {
		got = append(got, string(r.Value))
		return nil
	})
	if err != nil || end != 8 || !slices.Equal(got, []string{"0", "2"}) {
		t.Errorf("got %v, the end is %d, %v", got, end, err)
	}
	stop := errors.New("enough")
	if _, err := ReadToEnd(t.Context(), cfg, "tests", quiet, TopicInbound, 3, 0, func(*kgo.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of the reader came back as %v", err)
	}
}

// A key goes to the partition that the contract says, for our own producers as for those of backends.
func TestProducer_PutsAKeyWhereTheContractSays(t *testing.T) {
	cfg := broker(t)
	cl, err := cfg.NewProducer("tests", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i := range 50 {
		key := fmt.Sprintf("g-%d", i)
		r, err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: TopicInbound, Key: []byte(key)}).First()
		if want := chat.Partition(key, partitions); err != nil || r.Partition != want {
			t.Errorf("%s is in partition %d, want %d (%v)", key, r.Partition, want, err)
		}
	}
}

// owners runs members of one group, and knows who owns what.
type owners struct {
	t   *testing.T
	cfg Config

	mu      sync.Mutex
	holders map[int32]string
	starts  map[int32]int
	twice   []string
	fail    func(id int32, start int) error
	lags    map[int32]int64
}

// run starts a member; stop ends it and returns when it has ended.
func (o *owners) run(name string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	member := &Owners{Config: o.cfg, ClientID: name, Group: "tests", Topic: TopicInbound, Log: quiet, Own: func(ctx context.Context, p *Partition) error {
		o.mu.Lock()
		if other := o.holders[p.ID]; other != "" {
			o.twice = append(o.twice, fmt.Sprintf("%d by %s and %s", p.ID, other, name))
		}
		o.holders[p.ID] = name
		o.starts[p.ID]++
		start := o.starts[p.ID]
		o.mu.Unlock()
		defer func() {
			o.mu.Lock()
			o.holders[p.ID] = ""
			o.mu.Unlock()
		}()
		if o.fail != nil {
			if err := o.fail(p.ID, start); err != nil {
				return err
			}
		}
		p.Done(int64(p.ID))
		<-ctx.Done()
		return ctx.Err()
	}}
	if o.lags != nil {
		member.Lag = func(id int32, n int64) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.lags[id] = n
		}
		member.Gone = func(id int32) {
			o.mu.Lock()
			defer o.mu.Unlock()
			delete(o.lags, id)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- member.Run(ctx) }()
	return func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				o.t.Errorf("the member %s ended: %v", name, err)
			}
		case <-time.After(30 * time.Second):
			o.t.Fatalf("the member %s does not end", name)
		}
	}
}

// until waits for a state of the holders.
func (o *owners) until(what string, ok func(count map[string]int) bool) {
	o.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		o.mu.Lock()
		count := map[string]int{}
		for _, name := range o.holders {
			count[name]++
		}
		is := ok(count)
		o.mu.Unlock()
		if is {
			return
		}
		if time.Now().After(deadline) {
			o.t.Fatalf("%s: not within 30 s; the partitions are owned so: %v", what, count)
		}
	}
}

func newOwners(t *testing.T) *owners {
	return &owners{t: t, cfg: broker(t), holders: map[int32]string{}, starts: map[int32]int{}}
}

func TestOwners_ShareThePartitionsAndNoneHasTwo(t *testing.T) {
	o := newOwners(t)
	stopAda := o.run("ada")
	o.until("ada owns all", func(c map[string]int) bool { return c["ada"] == partitions })
	stopBob := o.run("bob")
	o.until("they share", func(c map[string]int) bool { return c["ada"] == partitions/2 && c["bob"] == partitions/2 })
	stopAda()
	o.until("bob owns all", func(c map[string]int) bool { return c["bob"] == partitions })
	stopBob()
	if len(o.twice) > 0 {
		t.Errorf("a partition had two owners: %v", o.twice)
	}
	for id, name := range o.holders {
		if name != "" {
			t.Errorf("the owner of %d outlived its member", id)
		}
	}
}

func TestOwners_TellTheLagOfAPartitionWhoseOwnerEndsAgainAndAgain(t *testing.T) {
	o := newOwners(t)
	write(t, o.cfg, 1, 7)
	write(t, o.cfg, 2, 5)
	o.lags = map[int32]int64{}
	o.fail = func(id int32, _ int) error {
		if id == 1 {
			return errors.New("it cannot begin")
		}
		return nil
	}
	stop := o.run("ada")
	// The owner of 2 is at 2; that of 1 has never come to a place.
	o.until("the lag of all is told", func(map[string]int) bool { return len(o.lags) == partitions && o.lags[1] == 7 && o.lags[2] == 3 })
	write(t, o.cfg, 1, 2)
	o.until("it is told again", func(map[string]int) bool { return o.lags[1] == 9 })
	stop()
}

func TestOwners_StartAgainWhatEnded(t *testing.T) {
	o := newOwners(t)
	o.fail = func(id int32, start int) error {
		if id == 1 && start < 3 {
			return errors.New("the store is away")
		}
		return nil
	}
	stop := o.run("ada")
	o.until("all run", func(c map[string]int) bool { return c["ada"] == partitions })
	stop()
	if o.starts[1] != 3 || o.starts[0] != 1 {
		t.Errorf("partition 1 was started %d times, partition 0 %d times", o.starts[1], o.starts[0])
	}
}

// Who was fenced off does not fight for the partition: the group says within the session time-out whose it is.
func TestOwners_LetGoOfWhatSomebodyElseOwns(t *testing.T) {
	o := newOwners(t)
	var fenced, again time.Time
	o.fail = func(id int32, start int) error {
		switch {
		case id == 1 && start == 1:
			fenced = time.Now()
			return fmt.Errorf("writing: %w", ErrGiveUp)
		case id == 1:
			again = time.Now()
		}
		return nil
	}
	stop := o.run("ada")
	o.until("all run", func(c map[string]int) bool { return c["ada"] == partitions })
	stop()
	if wait := again.Sub(fenced); wait < o.cfg.SessionTimeout {
		t.Errorf("it began again after %s, before the group could say whose the partition is", wait)
	}
}

// Offsets are committed for the operators' eyes: the lag that every tool shows.
func TestOwners_ShowHowFarTheyAre(t *testing.T) {
	o := newOwners(t)
	for id := range int32(partitions) {
		write(t, o.cfg, id, int(id))
	}
	stop := o.run("ada")
	o.until("all run", func(c map[string]int) bool { return c["ada"] == partitions })
	stop()
	cl, err := o.cfg.NewAdmin("tests", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	offsets, err := kadm.NewClient(cl).FetchOffsets(t.Context(), "tests")
	if err != nil {
		t.Fatal(err)
	}
	for id := range int32(partitions) {
		if got, ok := offsets.Lookup(TopicInbound, id); !ok || got.At != int64(id) {
			t.Errorf("partition %d is at %d (%t), want %d", id, got.At, ok, id)
		}
	}
}
