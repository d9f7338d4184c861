package importer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// ErrStopped means that an import was stopped before its end: the same command goes on from there.
var ErrStopped = errors.New("the import was stopped; the same command goes on from here")

// clientID names us among the clients of Kafka.
const clientID = "tideline-import"

// Importer imports exports, one at a time.
type Importer struct {
	cfg      Config
	kafka    kafka.Config
	log      *slog.Logger
	progress *progress

	// acknowledged is told the line up to which everything is acknowledged and noted; for tests, may be nil.
	acknowledged func(line int)
}

// New makes an importer. Progress is written to out, on one line where that is a terminal.
func New(cfg Config, kc kafka.Config, log *slog.Logger, out io.Writer, terminal bool) *Importer {
	return &Importer{cfg: cfg, kafka: kc, log: log, progress: &progress{out: out, terminal: terminal, now: time.Now}}
}

// Run imports the file, or what an earlier run has left of it, and returns when everything that it produced has its
// outcome and what was numbered can be read. When the context ends it finishes the lines that are under way, notes how far
// it is, and returns an error that is ErrStopped.
func (im *Importer) Run(ctx context.Context, path string) (*Report, error) {
	printed, finished := make(chan struct{}), make(chan struct{})
	go func() { defer close(printed); im.progress.run(finished) }()
	defer func() { close(finished); <-printed }()

	cfg := im.cfg.forFile(path)
	cp, err := loadCheckpoint(cfg.Checkpoint, cfg.Source)
	if err != nil {
		return nil, err
	}
	line := 0
	if cp != nil {
		line = cp.Line
	}
	found, err := scanExport(ctx, cfg, path, line)
	switch {
	case err != nil:
		return nil, err
	case cp != nil && found.sum != cp.Sum:
		return nil, fmt.Errorf("the first %d lines of %s are not those that %s was written for", line, path, cfg.Checkpoint)
	case cp != nil && cp.Finished && cp.Line == found.lines:
		return &Report{Conversation: cp.Conversation, People: len(found.people), Counts: cp.Counts, BadLines: found.told, Before: true, Earlier: cp.Failed}, nil
	}
	r := &run{Importer: im, cfg: cfg, path: path, found: found, cp: cp}
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	return r.do(ctx)
}

// run is the state of one run.
type run struct {
	*Importer
	cfg   Config
	path  string
	found *scan
	cp    *checkpoint

	owner  chat.UserID
	people []chat.UserID // in the order of found.people
	ids    map[string]chat.UserID
	group  chat.ConversationID

	producer *kgo.Client
	follower *follower
	gate     *gate
	partial  bool
}

// prepare makes the people and reserves the group: what the api alone can do.
func (r *run) prepare(ctx context.Context) error {
	api := newAdminClient(r.cfg)
	list := make([]externalUser, 0, len(r.found.people)+1)
	list = append(list, externalUser{ExternalID: r.cfg.Importer, Nickname: nickname(r.cfg.Importer)})
	for _, name := range r.found.people {
		list = append(list, externalUser{ExternalID: r.cfg.PeoplePrefix + name, Nickname: nickname(name)})
	}
	r.progress.begin("people", 0, len(list))
	ids, err := api.people(ctx, list, r.progress.set)
	if err != nil {
		return err
	}
	r.owner, r.people = ids[0], ids[1:]
	if r.cfg.Owner != "" {
		if r.owner, err = api.account(ctx, ids[0], r.cfg.Owner); err != nil {
			return err
		}
	}
	r.ids = make(map[string]chat.UserID, len(r.people))
	for i, name := range r.found.people {
		r.ids[name] = r.people[i]
	}
	if r.group, err = api.reserve(ctx, r.owner, createID(r.cfg.Source)); err != nil {
		return err
	}
	if r.cp != nil && r.cp.Conversation != r.group {
		return fmt.Errorf("the checkpoint %s is of the group %s, and here this import's group is %s: it belongs to another installation, or to another import.owner", r.cfg.Checkpoint, r.cp.Conversation, r.group)
	}
	return nil
}

// stopGrace is how long lines under way may take to be acknowledged when the import is stopped.
const stopGrace = 10 * time.Second

// do produces what is left and waits for what becomes of it.
func (r *run) do(parent context.Context) (*Report, error) {
	started, from := time.Now(), 0
	if r.cp != nil {
		from = r.cp.Line
	}
	ctx, cancel := context.WithCancelCause(parent)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	closeAll, err := r.connect(ctx, cancel, &wg)
	defer closeAll()
	if err == nil {
		err = r.produceAll(ctx)
	}
	if err == nil {
		err = r.await(ctx)
	}
	if err != nil {
		if parent.Err() != nil && r.cp != nil {
			return nil, fmt.Errorf("%w (line %d of %d)", ErrStopped, r.cp.Line, r.found.lines)
		}
		return nil, errors.Join(err, otherCause(ctx, err))
	}
	report := &Report{
		Conversation: r.group, People: len(r.people), Counts: r.cp.Counts, BadLines: r.found.told, Numbered: r.follower.counts(), Partial: r.partial, LastSeq: r.follower.now().seq,
		Lines: r.found.lines - from, Took: time.Since(started),
	}
	if err := r.outcomes(ctx, report); err != nil {
		return nil, err
	}
	report.Earlier = r.cp.Failed // not before: while outcomes are counted, only those of the logs count
	r.cp.Finished, r.cp.Failed = true, report.failure()
	return report, r.cp.save(r.cfg.Checkpoint)
}

// otherCause gives why the context ended, where err does not say that already.
func otherCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return cause
	}
	return nil
}

// connect opens the ways to Kafka and begins to follow; what it returns lets go of them, also after an error.
func (r *run) connect(ctx context.Context, fail context.CancelCauseFunc, wg *sync.WaitGroup) (func(), error) {
	var closers []func()
	closeAll := func() {
		for i := len(closers) - 1; i >= 0; i-- {
			closers[i]()
		}
	}
	admin, err := r.kafka.NewAdmin(clientID, r.log)
	if err != nil {
		return closeAll, err
	}
	closers = append(closers, admin.Close)
	at, err := r.look(ctx, kadm.NewClient(admin))
	if err != nil {
		return closeAll, err
	}
	// A stop must not cut lines off that Kafka may have: only a broker that does not answer any more does.
	if r.producer, err = r.kafka.NewProducer(clientID, r.log, kgo.RecordDeliveryTimeout(r.cfg.Patience)); err != nil {
		return closeAll, err
	}
	closeProducer := sync.OnceFunc(r.producer.Close)
	closers = append(closers, closeProducer)
	wg.Go(func() {
		<-ctx.Done()
		grace := time.NewTimer(stopGrace)
		defer grace.Stop()
		select {
		case <-grace.C:
			closeProducer()
		case <-r.producer.Context().Done():
		}
	})
	p := r.cp.Partition
	reader, err := r.kafka.NewReader(clientID, r.log, map[string]map[int32]kgo.Offset{
		kafka.TopicMessages: {p: kgo.NewOffset().At(max(r.cp.MessagesFrom, at.messagesStart))},
		kafka.TopicNotify:   {p: kgo.NewOffset().At(at.notifyEnd)},
	})
	if err != nil {
		return closeAll, err
	}
	closers = append(closers, reader.Close)
	r.partial = at.messagesStart > r.cp.MessagesFrom || at.rejectedStart > r.cp.RejectedFrom
	numbered := int64(0)
	if r.partial {
		numbered = at.inboundEnd // what retention has removed is older than anything that still waits
	}
	r.follower = newFollower(r.group.String(), at.inboundEnd, numbered)
	wg.Go(func() {
		if err := r.follower.run(ctx, reader); err != nil {
			fail(err)
		}
	})
	others := &groupLag{admin: kadm.NewClient(admin), skip: p, log: r.log}
	wg.Go(func() { others.run(ctx) })
	r.gate = &gate{bound: r.cfg.MaxLag, patience: r.cfg.Patience, waiting: r.progress.waits, behind: func() behind {
		worst := others.worst()
		if own := r.follower.behind(max(r.cp.Last+1, at.inboundEnd)); own.n > worst.n {
			worst = own
		}
		return worst
	}}
	return closeAll, nil
}

// bounds are where the logs of the group's partition begin and end.
type bounds struct {
	inboundEnd, messagesStart, rejectedStart, notifyEnd int64
}

// look finds the group's partition and the bounds of its logs. The first run of an import notes where they end before
// anything is produced.
func (r *run) look(ctx context.Context, adm *kadm.Client) (bounds, error) {
	var b bounds
	topics := []string{kafka.TopicInbound, kafka.TopicMessages, kafka.TopicRejected, kafka.TopicNotify}
	starts, err1 := adm.ListStartOffsets(ctx, topics...)
	ends, err2 := adm.ListEndOffsets(ctx, topics...)
	settled, err3 := adm.ListCommittedOffsets(ctx, topics...)
	if err := errors.Join(err1, err2, err3); err != nil {
		return b, fmt.Errorf("asking for the bounds of the logs: %w", err)
	}
	n := int32(len(ends[kafka.TopicInbound]))
	if n == 0 {
		return b, fmt.Errorf("topic %s is not there: create the topics with `tideline topics create`", kafka.TopicInbound)
	}
	partition := chat.Partition(r.group.String(), n)
	var faults []error
	at := func(list kadm.ListedOffsets, topic string) int64 {
		o, ok := list.Lookup(topic, partition)
		if !ok || o.Err != nil {
			faults = append(faults, fmt.Errorf("asking for the bounds of %s/%d: there is none (%w)", topic, partition, errors.Join(o.Err)))
		}
		return o.Offset
	}
	b.inboundEnd, b.notifyEnd = at(ends, kafka.TopicInbound), at(settled, kafka.TopicNotify)
	b.messagesStart, b.rejectedStart = at(starts, kafka.TopicMessages), at(starts, kafka.TopicRejected)
	messagesEnd, rejectedEnd := at(settled, kafka.TopicMessages), at(settled, kafka.TopicRejected)
	if err := errors.Join(faults...); err != nil {
		return b, err
	}
	if r.cp != nil {
		if r.cp.Partition != partition {
			return b, fmt.Errorf("the checkpoint %s says that the group is in partition %d, here it is in %d", r.cfg.Checkpoint, r.cp.Partition, partition)
		}
		return b, nil
	}
	r.cp = &checkpoint{
		Version: checkpointVersion, Source: r.cfg.Source, Conversation: r.group, Partition: partition,
		MessagesFrom: messagesEnd, RejectedFrom: rejectedEnd, Last: -1, Sum: sumOfNothing,
	}
	return b, r.cp.save(r.cfg.Checkpoint)
}

// await waits until every record has its outcome and the store has what was numbered.
func (r *run) await(ctx context.Context) error {
	r.progress.begin("waiting until all can be read, records numbered", 0, 0)
	patience := time.NewTimer(r.cfg.Patience)
	defer patience.Stop()
	target := int64(-1)
	for {
		now := r.follower.now()
		if now.numberedNext > r.cp.Last {
			if target < 0 {
				target = now.seq
			}
			if now.stored >= target {
				return nil
			}
		}
		r.progress.waits(r.follower.behind(r.cp.Last + 1))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-now.changed:
			patience.Reset(r.cfg.Patience)
		case <-patience.C:
			return fmt.Errorf("everything was produced, and nothing has moved for %s: record %d of %s/%d is not numbered and stored yet; are ingest and timeline running? The same command waits on",
				r.cfg.Patience, r.cp.Last, kafka.TopicInbound, r.cp.Partition)
		}
	}
}

// outcomes counts what stands in im.rejected of this import.
func (r *run) outcomes(ctx context.Context, report *Report) error {
	report.Outcomes = map[chat.Code]int{}
	p := r.cp.Partition
	start, _, err := kafka.Bounds(ctx, r.kafka, clientID, r.log, kafka.TopicRejected, p)
	if err != nil {
		return err
	}
	_, err = kafka.ReadToEnd(ctx, r.kafka, clientID, r.log, kafka.TopicRejected, p, max(start, r.cp.RejectedFrom), func(rec *kgo.Record) error {
		if string(rec.Key) != r.group.String() || kafka.Header(rec, kafka.HeaderProducer) != producerName {
			return nil
		}
		rejection, err := wire.DecodeRejection(rec.Value)
		if err != nil {
			return fmt.Errorf("reading %s/%d at %d: %w", rec.Topic, rec.Partition, rec.Offset, err)
		}
		before := report.Rejected()
		report.Outcomes[rejection.Code]++
		if report.Rejected() > before && len(report.Refused) < maxToldLines {
			report.Refused = append(report.Refused, Refused{rejection.ClientMsgID, rejection.Code, rejection.Message})
		}
		return nil
	})
	return err
}
