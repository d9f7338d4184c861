package marks

import (
	"context"
	"sync"
	"time"

	"tideline/internal/crowd"
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

	mu    sync.Mutex // guards lanes
	lanes map[chat.ConversationID]*lane
}

// lane is where the counts of one conversation follow one another.
type lane struct {
	*crowd.Batches[sharedCount]
	users int // who is in it; guarded by counts
}

// sharedCount is what some callers wait for.
type sharedCount struct {
	asked []timeline.ReceiptQuestion
	place map[int64]int // of a number, in asked and in got
	got   []timeline.ReceiptCount
}

func newCounts(do func(context.Context, chat.ConversationID, []timeline.ReceiptQuestion) ([]timeline.ReceiptCount, error)) *counts {
	return &counts{count: do, lanes: map[chat.ConversationID]*lane{}}
}

// of counts, alone or with others.
func (s *counts) of(ctx context.Context, c chat.ConversationID, asked []timeline.ReceiptQuestion) ([]timeline.ReceiptCount, error) {
	lane := s.enter(c)
	defer s.exit(c)
	shared, err := lane.Do(ctx, func(n *sharedCount) bool { return n.add(asked) }, func(ctx context.Context, n *sharedCount) (err error) {
		ctx, cancel := context.WithTimeout(ctx, countTime)
		defer cancel()
		n.got, err = s.count(ctx, c, n.asked)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]timeline.ReceiptCount, len(asked))
	for i, q := range asked {
		out[i] = shared.got[shared.place[q.Seq]]
	}
	return out, nil
}

func (s *counts) enter(c chat.ConversationID) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[c]
	if l == nil {
		l = &lane{Batches: crowd.NewBatches[sharedCount](1, mostWaiting, "too many ask who has read messages of this conversation")}
		s.lanes[c] = l
	}
	l.users++
	return l
}

func (s *counts) exit(c chat.ConversationID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lanes[c]; l.users > 1 {
		l.users--
	} else {
		delete(s.lanes, c)
	}
}

// add takes questions in, if there is room.
func (n *sharedCount) add(asked []timeline.ReceiptQuestion) bool {
	if len(n.asked) > 0 && len(n.asked)+len(asked) > maxShared {
		return false
	}
	if n.place == nil {
		n.place = make(map[int64]int, len(asked))
	}
	for _, q := range asked {
		if _, there := n.place[q.Seq]; !there {
			n.place[q.Seq] = len(n.asked)
			n.asked = append(n.asked, q)
		}
	}
	return true
}
