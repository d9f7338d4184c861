// Package ingest is what cmd/ingest runs: the owners of the partitions of im.inbound, which number commands into
// im.messages by the rules of pkg/seq, and tell those who wait what became of them.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"tideline/internal/config"
	"tideline/internal/failpoint"
	"tideline/internal/kafka"
	"tideline/pkg/chat"
	"tideline/pkg/seq"
)

// Config says how numbers are given. Keys begin with ingest.
type Config struct {
	Fenced         bool          `conf:"fenced" help:"write in transactions that fence predecessors; only the embedded broker can do without"`
	HashKey        config.Secret `conf:"hash-key" help:"key of the body hashes, the same for all processes and for good; at least 16 bytes"`
	MaxBatch       int           `conf:"max-batch" help:"records that are numbered together at most"`
	MaxUnconfirmed int           `conf:"max-unconfirmed" help:"events of a partition that the store may be behind before the partition pauses"`
	WindowIDs      int           `conf:"window-ids" help:"client ids that a partition remembers beyond those that the store may not have"`
	CacheEntries   int           `conf:"cache-entries" help:"conversations and memberships that a partition remembers"`
	MaxMembers     int           `conf:"max-members" help:"members of a group at most"`
}

// DefaultConfig is for a cluster.
func DefaultConfig() Config {
	return Config{
		Fenced:   true,
		MaxBatch: 500, // what the timeline's writer commits together; more would only make answers slower
		// At 10,000 events a second this is ten seconds of a store that does not answer, in about 40 MB.
		MaxUnconfirmed: 100_000,
		WindowIDs:      seq.DefaultWindowIDs,
		CacheEntries:   seq.DefaultCacheEntries,
		MaxMembers:     chat.MaxGroupMembers,
	}
}

// Validate lists every fault.
func (c *Config) Validate() error {
	var faults []error
	if len(c.HashKey.Reveal()) < 16 {
		faults = append(faults, errors.New("ingest.hash-key needs at least 16 bytes"))
	}
	if c.MaxBatch < 1 || c.MaxBatch > 5000 {
		faults = append(faults, fmt.Errorf("ingest.max-batch is %d, 1 to 5000 are possible", c.MaxBatch))
	}
	if c.MaxUnconfirmed < c.MaxBatch {
		faults = append(faults, fmt.Errorf("ingest.max-unconfirmed is %d, less than ingest.max-batch", c.MaxUnconfirmed))
	}
	if c.WindowIDs < 1 || c.CacheEntries < 1 || c.MaxMembers < 2 {
		faults = append(faults, errors.New("ingest.window-ids, ingest.cache-entries and ingest.max-members must be positive"))
	}
	return errors.Join(faults...)
}

// IDs makes message ids.
type IDs interface{ NextID() (int64, error) }

// Store is what owners ask the store, and how far it has come in some partitions.
type Store interface {
	seq.Store
	Checkpoints(ctx context.Context, partitions []int32) (map[int32]seq.Checkpoint, error)
}

// Service owns partitions.
type Service struct {
	cfg     Config
	kafka   kafka.Config
	store   Store
	ids     IDs
	teller  *Teller
	tracer  trace.Tracer
	hasher  *chat.Hasher
	log     *slog.Logger
	metrics *Metrics
	id      string

	mu        sync.Mutex // guards what follows
	confirmed map[int32]seq.Checkpoint
	failedAt  map[int32]int64 // where the last owner of a partition ended with an error
}

// New makes the service. The id names this process among the clients of Kafka.
func New(cfg Config, kc kafka.Config, store Store, ids IDs, teller *Teller, tracer trace.Tracer, log *slog.Logger, metrics *Metrics, id string) (*Service, error) {
	hasher, err := chat.NewHasher([]byte(cfg.HashKey.Reveal()))
	if err != nil {
		return nil, err
	}
	kc.Plain = !cfg.Fenced
	return &Service{
		cfg: cfg, kafka: kc, store: store, ids: ids, teller: teller, tracer: tracer, hasher: hasher, log: log, metrics: metrics, id: id,
		confirmed: map[int32]seq.Checkpoint{}, failedAt: map[int32]int64{},
	}, nil
}

// Run owns partitions until the context ends.
func (s *Service) Run(ctx context.Context) error {
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { s.watchStore(watching) })
	defer wg.Wait()
	defer stop()
	owners := kafka.Owners{
		Config: s.kafka, ClientID: s.id, Group: kafka.GroupIngest, Topic: kafka.TopicInbound, Log: s.log, Own: s.own,
		Owned: func(n int) { s.metrics.owned.Set(float64(n)) },
		Lag:   func(id int32, n int64) { s.metrics.lag.WithLabelValues(strconv.Itoa(int(id))).Set(float64(n)) },
		Gone:  func(id int32) { s.metrics.lag.DeleteLabelValues(strconv.Itoa(int(id))) },
	}
	return owners.Run(ctx)
}

// storeLook is how often the store is asked how far it has come; it bounds how much is kept in memory needlessly.
const storeLook = 250 * time.Millisecond

func (s *Service) watchStore(ctx context.Context) {
	tick := time.NewTicker(storeLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		partitions := make([]int32, 0, len(s.confirmed))
		for p := range s.confirmed {
			partitions = append(partitions, p)
		}
		s.mu.Unlock()
		if len(partitions) == 0 {
			continue
		}
		checkpoints, err := s.store.Checkpoints(ctx, partitions)
		if err != nil {
			if ctx.Err() == nil {
				s.log.Warn("the store does not tell how far it is; partitions pause when they must", "err", err)
			}
			continue
		}
		s.mu.Lock()
		for p, cp := range checkpoints {
			if _, owned := s.confirmed[p]; owned {
				s.confirmed[p] = cp
			}
		}
		s.mu.Unlock()
	}
}

// company is how long records wait for others while many come. A transaction costs 3 to 15 ms, so that fewer of them give
// more; a plain write costs about as much as the wait.
const company = 2 * time.Millisecond

func (s *Service) own(ctx context.Context, p *kafka.Partition) error {
	log := &partitionLog{cfg: s.kafka, clientID: s.id, fenced: s.cfg.Fenced, log: s.log, partition: p, tracer: s.tracer, metrics: s.metrics, at: -1}
	defer log.close()
	if s.cfg.Fenced {
		p.Company = company
	}
	s.mu.Lock()
	s.confirmed[p.ID] = seq.Checkpoint{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.confirmed, p.ID)
		s.mu.Unlock()
	}()
	label := strconv.Itoa(int(p.ID))
	started := time.Now()
	owner := seq.Owner{
		Config: seq.Config{
			Partition: p.ID, Hasher: s.hasher, NextID: s.ids.NextID, WindowIDs: s.cfg.WindowIDs, CacheEntries: s.cfg.CacheEntries, MaxMembers: s.cfg.MaxMembers,
			ClientProducer: kafka.ProducerAPI,
		},
		Log: log, Store: s.store, Now: failpoint.Now, MaxBatch: s.cfg.MaxBatch, MaxUnconfirmed: s.cfg.MaxUnconfirmed,
		Tell: func(outcomes []seq.Outcome) {
			if len(outcomes) == 0 {
				return // only the place has moved
			}
			s.metrics.count(outcomes)
			s.teller.Tell(outcomes)
		},
		Confirmed: func() seq.Checkpoint {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.confirmed[p.ID]
		},
		Waiting: func(paused bool) {
			if paused {
				s.metrics.pauses.Inc()
				s.log.Warn("a partition pauses: the store is too far behind", "partition", p.ID, "unconfirmed", s.cfg.MaxUnconfirmed)
				return
			}
			s.log.Info("a partition goes on", "partition", p.ID)
		},
		Moved: func(inboundNext int64) {
			log.at = inboundNext
			p.Done(inboundNext)
			s.metrics.lag.WithLabelValues(label).Set(float64(p.Lag()))
		},
		At: func(point seq.Point) error {
			failpoint.Here("ingest/" + string(point))
			if point == seq.PointReplayed {
				s.metrics.takeover.Observe(time.Since(started).Seconds())
				s.log.Info("a partition was taken over", "partition", p.ID, "took", time.Since(started).String())
			}
			return nil
		},
	}
	err := owner.Run(ctx)
	if errors.Is(err, seq.ErrReplaced) {
		return fmt.Errorf("%w: %w", kafka.ErrGiveUp, err)
	}
	if errors.Is(err, kafka.ErrTruncated) || errors.Is(err, seq.ErrInconsistent) {
		s.metrics.stuck.Inc()
		s.log.Error("NUMBERING STOPPED on a partition: the log and the store do not fit together; see the runbook", "partition", p.ID, "err", err)
	}
	if errors.Is(err, seq.ErrUnknownKind) {
		s.metrics.stuck.Inc()
		s.log.Error("NUMBERING NEEDS A NEWER VERSION on a partition: it is not taken over; see the runbook", "partition", p.ID, "err", err)
	}
	if ctx.Err() == nil && !errors.Is(err, kafka.ErrGiveUp) {
		s.failed(p.ID, log.at, err)
	}
	return err
}

// failed counts an owner that ended with an error, and says so loudly where the one before it did not get further: what
// fails again at the same record will not mend itself.
func (s *Service) failed(partition int32, at int64, err error) {
	s.metrics.failures.Inc()
	s.mu.Lock()
	before, there := s.failedAt[partition]
	s.failedAt[partition] = at
	s.mu.Unlock()
	if there && before == at {
		s.metrics.again.Inc()
		s.log.Error("NUMBERING DOES NOT GET PAST A PLACE; see the runbook", "partition", partition, "offset", at, "err", err)
	}
}
