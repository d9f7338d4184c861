package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"tideline/internal/accounts"
	"tideline/internal/config"
	"tideline/internal/embedded"
	"tideline/internal/kafka"
	"tideline/internal/ops"
	"tideline/internal/sqlstore"
	"tideline/internal/wiring"
	"tideline/pkg/timeline"
)

// settings are those that standalone has of its own; the contract fixes their names.
type settings struct {
	DataDir string `conf:"data.dir" help:"folder of everything that is kept"`
	Kafka   string `conf:"kafka.addr" help:"where the embedded broker can be reached by backends"`
	// An address that other machines reach is refused unless a setting says that it is meant: the broker does not ask its
	// clients who they are, and what is behind ops.addr is for operators.
	KafkaRemote      bool  `conf:"kafka.remote" help:"kafka.addr may be an address that other machines reach; each client that reaches it reads every message and sends as any user"`
	OpsRemote        bool  `conf:"ops.remote" help:"ops.addr may be an address that other machines reach"`
	ClickHouseRemote bool  `conf:"clickhouse.remote" help:"clickhouse.addr may be an address that other machines reach; passwords cross the network in the clear"`
	MaxUnpacked      int64 `conf:"kafka.max-unpacked-bytes" help:"bytes that a batch may unpack to; a larger one is refused"`
	Partitions       int   `conf:"kafka.partitions" help:"partitions of every topic of a new installation; an existing one keeps those that it has"`

	Compression string `conf:"kafka.compression" help:"codec of im.messages, im.rejected and im.receipts: gzip, which every Kafka client reads, or snappy, lz4, zstd, none"`

	ClickHouse string `conf:"clickhouse.addr" help:"where the ClickHouse engine's HTTP interface listens, when it is installed"`
	Library    string `conf:"clickhouse.library" help:"path of libchdb.so; empty: it is looked for in .tools, beside this program and in /usr/local/lib"`
}

// Main runs standalone until a signal comes or the context ends; it returns the exit code. Tests call it with ports 0.
func Main(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	own := &settings{DataDir: "./data", Kafka: "127.0.0.1:9092", ClickHouse: "127.0.0.1:8123", MaxUnpacked: kafka.MaxUnpackedBytes, Partitions: 1}
	s := wiring.Defaults()
	own.Compression = s.Kafka.Compression
	s.HTTP.Addr = "127.0.0.1:8080"
	// What differs from a cluster: sizes for one small machine, and no fence, as the broker runs in this process.
	s.Kafka.Replication, s.Kafka.MinInSync = 1, 1
	s.Ingest.Fenced, s.Kafka.Plain = false, true
	s.Ingest.WindowIDs, s.Ingest.CacheEntries, s.Ingest.MaxUnconfirmed = 10_000, 10_000, 40_000
	s.Send.MaxLag = 20_000
	code, goOn := config.Command("standalone", args, environ, stdout, stderr,
		config.Section{Into: own}, config.Section{Name: "http", Into: &s.HTTP}, config.Section{Name: "ops", Into: &s.Ops},
		config.Section{Name: "read", Into: &s.Read}, config.Section{Name: "groups", Into: &s.Groups}, config.Section{Name: "send", Into: &s.Send}, config.Section{Name: "push", Into: &s.Push},
		config.Section{Name: "trace", Into: &s.Trace}, config.Section{Name: "auth", Into: (*auth)(&s.Auth)})
	if !goOn {
		return code
	}
	if err := own.validate(s.Ops.Addr); err != nil {
		_, _ = fmt.Fprintf(stderr, "standalone: %v\n", err)
		return 2
	}
	log := ops.NewLogger(stderr, s.Ops, "standalone")
	if err := run(ctx, own, s, log, stdout); err != nil {
		log.Error("the process ends", "err", err)
		return 1
	}
	return 0
}

// auth are the settings of accounts. The keys are kept in the data directory, and need not be set.
type auth accounts.Config

// Validate lists every fault.
func (a *auth) Validate() error {
	c := accounts.Config(*a)
	if c.TokenKey.Reveal() == "" {
		c.TokenKey = config.Secret(strings.Repeat("k", 32)) // the kept one is judged when it is read
	}
	return c.Validate()
}

// leastSecret is the length of the shortest secret that is accepted from a file and was not made here, in bytes.
const leastSecret = 32

// validate refuses addresses that other machines reach and that were not said to be meant, and what the broker would not take.
func (s *settings) validate(opsAddr string) error {
	var faults []error
	for _, a := range []struct {
		name, addr string
		meant      bool
	}{{"kafka", s.Kafka, s.KafkaRemote}, {"ops", opsAddr, s.OpsRemote}, {"clickhouse", s.ClickHouse, s.ClickHouseRemote}} {
		if !a.meant && !embedded.Loopback(a.addr) {
			faults = append(faults, fmt.Errorf("%s.addr %s can be reached by other machines: set %s.remote if that is meant", a.name, a.addr, a.name))
		}
	}
	if s.MaxUnpacked < 1<<20 || s.MaxUnpacked > 1<<30 {
		faults = append(faults, fmt.Errorf("kafka.max-unpacked-bytes is %d, 1 MiB to 1 GiB are possible", s.MaxUnpacked))
	}
	if s.Partitions < 1 || s.Partitions > embedded.MaxPartitions {
		faults = append(faults, fmt.Errorf("kafka.partitions is %d, 1 to %d are possible", s.Partitions, embedded.MaxPartitions))
	}
	if err := kafka.CheckCompression(s.Compression); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// keep returns a secret of this installation: made at the first start, and kept in the data directory. A file that is
// cut short is refused: an empty key would be anybody's, and a shorter one another one than it was. A file of other
// characters than printable ASCII is refused as damaged: a disk that fails leaves NUL bytes, a key that anyone can guess.
func keep(dir, name string, bytes int) (config.Secret, error) {
	path := filepath.Join(dir, name)
	raw, err := os.ReadFile(path)
	if err == nil {
		text := strings.Trim(string(raw), " \t\r\n")
		if err := mustBeSecret(text, 2*bytes); err != nil {
			return "", fmt.Errorf("reading a secret: %s %w; restore it from a backup", path, err)
		}
		return config.Secret(text), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("reading a secret: %w", err)
	}
	b := make([]byte, bytes)
	rand.Read(b)
	text := hex.EncodeToString(b)
	if err := embedded.WriteFile(path, text+"\n"); err != nil {
		return "", err
	}
	return config.Secret(text), nil
}

// mustBeSecret refuses the text of a secret's file that is damaged: neither as many hex digits as are made, nor at least
// leastSecret other printable ASCII characters. The error does not repeat the text.
func mustBeSecret(text string, digits int) error {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return errors.New("is damaged: it has characters that are not printable ASCII")
	}
	_, notHex := hex.DecodeString(text + strings.Repeat("0", len(text)%2))
	if isHex := notHex == nil; isHex && len(text) < digits || !isHex && len(text) < leastSecret {
		return fmt.Errorf("is cut short: it has %d characters, and is made with %d", len(text), digits)
	}
	return nil
}

// errNoHashKey refuses a start that would make retries of older messages conflicts.
var errNoHashKey = errors.New("hash-key is missing while messages exist: restore it from a backup. Where it is lost, write 64 random hex digits into that file; " +
	"retries of messages that were sent before are then refused as client_msg_id_conflict")

// keepHashKey returns the key of the hashes by which retries are known. It is made only while there are no messages.
func keepHashKey(dir string, said bool) (config.Secret, error) {
	const name = "hash-key"
	if _, err := os.Stat(filepath.Join(dir, name)); said && errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("%s: %w", dir, errNoHashKey)
	}
	return keep(dir, name, 32)
}

const startTimeout = 30 * time.Second

func run(ctx context.Context, own *settings, s *wiring.Settings, log *slog.Logger, stdout io.Writer) error {
	dir, err := filepath.Abs(own.DataDir)
	if err != nil {
		return fmt.Errorf("finding the data folder: %w", err)
	}
	lock, err := embedded.Lock(dir, log)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if _, err := os.Stat(filepath.Join(dir, embedded.StoreFile)); errors.Is(err, os.ErrNotExist) {
		_, _ = fmt.Fprintf(stdout, "New installation in %s (another folder: -data.dir, or TIDELINE_DATA_DIR).\n", dir)
	}
	if err := embedded.ForgetAddresses(dir); err != nil {
		return err
	}
	for name, into := range map[string]*config.Secret{"token-key": &s.Auth.TokenKey, embedded.AdminToken: &s.Auth.AdminToken} {
		if into.Reveal() != "" {
			continue // a setting comes before what is kept
		}
		if *into, err = keep(dir, name, 32); err != nil {
			return err
		}
	}
	if err := s.Auth.Validate(); err != nil {
		return err
	}
	// Analysts have had clickhouse-password from the beginning: it is the readers'.
	owner, err := keep(dir, embedded.ClickHouseOwnerPassword, 16)
	if err != nil {
		return err
	}
	reader, err := keep(dir, embedded.ClickHousePassword, 16)
	if err != nil {
		return err
	}
	engine, err := embedded.FindClickHouse(own.Library, filepath.Join(dir, embedded.ClickHouseFolder), own.ClickHouse, owner.Reveal(), reader.Reveal(), log)
	if err != nil && !errors.Is(err, embedded.ErrNoClickHouse) {
		return err
	}
	if engine == nil {
		log.Info("nothing is archived; what is said now is filled in when the engine comes", "err", err)
	} else {
		s.Archive.Addr, s.Archive.Refill = config.Secret(engine.DSN(archiveDatabase)), "auto"
	}
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	secret, err := keep(dir, embedded.SecretFile, 32)
	if err != nil {
		return err
	}
	s.Kafka.MaxUnpacked, s.Kafka.Compression, s.Kafka.Partitions = own.MaxUnpacked, own.Compression, own.Partitions
	broker, err := embedded.StartBroker(filepath.Join(dir, embedded.BrokerFolder), own.Kafka, secret.Reveal(), own.MaxUnpacked, log)
	if err != nil {
		return err
	}
	cache, err := embedded.StartRedis()
	if err != nil {
		return err
	}
	// For commands of this user: see embedded.OpenFolder.
	if err := embedded.WriteFile(filepath.Join(dir, embedded.RedisPassword), cache.Password().Reveal()+"\n"); err != nil {
		return err
	}
	broker.Join(&s.Kafka)
	s.Redis.Addrs, s.Redis.Password, s.Redis.Walks = []string{cache.Addr()}, cache.Password(), true
	s.Store = sqlstore.DefaultConfig()
	s.Store.Driver, s.Store.Path = "sqlite", filepath.Join(dir, embedded.StoreFile)
	said, err := prepare(starting, s, log)
	if err != nil {
		return err
	}
	if s.Ingest.HashKey, err = keepHashKey(dir, said); err != nil {
		return err
	}
	p, err := wiring.NewParts(starting, s, "standalone", log)
	if p != nil {
		defer p.Close()
	}
	if err != nil {
		return err
	}
	retention, err := retain(starting, s, p, log)
	if err != nil {
		return err
	}
	numbering, err := p.Ingest()
	if err != nil {
		return err
	}
	// The engine takes seconds to come up, and nobody waits for it: the archiver follows when it is there.
	s.Timeline.Run = slices.DeleteFunc(s.Timeline.Run, func(part string) bool { return part == "archive" })
	storing, err := p.Timeline()
	if err != nil {
		return err
	}
	requests, behind, err := p.Requests()
	if err != nil {
		return err
	}
	p.DataBytes = func() (int64, error) { return embedded.FolderBytes(dir) }
	handler, sockets := p.Socket(requests)
	door, addr, err := p.Door(requests, handler)
	if err != nil {
		return err
	}
	embedded.LogAddresses(log, broker, cache)
	analysis := "not installed, see the README"
	if engine != nil {
		archiver, err := p.LateArchiver()
		if err != nil {
			return err
		}
		storing = append(storing, ops.Named{Name: "archiver", Service: archiver}, ops.Named{Name: "clickhouse", Service: engine})
		analysis = "on http://" + engine.Addr()
		if err := engine.CheckAddr(); err != nil {
			analysis = fmt.Sprintf("not reachable yet, %v", err)
		}
	}
	if err := reach(s, broker, cache, engine, p.Ops, addr).Write(dir); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(stdout, "Tideline listens on http://%s (Kafka on %s, ClickHouse %s, operations on http://%s, data in %s).\nTry: curl http://%s/v1/users -d '{\"username\":\"ada\",\"password\":\"correct horse\"}'\n",
		addr, broker.Addr(), analysis, p.Ops.Addr(), dir, addr)
	services := append([]ops.Named{sockets, door}, behind...)
	services = append(append(services, numbering...), storing...)
	// The servers end last: everything above them has let go by then.
	services = append(services, ops.Named{Name: "retention", Service: retention}, ops.Named{Name: "redis", Service: cache}, ops.Named{Name: "kafka", Service: broker})
	return p.Run(ctx, services...)
}

// reach is how commands reach this process: see embedded.OpenFolder.
func reach(s *wiring.Settings, broker *embedded.Broker, cache *embedded.Redis, engine *embedded.ClickHouse, private *ops.Server, http net.Addr) embedded.Reach {
	r := embedded.Reach{
		Topics: map[string]string{
			"kafka.partitions": strconv.Itoa(s.Kafka.Partitions), "kafka.replication": strconv.Itoa(s.Kafka.Replication), "kafka.min-in-sync": strconv.Itoa(s.Kafka.MinInSync),
			"kafka.retention-bytes": strconv.FormatInt(s.Kafka.RetentionBytes, 10), "kafka.segment-bytes": strconv.FormatInt(s.Kafka.SegmentBytes, 10),
		},
		Addresses: map[string]string{
			"kafka.brokers": embedded.Dialled(broker.Addr()), "kafka.user": embedded.User, "redis.addrs": cache.Addr(), "redis.walks-sets": strconv.FormatBool(s.Redis.Walks),
			"ops.addr": embedded.Dialled(private.Addr()), "import.api": "http://" + embedded.Dialled(http.String()),
		},
	}
	if engine != nil {
		r.Addresses["archive.addr"] = "http://" + embedded.Dialled(engine.Addr()) + "/" + archiveDatabase
	}
	return r
}

// archiveDatabase is the database of the archive in the engine.
const archiveDatabase = "tideline"

// retain makes what bounds the log: it keeps what the store does not have yet.
func retain(ctx context.Context, s *wiring.Settings, p *wiring.Parts, log *slog.Logger) (*embedded.Retention, error) {
	partitions := make([]int32, s.Kafka.Partitions)
	for i := range partitions {
		partitions[i] = int32(i)
	}
	client, err := s.Kafka.NewAdmin("retention", log)
	if err != nil {
		return nil, err
	}
	retention := embedded.NewRetention(client, func(ctx context.Context) (map[string]map[int32]int64, error) {
		stored, err := p.Store.Positions(ctx, partitions)
		if err != nil {
			return nil, err
		}
		marks, err := p.Store.MarkPositions(ctx, partitions)
		if err != nil {
			return nil, err
		}
		rejections, err := p.Store.RejectionPositions(ctx, partitions)
		if err != nil {
			return nil, err
		}
		places := map[string]map[int32]int64{kafka.TopicInbound: {}, kafka.TopicMessages: {}, kafka.TopicRejected: {}, kafka.TopicReceipts: marks}
		for _, at := range stored {
			places[kafka.TopicInbound][at.Partition] = at.InboundNext
			places[kafka.TopicMessages][at.Partition] = at.MessagesNext
			places[kafka.TopicRejected][at.Partition] = min(at.RejectedNext, rejections[at.Partition])
		}
		return places, nil
	}, s.Kafka.RetentionBytes, log)
	if err := retention.TakeOver(ctx); err != nil {
		client.Close()
		return nil, err
	}
	return retention, nil
}

// prepare brings topics and schema to what this binary knows, and reports whether the log or the store has messages.
func prepare(ctx context.Context, s *wiring.Settings, log *slog.Logger) (said bool, err error) {
	admin, err := s.Kafka.NewAdmin("standalone", log)
	if err != nil {
		return false, err
	}
	defer admin.Close()
	// An installation keeps the partitions that it was made with: conversations are tied to them.
	if _, n, err := kafka.CountPartitions(ctx, admin); err != nil {
		return false, err
	} else if n > 0 && n != s.Kafka.Partitions {
		log.Info("topics keep the partitions that they were created with", "partitions", n, "kafka.partitions", s.Kafka.Partitions)
		s.Kafka.Partitions = n
	}
	s.Kafka.RetentionBytes, s.Kafka.SegmentBytes = embedded.PartitionBytes(s.Kafka.Partitions)
	if err := kafka.EnsureTopics(ctx, admin, s.Kafka); err != nil {
		return false, err
	}
	store, err := sqlstore.Open(ctx, s.Store)
	if err != nil {
		return false, err
	}
	defer func() { _ = store.Close() }()
	if err := store.Migrate(ctx); err != nil {
		return false, err
	}
	partitions := make([]int32, s.Kafka.Partitions)
	for i := range partitions {
		partitions[i] = int32(i)
	}
	stored, err := store.Positions(ctx, partitions)
	if err != nil {
		return false, err
	}
	ends, err := kadm.NewClient(admin).ListEndOffsets(ctx, kafka.TopicMessages)
	if err = errors.Join(err, ends.Error()); err != nil {
		return false, fmt.Errorf("looking for messages in the log: %w", err)
	}
	ends.Each(func(o kadm.ListedOffset) { said = said || o.Offset > 0 })
	return said || slices.ContainsFunc(stored, func(p timeline.Position) bool { return p.MessagesNext > 0 }), nil
}
