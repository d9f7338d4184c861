package evening

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
)

// place names a partition of a topic.
type place struct {
	topic     string
	partition int32
}

// follower reads the public logs from their beginnings, as any service may, and keeps what the platform said.
type follower struct {
	cl *kgo.Client

	mu   sync.Mutex           // guards what follows
	seen map[place]int64      // the next offset, markers of transactions counted
	next map[place]int64      // the offset behind the last record that a reader is given
	kept map[string][]*record // of im.messages and im.rejected
}

// record is what is kept of a record.
type record struct {
	place
	offset int64
	value  []byte
}

func newFollower(broker string, more []kgo.Opt) (*follower, error) {
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(broker), kgo.MetadataMinAge(100 * time.Millisecond), kgo.FetchMaxWait(time.Second), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeTopics(kafka.TopicInbound, kafka.TopicMessages, kafka.TopicRejected, kafka.TopicReceipts),
	}, more...)...)
	if err != nil {
		return nil, err
	}
	return &follower{cl: cl, seen: map[place]int64{}, next: map[place]int64{}, kept: map[string][]*record{}}, nil
}

// run follows until the context ends. A broker that is away is waited for.
func (f *follower) run(ctx context.Context) {
	defer f.cl.Close()
	for ctx.Err() == nil {
		fetches := f.cl.PollFetches(ctx)
		f.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) {
			at := place{r.Topic, r.Partition}
			f.seen[at] = r.Offset + 1
			if r.Attrs.IsControl() {
				return
			}
			f.next[at] = r.Offset + 1
			if r.Topic == kafka.TopicMessages || r.Topic == kafka.TopicRejected {
				f.kept[r.Topic] = append(f.kept[r.Topic], &record{at, r.Offset, r.Value})
			}
		})
		f.mu.Unlock()
	}
}

// last gives the offset behind the last record of a partition, and whether everything before a known end was seen.
func (f *follower) last(at place, end int64) (next int64, all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next[at], f.seen[at] >= end
}

// records gives what was kept of a topic.
func (f *follower) records(topic string) []*record {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kept[topic]
}
