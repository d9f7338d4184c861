package importer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/embedded"
	"tideline/internal/kafka"
	"tideline/internal/ops"
	"tideline/internal/sqlstore"
	"tideline/internal/wire"
	"tideline/internal/wiring"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

const (
	patience   = 60 * time.Second
	adminToken = "the administrators of the tests"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// rig is a whole platform: what an import meets where it is used.
type rig struct {
	t      *testing.T
	base   string
	parts  *wiring.Parts
	kafka  kafka.Config
	naming func() func() // starts ingest and the timeline's writers, and gives what stops them
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	s := wiring.Defaults()
	s.HTTP.Addr, s.Ops.Addr = "127.0.0.1:0", "127.0.0.1:0"
	s.Kafka.Partitions, s.Kafka.Replication, s.Kafka.MinInSync, s.Kafka.SessionTimeout = 2, 1, 1, 6*time.Second
	s.Ingest.Fenced, s.Ingest.HashKey = false, "a hash key of the tests"
	s.Auth.TokenKey, s.Auth.AdminToken = "a key of thirty-two bytes or more, for tests", adminToken
	s.Store.Driver, s.Store.Path = "sqlite", filepath.Join(dir, "tideline.db")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	broker, err := embedded.StartBroker(filepath.Join(dir, "kafka"), "127.0.0.1:0", "secret", kafka.MaxUnpackedBytes, quiet)
	must(err)
	cache, err := embedded.StartRedis()
	must(err)
	broker.Join(&s.Kafka)
	s.Redis.Addrs, s.Redis.Password = []string{cache.Addr()}, cache.Password()
	admin, err := s.Kafka.NewAdmin("tests", quiet)
	must(err)
	defer admin.Close()
	must(kafka.EnsureTopics(ctx, admin, s.Kafka))
	store, err := sqlstore.Open(ctx, s.Store)
	must(err)
	must(errors.Join(store.Migrate(ctx), store.Close()))
	p, err := wiring.NewParts(ctx, s, "test", quiet)
	must(err)
	run := func(services ...ops.Named) func() {
		running, end := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- (&ops.Group{Log: quiet, Services: services, Drain: patience}).Run(running) }()
		return func() {
			end()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	requests, behind, err := p.Requests()
	must(err)
	door, addr, err := p.Door(requests, nil)
	must(err)
	ground := append(append([]ops.Named{door}, behind...), p.Base()...)
	ground = append(ground, ops.Named{Name: "redis", Service: cache}, ops.Named{Name: "kafka", Service: broker})
	stop := run(ground...)
	t.Cleanup(func() { stop(); p.Close() })
	numbering, err := p.Ingest()
	must(err)
	storing, err := p.Timeline()
	must(err)
	r := &rig{t: t, base: "http://" + addr.String(), parts: p, kafka: s.Kafka}
	r.naming = func() func() { return run(append(numbering, storing...)...) }
	return r
}

func (r *rig) config() Config {
	cfg := DefaultConfig()
	cfg.API, cfg.AdminToken, cfg.Group, cfg.Patience = r.base, adminToken, "Harbour", patience
	cfg.Batch = 2
	return cfg
}

func (r *rig) importer(cfg Config) *Importer {
	r.t.Helper()
	if err := cfg.Validate(); err != nil {
		r.t.Fatal(err)
	}
	return New(cfg, r.kafka, quiet, io.Discard, false)
}

func (r *rig) run(cfg Config, path string) *Report {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	report, err := r.importer(cfg).Run(ctx, path)
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

// stored gives the rows of a group, as anybody would pull them.
func (r *rig) stored(group chat.ConversationID) []timeline.Row {
	r.t.Helper()
	rows, err := r.parts.Store.Rows(r.t.Context(), group, 1, 10_000)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range rows {
		if rows[i].Seq != int64(i+1) {
			r.t.Fatalf("number %d stands at place %d", rows[i].Seq, i+1)
		}
	}
	return rows
}

// said gives what people said in a group, in order: when, what, and by whom.
func (r *rig) said(group chat.ConversationID) []string {
	r.t.Helper()
	var said []string
	names := map[chat.UserID]string{}
	for _, row := range r.stored(group) {
		if row.Kind != chat.KindMessage {
			continue
		}
		if names[row.Sender] == "" {
			users, err := r.parts.Store.Users(r.t.Context(), []chat.UserID{row.Sender})
			if err != nil || len(users) != 1 {
				r.t.Fatalf("the sender %s: %v", row.Sender, err)
			}
			names[row.Sender] = users[0].ExternalID
		}
		said = append(said, fmt.Sprintf("%s %s %s %s", time.UnixMilli(row.SentAt).UTC().Format("2006-01-02 15:04:05.000"), names[row.Sender], row.Type, row.Content))
	}
	return said
}

// produce produces a command as another backend would.
func (r *rig) produce(c *chat.Command) {
	r.t.Helper()
	producer, err := r.kafka.NewProducer("tests", quiet)
	if err != nil {
		r.t.Fatal(err)
	}
	defer producer.Close()
	rec := &kgo.Record{
		Topic: kafka.TopicInbound, Key: []byte(c.Conversation.String()), Value: wire.EncodeCommand(c),
		Headers: []kgo.RecordHeader{{Key: kafka.HeaderProducer, Value: []byte("tests")}, {Key: kafka.HeaderContentType, Value: []byte(wire.ContentTypeProtobuf)}},
	}
	if err := producer.ProduceSync(r.t.Context(), rec).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}
