package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"tideline/internal/config"
)

// Config says how to reach Kafka and what its topics are. Keys begin with kafka.
type Config struct {
	Brokers        []string      `conf:"brokers" help:"host:port of one or more brokers"`
	Partitions     int           `conf:"partitions" help:"partitions of every topic, fixed for good when they are created; for commands that only use topics, 0 is the count that they have"`
	Replication    int           `conf:"replication" help:"replicas of a topic that is created"`
	MinInSync      int           `conf:"min-in-sync" help:"replicas that must have a record before it is acknowledged"`
	SessionTimeout time.Duration `conf:"session-timeout" help:"after how long without a heartbeat a process loses its partitions"`
	TLS            bool          `conf:"tls" help:"speak TLS to the brokers"`
	TLSCA          string        `conf:"tls-ca" help:"PEM file of the authorities that vouch for the brokers; empty for those of the system"`
	User           string        `conf:"user" help:"SASL/SCRAM-SHA-512 user; empty for none"`
	Password       config.Secret `conf:"password" help:"SASL/SCRAM-SHA-512 password"`
	RetentionBytes int64         `conf:"retention-bytes" help:"bytes a partition keeps at most, for topics that are created; 0 for no bound but time"`
	SegmentBytes   int64         `conf:"segment-bytes" help:"size of a log segment, for topics that are created; 0 for the broker's default"`
	Compression    string        `conf:"compression" help:"codec of im.messages, im.rejected and im.receipts: gzip, which every Kafka client reads, or snappy, lz4, zstd, none"`
	MaxUnpacked    int64         `conf:"max-unpacked-bytes" help:"bytes that a batch may unpack to; a larger one is not read, and rejected as a whole"`
	// Plain tells that im.messages and im.rejected are written without transactions (ingest.fenced is false), which only
	// the embedded broker allows. It is no setting of its own.
	Plain bool
	// FromBroker allows 0 partitions, which AdoptPartitions replaces. It is no setting of its own.
	FromBroker bool
}

// NewPartitions is the partition count of topics in a new cluster. The count is the limit of owners that work side by side,
// and can never change; many partitions with few processes make many small batches.
const NewPartitions = 8

// DefaultConfig is for a cluster of three brokers.
func DefaultConfig() Config {
	return Config{
		Brokers:     []string{"127.0.0.1:9092"},
		Partitions:  NewPartitions,
		Replication: 3,
		MinInSync:   2,
		// A dead process holds its partitions for this long. 6 s is the least that brokers allow by default, 10 s lets a
		// long garbage collection or a slow disk pass.
		SessionTimeout: 10 * time.Second,
		MaxUnpacked:    MaxUnpackedBytes,
		Compression:    "gzip",
	}
}

// Validate lists every fault.
func (c *Config) Validate() error {
	var faults []error
	if len(c.Brokers) == 0 {
		faults = append(faults, errors.New("kafka.brokers is empty"))
	}
	if (c.Partitions < 1 || c.Partitions > 4096) && (c.Partitions != 0 || !c.FromBroker) {
		faults = append(faults, fmt.Errorf("kafka.partitions is %d, 1 to 4096 are possible", c.Partitions))
	}
	if c.MinInSync < 1 || c.MinInSync > c.Replication {
		faults = append(faults, fmt.Errorf("kafka.min-in-sync is %d with kafka.replication %d", c.MinInSync, c.Replication))
	}
	if c.SessionTimeout < time.Second || c.SessionTimeout > 5*time.Minute {
		faults = append(faults, fmt.Errorf("kafka.session-timeout is %s, 1s to 5m are possible", c.SessionTimeout))
	}
	if c.MaxUnpacked < 1<<20 || c.MaxUnpacked > 1<<30 {
		faults = append(faults, fmt.Errorf("kafka.max-unpacked-bytes is %d, 1 MiB to 1 GiB are possible", c.MaxUnpacked))
	}
	if err := CheckCompression(c.Compression); err != nil {
		faults = append(faults, err)
	}
	if (c.User == "") != (c.Password.Reveal() == "") {
		faults = append(faults, errors.New("kafka.user and kafka.password belong together"))
	}
	if c.TLSCA != "" && !c.TLS {
		faults = append(faults, errors.New("kafka.tls-ca is set, and kafka.tls is not: connections would not be encrypted"))
	} else if _, err := c.tlsConfig(); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// tlsConfig gives nil where TLS is not spoken.
func (c *Config) tlsConfig() (*tls.Config, error) {
	if !c.TLS {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLSCA == "" {
		return t, nil
	}
	pem, err := os.ReadFile(c.TLSCA)
	if err != nil {
		return nil, fmt.Errorf("reading the file that kafka.tls-ca names: %w", err)
	}
	t.RootCAs = x509.NewCertPool()
	if !t.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("kafka.tls-ca: there is no certificate in %s", c.TLSCA)
	}
	return t, nil
}

// Sizes. A command has at most 96 KiB and an event is a little larger; a batch of them stays well under what brokers
// and consumers take by default (1 MiB), so that nobody's settings have to be raised for ours.
const (
	maxRecordBatchBytes = 1 << 20
	fetchMaxBytes       = 8 << 20
	fetchPartitionBytes = 4 << 20
)

// transactionTimeout bounds how long the last stable offset of a partition can hang behind an owner that died, if no
// successor comes to settle it. It must be longer than the slowest commit.
const transactionTimeout = 30 * time.Second

// Common gives the options that every client of ours has.
func (c *Config) Common(clientID string, log *slog.Logger) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(clientID),
		// The default of 5 s makes the first produce of a new producer that a broker asks to retry wait for the next
		// metadata: a stall of 5 s at every takeover.
		kgo.MetadataMinAge(100 * time.Millisecond),
		// A dead broker costs a takeover no more than this, instead of 10 s.
		kgo.DialTimeout(3 * time.Second),
		// The cluster's operators see us in their metrics by request, not by what we push to them.
		kgo.DisableClientMetrics(),
		// One place for the murmur2 that the contract names; also right for clients that set no partition.
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.WithLogger(slogAdapter{log}),
	}
	if t, err := c.tlsConfig(); err != nil {
		// The file was there when the settings were judged. Without it no broker is believed, which says so, too.
		log.Error("the authorities of the brokers cannot be read", "err", err)
		opts = append(opts, kgo.DialTLSConfig(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}))
	} else if t != nil {
		opts = append(opts, kgo.DialTLSConfig(t))
	}
	if c.User != "" {
		opts = append(opts, kgo.SASL(scram.Auth{User: c.User, Pass: c.Password.Reveal()}.AsSha512Mechanism()))
	}
	return opts
}

// producing gives what every producer of ours has: nothing is told before all in-sync replicas have it.
func (c *Config) producing() []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchMaxBytes(maxRecordBatchBytes - 1024),
		// Only our own processes read im.inbound and im.notify. Our batches are many and small, some hundreds of bytes to some
		// thousands: there snappy costs two fifths to four fifths of what lz4 does (BenchmarkCodecs), and lz4 takes buffers of
		// 4 MiB on both sides. The public topics have PublicCodec.
		kgo.ProducerBatchCompression(kgo.SnappyCompression(), kgo.NoCompression()),
		// A full buffer blocks the caller, whose own limit then speaks; memory stays bounded.
		kgo.MaxBufferedRecords(20_000),
		kgo.MaxBufferedBytes(64 << 20),
	}
}

// PublicCodec compresses the batches of a producer as kafka.compression says. Producers of the topics that others read have
// it: im.messages, im.rejected and im.receipts.
func (c *Config) PublicCodec() kgo.Opt {
	return kgo.ProducerBatchCompression(compressions[c.Compression], kgo.NoCompression())
}

// gzipLevel is the level of gzip. See docs/performance.md for what each level costs.
const gzipLevel = 1

// compressions are the values of kafka.compression.
var compressions = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression().WithLevel(gzipLevel), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

// CheckCompression refuses values of kafka.compression that are not known.
func CheckCompression(name string) error {
	if _, known := compressions[name]; !known {
		return fmt.Errorf("kafka.compression is %.40q, must be one of %s", name, strings.Join(slices.Sorted(maps.Keys(compressions)), ", "))
	}
	return nil
}

// linger is how long a producer that many share waits for company. A lone record pays 2 ms for it; under load the
// broker gets a third of the requests, and each of them costs it a flush of its disk where it is the embedded one.
const linger = 2 * time.Millisecond

// NewProducer makes an idempotent producer that many share: for api, hints and read marks.
func (c *Config) NewProducer(clientID string, log *slog.Logger, more ...kgo.Opt) (*kgo.Client, error) {
	opts := append(c.Common(clientID, log), c.producing()...)
	opts = append(opts,
		kgo.ProducerLinger(linger),
		// A record that could not be delivered within this time is reported as failed, so that its sender gets an answer.
		kgo.RecordDeliveryTimeout(10*time.Second),
	)
	return newClient("producer", append(opts, more...))
}

// NewOwnerProducer makes the producer of one owned partition. With a transactional id it fences its predecessors;
// without one its writes are plain, which only the embedded broker allows (see pkg/seq).
//
// A record is retried for as long as its batch is worth waiting for: an unknown outcome is never handed to another
// producer, because only the same one can repeat it without doubling.
func (c *Config) NewOwnerProducer(clientID, transactionalID string, log *slog.Logger) (*kgo.Client, error) {
	opts := append(c.Common(clientID, log), c.producing()...)
	opts = append(opts,
		c.PublicCodec(),       // for moved records on im.inbound, too
		kgo.ProducerLinger(0), // a batch is complete when it is produced
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
	if transactionalID != "" {
		opts = append(opts, kgo.TransactionalID(transactionalID), kgo.TransactionTimeout(transactionTimeout))
	}
	return newClient("owner's producer", opts)
}

// consuming gives what every reader of ours has.
func (c *Config) consuming() []kgo.Opt {
	return []kgo.Opt{
		// What was written in a transaction that did not commit never happened.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(fetchMaxBytes),
		kgo.FetchMaxPartitionBytes(fetchPartitionBytes),
		// An answer comes as soon as there is one byte; an idle reader asks once in a while so that it knows that it is
		// at the end.
		kgo.FetchMinBytes(1),
		kgo.FetchMaxWait(time.Second),
		// A log that begins after the place that we need is an error to be told, never a reason to skip.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	}
}

// NewReader makes a reader of some partitions from exact offsets.
func (c *Config) NewReader(clientID string, log *slog.Logger, from map[string]map[int32]kgo.Offset, more ...kgo.Opt) (*kgo.Client, error) {
	unpacker, err := NewUnpacker(c.MaxUnpacked)
	if err != nil {
		return nil, err
	}
	opts := append(c.Common(clientID, log), c.consuming()...)
	opts = append(opts, kgo.WithDecompressor(unpacker), kgo.ConsumePartitions(from))
	return newClient("reader", append(opts, more...))
}

// heartbeat is how often a member asks the group at least. That is how it learns that another one has left: with it, what an owner that
// stops in good order leaves, or what moves to one that has come, is worked on again within the second that a pull waits for what its
// client was told: two beats pass where somebody has to give up partitions first. It costs the broker five small requests a second
// for each process and group.
const heartbeat = 200 * time.Millisecond

// newMember makes a client whose only work is to be a member of a group: it is told its partitions and fetches nothing.
func (c *Config) newMember(clientID, group, topic string, log *slog.Logger, more ...kgo.Opt) (*kgo.Client, error) {
	opts := append(c.Common(clientID, log),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), // a change moves few partitions and leaves the others at work
		kgo.SessionTimeout(c.SessionTimeout),
		kgo.HeartbeatInterval(min(c.SessionTimeout/5, heartbeat)), // four may be lost, of a long session more
		// Owners finish what they have begun when a partition is revoked; this is how long the group waits for them.
		kgo.RebalanceTimeout(max(2*c.SessionTimeout, 20*time.Second)),
		kgo.DisableAutoCommit(), // progress is read from the output; commits are for the eye
	)
	cl, err := newClient("group member", append(opts, more...))
	if err != nil {
		return nil, err
	}
	cl.PauseFetchTopics(topic)
	return cl, nil
}

// NewAdmin makes a client for requests about the cluster.
func (c *Config) NewAdmin(clientID string, log *slog.Logger) (*kgo.Client, error) {
	return newClient("admin client", c.Common(clientID, log))
}

func newClient(what string, opts []kgo.Opt) (*kgo.Client, error) {
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("making a Kafka %s: %w", what, err)
	}
	return cl, nil
}

// slogAdapter lets franz-go speak through our logger: its warnings are ours, the rest is for debugging.
type slogAdapter struct{ log *slog.Logger }

func (a slogAdapter) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (a slogAdapter) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	switch level {
	case kgo.LogLevelError, kgo.LogLevelWarn:
		a.log.Warn("kafka client: "+msg, keyvals...)
	default:
		a.log.Debug("kafka client: "+msg, keyvals...)
	}
}
