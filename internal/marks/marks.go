package marks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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

	counts *counts
	walked bool // see Walked

	users, conversations chan subject
	mu                   sync.Mutex // guards asked
	asked                map[subject]bool
}

// New makes the marks. Filling needs Run; until then, and where it does not run, the store answers what is not ready.
func New(client redis.UniversalClient, store Store, logs Logs, partitions int, log *slog.Logger, metrics *Metrics) *Marks {
	m := &Marks{
		client: client, store: store, barrier: newBarrier(store, logs, partitions), log: log, metrics: metrics,
		// Who is not taken now is asked for again with the next question.
		users: make(chan subject, 4096), conversations: make(chan subject, 1024), asked: map[subject]bool{},
	}
	m.counts = newCounts(m.count)
	m.breaker = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name: "redis", Timeout: time.Second, MaxRequests: 1,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 3 },
		IsSuccessful: func(err error) bool {
			return err == nil || errors.Is(err, redis.Nil) || errors.Is(err, redis.TxFailedErr)
		},
		IsExcluded: func(err error) bool { return errors.Is(err, context.Canceled) }, // whoever asked went away
		OnStateChange: func(_ string, from, to gobreaker.State) {
			log.Warn("the road to Redis changed; the store answers while it is closed", "from", from.String(), "to", to.String())
		},
	})
	return m
}

// guarded runs commands unless Redis has just failed again and again: then it fails at once.
func (m *Marks) guarded(ctx context.Context, what string, do func() error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err) // which says nothing of Redis
	}
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
	return m.guarded(ctx, "raising fast marks", func() error { return m.send(ctx, moves.raises()) })
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
	return m.guarded(ctx, "following the timeline", func() error {
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
	err := m.guarded(ctx, "beginning a new epoch of fast marks", func() error {
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
	return parseEpoch(m.client.Get(ctx, epochKey))
}

func parseEpoch(answer *redis.StringCmd) (float64, error) {
	text, err := answer.Result()
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
	err = m.guarded(ctx, "reading fast marks", func() error {
		var present *redis.StringCmd
		var members *redis.ZSliceCmd
		_, err := m.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			present, members = p.Get(ctx, epochKey), p.ZRangeWithScores(ctx, who.key(), 0, -1)
			return nil
		})
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		if epoch, err = parseEpoch(present); err != nil {
			return err
		}
		set, err = members.Result()
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

// Walked says that this Redis walks a whole sorted set to count in it, as the embedded one does: the set is then fetched
// once for all questions, instead of being walked twice for each. Call it before the marks are used.
func (m *Marks) Walked() { m.walked = true }

// ReadCounts tells how many present members have read each message, of those who had joined by then and without its
// sender: exactly, from Redis or from the store. It fails with CodeUnavailable where neither can tell exactly.
func (m *Marks) ReadCounts(ctx context.Context, c chat.ConversationID, asked []timeline.ReceiptQuestion) ([]timeline.ReceiptCount, error) {
	return m.counts.of(ctx, c, asked)
}

// storeWait is how long a count in the store waits for the writer of marks, who is behind by a tenth of a second under load, unless
// he is being replaced.
const storeWait = time.Second

func (m *Marks) count(ctx context.Context, c chat.ConversationID, asked []timeline.ReceiptQuestion) ([]timeline.ReceiptCount, error) {
	got, complete, err := m.fastCounts(ctx, c, asked)
	if err == nil && complete {
		m.metrics.fromRedis.Inc()
		return got, nil
	}
	if err != nil {
		m.log.Debug("fast marks could not be asked; the store counts", "conversation", c.String(), "err", err)
	} else {
		m.ask(subject{conversation: c})
	}
	m.metrics.fromStore.Inc()
	// The store has a mark after it was answered. Without this wait a count could be below the one before it, which Redis gave.
	if err := m.barrier.waitMarks(ctx, storeWait); err != nil {
		return nil, chat.Refuse(chat.CodeUnavailable, "read marks cannot be counted exactly for now").After(storeWait).Because(err)
	}
	return m.store.ReadCounts(ctx, c, asked)
}

// fastCounts counts in the set of a conversation, if it is ready: all answers speak of one moment.
//
// A member's mark begins at its join, so that whoever joined after n stands among those whose mark is at least n: they are
// taken off again by the number of joins after n.
func (m *Marks) fastCounts(ctx context.Context, c chat.ConversationID, asked []timeline.ReceiptQuestion) (counts []timeline.ReceiptCount, complete bool, err error) {
	var epoch, at float64
	all := make([]standing, len(asked))
	ask := m.standings
	if m.walked {
		ask = m.fetchStandings
	}
	err = m.guarded(ctx, "counting readers", func() error {
		if epoch, err = m.epoch(ctx); err != nil || epoch == 0 {
			return err
		}
		at, err = ask(ctx, conversationKey(c), asked, all)
		return err
	})
	if err != nil || epoch == 0 || at != epoch {
		return nil, false, err
	}
	counts = make([]timeline.ReceiptCount, len(asked))
	for i := range asked {
		counts[i] = all[i].count(&asked[i])
	}
	return counts, true, nil
}

// standing is what the set of a conversation says about one message.
type standing struct {
	members, read, late int64     // in all; with a mark of at least n; of those, who joined after n
	people              []float64 // mark and join of the sender, then of each recipient; 0 where there is none
}

// count gives who has read a message of those whom it was for.
func (v *standing) count(q *timeline.ReceiptQuestion) timeline.ReceiptCount {
	was := func(p int) bool { return v.people[2*p+1] < 0 && int64(-v.people[2*p+1]-1) <= q.Seq }
	has := func(p int) bool { return was(p) && int64(v.people[2*p]) >= q.Seq }
	var people, read int64
	if len(q.Recipients) == 0 {
		people, read = v.members-v.late-one(was(0)), v.read-v.late-one(has(0))
	} else {
		for p, u := range q.Recipients {
			if u != q.Sender {
				people, read = people+one(was(p+1)), read+one(has(p+1))
			}
		}
	}
	return timeline.ReceiptCount{Seq: q.Seq, ReadCount: read, UnreadCount: people - read}
}

// peopleOf names those whose own marks a question needs.
func peopleOf(q *timeline.ReceiptQuestion) []string {
	people := make([]string, 0, 2+2*len(q.Recipients))
	people = append(people, q.Sender.String(), joinMember(q.Sender))
	for _, u := range q.Recipients {
		people = append(people, u.String(), joinMember(u))
	}
	return people
}

// standings asks a set in one transaction, and gives the epoch in which it was complete.
func (m *Marks) standings(ctx context.Context, key string, asked []timeline.ReceiptQuestion, out []standing) (epoch float64, err error) {
	type answers struct {
		read, late *redis.IntCmd
		people     *redis.FloatSliceCmd
	}
	all := make([]answers, len(asked))
	var at *redis.FloatCmd
	var size *redis.IntCmd
	_, err = m.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		at, size = p.ZScore(ctx, key, ready), p.ZCard(ctx, key)
		for i := range asked {
			q := &asked[i]
			all[i].people = p.ZMScore(ctx, key, peopleOf(q)...)
			if len(q.Recipients) == 0 {
				all[i].read = p.ZCount(ctx, key, strconv.FormatInt(q.Seq, 10), aboveSeqs)
				all[i].late = p.ZCount(ctx, key, "-inf", joinedAfter(q.Seq))
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for i := range asked {
		out[i] = standing{members: (size.Val() - 1) / 2, people: all[i].people.Val()}
		if len(asked[i].Recipients) == 0 {
			out[i].read, out[i].late = all[i].read.Val(), all[i].late.Val()
		}
	}
	return at.Val(), nil
}

// fetchStandings does the same with the whole set.
func (m *Marks) fetchStandings(ctx context.Context, key string, asked []timeline.ReceiptQuestion, out []standing) (epoch float64, err error) {
	set, err := m.client.ZRangeWithScores(ctx, key, 0, -1).Result()
	if err != nil {
		return 0, err
	}
	named := map[string]float64{ready: 0}
	for i := range asked {
		for _, who := range peopleOf(&asked[i]) {
			named[who] = 0
		}
	}
	// By score: joins from the latest on, then marks, then the epoch.
	joined, _ := slices.BinarySearchFunc(set, 0, func(z redis.Z, _ int) int { return cmp.Compare(z.Score, 0) })
	marked, _ := slices.BinarySearchFunc(set, firstToken, func(z redis.Z, to float64) int { return cmp.Compare(z.Score, to) })
	for _, z := range set {
		who := z.Member.(string)
		if _, wanted := named[who]; wanted {
			named[who] = z.Score
		}
	}
	joins, marks := set[:joined], set[joined:marked]
	for i := range asked {
		q := &asked[i]
		out[i] = standing{members: int64(len(joins))}
		for _, who := range peopleOf(q) {
			out[i].people = append(out[i].people, named[who])
		}
		at, _ := slices.BinarySearchFunc(marks, float64(q.Seq), func(z redis.Z, seq float64) int { return cmp.Compare(z.Score, seq) })
		late, _ := slices.BinarySearchFunc(joins, joinScore(q.Seq), func(z redis.Z, join float64) int { return cmp.Compare(z.Score, join) })
		out[i].read, out[i].late = int64(len(marks)-at), int64(late)
	}
	return named[ready], nil
}

func one(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
