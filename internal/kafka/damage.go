package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Damage is a stretch of offsets of which no record can be read: a batch, or what is left of one behind its last readable
// record. A broker refuses such batches, but an older one of ours did not, and a batch that unpacks to more than our bound
// is in order for every broker.
type Damage struct {
	First, Last int64
	Why         string
}

// ErrDamaged is wrapped by the error of a partition that has damage and must not be stepped over.
var ErrDamaged = errors.New("a batch of the log cannot be read")

type damageKey struct{}

// DamageOf returns what a record of Poll stands for where it is no record but damage, else nil.
func DamageOf(r *kgo.Record) *Damage {
	if r.Context == nil {
		return nil
	}
	d, _ := r.Context.Value(damageKey{}).(*Damage)
	return d
}

// damageRecord returns the record that Poll returns for damage.
func (p *Partition) damageRecord(d *Damage) *kgo.Record {
	return &kgo.Record{Topic: p.Topic, Partition: p.ID, Offset: d.First, Context: context.WithValue(context.Background(), damageKey{}, d)}
}

// batchCounter counts the batches that a reader has read. franz-go reads a batch whose records are fewer than it says again
// and again and reports nothing: a reader that reads batches and gets no records looks for damage.
type batchCounter struct{ n atomic.Int64 }

func (c *batchCounter) OnFetchBatchRead(kgo.BrokerMetadata, string, int32, kgo.FetchBatchMetrics) {
	c.n.Add(1)
}

// stalledAfter is how long a reader waits for the records of batches that it has read.
const stalledAfter = time.Second

// inspect reads the batches at the next offset as they are in the log and returns the damage among them, as far as the
// batch that has the offset before end; end -1 is the first batch that is neither a marker nor of a transaction that was
// taken back. It returns nil where they are in order.
func (p *Partition) inspect(ctx context.Context, end int64) (*Damage, error) {
	fetched, err := p.fetchRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking at the batches of %s/%d at %d: %w", p.Topic, p.ID, p.next, err)
	}
	aborted := map[int64][]int64{}
	for _, a := range fetched.AbortedTransactions {
		aborted[a.ProducerID] = append(aborted[a.ProducerID], a.FirstOffset)
	}
	var found *Damage
	batches(fetched.RecordBatches, func(raw []byte, first, last int64) bool {
		if end >= 0 && first >= end {
			return false
		}
		if last < p.next {
			return true
		}
		b, fault := p.unpacker.Batch(raw)
		switch {
		case fault != nil && !takenBack(aborted, &b):
			found = &Damage{First: max(first, p.next), Last: last, Why: fault.Why}
			return false
		case b.Attributes&batchControl != 0:
			endsTransaction(aborted, &b)
			return true
		}
		return end >= 0 || takenBack(aborted, &b)
	})
	return found, nil
}

// takenBack reports whether a batch belongs to a transaction that did not commit.
func takenBack(aborted map[int64][]int64, b *kmsg.RecordBatch) bool {
	const transactional = 0x10
	if b.Attributes&transactional == 0 {
		return false
	}
	for _, from := range aborted[b.ProducerID] {
		if b.FirstOffset >= from {
			return true
		}
	}
	return false
}

// endsTransaction forgets the transaction that a marker ends, so that the producer's next one is judged by itself.
func endsTransaction(aborted map[int64][]int64, marker *kmsg.RecordBatch) {
	kept := aborted[marker.ProducerID][:0]
	for _, from := range aborted[marker.ProducerID] {
		if from > marker.FirstOffset {
			kept = append(kept, from)
		}
	}
	aborted[marker.ProducerID] = kept
}

// inspectTimeout bounds one look at the log.
const inspectTimeout = 10 * time.Second

// fetchRaw reads what the log has at the next offset without unpacking it.
func (p *Partition) fetchRaw(ctx context.Context) (*kmsg.FetchResponseTopicPartition, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	cl, err := p.cfg.NewAdmin(p.id, p.log)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ask := kmsg.NewPtrMetadataRequest()
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = kmsg.StringPtr(p.Topic)
	ask.Topics = append(ask.Topics, topic)
	meta, err := ask.RequestWith(ctx, cl)
	if err != nil {
		return nil, fmt.Errorf("asking for the leader: %w", err)
	}
	leader, id := int32(-1), [16]byte{}
	for _, t := range meta.Topics {
		id = t.TopicID
		for _, at := range t.Partitions {
			if at.Partition == p.ID {
				leader = at.Leader
			}
		}
	}
	if leader < 0 {
		return nil, errors.New("the partition has no leader")
	}
	fetch := kmsg.NewPtrFetchRequest()
	fetch.MinBytes, fetch.MaxBytes, fetch.IsolationLevel = 1, fetchPartitionBytes, 1
	ft := kmsg.NewFetchRequestTopic()
	ft.Topic, ft.TopicID = p.Topic, id
	fp := kmsg.NewFetchRequestTopicPartition()
	fp.Partition, fp.FetchOffset, fp.PartitionMaxBytes = p.ID, p.next, fetchPartitionBytes
	ft.Partitions = append(ft.Partitions, fp)
	fetch.Topics = append(fetch.Topics, ft)
	answer, err := fetch.RequestWith(ctx, cl.Broker(int(leader)))
	if err != nil {
		return nil, fmt.Errorf("fetching: %w", err)
	}
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return nil, fmt.Errorf("fetching: %w", err)
	}
	if len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1 {
		return nil, errors.New("the broker answered for other partitions")
	}
	got := &answer.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
		return nil, fmt.Errorf("fetching: %w", err)
	}
	return got, nil
}
