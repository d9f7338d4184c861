// Package embedded starts servers inside this process that speak the protocols of the real ones: a Kafka broker and a
// Redis. What runs on them does not know the difference; what they promise is written here.
package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kfake"

	"tideline/internal/config"
	"tideline/internal/kafka"
)

// Broker is a Kafka broker with its log in a folder. Every acknowledged write is on the disk (36 kills in a row under
// load lost none); its transactions do not survive a kill, so that nothing of ours uses them there.
type Broker struct {
	cluster *kfake.Cluster
	addr    string
	secret  string
	guard   *Guard
}

// TopicBytes is what a topic of the embedded log keeps: what a small community says in a month, and whatever the store does
// not have yet (see Retention). The rest is in the store.
const TopicBytes = 512 << 20

// MaxPartitions is how many partitions a topic of the embedded broker may have: a full batch for each fits one request.
const MaxPartitions = 16

// segmentsKept is how many segments a full partition has. The broker removes whole ones.
const segmentsKept = 4

// PartitionBytes returns the bytes that a partition keeps, and those of a segment, so that a topic of that many partitions
// keeps TopicBytes.
func PartitionBytes(partitions int) (retention, segment int64) {
	retention = TopicBytes / int64(partitions)
	return retention, retention / segmentsKept
}

// Of topics that the platform does not configure: those of the broker itself. The platform's have PartitionBytes.
const (
	otherRetentionBytes = 64 << 20
	otherSegmentBytes   = 16 << 20
)

// StartBroker starts the broker on an address, with a guard in front of it. Connections that know the secret may do
// everything; the others what the contract says. A batch may unpack to maxUnpacked bytes.
func StartBroker(dir, addr, secret string, maxUnpacked int64, log *slog.Logger) (*Broker, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("kafka.addr: %w", err)
	}
	// The broker tells clients the port of its listener, which is known by now.
	guard, err := newGuard(listener, secret, maxUnpacked, log)
	if err != nil {
		_ = listener.Close()
		return nil, err
	}
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return guard, nil }),
		kfake.DataDir(dir),
		kfake.SyncWrites(),
		kfake.BrokerConfigs(map[string]string{
			"log.retention.bytes": strconv.Itoa(otherRetentionBytes), "log.segment.bytes": strconv.Itoa(otherSegmentBytes), "min.insync.replicas": "1", "default.replication.factor": "1",
		}),
	)
	if err != nil {
		_ = guard.Close()
		return nil, fmt.Errorf("starting the embedded broker: %w", err)
	}
	if err := guard.learnVersions(); err != nil {
		cluster.Close()
		return nil, err
	}
	go guard.listen()
	return &Broker{cluster: cluster, addr: listener.Addr().String(), secret: secret, guard: guard}, nil
}

// Addr tells where the broker is reached.
func (b *Broker) Addr() string { return b.addr }

// Join sets how clients of ours reach the broker.
func (b *Broker) Join(cfg *kafka.Config) {
	cfg.Brokers, cfg.User, cfg.Password = []string{b.addr}, User, config.Secret(b.secret)
}

// Run keeps the broker until the context ends.
func (b *Broker) Run(ctx context.Context) error {
	<-ctx.Done()
	b.cluster.Close()
	return nil
}

// Redis is a Redis in memory: it may lose everything at any time, and does at every start. Every process of this machine
// reaches its port, so it has a password, which is another one at each start.
type Redis struct {
	server   *miniredis.Miniredis
	password config.Secret
}

// StartRedis starts it on a free port of this machine, with a random password.
func StartRedis() (*Redis, error) {
	r := &Redis{server: miniredis.NewMiniRedis(), password: config.Secret(rand.Text())}
	r.server.RequireAuth(r.password.Reveal())
	if err := r.server.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("starting the embedded Redis: %w", err)
	}
	return r, nil
}

// Password returns its password.
func (r *Redis) Password() config.Secret { return r.password }

// Addr tells where it is reached.
func (r *Redis) Addr() string { return r.server.Addr() }

// Run keeps it until the context ends.
func (r *Redis) Run(ctx context.Context) error {
	<-ctx.Done()
	r.server.Close()
	return nil
}

// ErrLocked means that another process uses the data directory.
var ErrLocked = errors.New("another process uses the data directory")

// lockPatience is how long Lock waits for a lock that another process has. Commands take it for an instant to see whether
// it is free; a standalone that runs keeps it.
const lockPatience = 200 * time.Millisecond

// Lock makes a data directory that only this user can enter, and locks it until the process ends: two brokers on one log
// would ruin it. A directory that was open to others is closed to them; see ErrNotPrivate for what is refused.
func Lock(dir string, log *slog.Logger) (*os.File, error) {
	closed, err := makePrivate(dir)
	if err != nil {
		return nil, err
	}
	if closed {
		log.Warn("the data directory was open to others and is closed to them now; if others could read it, change its secrets", "dir", dir)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	for began := time.Now(); ; time.Sleep(lockPatience / 20) {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return f, nil
		}
		if time.Since(began) > lockPatience {
			_ = f.Close()
			return nil, fmt.Errorf("locking %s (data.dir): %w", dir, ErrLocked)
		}
	}
}

// LogAddresses writes where the embedded servers are, for whoever reads the log.
func LogAddresses(log *slog.Logger, b *Broker, r *Redis) {
	log.Info("embedded servers are up", "kafka", b.Addr(), "redis", r.Addr())
}
