package marks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// Whatever happens between any two steps of a fill, a set that says that it is ready tells what the log says.
func TestFill_NeverGivesAPartialCount(t *testing.T) {
	onBoth(t, func(t *testing.T, o *redis.Options) {
		runs := 24
		if testing.Short() {
			runs = 6
		}
		checked, fills, failed := 0, 0, map[string]int{}
		for seed := range uint64(runs) {
			w := newWorld(t, o, seed)
			for range 40 {
				w.step()
			}
			client := redis.NewClient(o)
			m := meddler{w.store, w}
			client.AddHook(m)
			f := New(client, m, m, 1, slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()))
			f.barrier.look = time.Millisecond
			for i := range 12 {
				w.calm = i%3 == 0
				s := subject{conversation: groups[i%2]}
				if i%4 > 1 {
					s = subject{user: w.people[w.rnd.IntN(len(w.people))]}
				}
				if err := f.fill(w.ctx, s); err != nil {
					failed[fmt.Sprint(err)]++
					w.raw.Del(w.ctx, s.key()+lockTail)
				} else {
					fills++
				}
				for range 10 {
					w.step()
				}
			}
			checked += w.checked
			_ = client.Close()
		}
		t.Logf("%d fills made a set ready, %d answers of ready sets were right; the others: %v", fills, checked, failed)
		if fills < runs || checked < 20*runs {
			t.Errorf("that is too few to mean anything")
		}
	})
}

// A set that is missing a member, has one too many, or an old mark, is not believed.
func TestReady_OnlyInThePresentEpoch(t *testing.T) {
	onBoth(t, func(t *testing.T, o *redis.Options) {
		w := quiet(t, o)
		s := subject{conversation: groups[0]}
		w.must(w.fast.fill(w.ctx, s))
		if !w.ready(s) {
			t.Fatal("a filled set is not ready")
		}
		w.must(w.fast.Invalidate(w.ctx))
		if w.ready(s) {
			t.Fatal("a set of an epoch that has ended is ready")
		}
		w.must(w.fast.fill(w.ctx, s))
		w.must(w.raw.Del(w.ctx, epochKey).Err())
		if w.ready(s) {
			t.Fatal("a set is ready without an epoch")
		}
		w.must(w.fast.fill(w.ctx, s))
		w.must(w.raw.FlushAll(w.ctx).Err())
		if w.ready(s) {
			t.Fatal("a set that was flushed is ready")
		}
	})
}

func TestFollow_AddsNobodyToASetThatIsNotThere(t *testing.T) {
	onBoth(t, func(t *testing.T, o *redis.Options) {
		w := quiet(t, o)
		w.event(groups[0], 1, chat.KindJoin).Join = &chat.Join{Users: []chat.UserID{7}}
		w.drain()
		keys, err := w.raw.Keys(w.ctx, "tl:{*").Result()
		w.must(err)
		if len(keys) != 0 {
			t.Fatalf("following made %v", keys)
		}
	})
}

func TestReadCounts_OfAMessageToAFew(t *testing.T) {
	onBoth(t, func(t *testing.T, o *redis.Options) {
		w := quiet(t, o)
		w.event(groups[0], 1, chat.KindMessage).Message.Recipients = []chat.UserID{1, 2, 3, 6}
		w.drain()
		s := subject{conversation: groups[0]}
		w.must(w.fast.fill(w.ctx, s))
		seq := w.head[groups[0]].Seq
		w.must(w.fast.Raise(w.ctx, []chat.ReadMark{{User: 3, Conversation: groups[0], Seq: seq}, {User: 6, Conversation: groups[0], Seq: seq}}))
		for _, w.fast.walked = range []bool{false, true} {
			got, complete, err := w.fast.fastCounts(w.ctx, groups[0], []timeline.ReceiptQuestion{{Seq: seq, Sender: 1, Recipients: []chat.UserID{1, 2, 3, 6}}})
			w.must(err)
			if want := (timeline.ReceiptCount{Seq: seq, ReadCount: 1, UnreadCount: 1}); !complete || got[0] != want {
				t.Fatalf("got %+v (ready: %v), want %+v: 6 is no member, 1 is the sender", got[0], complete, want)
			}
		}
	})
}

// The store answers and a fill begins; then Redis answers the same.
func TestReadCounts_FromTheStoreUntilFilled(t *testing.T) {
	onBoth(t, func(t *testing.T, o *redis.Options) {
		w := quiet(t, o)
		ctx, stop := context.WithCancel(w.ctx)
		ran := make(chan error, 1)
		go func() { ran <- w.fast.Run(ctx) }()
		defer func() { stop(); w.must(<-ran) }()
		asked := []timeline.ReceiptQuestion{{Seq: 1, Sender: 1}, {Seq: w.head[groups[0]].Seq, Sender: 2}}
		want, err := w.store.ReadCounts(w.ctx, groups[0], asked)
		w.must(err)
		for {
			got, err := w.fast.ReadCounts(w.ctx, groups[0], asked)
			w.must(err)
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("got %+v, the store says %+v", got[i], want[i])
				}
			}
			if w.ready(subject{conversation: groups[0]}) {
				break
			}
		}
		if got, err := w.fast.ReadCounts(w.ctx, groups[0], asked); err != nil || got[0] != want[0] || got[1] != want[1] {
			t.Fatalf("from Redis %+v, %v; the store says %+v", got, err, want)
		}
	})
}

// Two fills of one set at a time: the one that was overtaken neither makes it ready nor changes it.
func TestFill_ThatWasOvertakenChangesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, o *redis.Options) {
		w := quiet(t, o)
		key := conversationKey(groups[0])
		token := newToken()
		w.must(w.fast.build(w.ctx, key, map[string]float64{"1": 1, "j:1": -2}, token))
		w.must(w.fast.fill(w.ctx, subject{conversation: groups[0]}))
		if _, err := w.fast.compare(w.ctx, key, token, map[string]float64{}); !errors.Is(err, errOvertaken) {
			t.Fatalf("the fill that was overtaken got %v", err)
		}
		err := w.fast.change(w.ctx, key, token, func(p redis.Pipeliner) { p.Del(w.ctx, key) })
		if !errors.Is(err, errOvertaken) || !w.ready(subject{conversation: groups[0]}) {
			t.Fatalf("the fill that was overtaken got %v", err)
		}
	})
}

// reader raises a mark before every command of another client: somebody reads all the time.
type reader struct{ w *world }

func (r reader) read() {
	w := r.w
	key := conversationKey(groups[0])
	w.must(w.raw.ZAddArgs(w.ctx, key, redis.ZAddArgs{XX: true, GT: true, Members: []redis.Z{{Member: "2", Score: w.raw.ZScore(w.ctx, key, "2").Val() + 1}}}).Err())
}

func (r reader) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r reader) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { r.read(); return next(ctx, cmd) }
}

func (r reader) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { r.read(); return next(ctx, cmds) }
}

// In a large group somebody reads something between any two commands: a fill comes to its end all the same.
func TestFill_EndsWhileMarksMoveAllTheTime(t *testing.T) {
	onBoth(t, func(t *testing.T, o *redis.Options) {
		w := quiet(t, o)
		client := redis.NewClient(o)
		defer func() { _ = client.Close() }()
		client.AddHook(reader{w})
		f := New(client, w.store, w, 1, slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()))
		w.must(f.fill(w.ctx, subject{conversation: groups[0]}))
		if !w.ready(subject{conversation: groups[0]}) {
			t.Fatal("the set is not ready")
		}
	})
}

// A set that Redis evicts while it is filled does not come back as a ready one without members.
func TestFill_OfASetThatIsEvictedMakesNothingReady(t *testing.T) {
	onBoth(t, func(t *testing.T, o *redis.Options) {
		w := quiet(t, o)
		key, token := conversationKey(groups[0]), newToken()
		w.must(w.fast.build(w.ctx, key, map[string]float64{"1": 1, "j:1": -2}, token))
		w.must(w.raw.Set(w.ctx, key+fillTail, strconv.FormatFloat(token, 'f', 0, 64), 0).Err())
		w.must(w.raw.Set(w.ctx, epochKey, "5000000000000000", 0).Err())
		w.must(w.raw.Del(w.ctx, key).Err())
		if err := w.fast.change(w.ctx, key, token, func(redis.Pipeliner) { t.Error("an evicted set is changed") }); !errors.Is(err, errOvertaken) {
			t.Errorf("changing an evicted set gave %v", err)
		}
		_, err := w.raw.TxPipelined(w.ctx, func(p redis.Pipeliner) error { w.fast.finish(w.ctx, p, key, 5000000000000000); return nil }) // evicted after the look
		w.must(err)
		if n := w.raw.Exists(w.ctx, key).Val(); n != 0 || w.ready(subject{conversation: groups[0]}) {
			t.Fatalf("the set is there: %d", n)
		}
	})
}

// A Redis that comes back with an old snapshot is another server: nothing that it says is believed.
func TestWatch_ARestartedRedisIsNotBelieved(t *testing.T) {
	first := realRedis(t, t.TempDir())
	w := quiet(t, first)
	w.must(w.fast.checkServers(w.ctx))
	s := subject{conversation: groups[0]}
	w.must(w.fast.fill(w.ctx, s))
	w.must(w.fast.checkServers(w.ctx))
	if !w.ready(s) {
		t.Fatal("looking at a server that is the same has begun a new epoch")
	}
	second := redis.NewClient(realRedis(t, t.TempDir()))
	defer func() { _ = second.Close() }()
	for _, key := range []string{epochKey, serverKey, s.key()} {
		dump, err := w.raw.Dump(w.ctx, key).Result()
		w.must(err)
		w.must(second.Restore(w.ctx, key, 0, dump).Err())
	}
	back := New(second, w.store, w, 1, slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()))
	if _, complete, err := back.fastCounts(w.ctx, groups[0], nil); err != nil || !complete {
		t.Fatalf("the snapshot is not what it was: %v, %v", complete, err)
	}
	w.must(back.checkServers(w.ctx))
	if _, complete, err := back.fastCounts(w.ctx, groups[0], nil); err != nil || complete {
		t.Fatalf("an old snapshot is believed (%v)", err)
	}
}

// While Redis is away the store answers at once, and a writer is told that it has missed something.
func TestMarks_WithoutRedis(t *testing.T) {
	o := &redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialTimeout: 50 * time.Millisecond}
	w := quiet(t, realRedis(t, t.TempDir()))
	client := redis.NewClient(o)
	defer func() { _ = client.Close() }()
	away := New(client, w.store, w, 1, slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()))
	asked := []timeline.ReceiptQuestion{{Seq: 1, Sender: 1}}
	want, err := w.store.ReadCounts(w.ctx, groups[0], asked)
	w.must(err)
	for range 10 {
		got, err := away.ReadCounts(w.ctx, groups[0], asked)
		if err != nil || got[0] != want[0] {
			t.Fatalf("got %+v, %v", got, err)
		}
		if err := away.Follow(w.ctx, []timeline.Entry{{Event: *w.head[groups[0]]}}); err == nil {
			t.Fatal("following without Redis succeeded")
		}
		if err := away.Invalidate(w.ctx); err == nil {
			t.Fatal("a new epoch without Redis")
		}
		if _, complete, err := away.OfUser(w.ctx, 1); complete || err == nil {
			t.Fatal("marks of a user without Redis")
		}
	}
}

// Redis has a mark when it is answered, the store a little later: when Redis is lost in between, a count waits for the store.
func TestMarks_WhoHasNoTimeLeftSaysNothingOfRedis(t *testing.T) {
	onBoth(t, func(t *testing.T, o *redis.Options) {
		w := newWorld(t, o, 3)
		gone, leave := context.WithCancel(w.ctx)
		leave()
		late, cancel := context.WithDeadline(w.ctx, time.Now().Add(-time.Second))
		defer cancel()
		for _, ctx := range []context.Context{late, gone} {
			for range 5 {
				if err := w.fast.Invalidate(ctx); !errors.Is(err, ctx.Err()) {
					t.Fatalf("told %v", err)
				}
			}
		}
		if err := w.fast.Invalidate(w.ctx); err != nil {
			t.Fatalf("Redis answers, and is not asked: %v", err)
		}
	})
}

func TestReadCounts_NeverFallWithTheLossOfRedis(t *testing.T) {
	onBoth(t, func(t *testing.T, o *redis.Options) {
		w := quiet(t, o)
		w.fast.barrier.look = time.Millisecond
		w.must(w.fast.fill(w.ctx, subject{conversation: groups[0]}))
		seq := w.head[groups[0]].Seq
		asked := []timeline.ReceiptQuestion{{Seq: seq, Sender: 2}}
		count := func() int64 {
			got, err := w.fast.ReadCounts(w.ctx, groups[0], asked)
			w.must(err)
			return got[0].ReadCount
		}
		before := count()
		mark := chat.ReadMark{User: 3, Conversation: groups[0], Seq: seq, Ordinal: 20, At: 1}
		w.receipts = append(w.receipts, mark)
		w.must(w.fast.Raise(w.ctx, []chat.ReadMark{mark}))
		if n := count(); n != before+1 {
			t.Fatalf("%d have read, and %d had before one more did", n, before)
		}
		w.must(w.raw.FlushAll(w.ctx).Err())
		if got, err := w.fast.ReadCounts(w.ctx, groups[0], asked); chat.CodeOf(err) != chat.CodeUnavailable {
			t.Fatalf("got %+v, %v while the writer of marks stands still", got, err)
		}
		w.writeMarks()
		if n := count(); n != before+1 {
			t.Fatalf("%d have read after Redis was lost, %d before", n, before+1)
		}
	})
}

// Offsets that no reader is given do not hold a fill up.
func TestBarrier_PassesWhatNoReaderIsGiven(t *testing.T) {
	w := quiet(t, realRedis(t, t.TempDir()))
	logs := &gap{world: w}
	b := newBarrier(w.store, logs, 1)
	b.look = time.Millisecond
	for range 3 {
		w.must(b.wait(w.ctx, subject{conversation: groups[0]}))
	}
	if n := logs.asked.Load(); n != 1 {
		t.Fatalf("the same gap was looked into %d times", n)
	}
}

// gap is a log that ends with the marker of a transaction.
type gap struct {
	*world
	asked atomic.Int32
}

func (g *gap) Ends(ctx context.Context) (messages, receipts map[int32]int64, err error) {
	messages, receipts, err = g.world.Ends(ctx)
	messages[0]++
	return messages, receipts, err
}

func (g *gap) Silent(_ context.Context, from, _ map[int32]int64) (map[int32]bool, error) {
	g.asked.Add(1)
	return map[int32]bool{0: from[0] == g.at.MessagesNext}, nil
}

// quiet is a world in which everything that was said is stored and followed.
func quiet(t *testing.T, o *redis.Options) *world {
	t.Helper()
	w := newWorld(t, o, 99)
	for range 10 {
		for _, c := range groups {
			w.event(c, 2, chat.KindMessage)
		}
	}
	w.drain()
	return w
}

func (w *world) drain() {
	for w.at.MessagesNext < int64(len(w.messages)) || w.pending != nil {
		w.write()
	}
	w.writeMarks()
}

func (w *world) ready(s subject) bool {
	w.t.Helper()
	_, complete, err := w.fast.fastCounts(w.ctx, s.conversation, nil)
	w.must(err)
	return complete
}
