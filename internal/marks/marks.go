package marks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// keep is how long a set stays without being filled or read. Losing it costs a fill.
const keep = 7 * 24 * time.Hour

// pipelined is how many commands go to Redis at once: large joins must not hold up everybody else's commands.
const pipelined = 500

// Store is what the marks are filled from, and what answers while they are not ready.
type Store interface {
	Memberships(ctx context.Context, u chat.UserID, past bool) ([]timeline.Membership, error)
	Marks(ctx context.Context, c chat.ConversationID) ([]timeline.MemberMark, error)
	ReadCounts(ctx context.Context, c chat.ConversationID, asked []timeline.ReceiptQuestion) ([]timeline.ReceiptCount, error)
	Positions(ctx context.Context, partitions []int32) ([]timeline.Position, error)
	MarkPositions(ctx context.Context, partitions []int32) (map[int32]int64, error)
}

// Marks are the fast read marks. They are safe for concurrent use.
type Marks struct {
	client  redis.UniversalClient
	store   Store
	barrier *barrier
	log     *slog.Logger
	metrics *Metrics
	breaker *gobreaker.CircuitBreaker[struct{}]

	queue chan subject
	mu    sync.Mutex // guards asked
	asked map[subject]bool
}

// New makes the marks. Filling needs Run; until then, and where it does not run, the store answers what is not ready.
func New(client redis.UniversalClient, store Store, logs Logs, partitions int, log *slog.Logger, metrics *Metrics) *Marks {
	m := &Marks{
		client: client, store: store, barrier: newBarrier(store, logs, partitions), log: log, metrics: metrics,
		// Who is not taken now is asked for again with the next question.
		queue: make(chan subject, 4096), asked: map[subject]bool{},
	}
	m.breaker = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name: "redis", Timeout: time.Second, MaxRequests: 1,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 3 },
		IsSuccessful: func(err error) bool {
			return err == nil || errors.Is(err, redis.Nil) || errors.Is(err, redis.TxFailedErr) || errors.Is(err, context.Canceled)
		},
		OnStateChange: func(_ string, from, to gobreaker.State) {
			log.Warn("the road to Redis changed; the store answers while it is closed", "from", from.String(), "to", to.String())
		},
	})
	return m
}

// guarded runs commands unless Redis has just failed again and again: then it fails at once.
func (m *Marks) guarded(what string, do func() error) error {
	_, err := m.breaker.Execute(func() (struct{}, error) { return struct{}{}, do() })
	if err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Raise raises marks that are in im.receipts. Members that Redis does not have are left out: they come with a fill.
func (m *Marks) Raise(ctx context.Context, list []chat.ReadMark) error {
	var moves moves
	for i := range list {
		moves.raise(list[i].Conversation, list[i].User, list[i].Seq, list[i].Ordinal)
	}
	return m.guarded("raising fast marks", func() error { return m.send(ctx, moves.raises()) })
}

// Follow does to the sets what events did to memberships and to the marks of those who spoke. The store must have the
// events, and the caller must be the only one who follows their partition.
//
// After an error the sets may have missed something: the caller must Invalidate before it follows again.
func (m *Marks) Follow(ctx context.Context, entries []timeline.Entry) error {
	var moves moves
	for i := range entries {
		moves.add(&entries[i].Event)
	}
	return m.guarded("following the timeline", func() error {
		// Members are only added to sets that are there: a set that a fill renames into place after this look has read
		// the store after the commit.
		there, err := m.exist(ctx, moves.grown())
		if err != nil {
			return err
		}
		return m.send(ctx, moves.commands(there))
	})
}

// Invalidate begins a new epoch: no set is ready until it is filled again.
func (m *Marks) Invalidate(ctx context.Context) error {
	err := m.guarded("beginning a new epoch of fast marks", func() error {
		return m.client.Set(ctx, epochKey, strconv.FormatFloat(newToken(), 'f', 0, 64), 0).Err()
	})
	if err == nil {
		m.metrics.epochs.Inc()
	}
	return err
}

type command func(redis.Pipeliner)

func (m *Marks) send(ctx context.Context, commands []command) error {
	for len(commands) > 0 {
		n := min(len(commands), pipelined)
		_, err := m.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, c := range commands[:n] {
				c(p)
			}
			return nil
		})
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		commands = commands[n:]
	}
	return nil
}

func (m *Marks) exist(ctx context.Context, keys []string) (map[string]bool, error) {
	there := make(map[string]bool, len(keys))
	answers := make([]*redis.IntCmd, len(keys))
	commands := make([]command, len(keys))
	for i, k := range keys {
		commands[i] = func(p redis.Pipeliner) { answers[i] = p.Exists(ctx, k) }
	}
	if err := m.send(ctx, commands); err != nil {
		return nil, err
	}
	for i, k := range keys {
		there[k] = answers[i].Val() == 1
	}
	return there, nil
}

// epoch gives the present epoch, or 0 where there is none: nothing is ready then.
func (m *Marks) epoch(ctx context.Context) (float64, error) {
	text, err := m.client.Get(ctx, epochKey).Result()
	if errors.Is(err, redis.Nil) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("reading the epoch of fast marks: %w", err)
	}
	return n, nil
}

// OfUser gives how far a user has read each of its conversations. Where ready is false only the store knows, and a fill
// has been asked for; an error says that Redis could not be asked, and means the same.
func (m *Marks) OfUser(ctx context.Context, u chat.UserID) (marks map[chat.ConversationID]timeline.Mark, complete bool, err error) {
	who := subject{user: u}
	var set []redis.Z
	var epoch float64
	err = m.guarded("reading fast marks", func() error {
		if epoch, err = m.epoch(ctx); err != nil || epoch == 0 {
			return err
		}
		set, err = m.client.ZRangeWithScores(ctx, who.key(), 0, -1).Result()
		return err
	})
	if err != nil {
		m.metrics.fromStore.Inc()
		return nil, false, err
	}
	scores := make(map[string]float64, len(set))
	for _, z := range set {
		scores[z.Member.(string)] = z.Score
	}
	if epoch == 0 || scores[ready] != epoch {
		m.metrics.fromStore.Inc()
		m.ask(who)
		return nil, false, nil
	}
	marks = make(map[chat.ConversationID]timeline.Mark, len(set)/2)
	for member, score := range scores {
		if member == ready || strings.HasPrefix(member, ordinalPrefix) {
			continue
		}
		c, err := chat.ParseConversationID(member)
		if err != nil {
			return nil, false, fmt.Errorf("reading fast marks of a user: %w", err)
		}
		marks[c] = timeline.Mark{Seq: int64(score), Ordinal: int64(scores[ordinalPrefix+member])}
	}
	m.metrics.fromRedis.Inc()
	return marks, true, nil
}

// ReadCounts tells how many present members have read each message, of those who had joined by then and without its
// sender: exactly, from Redis or from the store.
func (m *Marks) ReadCounts(ctx context.Context, c chat.ConversationID, asked []timeline.ReceiptQuestion) ([]timeline.ReceiptCount, error) {
	counts, complete, err := m.fastCounts(ctx, c, asked)
	if err == nil && complete {
		m.metrics.fromRedis.Inc()
		return counts, nil
	}
	if err != nil {
		m.log.Debug("fast marks could not be asked; the store counts", "conversation", c.String(), "err", err)
	} else {
		m.ask(subject{conversation: c})
	}
	m.metrics.fromStore.Inc()
	return m.store.ReadCounts(ctx, c, asked)
}

// fastCounts asks one set in one transaction, so that all answers speak of one moment.
//
// A member's mark begins at its join, so that whoever joined after n stands among those whose mark is at least n: they are
// taken off again by the number of joins after n.
func (m *Marks) fastCounts(ctx context.Context, c chat.ConversationID, asked []timeline.ReceiptQuestion) (counts []timeline.ReceiptCount, complete bool, err error) {
	key := conversationKey(c)
	type answers struct {
		read, late *redis.IntCmd
		people     *redis.FloatSliceCmd // read and join of the sender, then of each recipient
	}
	all := make([]answers, len(asked))
	var epoch float64
	var at *redis.FloatCmd
	var size *redis.IntCmd
	err = m.guarded("counting readers", func() error {
		if epoch, err = m.epoch(ctx); err != nil || epoch == 0 {
			return err
		}
		_, err := m.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
			at, size = p.ZScore(ctx, key, ready), p.ZCard(ctx, key)
			for i, q := range asked {
				people := make([]string, 0, 2+2*len(q.Recipients))
				for _, u := range append([]chat.UserID{q.Sender}, q.Recipients...) {
					people = append(people, u.String(), joinMember(u))
				}
				all[i].people = p.ZMScore(ctx, key, people...)
				if len(q.Recipients) == 0 {
					all[i].read = p.ZCount(ctx, key, strconv.FormatInt(q.Seq, 10), aboveSeqs)
					all[i].late = p.ZCount(ctx, key, "-inf", joinedAfter(q.Seq))
				}
			}
			return nil
		})
		return err
	})
	if err != nil || epoch == 0 || at.Val() != epoch {
		return nil, false, err
	}
	counts = make([]timeline.ReceiptCount, len(asked))
	for i, q := range asked {
		scores := all[i].people.Val()
		// There by then, and has read; where there is no such member the scores are 0.
		was := func(p int) bool { return scores[2*p+1] < 0 && int64(-scores[2*p+1]-1) <= q.Seq }
		has := func(p int) bool { return was(p) && int64(scores[2*p]) >= q.Seq }
		var people, read int64
		if len(q.Recipients) == 0 {
			people, read = (size.Val()-1)/2-all[i].late.Val(), all[i].read.Val()-all[i].late.Val()
			people, read = people-one(was(0)), read-one(has(0))
		} else {
			for p, u := range q.Recipients {
				if u != q.Sender {
					people, read = people+one(was(p+1)), read+one(has(p+1))
				}
			}
		}
		counts[i] = timeline.ReceiptCount{Seq: q.Seq, ReadCount: read, UnreadCount: people - read}
	}
	return counts, true, nil
}

func one(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
