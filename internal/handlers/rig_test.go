package handlers

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"

	"tideline/internal/accounts"
	"tideline/internal/heads"
	"tideline/internal/kafka"
	"tideline/internal/sender"
	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
	"tideline/pkg/seq"
	"tideline/pkg/timeline"
)

const patience = 20 * time.Second

var quiet = slog.New(slog.DiscardHandler)

// shelf is a store of one partition in memory: what the test has put there. It is safe for concurrent use.
type shelf struct {
	Store

	mu       sync.Mutex // guards what follows
	heads    map[chat.ConversationID]timeline.Conversation
	members  map[timeline.MemberKey]timeline.Member
	rows     map[chat.ConversationID][]timeline.Row
	position timeline.Position
	numbered *seq.Numbered
	reads    map[string]int
	before   func(what string) // is called before something is read
}

func newShelf() *shelf {
	return &shelf{
		heads: map[chat.ConversationID]timeline.Conversation{}, members: map[timeline.MemberKey]timeline.Member{}, rows: map[chat.ConversationID][]timeline.Row{},
		reads: map[string]int{},
	}
}

// reading counts a read, and locks.
func (s *shelf) reading(what string) {
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before != nil {
		before(what)
	}
	s.mu.Lock()
	s.reads[what]++
}

func (s *shelf) change(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
}

func (s *shelf) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads[what]
}

// join makes somebody a member of a conversation.
func (s *shelf) join(id chat.ConversationID, u chat.UserID, join int64) {
	s.change(func() {
		s.members[timeline.MemberKey{Conversation: id, User: u}] = timeline.Member{Conversation: id, User: u, JoinSeq: join, ReadOffset: -1}
	})
}

// say puts rows with texts behind what a conversation has.
func (s *shelf) say(id chat.ConversationID, texts ...string) {
	s.change(func() {
		c := s.heads[id]
		c.ID = id
		for _, text := range texts {
			c.MaxSeq++
			c.Ordinal++
			content, _ := marshalPlain(map[string]string{"text": text})
			s.rows[id] = append(s.rows[id], timeline.Row{
				Conversation: id, Seq: c.MaxSeq, Ordinal: c.Ordinal, Kind: chat.KindMessage, MessageID: c.MaxSeq, Sender: 1, Type: chat.TypeText, Content: content,
			})
		}
		s.heads[id] = c
	})
}

func (s *shelf) Conversations(ctx context.Context, ids []chat.ConversationID) ([]timeline.Conversation, error) {
	s.reading("conversations")
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var out []timeline.Conversation
	for _, id := range ids {
		if c, there := s.heads[id]; there {
			out = append(out, c)
		}
	}
	return out, nil
}

func (s *shelf) Members(_ context.Context, keys []timeline.MemberKey) ([]timeline.Member, error) {
	s.reading("members")
	defer s.mu.Unlock()
	var out []timeline.Member
	for _, k := range keys {
		if m, there := s.members[k]; there {
			out = append(out, m)
		}
	}
	return out, nil
}

func (s *shelf) Memberships(_ context.Context, u chat.UserID, past bool) ([]timeline.Membership, error) {
	s.reading("memberships")
	defer s.mu.Unlock()
	var out []timeline.Membership
	for k, m := range s.members {
		if k.User == u && (past || m.Present()) {
			out = append(out, timeline.Membership{Member: m, Conversation: s.heads[k.Conversation]})
		}
	}
	return out, nil
}

func (s *shelf) Rows(_ context.Context, id chat.ConversationID, first, last int64) ([]timeline.Row, error) {
	s.reading("rows")
	defer s.mu.Unlock()
	var out []timeline.Row
	for _, r := range s.rows[id] {
		if r.Seq >= first && r.Seq <= last {
			out = append(out, r)
		}
	}
	return out, nil
}

func (s *shelf) Receipt(_ context.Context, id chat.ConversationID, seqs []int64) ([]timeline.ReceiptQuestion, error) {
	s.reading("receipt")
	defer s.mu.Unlock()
	var out []timeline.ReceiptQuestion
	for _, r := range s.rows[id] {
		if slices.Contains(seqs, r.Seq) && r.Kind == chat.KindMessage && !r.Tombstone {
			out = append(out, timeline.ReceiptQuestion{Seq: r.Seq, Sender: r.Sender, Recipients: r.Recipients})
		}
	}
	return out, nil
}

func (s *shelf) Positions(context.Context, []int32) ([]timeline.Position, error) {
	s.reading("positions")
	defer s.mu.Unlock()
	return []timeline.Position{s.position}, nil
}

func (s *shelf) MarkPositions(context.Context, []int32) (map[int32]int64, error) {
	return map[int32]int64{}, nil
}

func (s *shelf) Corrections(context.Context, chat.UserID, []timeline.MarkAt) (map[chat.ConversationID]timeline.Correction, error) {
	return map[chat.ConversationID]timeline.Correction{}, nil
}

func (s *shelf) PeerMarks(_ context.Context, u chat.UserID) (map[chat.ConversationID]int64, error) {
	s.reading("peers")
	defer s.mu.Unlock()
	out := map[chat.ConversationID]int64{}
	for k, m := range s.members {
		if low, high, private := k.Conversation.Peers(); private && k.User != u && (low == u || high == u) {
			out[k.Conversation] = m.ReadSeq
		}
	}
	return out, nil
}

func (s *shelf) Users(context.Context, []chat.UserID) ([]sqlstore.User, error) { return nil, nil }

func (s *shelf) Outcome(context.Context, chat.ConversationID, chat.UserID, string) (*seq.Numbered, *chat.Rejection, error) {
	s.reading("outcome")
	defer s.mu.Unlock()
	return s.numbered, nil, nil
}

func (s *shelf) Checkpoints(context.Context, []int32) (map[int32]seq.Checkpoint, error) {
	return map[int32]seq.Checkpoint{}, nil
}

// rig is the operations on a broker that speaks the protocol, and a shelf.
type rig struct {
	*Service
	t     *testing.T
	shelf *shelf
}

func newRig(t *testing.T) *rig {
	t.Helper()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, kafka.TopicInbound, kafka.TopicNotify))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	kc := kafka.DefaultConfig()
	kc.Brokers, kc.Partitions = broker.ListenAddrs(), 1
	producer, err := kc.NewProducer("tests", quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(producer.Close)
	client := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	hasher, err := chat.NewHasher([]byte("a key for the tests"))
	if err != nil {
		t.Fatal(err)
	}
	s := newShelf()
	parts := Parts{
		Config: DefaultConfig(), Kafka: kc, Store: s, Heads: heads.New(kc, quiet, "heads"), Marks: StoreMarks{s}, Producer: producer, Hasher: hasher, Log: quiet,
		Sender:   sender.New(sender.DefaultConfig(), kc, producer, client, s, hasher, quiet, sender.NewMetrics(prometheus.NewRegistry()), "me"),
		Registry: prometheus.NewRegistry(),
	}
	return &rig{New(parts), t, s}
}

// follow follows im.notify from now on until the test ends, and returns once what is remembered is trusted.
func (r *rig) follow() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.heads.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Error(err)
		}
	})
	r.until("what is remembered is trusted", r.heads.Fresh)
}

func (r *rig) until(what string, met func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !met(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited %s until %s", patience, what)
		}
	}
}

func (r *rig) pull(u chat.UserID, request PullRequest) string {
	r.t.Helper()
	p, err := r.Pull(r.t.Context(), accounts.Caller{User: u}, request)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(p.JSON)
}
