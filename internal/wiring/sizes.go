package wiring

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/internal/sqlstore"
)

// sizesEvery is how often the sizes are read at most, however many scrape: SQLite counts tables for them, which takes tens
// of milliseconds for a million rows, and they are watched over days.
const sizesEvery = 5 * time.Minute

// sizesTimeout bounds how long a scrape waits for the sizes. It is shorter than the 10 s that Prometheus waits by default.
const sizesTimeout = 3 * time.Second

// sizes is a collector of how much the installation has. Its values are read when something scrapes, and are then kept.
type sizes struct {
	read      func(context.Context) (sqlstore.Sizes, error)
	dataBytes func() (int64, error) // nil where the process has no data folder of its own
	log       *slog.Logger
	now       func() time.Time

	users, sessions, conversations, storeBytes, folderBytes *prometheus.Desc

	mu     sync.Mutex // guards what follows
	readAt time.Time  // the last try
	store  *sqlstore.Sizes
	folder *int64
}

func newSizes(read func(context.Context) (sqlstore.Sizes, error), dataBytes func() (int64, error), log *slog.Logger) *sizes {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help+" Read at most every "+sizesEvery.String()+"; absent while it cannot be read.", nil, nil)
	}
	const estimate = " MySQL: an estimate from its statistics; SQLite: exact."
	return &sizes{
		read: read, dataBytes: dataBytes, log: log, now: time.Now,
		users:         desc("tideline_users", "People of the installation."+estimate),
		sessions:      desc("tideline_sessions", "Sessions in the store, with those that have ended and are not removed yet."+estimate),
		conversations: desc("tideline_conversations", "Conversations of the installation."+estimate),
		storeBytes:    desc("tideline_store_bytes", "Bytes on disk of the store's tables and indexes; SQLite: of the database file, without its write-ahead log."),
		folderBytes:   desc("tideline_data_bytes", "Bytes on disk of the data folder: log, store and archive. Near the size of the disk: add space, or lower kafka's retention."),
	}
}

// Describe names the gauges.
func (s *sizes) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.users, s.sessions, s.conversations, s.storeBytes} {
		out <- d
	}
	if s.dataBytes != nil {
		out <- s.folderBytes
	}
}

// Collect emits the values that are kept, after it has read them where they are old.
func (s *sizes) Collect(out chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now(); s.readAt.IsZero() || now.Sub(s.readAt) >= sizesEvery {
		s.readAt = now
		s.refresh()
	}
	emit := func(d *prometheus.Desc, v int64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	if s.store != nil {
		emit(s.users, s.store.Users)
		emit(s.sessions, s.store.Sessions)
		emit(s.conversations, s.store.Conversations)
		emit(s.storeBytes, s.store.Bytes)
	}
	if s.folder != nil {
		emit(s.folderBytes, *s.folder)
	}
}

// refresh reads the values. s.mu is held.
func (s *sizes) refresh() {
	s.store, s.folder = nil, nil
	ctx, cancel := context.WithTimeout(context.Background(), sizesTimeout)
	defer cancel()
	if v, err := s.read(ctx); err != nil {
		s.log.Warn("sizes of the store were not read", "err", err)
	} else {
		s.store = &v
	}
	if s.dataBytes == nil {
		return
	}
	if n, err := s.dataBytes(); err != nil {
		s.log.Warn("size of the data folder was not read", "err", err)
	} else {
		s.folder = &n
	}
}
