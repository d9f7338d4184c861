package sqlstore

import (
	"errors"
	"fmt"
	"time"

	"tideline/internal/config"
)

// Config says where the store is. Keys begin with store.
type Config struct {
	Driver  string        `conf:"driver" help:"mysql or sqlite"`
	DSN     config.Secret `conf:"dsn" help:"of MySQL, in the form of go-sql-driver: user:password@tcp(host:port)/database"`
	Path    string        `conf:"path" help:"file of SQLite"`
	MaxOpen int           `conf:"max-open" help:"connections at most"`
	Timeout time.Duration `conf:"timeout" help:"of a statement, and of a transaction"`
}

// DefaultConfig is for MySQL on this machine.
func DefaultConfig() Config {
	return Config{
		Driver:  "mysql",
		MaxOpen: 32, // a server of ours asks few things at once; more would only queue in the database
		// A statement takes milliseconds; one that takes this long is stuck, and its caller has better things to do.
		Timeout: 5 * time.Second,
	}
}

// Validate lists every fault.
func (c *Config) Validate() error {
	var faults []error
	switch c.Driver {
	case "mysql":
		if c.DSN.Reveal() == "" {
			faults = append(faults, errors.New("store.dsn is empty, and the driver is mysql"))
		}
	case "sqlite":
		if c.Path == "" {
			faults = append(faults, errors.New("store.path is empty, and the driver is sqlite"))
		}
	default:
		faults = append(faults, fmt.Errorf("store.driver is %q, mysql and sqlite are known", c.Driver))
	}
	if c.MaxOpen < 2 {
		faults = append(faults, fmt.Errorf("store.max-open is %d, at least 2 are needed", c.MaxOpen))
	}
	if c.Timeout < 100*time.Millisecond {
		faults = append(faults, fmt.Errorf("store.timeout is %s, at least 100ms are needed", c.Timeout))
	}
	return errors.Join(faults...)
}
