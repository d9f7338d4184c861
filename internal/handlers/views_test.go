package handlers

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tideline/internal/crowd/crowdtest"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// remembering is views whose heads are as fresh as the test says.
type remembering struct {
	*views
	t     *testing.T
	shelf *shelf
	fresh atomic.Bool
}

func newRemembering(t *testing.T, fresh bool) *remembering {
	r := &remembering{t: t, shelf: newShelf()}
	r.fresh.Store(fresh)
	r.views = newViews(r.shelf, r.fresh.Load)
	return r
}

func (r *remembering) is(k timeline.MemberKey) bool {
	r.t.Helper()
	_, found, err := r.member(r.t.Context(), k)
	if err != nil {
		r.t.Fatal(err)
	}
	return found
}

func (r *remembering) end(id chat.ConversationID) int64 {
	r.t.Helper()
	c, _, err := r.conversation(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return c.MaxSeq
}

func TestViews_DoNotRememberWhatWasReadWhileHeadsWereNotFresh(t *testing.T) {
	r := newRemembering(t, false)
	k := timeline.MemberKey{Conversation: chat.GroupConversation(7), User: 9}
	r.shelf.say(k.Conversation, "hello")
	if r.is(k) || r.end(k.Conversation) != 1 {
		t.Fatal("the store said something else")
	}
	// Both change, and nobody hears of it: the follower has not begun.
	r.shelf.join(k.Conversation, k.User, 2)
	r.shelf.say(k.Conversation, "world")
	r.fresh.Store(true)
	if !r.is(k) {
		t.Error("who has joined meanwhile is kept out")
	}
	if got := r.end(k.Conversation); got != 2 {
		t.Errorf("the conversation ends at %d, and the store has 2", got)
	}
}

func TestViews_RememberOneConversationWhileOthersMove(t *testing.T) {
	r := newRemembering(t, true)
	k := timeline.MemberKey{Conversation: chat.GroupConversation(7), User: 9}
	r.shelf.say(k.Conversation, "hello")
	r.shelf.join(k.Conversation, k.User, 1)
	seq := int64(0)
	r.shelf.before = func(string) { // while anything is read, something else is told
		seq++
		r.take(chat.Notify{Conversation: chat.GroupConversation(99), MaxSeq: seq, Meta: true, Members: []chat.MemberChange{{User: k.User, Seq: seq}}})
	}
	for range 10 {
		if !r.is(k) || r.end(k.Conversation) != 1 {
			t.Fatal("the store said something else")
		}
	}
	if heads, members := r.shelf.count("conversations"), r.shelf.count("members"); heads != 1 || members != 1 {
		t.Errorf("a quiet conversation was read %d times and its member %d times", heads, members)
	}
}

func TestViews_RememberAConversationThatMovesWhileItIsRead(t *testing.T) {
	r := newRemembering(t, true)
	c := chat.GroupConversation(7)
	r.shelf.say(c, "hello")
	r.shelf.before = func(string) { r.take(chat.Notify{Conversation: c, MaxSeq: 5, Ordinal: 4}) }
	for range 3 {
		if got := r.end(c); got != 5 {
			t.Errorf("it was told to be at 5, and ends at %d", got)
		}
	}
	if n := r.shelf.count("conversations"); n != 1 {
		t.Errorf("it was read %d times", n)
	}
}

func TestViews_DoNotRememberWhatAChangeHasOvertaken(t *testing.T) {
	r := newRemembering(t, true)
	k := timeline.MemberKey{Conversation: chat.GroupConversation(7), User: 9}
	r.shelf.say(k.Conversation, "hello")
	for name, overtake := range map[string]func(){
		"by a hint": func() {
			r.take(chat.Notify{Conversation: k.Conversation, MaxSeq: 2, Members: []chat.MemberChange{{User: k.User, Seq: 2, Joined: true}}})
		},
		"by a gap": r.clear,
	} {
		t.Run(name, func(t *testing.T) {
			r.shelf.change(func() { r.shelf.before = func(string) { overtake() } })
			heads, members := r.shelf.count("conversations"), r.shelf.count("members")
			for range 2 {
				r.is(k)
				r.end(k.Conversation)
			}
			if r.shelf.count("conversations") != heads+2 || r.shelf.count("members") != members+2 {
				t.Error("it was remembered")
			}
		})
	}
}

// Once somebody was answered with a head, nobody is with a lower one, whichever way it was read: what is told comes later than what
// the store has.
func TestViews_NeverGoBackBehindWhatWasAnswered(t *testing.T) {
	c := chat.GroupConversation(7)
	t.Run("past heads that were not fresh for a moment", func(t *testing.T) {
		r := newRemembering(t, true)
		r.shelf.say(c, "hello")
		before := r.end(c)
		r.shelf.say(c, "to", "you")
		r.fresh.Store(false)
		answered := r.end(c)
		r.fresh.Store(true)
		if got := r.end(c); before != 1 || answered != 3 || got != 3 {
			t.Errorf("it ended at %d, %d and %d", before, answered, got)
		}
	})
	t.Run("past a read that was overtaken and came later all the same", func(t *testing.T) {
		r := newRemembering(t, true)
		r.shelf.say(c, "hello")
		var second int64
		r.shelf.before = func(string) { // the first read has begun
			r.shelf.change(func() { r.shelf.before = nil })
			r.take(chat.Notify{Conversation: c, MaxSeq: 1, Ordinal: 1, Meta: true})
			second = r.end(c)
			r.shelf.say(c, "to", "you")
		}
		first := r.end(c)
		if got := r.end(c); second != 1 || first != 3 || got != 3 {
			t.Errorf("it ended at %d, %d and %d", second, first, got)
		}
	})
	t.Run("past a read under way that began before", func(t *testing.T) {
		r := newRemembering(t, true)
		r.shelf.say(c, "hello")
		r.shelf.before = func(string) { r.saw(&timeline.Conversation{ID: c, MaxSeq: 3, Ordinal: 3}) }
		if got := r.end(c); got != 3 {
			t.Errorf("it ended at %d after 3 was answered", got)
		}
	})
}

func TestViews_ReadAConversationOnceForACrowd(t *testing.T) {
	r := newRemembering(t, true)
	c := chat.GroupConversation(7)
	r.shelf.say(c, "hello")
	reading, begin := make(chan struct{}), make(chan struct{})
	r.shelf.before = func(string) {
		close(reading) // a second read would panic
		<-begin
	}
	var wg sync.WaitGroup
	ask := func() {
		if got, found, err := r.conversation(context.Background(), c); err != nil || !found || got.MaxSeq != 1 {
			t.Errorf("%+v, %v, %v", got, found, err)
		}
	}
	wg.Go(ask)
	<-reading
	for range 20 {
		wg.Go(ask)
	}
	close(begin)
	wg.Wait()
}

// Whoever reads for a crowd may leave, or have less time than the others: only he is told so.
func TestViews_GoOnForOthersWhenTheReaderLeaves(t *testing.T) {
	for name, leaving := range crowdtest.Leaving {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRemembering(t, true)
				c := chat.GroupConversation(7)
				r.shelf.say(c, "hello")
				r.shelf.before = func(string) { time.Sleep(2 * time.Second) }
				var wg sync.WaitGroup
				wg.Go(func() {
					ctx, cancel := leaving(t.Context())
					defer cancel()
					if _, _, err := r.conversation(ctx, c); err == nil || !errors.Is(err, ctx.Err()) {
						t.Errorf("who left was told %v", err)
					}
				})
				synctest.Wait()
				for range 3 {
					wg.Go(func() {
						if got, found, err := r.conversation(t.Context(), c); err != nil || !found || got.MaxSeq != 1 {
							t.Errorf("who stayed was given %+v, %t, %v", got, found, err)
						}
					})
				}
				wg.Wait()
			})
		})
	}
}

// late is a store that looks, and answers when it is let.
type late struct {
	*shelf
	gate chan struct{}
	err  error
}

func (l *late) Conversations(ctx context.Context, ids []chat.ConversationID) ([]timeline.Conversation, error) {
	out, err := l.shelf.Conversations(ctx, ids)
	<-l.gate
	return out, errors.Join(err, l.err)
}

func (l *late) Members(ctx context.Context, keys []timeline.MemberKey) ([]timeline.Member, error) {
	out, err := l.shelf.Members(ctx, keys)
	<-l.gate
	return out, errors.Join(err, l.err)
}

// onLate runs with views on a store that answers late, and a reader who has asked for a conversation already.
func onLate(t *testing.T, before []string, do func(t *testing.T, v *views, l *late, c chat.ConversationID)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &late{shelf: newShelf(), gate: make(chan struct{})}
		v := newViews(l, func() bool { return true })
		c := chat.GroupConversation(7)
		if before != nil {
			l.say(c, before...)
		}
		var wg sync.WaitGroup
		wg.Go(func() { _, _, _ = v.conversation(t.Context(), c) })
		synctest.Wait()
		do(t, v, l, c)
		wg.Wait()
	})
}

// Who comes to wait for a read that others began knows what was told since.
func TestViews_GiveNobodyLessThanWasToldBeforeTheyAsked(t *testing.T) {
	t.Run("a number, of a read that is overtaken then", func(t *testing.T) {
		onLate(t, []string{"hello"}, func(t *testing.T, v *views, l *late, c chat.ConversationID) {
			l.say(c, "to", "you")
			v.take(chat.Notify{Conversation: c, MaxSeq: 3, Ordinal: 3})
			var wg sync.WaitGroup
			wg.Go(func() {
				if got, _, err := v.conversation(t.Context(), c); err != nil || got.MaxSeq < 3 {
					t.Errorf("3 was told, and %d is given, %v", got.MaxSeq, err)
				}
			})
			synctest.Wait()
			v.take(chat.Notify{Conversation: c, MaxSeq: 4, Ordinal: 3, Meta: true})
			close(l.gate)
			wg.Wait()
		})
	})
	t.Run("that there is one", func(t *testing.T) {
		onLate(t, nil, func(t *testing.T, v *views, l *late, c chat.ConversationID) {
			l.say(c, "hello")
			v.saw(&timeline.Conversation{ID: c, MaxSeq: 1, Ordinal: 1})
			var wg sync.WaitGroup
			wg.Go(func() {
				if got, found, err := v.conversation(t.Context(), c); err != nil || !found || got.MaxSeq != 1 {
					t.Errorf("it was seen, and %+v, %t, %v is given", got, found, err)
				}
			})
			synctest.Wait()
			close(l.gate)
			wg.Wait()
		})
	})
}

func TestViews_GiveTheStoresErrorToAll(t *testing.T) {
	onLate(t, []string{"hello"}, func(t *testing.T, v *views, l *late, c chat.ConversationID) {
		l.err = errors.New("the store is away")
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, _, err := v.conversation(t.Context(), c); !errors.Is(err, l.err) {
					t.Errorf("given %v", err)
				}
			})
		}
		synctest.Wait()
		close(l.gate)
		wg.Wait()
		if n := l.count("conversations"); n != 1 {
			t.Errorf("a store that is away was asked %d times for one crowd", n)
		}
	})
}

func TestViews_GoOnAfterAReaderThatPanicked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemembering(t, true)
		c := chat.GroupConversation(7)
		r.shelf.say(c, "hello")
		panics := make(chan struct{})
		r.shelf.before = func(string) { <-panics; panic("a fault of ours") }
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() {
				if recover() == nil {
					t.Error("nothing panicked")
				}
			}()
			_, _, _ = r.conversation(t.Context(), c)
		})
		synctest.Wait()
		wg.Go(func() {
			if _, _, err := r.conversation(t.Context(), c); !errors.Is(err, errDropped) {
				t.Errorf("who waited for it was told %v", err)
			}
		})
		synctest.Wait()
		close(panics)
		wg.Wait()
		r.shelf.before = nil
		if got := r.end(c); got != 1 || len(r.headLoads) != 0 {
			t.Errorf("it ends at %d, and %d reads are under way", got, len(r.headLoads))
		}
	})
}

// A gap is told while heads and members are read: what is given was asked for before it, and none of it is remembered.
func TestViews_RememberNothingThatWasReadAcrossAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemembering(t, true)
		k := timeline.MemberKey{Conversation: chat.GroupConversation(7), User: 9}
		r.shelf.say(k.Conversation, "hello")
		store := &late{shelf: r.shelf, gate: make(chan struct{})}
		r.store = store
		var wg sync.WaitGroup
		wg.Go(func() { r.end(k.Conversation) })
		wg.Go(func() { r.is(k) })
		time.Sleep(time.Second) // both have looked
		r.shelf.say(k.Conversation, "world")
		r.shelf.join(k.Conversation, k.User, 2)
		r.clear()
		close(store.gate)
		wg.Wait()
		if got := r.end(k.Conversation); got != 2 {
			t.Errorf("it ends at %d, and the store has 2", got)
		}
		if !r.is(k) {
			t.Error("who has joined meanwhile is kept out")
		}
	})
}
