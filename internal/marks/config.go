package marks

import (
	"crypto/tls"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"tideline/internal/config"
)

// Config says where Redis is. Keys begin with redis.
type Config struct {
	Addrs    []string      `conf:"addrs" help:"host:port of Redis; several for a Cluster"`
	User     string        `conf:"user" help:"user; empty for the default user"`
	Password config.Secret `conf:"password" help:"password; empty for none"`
	TLS      bool          `conf:"tls" help:"speak TLS to Redis"`
	Timeout  time.Duration `conf:"timeout" help:"of one command; past it the store answers instead"`
}

// DefaultConfig is for a Redis on this machine.
func DefaultConfig() Config {
	// A command takes well under a millisecond. Whoever waits for one that takes this long is better served by the store.
	return Config{Addrs: []string{"127.0.0.1:6379"}, Timeout: 300 * time.Millisecond}
}

// Validate lists every fault.
func (c *Config) Validate() error {
	var faults []error
	if len(c.Addrs) == 0 {
		faults = append(faults, errors.New("redis.addrs is empty"))
	}
	if c.Timeout < 10*time.Millisecond {
		faults = append(faults, errors.New("redis.timeout is below 10ms"))
	}
	return errors.Join(faults...)
}

// Client makes a client that never repeats a command by itself: a writer must know that a move may not have happened.
func (c *Config) Client() redis.UniversalClient {
	o := &redis.UniversalOptions{
		Addrs: c.Addrs, Username: c.User, Password: c.Password.Reveal(), MaxRetries: -1,
		DialTimeout: c.Timeout, ReadTimeout: c.Timeout, WriteTimeout: c.Timeout, PoolTimeout: c.Timeout,
		ContextTimeoutEnabled: true,
	}
	if c.TLS {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return redis.NewUniversalClient(o)
}
