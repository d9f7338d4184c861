package chdb

import (
	"errors"
	"fmt"
	"net"
	"time"

	"tideline/internal/config"
)

// Config says what is served and where. Keys begin with chdb.
type Config struct {
	Library        string        `conf:"library" help:"path of libchdb.so"`
	DataDir        string        `conf:"data-dir" help:"folder of the data; one process at a time"`
	Addr           string        `conf:"addr" help:"where ClickHouse's HTTP interface listens"`
	Password       config.Secret `conf:"password" help:"the owner's password, with any user name; needed where others than this machine can reach the address"`
	ReaderPassword config.Secret `conf:"reader-password" help:"the readers' password, with any user name; empty: there are no readers"`
	ReaderDatabase string        `conf:"reader-database" help:"the only database that readers can read"`
	ReaderTime     time.Duration `conf:"reader-time" help:"how long a statement of a reader may run"`
	MaxBody        int           `conf:"max-body" help:"bytes of a request at most"`
	MaxQueued      int           `conf:"max-queued" help:"statements that wait for their turn at most: the engine runs one at a time"`
	MaxWait        time.Duration `conf:"max-wait" help:"how long a statement waits for its turn before it is refused"`
	WithParent     bool          `conf:"with-parent" help:"end when the standard input ends, for a process that another one started"`
}

// DefaultConfig is for this machine only.
func DefaultConfig() Config {
	return Config{
		Library: "/usr/local/lib/libchdb.so", DataDir: "./clickhouse", Addr: "127.0.0.1:8123",
		MaxBody:        256 << 20, // the archive's largest insert is a tenth of it
		MaxQueued:      64,
		MaxWait:        time.Minute, // a mutation of a large table takes seconds
		ReaderDatabase: "tideline_analysis",
		ReaderTime:     30 * time.Second, // a count over all of a machine's archive takes seconds
	}
}

// Validate lists every fault.
func (c *Config) Validate() error {
	var faults []error
	if c.Library == "" || c.DataDir == "" {
		faults = append(faults, errors.New("chdb.library and chdb.data-dir must not be empty"))
	}
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		faults = append(faults, fmt.Errorf("chdb.addr is %q, not host:port", c.Addr))
	} else if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) && c.Password.Reveal() == "" {
		faults = append(faults, fmt.Errorf("chdb.addr is %q, which others can reach, and chdb.password is empty", c.Addr))
	}
	if reader := c.ReaderPassword.Reveal(); reader != "" {
		if c.Password.Reveal() == "" || reader == c.Password.Reveal() {
			faults = append(faults, errors.New("chdb.reader-password needs a chdb.password that differs from it: without one every client is the owner"))
		}
		if !word(c.ReaderDatabase) {
			faults = append(faults, fmt.Errorf("chdb.reader-database is %q, letters, digits and _ are possible", c.ReaderDatabase))
		}
		if c.ReaderTime < time.Second || c.ReaderTime > time.Hour {
			faults = append(faults, fmt.Errorf("chdb.reader-time is %s, 1s to 1h are possible", c.ReaderTime))
		}
	}
	if c.MaxBody < 1<<10 || c.MaxQueued < 1 || c.MaxWait < time.Second {
		faults = append(faults, errors.New("chdb.max-body is below 1024, chdb.max-queued below 1, or chdb.max-wait below 1s"))
	}
	return errors.Join(faults...)
}
