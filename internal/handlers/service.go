// Package handlers is what clients can ask for, without the door through which they ask: the same operations serve HTTP
// and the socket. Requests and answers have the JSON form of the contract; refusals are *chat.Error.
package handlers

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/accounts"
	"tideline/internal/blocks"
	"tideline/internal/crowd"
	"tideline/internal/failpoint"
	"tideline/internal/heads"
	"tideline/internal/kafka"
	"tideline/internal/sender"
	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
	"tideline/pkg/seq"
	"tideline/pkg/timeline"
)

// Config says how much is given at once. Keys begin with read.
type Config struct {
	CacheBytes int64 `conf:"cache-bytes" help:"memory for encoded blocks of timelines"`
}

// DefaultConfig is for a server with a few gigabytes.
func DefaultConfig() Config { return Config{CacheBytes: 64 << 20} }

// Validate lists every fault.
func (c *Config) Validate() error {
	if c.CacheBytes < 1<<20 {
		return fmt.Errorf("read.cache-bytes is %d, at least 1MiB is needed", c.CacheBytes)
	}
	return nil
}

// Store is what the operations ask the store.
type Store interface {
	timeline.Reader
	accounts.Store
	Positions(ctx context.Context, partitions []int32) ([]timeline.Position, error)
	MarkPositions(ctx context.Context, partitions []int32) (map[int32]int64, error)
	PeerMarks(ctx context.Context, u chat.UserID) (map[chat.ConversationID]int64, error)
	Receipt(ctx context.Context, c chat.ConversationID, seqs []int64) ([]timeline.ReceiptQuestion, error)
	Outcome(ctx context.Context, c chat.ConversationID, sender chat.UserID, clientMsgID string) (*seq.Numbered, *chat.Rejection, error)
	// BothSaid returns those of some private conversations in which both people have said something.
	BothSaid(ctx context.Context, ids []chat.ConversationID) ([]chat.ConversationID, error)
	UsersExist(ctx context.Context, users []chat.UserID) ([]chat.UserID, error)
	SearchUsers(ctx context.Context, begins string, limit int) ([]sqlstore.User, error)
	UpdateUser(ctx context.Context, id chat.UserID, nickname, avatarURL *string, at int64) (bool, error)
	UpsertExternal(ctx context.Context, people []sqlstore.ExternalUser, at int64) (map[string]chat.UserID, error)
	Load(ctx context.Context, need seq.Need) (seq.Loaded, error)
	InGroups(ctx context.Context, users []chat.UserID, least int) ([]chat.UserID, error)
	ReserveCounted(ctx context.Context, r sqlstore.Reservation) (id int64, conflict bool, full int64, err error)
	ReservedGroup(ctx context.Context, creator chat.UserID, clientMsgID string) (int64, error)
	ReserveGroup(ctx context.Context, creator chat.UserID, clientMsgID string, hash chat.BodyHash, group int64) (int64, bool, error)
}

// Marks are read marks as of now: the fast ones, with the store behind them.
type Marks interface {
	// Raise raises marks that are in im.receipts.
	Raise(ctx context.Context, marks []chat.ReadMark) error
	// OfUser gives a user's marks by conversation; ready is false where only the store knows.
	OfUser(ctx context.Context, u chat.UserID) (marks map[chat.ConversationID]timeline.Mark, ready bool, err error)
	// ReadCounts answers questions about receipts.
	ReadCounts(ctx context.Context, c chat.ConversationID, asked []timeline.ReceiptQuestion) ([]timeline.ReceiptCount, error)
}

// Sender takes valid commands into the log. Its errors are *chat.Error; after one that is not a refusal the outcome is
// unknown, and a retry with the same client id is safe.
type Sender interface {
	// Send waits for the outcome.
	Send(ctx context.Context, c *chat.Command) (sender.Outcome, error)
	// Begin does not; commands of one conversation keep the order of the calls.
	Begin(ctx context.Context, c *chat.Command) (*sender.Pending, error)
}

// IDs makes ids.
type IDs interface{ NextID() (int64, error) }

// Service answers requests. It is safe for concurrent use.
type Service struct {
	kafka    kafka.Config
	groups   GroupsConfig
	store    Store
	accounts *accounts.Accounts
	sender   Sender
	heads    *heads.Follower
	marks    Marks
	producer *kgo.Client
	hasher   *chat.Hasher
	ids      IDs
	log      *slog.Logger

	blocks   *blocks.Cache
	views    *views
	profiles *profiles
	raised   *raised

	outsiders *outsiders
	writers   *crowd.Loader[struct{}, writersAt]
	now       func() time.Time
}

// Parts are what a Service is made of.
type Parts struct {
	Config   Config
	Groups   GroupsConfig
	Kafka    kafka.Config
	Store    Store
	Accounts *accounts.Accounts
	Sender   Sender
	Heads    *heads.Follower
	Marks    Marks
	Producer *kgo.Client  // of read marks
	Hasher   *chat.Hasher // of group reservations
	IDs      IDs
	Log      *slog.Logger
	Registry prometheus.Registerer
}

// New makes the service and subscribes its caches to the heads; call it before those run.
func New(p Parts) *Service {
	s := &Service{
		kafka: p.Kafka, groups: p.Groups, store: p.Store, accounts: p.Accounts, sender: p.Sender, heads: p.Heads, marks: p.Marks, producer: p.Producer,
		hasher: p.Hasher, ids: p.IDs, log: p.Log, now: failpoint.Now,
	}
	s.blocks = blocks.New(p.Store, int(p.Config.CacheBytes), encodeMessage, blocks.NewMetrics(p.Registry))
	s.views = newViews(p.Store, p.Heads.Fresh)
	s.profiles = newProfiles(p.Store)
	s.raised = newRaised()
	s.outsiders = newOutsiders()
	s.writers = crowd.New(1, 1, s.writersAt)
	p.Heads.Subscribe(s.take)
	p.Heads.OnGap(func() {
		s.blocks.Clear()
		s.views.clear()
	})
	return s
}

// take drops from the caches what a notification says has changed.
func (s *Service) take(n chat.Notify) {
	s.blocks.Invalidate(n.Conversation, n.ChangedSeqs)
	s.views.take(n)
}

// Authenticate gives who has an access token.
func (s *Service) Authenticate(ctx context.Context, token string) (accounts.Caller, error) {
	return s.accounts.Authenticate(ctx, token)
}

// StoreMarks are read marks as the store has them, without anything faster. A mark that was just raised is seen once
// the writer of marks has passed it.
type StoreMarks struct{ Store timeline.Reader }

// Raise does nothing: the writer of marks raises them in the store.
func (StoreMarks) Raise(context.Context, []chat.ReadMark) error { return nil }

// OfUser is never ready.
func (StoreMarks) OfUser(context.Context, chat.UserID) (map[chat.ConversationID]timeline.Mark, bool, error) {
	return nil, false, nil
}

// ReadCounts counts in the store.
func (m StoreMarks) ReadCounts(ctx context.Context, c chat.ConversationID, asked []timeline.ReceiptQuestion) ([]timeline.ReceiptCount, error) {
	return m.Store.ReadCounts(ctx, c, asked)
}

// Follow does nothing; the store has it.
func (StoreMarks) Follow(context.Context, []timeline.Entry) error { return nil }

// Invalidate does nothing; nothing is remembered.
func (StoreMarks) Invalidate(context.Context) error { return nil }
