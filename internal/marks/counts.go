package marks

import (
	"context"
	"sync"
	"time"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// maxShared bounds how many messages one count answers for; a request asks for a hundred at most.
const maxShared = 200

// mostWaiting bounds the counts of one conversation that wait for the one under way.
const mostWaiting = 8

// countTime bounds one count with everything that it may wait for: Redis, the writer of marks, the store.
const countTime = 3 * time.Second

// counts lets those who ask about one conversation at the same time share the counting: whoever comes while a count is under
// way is answered by the next one, which asks once for every message that they name. So a crowd in front of one screen costs
// one count at a time, and none is older than the question.
type counts struct {
	count func(ctx context.Context, c chat.ConversationID, asked []timeline.ReceiptQuestion) ([]timeline.ReceiptCount, error)

	mu sync.Mutex // guards lanes
	// lanes has the conversations that are being counted, each with the counts that come after the one under way.
	lanes map[chat.ConversationID][]*sharedCount
}

// sharedCount is what some callers wait for.
type sharedCount struct {
	asked []timeline.ReceiptQuestion
	place map[int64]int // of a number, in asked and in got
	wait  int           // how many wait; guarded by counts
	done  chan struct{}
	got   []timeline.ReceiptCount
	err   error
}

func newCounts(do func(context.Context, chat.ConversationID, []timeline.ReceiptQuestion) ([]timeline.ReceiptCount, error)) *counts {
	return &counts{count: do, lanes: map[chat.ConversationID][]*sharedCount{}}
}

// of counts, alone or with others.
func (s *counts) of(ctx context.Context, c chat.ConversationID, asked []timeline.ReceiptQuestion) ([]timeline.ReceiptCount, error) {
	mine := s.join(ctx, c, asked)
	if mine == nil {
		return nil, chat.Refuse(chat.CodeOverloaded, "too many ask who has read messages of this conversation").After(time.Second)
	}
	select {
	case <-mine.done:
	case <-ctx.Done():
		s.mu.Lock()
		mine.wait--
		s.mu.Unlock()
		return nil, ctx.Err()
	}
	if mine.err != nil {
		return nil, mine.err
	}
	out := make([]timeline.ReceiptCount, len(asked))
	for i, q := range asked {
		out[i] = mine.got[mine.place[q.Seq]]
	}
	return out, nil
}

// join gives the count that answers a question, and starts it where nothing else of the conversation is being counted; nil where
// too many wait.
func (s *counts) join(ctx context.Context, c chat.ConversationID, asked []timeline.ReceiptQuestion) *sharedCount {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting, busy := s.lanes[c]
	if n := len(waiting); n > 0 && len(waiting[n-1].asked)+len(asked) <= maxShared {
		waiting[n-1].add(asked)
		waiting[n-1].wait++
		return waiting[n-1]
	}
	if len(waiting) >= mostWaiting {
		return nil
	}
	mine := &sharedCount{place: map[int64]int{}, done: make(chan struct{}), wait: 1}
	mine.add(asked)
	if busy {
		s.lanes[c] = append(waiting, mine)
		return mine
	}
	s.lanes[c] = nil
	go s.run(context.WithoutCancel(ctx), c, mine)
	return mine
}

func (n *sharedCount) add(asked []timeline.ReceiptQuestion) {
	for _, q := range asked {
		if _, there := n.place[q.Seq]; !there {
			n.place[q.Seq] = len(n.asked)
			n.asked = append(n.asked, q)
		}
	}
}

// run counts until nobody waits. It does not end with the one who asked first: others wait, too; each count has its bound.
func (s *counts) run(ctx context.Context, c chat.ConversationID, now *sharedCount) {
	for now != nil {
		ctx, cancel := context.WithTimeout(ctx, countTime)
		now.got, now.err = s.count(ctx, c, now.asked)
		cancel()
		close(now.done)
		now = s.next(c)
	}
}

func (s *counts) next(c chat.ConversationID) *sharedCount {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.lanes[c]
	for len(waiting) > 0 && waiting[0].wait == 0 { // nobody waits for it any more
		waiting = waiting[1:]
	}
	if len(waiting) == 0 {
		delete(s.lanes, c)
		return nil
	}
	s.lanes[c] = waiting[1:]
	return waiting[0]
}
