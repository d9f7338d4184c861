// Package heads follows im.notify: it knows where conversations stand as far as the store has told, lets others wait for a
// number, and passes every notification on. Every api and every pusher has one.
package heads

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// Head is where a conversation stands.
type Head struct {
	MaxSeq  int64
	Ordinal int64
}

// maxHeads bounds how many heads are remembered; one that was forgotten is asked of the store.
const maxHeads = 200_000

// Times of freshness: who has not confirmed for staleAfter that nothing is unread must not trust what it remembers.
const (
	confirmEvery = 500 * time.Millisecond
	staleAfter   = 2 * time.Second
)

// Follower reads im.notify from its end. It is safe for concurrent use.
type Follower struct {
	cfg kafka.Config
	log *slog.Logger
	id  string

	mu          sync.Mutex // guards what follows
	heads       map[chat.ConversationID]Head
	waiters     map[chat.ConversationID][]*waiter
	subscribers []func(chat.Notify)
	gaps        []func()
	next        map[int32]int64
	confirmed   time.Time
	missed      bool // something was skipped, and nobody was told yet
	started     chan struct{}
	startedOnce sync.Once
}

type waiter struct {
	seq  int64
	done chan struct{}
}

// New makes a follower; it knows nothing until Run has begun.
func New(cfg kafka.Config, log *slog.Logger, id string) *Follower {
	return &Follower{
		cfg: cfg, log: log, id: id, heads: map[chat.ConversationID]Head{}, waiters: map[chat.ConversationID][]*waiter{},
		next: map[int32]int64{}, started: make(chan struct{}),
	}
}

// Subscribe adds somebody who is told of every notification, in order and in the follower's goroutine: it must not block.
// Subscribe before Run.
func (f *Follower) Subscribe(tell func(chat.Notify)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subscribers = append(f.subscribers, tell)
}

// OnGap adds somebody who is told that notifications were missed, because retention was faster than this process. It is told
// once the place is known from which on nothing is missed again: what was remembered or begun before may be wrong. Until then
// Fresh is false. Add before Run.
func (f *Follower) OnGap(tell func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gaps = append(f.gaps, tell)
}

// Started is closed once the follower reads from the end.
func (f *Follower) Started() <-chan struct{} { return f.started }

// Fresh tells whether, within the last two seconds, everything that was in im.notify had been read.
func (f *Follower) Fresh() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Since(f.confirmed) < staleAfter
}

// Head gives where a conversation stands, as far as it was told; false where nothing was.
func (f *Follower) Head(c chat.ConversationID) (Head, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.heads[c]
	return h, ok
}

// WaitFor waits until the store is known to have a number of a conversation. It returns the context's error when that
// ends first.
func (f *Follower) WaitFor(ctx context.Context, c chat.ConversationID, seq int64) error {
	f.mu.Lock()
	if f.heads[c].MaxSeq >= seq {
		f.mu.Unlock()
		return nil
	}
	w := &waiter{seq: seq, done: make(chan struct{})}
	f.waiters[c] = append(f.waiters[c], w)
	f.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		f.mu.Lock()
		defer f.mu.Unlock()
		list := f.waiters[c]
		for i, other := range list {
			if other == w {
				f.waiters[c] = append(list[:i:i], list[i+1:]...)
				break
			}
		}
		if len(f.waiters[c]) == 0 {
			delete(f.waiters, c)
		}
		return ctx.Err()
	}
}

// Run follows until the context ends. While Kafka does not answer it goes on trying, and Fresh is false.
func (f *Follower) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := f.follow(ctx)
		if ctx.Err() != nil {
			break
		}
		f.log.Warn("following im.notify was interrupted; it begins again", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

func (f *Follower) follow(ctx context.Context) error {
	admin, err := f.cfg.NewAdmin(f.id, f.log)
	if err != nil {
		return err
	}
	defer admin.Close()
	adm := kadm.NewClient(admin)
	f.mu.Lock()
	resume := len(f.next) == f.cfg.Partitions
	f.mu.Unlock()
	if !resume {
		ends, err := f.ends(ctx, adm)
		if err != nil {
			return err
		}
		f.begin(ends)
	}
	from := map[int32]kgo.Offset{}
	f.mu.Lock()
	for p, o := range f.next {
		from[p] = kgo.NewOffset().At(o)
	}
	f.mu.Unlock()
	reader, err := f.cfg.NewReader(f.id, f.log, map[string]map[int32]kgo.Offset{kafka.TopicNotify: from})
	if err != nil {
		return err
	}
	defer reader.Close()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { f.confirm(ctx, adm) })
	f.startedOnce.Do(func() { close(f.started) })
	for {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, e := range fetches.Errors() {
			if errors.Is(e.Err, kerr.OffsetOutOfRange) {
				f.skip()
			}
			return fmt.Errorf("reading im.notify: %w", e.Err)
		}
		fetches.EachRecord(f.take)
	}
}

// skip forgets where reading stood, so that it begins again at the end.
func (f *Follower) skip() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next, f.heads, f.confirmed, f.missed = map[int32]int64{}, map[chat.ConversationID]Head{}, time.Time{}, true
	f.log.Error("NOTIFICATIONS WERE MISSED: retention removed them before they were read", "topic", kafka.TopicNotify)
}

// begin notes from where everything is read. Where something was skipped, those who remember something are told now and not
// before: what comes between is not told either, and who began to read the store or connected then has not seen it.
func (f *Follower) begin(ends map[int32]int64) {
	f.mu.Lock()
	f.next = ends
	missed, gaps := f.missed, f.gaps
	f.missed = false
	f.mu.Unlock()
	if missed {
		for _, tell := range gaps {
			tell()
		}
	}
}

func (f *Follower) ends(ctx context.Context, adm *kadm.Client) (map[int32]int64, error) {
	list, err := adm.ListEndOffsets(ctx, kafka.TopicNotify)
	if err == nil {
		err = list.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("asking for the end of im.notify: %w", err)
	}
	ends := map[int32]int64{}
	list.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	return ends, nil
}

// confirm asks again and again where im.notify ends, and notes when everything before that had been read.
func (f *Follower) confirm(ctx context.Context, adm *kadm.Client) {
	tick := time.NewTicker(confirmEvery)
	defer tick.Stop()
	for {
		asked := time.Now()
		once, cancel := context.WithTimeout(ctx, staleAfter)
		ends, err := f.ends(once, adm)
		cancel()
		if err == nil {
			f.mu.Lock()
			behind := false
			for p, end := range ends {
				behind = behind || f.next[p] < end
			}
			if !behind {
				f.confirmed = asked
			}
			f.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// take passes a notification on. Those who remember something are told before anybody is woken, and before it counts as
// read: whoever waited, or finds us fresh, must not be given what the notification has made untrue.
func (f *Follower) take(r *kgo.Record) {
	n, err := wire.DecodeNotify(r.Value)
	if err != nil {
		f.log.Error("a notification is not readable and is skipped", "partition", r.Partition, "offset", r.Offset, "err", err)
	} else {
		f.mu.Lock()
		subscribers := f.subscribers
		f.mu.Unlock()
		for _, tell := range subscribers {
			tell(n)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next[r.Partition] = r.Offset + 1
	if err == nil {
		f.move(n)
	}
}

// move enters where a conversation stands, and wakes who waited for that. f.mu is held.
func (f *Follower) move(n chat.Notify) {
	if h := f.heads[n.Conversation]; n.MaxSeq > h.MaxSeq {
		if len(f.heads) >= maxHeads {
			for c := range f.heads {
				delete(f.heads, c)
				break
			}
		}
		f.heads[n.Conversation] = Head{n.MaxSeq, n.Ordinal}
	}
	list := f.waiters[n.Conversation]
	if len(list) == 0 {
		return
	}
	var rest []*waiter
	for _, w := range list {
		if w.seq <= n.MaxSeq {
			close(w.done)
		} else {
			rest = append(rest, w)
		}
	}
	if len(rest) == 0 {
		delete(f.waiters, n.Conversation)
	} else {
		f.waiters[n.Conversation] = rest
	}
}
