package importer

import (
	"context"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// producerName is the header by which everybody, we too, knows an import's records.
const producerName = "import"

// follower reads what becomes of the import: the events of the group's partition, and the notifications that say what the
// store has.
type follower struct {
	conversation string
	// start is where im.inbound ended when this run began: events of records before it are not ours to wait for.
	start int64

	mu           sync.Mutex // guards the fields below
	numberedNext int64      // every inbound record before it has its outcome
	seq          int64      // the group's last number
	stored       int64      // the group's last number that the store has, as far as it matters to this run
	numbered     map[chat.Kind]int
	changed      chan struct{} // closed and made anew when something moved
}

// newFollower begins with what is known to have its outcome.
func newFollower(conversation string, start, numberedNext int64) *follower {
	return &follower{conversation: conversation, start: start, numberedNext: numberedNext, numbered: map[chat.Kind]int{}, changed: make(chan struct{})}
}

// followed is what a follower knows.
type followed struct {
	numberedNext, seq, stored int64
	changed                   <-chan struct{}
}

func (f *follower) now() followed {
	f.mu.Lock()
	defer f.mu.Unlock()
	return followed{f.numberedNext, f.seq, f.stored, f.changed}
}

// behind says how far numbering and storing are behind what was produced, next being the inbound offset after that.
func (f *follower) behind(next int64) behind {
	now := f.now()
	worst := behind{"the numbering of this import", next - max(now.numberedNext, f.start)}
	if n := now.seq - now.stored; n > worst.n {
		worst = behind{"the store, with this import,", n}
	}
	return worst
}

func (f *follower) counts() map[chat.Kind]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[chat.Kind]int{}
	for k, n := range f.numbered {
		out[k] = n
	}
	return out
}

// run reads until the context ends. The client reads im.messages and im.notify in the group's partition.
func (f *follower) run(ctx context.Context, cl *kgo.Client) error {
	for {
		fetches := cl.PollRecords(ctx, 0)
		if ctx.Err() != nil {
			return nil
		}
		for _, e := range fetches.Errors() {
			return fmt.Errorf("following %s/%d: %w", e.Topic, e.Partition, e.Err)
		}
		if err := f.take(fetches.Records()); err != nil {
			return err
		}
	}
}

func (f *follower) take(records []*kgo.Record) error {
	if len(records) == 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range records {
		if r.Topic == kafka.TopicNotify {
			if string(r.Key) != f.conversation {
				continue
			}
			n, err := wire.DecodeNotify(r.Value)
			if err != nil {
				return fmt.Errorf("reading %s/%d at %d: %w", r.Topic, r.Partition, r.Offset, err)
			}
			f.stored = max(f.stored, n.MaxSeq)
			continue
		}
		e, err := wire.DecodeEvent(r.Value)
		if err != nil {
			continue // it is no outcome of a command; the timeline's writer parks it and says so
		}
		f.numberedNext = max(f.numberedNext, e.InboundOffset+1)
		if e.Kind == chat.KindProgress || string(r.Key) != f.conversation {
			continue
		}
		switch {
		case e.InboundOffset < f.start:
			// The store may have told of it long before this run, and does not tell again.
			f.stored = max(f.stored, e.Seq)
		case f.seq == 0:
			f.stored = max(f.stored, e.Seq-1)
		}
		f.seq = e.Seq
		if e.Producer == producerName {
			f.numbered[e.Kind]++
		}
	}
	close(f.changed)
	f.changed = make(chan struct{})
	return nil
}
