// Package wiring builds the services of each process from their settings. The commands differ in which of them they
// build; standalone builds all.
package wiring

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"tideline/internal/accounts"
	"tideline/internal/api"
	"tideline/internal/archive"
	"tideline/internal/config"
	"tideline/internal/handlers"
	"tideline/internal/heads"
	"tideline/internal/ids"
	"tideline/internal/ingest"
	"tideline/internal/kafka"
	"tideline/internal/marks"
	"tideline/internal/ops"
	"tideline/internal/pusher"
	"tideline/internal/sender"
	"tideline/internal/sqlstore"
	"tideline/internal/tracing"
	"tideline/pkg/chat"
)

// RedisConfig says where Redis is. Keys begin with redis.
type RedisConfig struct {
	Addrs    []string      `conf:"addrs" help:"host:port; several make a Cluster"`
	User     string        `conf:"user" help:"user of Redis' ACLs; empty for the default one"`
	Password config.Secret `conf:"password" help:"password, or empty"`
	TLS      bool          `conf:"tls" help:"speak TLS to Redis"`
	Walks    bool          `conf:"walks-sets" help:"this Redis walks a whole sorted set to count in it, as the embedded one does: fetch sets instead"`
}

// Validate lists every fault.
func (c *RedisConfig) Validate() error {
	if len(c.Addrs) == 0 {
		return errors.New("redis.addrs is empty")
	}
	return nil
}

// Connect makes a client.
func (c *RedisConfig) Connect() redis.UniversalClient {
	var encrypted *tls.Config
	if c.TLS {
		encrypted = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: c.Addrs, Username: c.User, Password: c.Password.Reveal(), TLSConfig: encrypted,
		// Redis is for speed: what it does not do at once is done without it.
		DialTimeout: time.Second, ReadTimeout: 500 * time.Millisecond, WriteTimeout: 500 * time.Millisecond, MaxRetries: -1,
	})
}

// Settings are those of all processes; a command reads the sections that it needs.
type Settings struct {
	Ops    ops.Config
	Kafka  kafka.Config
	Store  sqlstore.Config
	Redis  RedisConfig
	Auth   accounts.Config
	HTTP   api.Config
	Read   handlers.Config
	Groups handlers.GroupsConfig
	Send   sender.Config
	Ingest ingest.Config
	Push   pusher.Config

	Timeline TimelineConfig
	Archive  archive.Config
	Trace    tracing.Config
}

// Defaults gives the settings of a cluster.
func Defaults() *Settings {
	return &Settings{
		Ops: ops.DefaultConfig(), Kafka: kafka.DefaultConfig(), Store: sqlstore.DefaultConfig(), Redis: RedisConfig{Addrs: []string{"127.0.0.1:6379"}},
		Auth: accounts.DefaultConfig(), HTTP: api.DefaultConfig(), Read: handlers.DefaultConfig(), Groups: handlers.DefaultGroupsConfig(), Send: sender.DefaultConfig(), Ingest: ingest.DefaultConfig(), Push: pusher.DefaultConfig(),
		Timeline: TimelineConfig{Run: timelineParts}, Archive: archive.DefaultConfig(), Trace: tracing.DefaultConfig(),
	}
}

// Base gives the sections that every process reads.
func (s *Settings) Base() []config.Section {
	return []config.Section{{Name: "ops", Into: &s.Ops}, {Name: "kafka", Into: &s.Kafka}, {Name: "store", Into: &s.Store}, {Name: "redis", Into: &s.Redis},
		{Name: "trace", Into: &s.Trace}}
}

// ForAPI gives the sections of the api.
func (s *Settings) ForAPI() []config.Section {
	return append(s.Base(), config.Section{Name: "http", Into: &s.HTTP}, config.Section{Name: "auth", Into: &s.Auth}, config.Section{Name: "read", Into: &s.Read},
		config.Section{Name: "groups", Into: &s.Groups}, config.Section{Name: "send", Into: &s.Send}, config.Section{Name: "ingest", Into: &s.Ingest})
}

// ForPusher gives the sections of the pusher: requests on sockets go through the same handlers as the api's.
func (s *Settings) ForPusher() []config.Section {
	return append(s.ForAPI(), config.Section{Name: "push", Into: &s.Push})
}

// ForTimeline gives the sections of the timeline's writers.
func (s *Settings) ForTimeline() []config.Section {
	return append(s.Base(), config.Section{Name: "timeline", Into: &s.Timeline}, config.Section{Name: "archive", Into: &s.Archive})
}

// ForIngest gives the sections of ingest.
func (s *Settings) ForIngest() []config.Section {
	return append(s.Base(), config.Section{Name: "ingest", Into: &s.Ingest})
}

// Parts are what the services of one process share.
type Parts struct {
	Settings *Settings
	Log      *slog.Logger
	Registry *prometheus.Registry
	Ops      *ops.Server
	Store    *sqlstore.Store
	// Guarded is the same store for requests: one that hangs refuses them in time.
	Guarded *sqlstore.Store
	Redis   redis.UniversalClient
	IDs     *ids.Generator
	// Marks are the read marks that are kept for speed, with the store behind them.
	Marks *marks.Marks
	// Tracer begins the spans of this process.
	Tracer trace.Tracer
	// DataBytes returns the size of the data folder, where the process has one of its own. Set it before Door.
	DataBytes func() (int64, error)
	// ID names this process among the clients of Kafka and Redis.
	ID string

	close []func()
}

// NewParts connects to what every process needs, and checks schema and topics.
func NewParts(ctx context.Context, s *Settings, process string, log *slog.Logger) (*Parts, error) {
	b := make([]byte, 6)
	rand.Read(b)
	p := &Parts{Settings: s, Log: log, Registry: ops.NewRegistry(), ID: hex.EncodeToString(b)}
	var err error
	if p.Ops, err = ops.Listen(s.Ops.Addr, p.Registry); err != nil {
		return nil, err
	}
	var flush func(context.Context) error
	if p.Tracer, flush, err = tracing.Start(ctx, s.Trace, process, p.ID, log); err != nil {
		return p, err
	}
	p.close = append(p.close, func() {
		ending, cancel := context.WithTimeout(context.Background(), traceFlush)
		defer cancel()
		if err := flush(ending); err != nil {
			log.Warn("the last spans were not exported", "err", err)
		}
	})
	if p.Store, err = sqlstore.Open(ctx, s.Store); err != nil {
		return p, err
	}
	p.close = append(p.close, func() { _ = p.Store.Close() })
	p.Guarded = p.Store.Guarded(log, p.Registry)
	if err := p.Store.CheckSchema(ctx); err != nil {
		return p, err
	}
	p.Redis = s.Redis.Connect()
	p.close = append(p.close, func() { _ = p.Redis.Close() })
	admin, err := s.Kafka.NewAdmin(p.ID, log)
	if err != nil {
		return p, err
	}
	defer admin.Close()
	if err := kafka.CheckTopics(ctx, admin, s.Kafka); err != nil {
		return p, err
	}
	if p.IDs, err = ids.Lease(ctx, p.Store, p.ID, log); err != nil {
		return p, err
	}
	logs, err := marks.NewKafkaLogs(s.Kafka, "marks-"+p.ID, log)
	if err != nil {
		return p, err
	}
	p.close = append(p.close, logs.Close)
	p.Marks = marks.New(p.Redis, p.Guarded, logs, s.Kafka.Partitions, log, marks.NewMetrics(p.Registry))
	if s.Redis.Walks {
		p.Marks.Walked()
	}
	p.Ops.Check("store", p.Store.Ping)
	return p, nil
}

// traceFlush bounds how long the end of a process waits for the collector of traces.
const traceFlush = 2 * time.Second

// Close lets go of the connections.
func (p *Parts) Close() {
	for i := len(p.close) - 1; i >= 0; i-- {
		p.close[i]()
	}
}

// producer makes a producer that is closed with the parts.
func (p *Parts) producer(name string, opts ...kgo.Opt) (*kgo.Client, error) {
	cl, err := p.Settings.Kafka.NewProducer(name+"-"+p.ID, p.Log, opts...)
	if err == nil {
		p.close = append(p.close, cl.Close)
	}
	return cl, err
}

// Base are the services that every process runs last: they end when nothing needs them any more.
func (p *Parts) Base() []ops.Named {
	return []ops.Named{{Name: "marks", Service: p.Marks}, {Name: "ids", Service: p.IDs}, {Name: "ops", Service: p.Ops}}
}

// Ingest builds the services of cmd/ingest.
func (p *Parts) Ingest() ([]ops.Named, error) {
	metrics := ingest.NewMetrics(p.Registry)
	teller := ingest.NewTeller(p.Redis, p.Log, metrics)
	service, err := ingest.New(p.Settings.Ingest, p.Settings.Kafka, p.Store, p.IDs, teller, p.Tracer, p.Log, metrics, "ingest-"+p.ID)
	if err != nil {
		return nil, err
	}
	return []ops.Named{{Name: "ingest", Service: service}, {Name: "teller", Service: teller}}, nil
}

// Requests is what both doors share.
type Requests struct {
	Service  *handlers.Service
	Accounts *accounts.Accounts
	Heads    *heads.Follower
	Sender   *sender.Sender
}

// marksLinger is how long read marks wait for company, longer than a send would: nobody watches a mark being set, and at a thousand a
// second one request to the broker takes ten of them instead of two.
const marksLinger = 10 * time.Millisecond

// Requests builds what both doors share, with the services that it needs, which stop after the doors.
func (p *Parts) Requests() (*Requests, []ops.Named, error) {
	commands, err := p.producer("api")
	if err != nil {
		return nil, nil, err
	}
	marks, err := p.producer("api-marks", p.Settings.Kafka.PublicCodec(), kgo.ProducerLinger(marksLinger))
	if err != nil {
		return nil, nil, err
	}
	hasher, err := chat.NewHasher([]byte(p.Settings.Ingest.HashKey.Reveal()))
	if err != nil {
		return nil, nil, err
	}
	r := &Requests{
		Heads:    heads.New(p.Settings.Kafka, p.Log, "heads-"+p.ID),
		Accounts: accounts.New(p.Settings.Auth, p.Guarded, p.IDs, p.Redis, p.Log, accounts.NewMetrics(p.Registry)),
		Sender:   sender.New(p.Settings.Send, p.Settings.Kafka, commands, p.Redis, p.Guarded, hasher, p.Log, sender.NewMetrics(p.Registry), p.ID),
	}
	r.Service = handlers.New(handlers.Parts{
		Config: p.Settings.Read, Groups: p.Settings.Groups, Kafka: p.Settings.Kafka, Store: p.Guarded, Accounts: r.Accounts, Sender: r.Sender, Heads: r.Heads,
		Marks: p.Marks, Producer: marks, Hasher: hasher, IDs: p.IDs, Log: p.Log, Registry: p.Registry,
	})
	p.Ops.Check("hints", func(context.Context) error {
		if !r.Heads.Fresh() {
			return errors.New("im.notify was not read to its end within two seconds")
		}
		return nil
	})
	return r, []ops.Named{{Name: "sender", Service: r.Sender}, {Name: "heads", Service: r.Heads}, {Name: "accounts", Service: r.Accounts}}, nil
}

// Socket builds the socket door: a handler for GET /v1/ws, and the service behind it.
func (p *Parts) Socket(r *Requests) (http.Handler, ops.Named) {
	s := pusher.New(p.Settings.Push, p.Settings.HTTP.Proxies(), p.Settings.Kafka, r.Service, p.Guarded, r.Heads, p.Redis, p.Tracer, p.Log, pusher.NewMetrics(p.Registry), "pusher-"+p.ID)
	return s, ops.Named{Name: "sockets", Service: s}
}

// Door builds the HTTP door and opens its listener; the socket may be nil.
func (p *Parts) Door(r *Requests, socket http.Handler) (ops.Named, net.Addr, error) {
	s := api.New(p.Settings.HTTP, r.Service, r.Accounts, p.Settings.Auth.AdminToken, socket, p.Tracer, p.Log, p.Registry)
	s.DrainingWhen(p.Ops.Draining)
	if err := p.Registry.Register(newSizes(p.Guarded.Sizes, p.DataBytes, p.Log)); err != nil {
		return ops.Named{}, nil, fmt.Errorf("registering the gauges of sizes: %w", err)
	}
	addr, err := s.Listen()
	return ops.Named{Name: "http", Service: s}, addr, err
}

// Run runs services until a signal comes, in the order of the data.
func (p *Parts) Run(ctx context.Context, services ...ops.Named) error {
	ctx, stop := ops.Signals(ctx, p.Log)
	defer stop()
	g := ops.Group{Log: p.Log, Services: append(services, p.Base()...), Drain: p.Settings.Ops.Drain, Draining: p.Ops.SetDraining, Linger: p.Settings.Ops.Linger}
	p.Log.Info("up", "ops", p.Ops.Addr())
	if err := g.Run(ctx); err != nil {
		return fmt.Errorf("running: %w", err)
	}
	return nil
}
