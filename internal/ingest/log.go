package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"tideline/internal/failpoint"
	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/seq"
)

// partitionLog is one partition's part of Kafka, as its owner sees it. It implements seq.Log.
//
// Fenced, every write is a transaction of the partition's own transactional id. Plain, it is produce requests, in order, of
// an idempotent producer that repeats them for as long as the process lives: a kill leaves the first of the records, and
// the next owner goes on behind them. What the broker refuses for good ends the owner, not the process; it was not
// written. That is enough only where the broker runs inside this process, because then nobody else can own the partition,
// and both die together.
type partitionLog struct {
	cfg       kafka.Config
	clientID  string
	fenced    bool
	log       *slog.Logger
	partition *kafka.Partition
	producer  *kgo.Client
	tracer    trace.Tracer
	metrics   *Metrics

	polled time.Time // when the batch was read
	at     int64     // of im.inbound: everything before it has its outcome; -1 until that is known
}

// attached is what this log keeps of a record for its outcome.
type attached struct {
	record  *kgo.Record
	replyTo string
}

func (l *partitionLog) Fence(ctx context.Context) error {
	transactionalID := ""
	if l.fenced {
		transactionalID = "tideline-ingest-" + strconv.Itoa(int(l.partition.ID))
	}
	producer, err := l.cfg.NewOwnerProducer(l.clientID, transactionalID, l.log)
	if err != nil {
		return err
	}
	l.producer = producer
	// Asks for the producer's id: the coordinator ends what the predecessor had open, and refuses it from now on.
	if _, _, err := producer.ProducerID(ctx); err != nil {
		return fmt.Errorf("taking the producer's id: %w", err)
	}
	return nil
}

func (l *partitionLog) close() {
	if l.producer != nil {
		l.producer.Close()
	}
}

func (l *partitionLog) Tail(ctx context.Context, from int64, each func(seq.TailRecord) error) error {
	_, err := kafka.ReadToEnd(ctx, l.cfg, l.clientID, l.log, kafka.TopicMessages, l.partition.ID, from, func(r *kgo.Record) error {
		e, err := wire.DecodeEvent(r.Value)
		if err != nil {
			return l.unreadable(r, err, each)
		}
		if err := each(seq.TailRecord{Offset: r.Offset, Event: e}); errors.Is(err, seq.ErrUnknownKind) {
			return fmt.Errorf("%s/%d at %d: %w; %s", r.Topic, r.Partition, r.Offset, err, kafka.Needed(r))
		} else if err != nil {
			return fmt.Errorf("%s/%d at %d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		return nil
	})
	return err
}

// unreadable decides about a record of the tail whose value cannot be read; see ADR 26. The number that it names outside its
// value counts as used. Where it names none, it is passed over only if ingest cannot have written it: a note of progress that
// was passed over would have its inbound records numbered again.
func (l *partitionLog) unreadable(r *kgo.Record, why error, each func(seq.TailRecord) error) error {
	at := l.log.With("topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "err", why)
	if id, n, ok := kafka.Outside(r, l.cfg.Partitions); ok {
		l.metrics.unreadable.Inc()
		at.Error("A RECORD in the log cannot be read: its number counts as used; see the runbook", "conversation", id.String(), "seq", n)
		return each(seq.TailRecord{Offset: r.Offset, Unreadable: true, Event: chat.Event{Conversation: id, Seq: n}})
	}
	if kafka.Ours(r) {
		return fmt.Errorf("%s/%d at %d: %w", r.Topic, r.Partition, r.Offset, why)
	}
	l.metrics.unreadable.Inc()
	at.Error("A RECORD in the log cannot be read and was not written by ingest: it is passed over; see the runbook")
	return nil
}

func (l *partitionLog) Asides(ctx context.Context, from int64, each func(seq.AsideRecord) error) error {
	start, _, err := kafka.Bounds(ctx, l.cfg, l.clientID, l.log, kafka.TopicRejected, l.partition.ID)
	if err != nil {
		return err
	}
	// What retention has removed is older than the last event by far: it cannot belong to an unfinished batch.
	_, err = kafka.ReadToEnd(ctx, l.cfg, l.clientID, l.log, kafka.TopicRejected, l.partition.ID, max(from, start), func(r *kgo.Record) error {
		rejection, err := wire.DecodeRejection(r.Value)
		if err != nil && !kafka.Ours(r) {
			l.metrics.unreadable.Inc()
			l.log.Error("A RECORD in the log cannot be read and was not written by ingest: it is passed over; see the runbook", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "err", err)
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s/%d at %d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		return each(seq.AsideRecord{Offset: r.Offset, Rejection: rejection})
	})
	return err
}

func (l *partitionLog) Start(ctx context.Context, offset int64) error {
	l.at = offset
	l.partition.StepOver = true // any producer of im.inbound can write a batch that cannot be read
	return l.partition.Start(ctx, offset)
}

func (l *partitionLog) Poll(ctx context.Context, limit int) ([]seq.Record, int64, error) {
	polled, err := l.partition.Poll(ctx, limit)
	if err != nil {
		return nil, 0, err
	}
	l.polled = time.Now()
	records := make([]seq.Record, len(polled))
	for i, r := range polled {
		records[i] = l.decode(r)
	}
	return records, l.partition.Next(), nil
}

func (l *partitionLog) decode(r *kgo.Record) seq.Record {
	if d := kafka.DamageOf(r); d != nil {
		l.metrics.damaged.Inc()
		return seq.Record{
			Offset: d.First, Last: d.Last, Attached: &attached{record: r},
			Fault: chat.Refuse(chat.CodeMalformed, "offsets %d to %d cannot be read: %s", d.First, d.Last, d.Why),
		}
	}
	out := seq.Record{
		Offset: r.Offset, Value: r.Value, ContentType: kafka.Header(r, kafka.HeaderContentType), Producer: producerName(r),
		Attached: &attached{record: r, replyTo: replyTo(r)},
	}
	if from := kafka.Header(r, kafka.HeaderMovedFrom); from != "" {
		if p, o, err := kafka.ParsePlace(from); err == nil {
			out.MovedFrom = &chat.Position{Partition: p, Offset: o}
		}
	}
	if len(out.ContentType) > maxContentTypeBytes {
		out.Fault = chat.RefuseField(chat.CodeNotAcceptable, "content-type", "has %d bytes, %d are read", len(out.ContentType), maxContentTypeBytes)
		return out
	}
	command, err := wire.DecodeCommand(out.ContentType, r.Value)
	out.Command = command
	if err != nil {
		var refusal *chat.Error
		if !errors.As(err, &refusal) {
			refusal = chat.Refuse(chat.CodeMalformed, "the record is not readable").Because(err)
		}
		out.Fault = refusal
		return out
	}
	if !command.Conversation.IsZero() {
		out.Home = chat.Partition(command.Conversation.String(), int32(l.cfg.Partitions))
	}
	return out
}

// producerName gives the header producer, in a form that can be stored: short, and valid text.
func producerName(r *kgo.Record) string {
	name := strings.ToValidUTF8(kafka.Header(r, kafka.HeaderProducer), "")
	if len(name) > chat.MaxProducerBytes {
		name = strings.ToValidUTF8(name[:chat.MaxProducerBytes], "")
	}
	return name
}

func (l *partitionLog) WriteAside(ctx context.Context, asides []seq.Outcome) (int64, error) {
	var moves, notes []*kgo.Record
	for _, o := range asides {
		if o.Moves() {
			moves = append(moves, l.move(&o))
		}
		notes = append(notes, l.note(&o))
	}
	if !l.fenced && len(moves) > 0 {
		// The note says that the move was made: it must not be there without it.
		if _, err := l.write(ctx, moves); err != nil {
			return 0, err
		}
		moves = nil
	}
	written, err := l.write(ctx, append(moves, notes...))
	if err != nil {
		return 0, err
	}
	return written[len(written)-1].Offset + 1, nil
}

// move copies a record to the partition where it belongs, with what came with it and where it came from.
func (l *partitionLog) move(o *seq.Outcome) *kgo.Record {
	from := o.Record.Attached.(*attached).record
	headers, left := movedHeaders(from, l.partition.ID)
	if left > 0 {
		l.log.Warn("a record was moved without some of its headers, which are too long", "partition", l.partition.ID, "offset", from.Offset, "headers", left)
	}
	return &kgo.Record{
		Topic: kafka.TopicInbound, Partition: o.Rejection.MovedTo, Key: []byte(o.Record.Command.Conversation.String()), Value: from.Value, Headers: headers,
	}
}

// Bounds of what comes with a record. Its value is a command of at most 96 KiB by the time it is moved, and its headers
// may be as long as the log takes: with one header more they would be longer than that.
const (
	maxContentTypeBytes = 256
	maxReplyToBytes     = 128
	maxMovedHeaderBytes = 64 << 10
	// headerOverhead is what a header costs at most beside its key and value, so that empty ones are not free.
	headerOverhead = 10
)

// movedHeaders gives the headers of a record that is moved: where it came from, those that we read ourselves, and of
// the others as many as there is room for, in their order. It tells how many are left behind.
func movedHeaders(r *kgo.Record, partition int32) (headers []kgo.RecordHeader, left int) {
	room := maxMovedHeaderBytes
	add := func(h kgo.RecordHeader) {
		if size := len(h.Key) + len(h.Value) + headerOverhead; size <= room {
			room -= size
			headers = append(headers, h)
			return
		}
		left++
	}
	add(kgo.RecordHeader{Key: kafka.HeaderMovedFrom, Value: []byte(strconv.Itoa(int(partition)) + ":" + strconv.FormatInt(r.Offset, 10))})
	ours := map[string]string{kafka.HeaderContentType: kafka.Header(r, kafka.HeaderContentType), kafka.HeaderProducer: producerName(r), kafka.HeaderReplyTo: replyTo(r), kafka.HeaderMovedFrom: ""}
	for _, key := range []string{kafka.HeaderContentType, kafka.HeaderProducer, kafka.HeaderReplyTo} {
		if ours[key] != "" {
			add(kgo.RecordHeader{Key: key, Value: []byte(ours[key])})
		}
	}
	for _, h := range r.Headers {
		if _, done := ours[h.Key]; !done {
			add(h)
		}
	}
	return headers, left
}

// replyTo gives the header reply-to, where it can be one of ours.
func replyTo(r *kgo.Record) string {
	if to := kafka.Header(r, kafka.HeaderReplyTo); len(to) <= maxReplyToBytes {
		return to
	}
	return ""
}

func (l *partitionLog) note(o *seq.Outcome) *kgo.Record {
	var key []byte
	if id := o.Rejection.Conversation; !id.IsZero() {
		key = []byte(id.String())
	}
	return &kgo.Record{
		Topic: kafka.TopicRejected, Partition: l.partition.ID, Key: key, Value: wire.EncodeRejection(o.Rejection),
		Headers: []kgo.RecordHeader{{Key: kafka.HeaderProducer, Value: []byte(o.Rejection.Producer)}},
	}
}

func (l *partitionLog) WriteEvents(ctx context.Context, b *seq.Batch) ([]int64, error) {
	spans := l.spans(b)
	records := make([]*kgo.Record, len(b.Events()))
	for i, e := range b.Events() {
		r := &kgo.Record{Topic: kafka.TopicMessages, Partition: l.partition.ID, Value: wire.EncodeEvent(e), Headers: []kgo.RecordHeader{{Key: kafka.HeaderKind, Value: []byte(e.Kind.String())}}}
		if e.Kind != chat.KindProgress {
			r.Key = []byte(e.Conversation.String())
			r.Headers = append(r.Headers,
				kgo.RecordHeader{Key: kafka.HeaderSeq, Value: strconv.AppendInt(nil, e.Seq, 10)},
				kgo.RecordHeader{Key: kafka.HeaderProducer, Value: []byte(e.Producer)},
				kgo.RecordHeader{Key: kafka.HeaderClientMsgID, Value: []byte(e.ClientMsgID)})
			if since := e.Kind.Since(); since > 1 {
				r.Headers = append(r.Headers, kgo.RecordHeader{Key: kafka.HeaderKinds, Value: strconv.AppendInt(nil, int64(since), 10)})
			}
			if traced, there := spans[e.InboundOffset]; there {
				r.Headers = kafka.WithTrace(traced, r.Headers)
			}
		}
		records[i] = r
	}
	written, err := l.write(ctx, records)
	endSpans(spans, err)
	if err != nil {
		return nil, err
	}
	offsets := make([]int64, len(written))
	for i, r := range written {
		offsets[i] = r.Offset
	}
	return offsets, nil
}

// writeTimeout bounds a fenced write; behind it the outcome is unknown, and the next owner finds out.
const writeTimeout = 20 * time.Second

// write produces records in order and waits until all in-sync replicas have them. Fenced, they are one transaction.
func (l *partitionLog) write(ctx context.Context, records []*kgo.Record) ([]*kgo.Record, error) {
	began := time.Now()
	defer func() { l.metrics.write.Observe(time.Since(began).Seconds()) }()
	if !l.fenced {
		// The producer repeats by itself whatever can succeed later: see partitionLog.
		return records, l.producer.ProduceSync(ctx, records...).FirstErr()
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := l.producer.BeginTransaction(); err != nil {
		return nil, l.refused(fmt.Errorf("beginning a transaction: %w", err))
	}
	if err := l.producer.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return nil, l.refused(fmt.Errorf("writing in a transaction: %w", err))
	}
	failpoint.Here("ingest/produced")
	if err := l.producer.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return nil, l.refused(fmt.Errorf("committing a transaction: %w", err))
	}
	return records, nil
}

// refused marks the errors that say that somebody else is the owner.
func (l *partitionLog) refused(err error) error {
	for _, fenced := range []error{kerr.ProducerFenced, kerr.InvalidProducerEpoch, kerr.TransactionalIDAuthorizationFailed, kerr.InvalidProducerIDMapping} {
		if errors.Is(err, fenced) {
			return fmt.Errorf("%w: %w", kafka.ErrGiveUp, err)
		}
	}
	return err
}
