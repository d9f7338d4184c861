package handlers

import (
	"container/list"
	"sync"
	"time"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// raised remembers marks that this process has raised until the writer of marks has surely passed them. While the fast
// marks of somebody are being filled the store answers for them, and it is a little behind: without this a person who has
// just read up to 5 would be told of 3 again.
type raised struct {
	now func() time.Time

	mu      sync.Mutex // guards what follows
	entries map[timeline.MemberKey]*list.Element
	order   *list.List // of *raisedMark, the one that moved last first
}

type raisedMark struct {
	key   timeline.MemberKey
	mark  timeline.Mark
	until time.Time
}

const (
	raisedFor = time.Minute // the writer of marks is behind by milliseconds, and by seconds while it is taken over
	maxRaised = 100_000     // 20 MB
)

func newRaised() *raised {
	return &raised{now: time.Now, entries: map[timeline.MemberKey]*list.Element{}, order: list.New()}
}

func (r *raised) add(c chat.ConversationID, u chat.UserID, mark timeline.Mark) {
	k := timeline.MemberKey{Conversation: c, User: u}
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, there := r.entries[k]; there {
		m := e.Value.(*raisedMark)
		if mark.Seq > m.mark.Seq || now.After(m.until) {
			m.mark = mark
		}
		m.until = now.Add(raisedFor)
		r.order.MoveToFront(e)
		return
	}
	for oldest := r.order.Back(); oldest != nil; oldest = r.order.Back() {
		m := oldest.Value.(*raisedMark)
		if len(r.entries) < maxRaised && now.Before(m.until) {
			break
		}
		r.order.Remove(oldest)
		delete(r.entries, m.key)
	}
	r.entries[k] = r.order.PushFront(&raisedMark{k, mark, now.Add(raisedFor)})
}

// atLeast gives a mark, or the one that this process knows to stand beyond it. The end is what exists for the reader.
func (r *raised) atLeast(mark timeline.Mark, c chat.ConversationID, u chat.UserID, end int64) timeline.Mark {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, there := r.entries[timeline.MemberKey{Conversation: c, User: u}]; there {
		if m := e.Value.(*raisedMark); m.mark.Seq > mark.Seq && m.mark.Seq <= end && r.now().Before(m.until) {
			return m.mark
		}
	}
	return mark
}
