package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// ErrTruncated means that the log begins after the place where reading must begin: retention has removed what was
// needed. Going on would lose or double records, so nobody does.
var ErrTruncated = errors.New("the log begins after the place that is needed")

// ErrGiveUp is wrapped by an owner's error that says that somebody else owns the partition: it waits until the group
// has taken the partition away, or has had the time to and still has not.
var ErrGiveUp = errors.New("somebody else owns the partition")

// Owners is a member of a consumer group that runs one owner for each partition it is given. The group's protocol only
// decides who owns what; where an owner begins to read is its own business.
type Owners struct {
	Config   Config
	ClientID string
	Group    string
	Topic    string
	Log      *slog.Logger
	// Own works on one partition until its context ends, which it does when the partition is taken away or the service
	// stops; it then finishes what it has begun, promptly, and returns. When it returns earlier it is started again
	// after a pause, for as long as the group leaves the partition here. It is called in a goroutine of its own.
	Own func(ctx context.Context, p *Partition) error
	// Owned is told the number of partitions that are owned, when it changes; may be nil.
	Owned func(n int)
	// Lag is told every few seconds how many offsets each partition that is here is behind the end of its log, whether its
	// owner gets on, waits, or ends again and again; may be nil. Gone is told when a partition is not here any more.
	Lag  func(id int32, offsets int64)
	Gone func(id int32)
}

// Partition is what an owner works with.
type Partition struct {
	Topic string
	ID    int32
	cfg   Config
	id    string
	log   *slog.Logger
	done  func(offset int64)

	// Company is how long a batch waits for more records, while there are many. Worth it where a batch costs much,
	// whatever its size. The owner sets it.
	Company time.Duration
	// StepOver makes Poll return a record for each stretch that cannot be read (see DamageOf), instead of an error. The
	// owner sets it before Start.
	StepOver bool

	reader   *kgo.Client
	unpacker *Unpacker
	meter    *meter
	read     *batchCounter
	next     int64
	end      int64
	crowd    bool          // the last poll gave many records
	fault    error         // of a poll that had records to give first
	held     []*kgo.Record // were fetched and not given yet
	late     error         // of a fetch whose records are held
	looked   int64         // before this offset no damage was found
}

// Run is a member of the group until the context ends. It returns after every owner has returned.
func (o *Owners) Run(ctx context.Context) error {
	r := &ownersRun{Owners: o, running: map[int32]*ownerRun{}, marks: map[int32]int64{}, places: map[int32]int64{}}
	// Owners outlive ctx by their own orderly stop, and end before Run returns.
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer r.cancel()
	cl, err := o.Config.newMember(o.ClientID, o.Group, o.Topic, o.Log,
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, m map[string][]int32) { r.assigned(m[o.Topic]) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, m map[string][]int32) { r.taken(m[o.Topic], "revoked") }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, m map[string][]int32) { r.taken(m[o.Topic], "lost") }),
	)
	if err != nil {
		return err
	}
	defer cl.Close() // leaves the group, which takes every partition away and waits for the owners

	commit := time.NewTicker(time.Second)
	defer commit.Stop()
	measure := time.NewTicker(lagEvery)
	defer measure.Stop()
	for {
		select {
		case <-ctx.Done():
			r.stopAll()
			// The last offsets, for the eye of the operator; nobody waits long for them.
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			r.commit(last, cl)
			return nil
		case <-commit.C:
			c, cancel := context.WithTimeout(ctx, 5*time.Second)
			r.commit(c, cl)
			cancel()
		case <-measure.C:
			c, cancel := context.WithTimeout(ctx, 5*time.Second)
			r.measure(c, cl)
			cancel()
		}
	}
}

type ownersRun struct {
	*Owners
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex // guards what follows
	running map[int32]*ownerRun
	marks   map[int32]int64 // to be committed
	places  map[int32]int64 // how far the partitions are that are here, as far as it is known
}

type ownerRun struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

func (r *ownersRun) assigned(ids []int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if _, there := r.running[id]; there {
			continue
		}
		ctx, cancel := context.WithCancel(r.ctx)
		run := &ownerRun{cancel: cancel, ended: make(chan struct{})}
		r.running[id] = run
		go func() {
			defer close(run.ended)
			r.own(ctx, id)
		}()
	}
	r.tell()
}

// taken ends owners and waits for them, so that the group gives a partition to the next one after this one has let go.
func (r *ownersRun) taken(ids []int32, how string) {
	r.mu.Lock()
	var ending []*ownerRun
	for _, id := range ids {
		if run, there := r.running[id]; there {
			run.cancel()
			ending = append(ending, run)
			delete(r.running, id)
			delete(r.marks, id)
			delete(r.places, id)
		}
	}
	r.tell()
	r.mu.Unlock()
	for _, run := range ending {
		<-run.ended
	}
	if r.Gone != nil {
		for _, id := range ids {
			r.Gone(id)
		}
	}
	if len(ids) > 0 {
		r.Log.Info("partitions were taken away", "how", how, "group", r.Group, "topic", r.Topic, "partitions", ids)
	}
}

func (r *ownersRun) stopAll() {
	r.mu.Lock()
	var ending []*ownerRun
	for _, run := range r.running {
		run.cancel()
		ending = append(ending, run)
	}
	r.mu.Unlock()
	for _, run := range ending {
		<-run.ended
	}
}

func (r *ownersRun) tell() {
	if r.Owned != nil {
		r.Owned(len(r.running))
	}
}

// Pauses between an owner's end and its next start, while the partition stays here.
const (
	leastPause = 100 * time.Millisecond
	mostPause  = 10 * time.Second
)

func (r *ownersRun) own(ctx context.Context, id int32) {
	log := r.Log.With("group", r.Group, "topic", r.Topic, "partition", id)
	pause := leastPause
	for ctx.Err() == nil {
		started := time.Now()
		p := &Partition{Topic: r.Topic, ID: id, cfg: r.Config, id: r.ClientID, log: log, end: -1, done: func(offset int64) {
			r.mu.Lock()
			r.marks[id], r.places[id] = offset, offset
			r.mu.Unlock()
		}}
		err := r.Own(ctx, p)
		p.close()
		if ctx.Err() != nil {
			if err != nil && !errors.Is(err, context.Canceled) {
				log.Warn("an owner ended with an error as its partition was taken away", "err", err)
			}
			return
		}
		if time.Since(started) > time.Minute {
			pause = leastPause
		}
		wait := pause
		if errors.Is(err, ErrGiveUp) {
			// If somebody else is the owner, the group tells us within the session time-out.
			wait = r.Config.SessionTimeout + time.Second
			log.Warn("another owner works on this partition; it is given up until the group assigns it again", "err", err)
		} else {
			log.Error("the owner of a partition ended; it is started again", "err", err, "pause", wait.String())
		}
		pause = min(2*pause, mostPause)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait + rand.N(wait/4+1)):
		}
	}
}

func (r *ownersRun) commit(ctx context.Context, cl *kgo.Client) {
	r.mu.Lock()
	offsets := map[int32]kgo.EpochOffset{}
	for id, next := range r.marks {
		offsets[id] = kgo.EpochOffset{Epoch: -1, Offset: next}
	}
	clear(r.marks)
	r.mu.Unlock()
	if len(offsets) == 0 {
		return
	}
	cl.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{r.Topic: offsets}, nil)
}

// Start begins to read at an offset. It fails with ErrTruncated where the log begins later.
func (p *Partition) Start(ctx context.Context, offset int64) error {
	p.close()
	start, end, err := Bounds(ctx, p.cfg, p.id, p.log, p.Topic, p.ID)
	if err != nil {
		return err
	}
	if offset, err = p.cfg.begin(p.Topic, p.ID, offset, start, end); err != nil {
		return err
	}
	p.next, p.end = offset, end
	if err := p.open(); err != nil {
		return err
	}
	p.done(offset)
	return nil
}

// open makes the reader, which begins at the next offset.
func (p *Partition) open() error {
	unpacker, err := NewUnpacker(p.cfg.MaxUnpacked)
	if err != nil {
		return err
	}
	p.unpacker, p.meter, p.read, p.late, p.looked = unpacker, &meter{unpacker: unpacker}, new(batchCounter), nil, 0
	// The markers of transactions are asked for: whoever has seen one can say that it needs nothing before its end.
	p.reader, err = p.cfg.NewReader(p.id, p.log, map[string]map[int32]kgo.Offset{p.Topic: {p.ID: kgo.NewOffset().At(p.next)}},
		kgo.KeepControlRecords(), kgo.WithDecompressor(p.meter), kgo.WithHooks(p.read))
	return err
}

// pollBytes bounds the values of the records that one Poll gives, the last one not counted. A thousand of the longest
// commands would be 96 MB to hold, to write and to store at once; what compresses well can be far more, as brokers bound what
// comes over the wire. Five hundred messages of people are a fiftieth of it.
const pollBytes = 8 << 20

// markerWait is how long Poll waits behind a marker for records. Under load they come, and the marker costs nothing.
const markerWait = time.Second

// Poll waits for records and gives at most limit of them, and no more than 8 MiB and one record, in order. It returns the
// context's error when that ends.
//
// What ends transactions, and what was taken back, has offsets in the log and is no record; Next counts it. Where nothing
// else comes for a second, Poll gives no records and no error, so that the caller can move its place to Next: retention
// may remove the marker together with all records before it, and a place before it would look like a loss.
func (p *Partition) Poll(ctx context.Context, limit int) ([]*kgo.Record, error) {
	if err := p.fault; err != nil {
		p.fault = nil
		return nil, err
	}
	room := pollBytes
	records, err := p.first(ctx, limit, &room)
	if err != nil {
		return nil, err
	}
	if p.crowd && p.Company > 0 {
		// What was fetched beforehand is what had come when the last batch was given out; much more has come since, and
		// is one round trip away. A batch costs its owner a transaction, whether it is small or large.
		waiting, cancel := context.WithTimeout(ctx, p.Company)
		for len(records) < limit && room > 0 && waiting.Err() == nil && p.fault == nil {
			var more []*kgo.Record
			more, p.fault = p.fetch(waiting, limit-len(records), &room)
			records = append(records, more...)
		}
		cancel()
	}
	p.crowd = len(records) >= crowd
	return records, nil
}

// first waits until there are records, or markers and nothing behind them.
func (p *Partition) first(ctx context.Context, limit int, room *int) (records []*kgo.Record, err error) {
	for before := p.next; len(records) == 0 && p.next == before; {
		if records, err = p.fetch(ctx, limit, room); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil && len(records) == 0 {
			return nil, err
		}
	}
	waiting, cancel := context.WithTimeout(ctx, markerWait)
	defer cancel()
	for len(records) == 0 && waiting.Err() == nil {
		if records, err = p.fetch(waiting, limit, room); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil && len(records) == 0 {
		return nil, err
	}
	return records, nil
}

// crowd is how many records the last batch must have had for the next one to wait for company. A lone record never waits.
const crowd = 8

// fetch gives what is held, or else what comes, as long as there is room for it.
func (p *Partition) fetch(ctx context.Context, limit int, room *int) ([]*kgo.Record, error) {
	if len(p.held) == 0 {
		fault := p.late
		if p.late = nil; fault == nil {
			fault = p.poll(ctx, limit)
		}
		if fault != nil && len(p.held) == 0 {
			return p.stepOver(ctx, -1, fault)
		}
		p.late = fault
	}
	return p.give(ctx, limit, room)
}

// poll fetches into what is held, and returns the error of the partition, which is of the place behind what is held.
func (p *Partition) poll(ctx context.Context, limit int) (fault error) {
	p.meter.used.Store(0)
	before := p.read.n.Load()
	waiting, cancel := context.WithTimeout(ctx, stalledAfter)
	defer cancel()
	fetches := p.reader.PollRecords(waiting, limit+1) // the marker behind a full batch comes along
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if f.Err != nil && fault == nil && !errors.Is(f.Err, context.Canceled) && !errors.Is(f.Err, context.DeadlineExceeded) && !errors.Is(f.Err, errNoRoom) {
			fault = f.Err
		}
		if f.HighWatermark > p.end {
			p.end = f.HighWatermark
		}
	})
	p.held = fetches.Records()
	if fault == nil && len(p.held) == 0 && waiting.Err() != nil && ctx.Err() == nil && p.read.n.Load() > before {
		return errStalled
	}
	return fault
}

// errStalled says that batches were read and had no records to give.
var errStalled = errors.New("batches have no records")

func (p *Partition) readingError(err error) error {
	return fmt.Errorf("reading %s/%d at %d: %w", p.Topic, p.ID, p.next, err)
}

// stepOver looks for damage at the next offset, before end, and returns what stands for it; without damage, it returns the
// error that made it look.
func (p *Partition) stepOver(ctx context.Context, end int64, fault error) ([]*kgo.Record, error) {
	d, err := p.inspect(ctx, end)
	switch {
	case err != nil:
		return nil, err
	case d == nil && errors.Is(fault, errStalled):
		return nil, nil // of transactions that were taken back
	case d == nil && fault != nil:
		return nil, p.readingError(fault)
	case d == nil:
		return nil, nil
	case !p.StepOver:
		return nil, fmt.Errorf("reading %s/%d: %w: offsets %d to %d: %s", p.Topic, p.ID, ErrDamaged, d.First, d.Last, d.Why)
	}
	p.log.Error("A BATCH CANNOT BE READ and is stepped over", "topic", p.Topic, "partition", p.ID, "first", d.First, "last", d.Last, "err", d.Why)
	p.next = d.Last + 1
	if len(p.held) == 0 { // else the reader is past it already
		p.reader.Close()
		if err := p.open(); err != nil {
			return nil, err
		}
	}
	return []*kgo.Record{p.damageRecord(d)}, nil
}

// give takes records from those that are held, and passes the markers among and behind them.
//
// Offsets that are missing before a record are of transactions that were taken back, or damage: franz-go passes over what a
// batch says that it has and has not, without an error.
func (p *Partition) give(ctx context.Context, limit int, room *int) ([]*kgo.Record, error) {
	var records []*kgo.Record
	for len(p.held) > 0 {
		r := p.held[0]
		if r.Offset < p.next { // of a batch that was stepped over
			p.held = p.held[1:]
			continue
		}
		if r.Offset > p.next && r.Offset > p.looked {
			if len(records) == limit {
				return records, nil
			}
			damaged, err := p.stepOver(ctx, r.Offset, nil)
			if err != nil {
				return records, err
			}
			records = append(records, damaged...)
			if len(damaged) == 0 {
				p.looked = r.Offset
			}
			continue
		}
		if !r.Attrs.IsControl() {
			if len(records) == limit || *room <= 0 {
				return records, nil
			}
			*room -= len(r.Value)
			records = append(records, r)
		}
		p.next = r.Offset + 1
		p.held = p.held[1:]
	}
	p.held = nil
	return records, nil
}

// Next gives the offset behind everything that Poll has given or passed.
func (p *Partition) Next() int64 { return p.next }

// Lag tells how many offsets lie between what Poll gave last and the end of the log as far as it is known.
func (p *Partition) Lag() int64 { return max(p.end-p.next, 0) }

// Done notes, for the eye of the operator, that everything before next was dealt with. It does not block.
func (p *Partition) Done(next int64) { p.done(next) }

func (p *Partition) close() {
	if p.reader != nil {
		p.reader.Close()
		p.reader, p.held, p.fault = nil, nil, nil
	}
}

// OpenPartition gives a partition to an owner outside of any group, for tools and tests; the caller closes it.
func OpenPartition(cfg Config, clientID, topic string, id int32, log *slog.Logger) (p *Partition, closeIt func()) {
	p = &Partition{Topic: topic, ID: id, cfg: cfg, id: clientID, log: log, end: -1, done: func(int64) {}}
	return p, p.close
}
