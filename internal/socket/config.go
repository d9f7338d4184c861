// Package socket is the socket door: it tells members who are online which conversations moved, and answers the requests
// of the contract through the same handlers as HTTP. Bodies are pulled; what is pushed is bounded by the number of a
// connection's conversations, never by traffic.
package socket

import (
	"errors"
	"fmt"
	"time"
)

// Config says how sockets are treated. Keys begin with push.
type Config struct {
	Window         time.Duration `conf:"window" help:"least time between two hint frames of a connection; the first hint after a pause goes at once"`
	AuthTimeout    time.Duration `conf:"auth-timeout" help:"how long a socket may take to say who it is"`
	IdleTimeout    time.Duration `conf:"idle-timeout" help:"how long a socket may be silent"`
	WriteTimeout   time.Duration `conf:"write-timeout" help:"how long a frame may take before the client counts as too slow"`
	KeepAlive      time.Duration `conf:"keep-alive" help:"period of TCP keep-alive probes"`
	DrainTime      time.Duration `conf:"drain-time" help:"over how long connections are closed in waves when the process stops"`
	MaxFrame       int64         `conf:"max-frame" help:"bytes of a client's frame at most"`
	MaxConnections int           `conf:"max-connections" help:"sockets of this process at most"`
	MaxStrangers   int           `conf:"max-strangers" help:"sockets that have not said who they are, at most"`
	MaxPerUser     int           `conf:"max-per-user" help:"sockets of one user at most"`
	MaxRequests    int           `conf:"max-requests" help:"requests of a connection under way at most"`
	RequestRate    float64       `conf:"request-rate" help:"requests of a connection a second, over time"`
	Origins        []string      `conf:"origins" help:"origins of pages that may connect beside our own; * for any"`
}

// DefaultConfig is for tens of thousands of connections.
func DefaultConfig() Config {
	return Config{
		Window:         200 * time.Millisecond, // five frames a second are as many as a person notices
		AuthTimeout:    10 * time.Second,
		IdleTimeout:    75 * time.Second, // two and a half heartbeats
		WriteTimeout:   5 * time.Second,
		KeepAlive:      30 * time.Second,
		DrainTime:      10 * time.Second,
		MaxFrame:       192 << 10, // the largest message in JSON with every character escaped twice over
		MaxConnections: 100_000,
		MaxStrangers:   5_000,
		MaxPerUser:     20,
		MaxRequests:    8,
		RequestRate:    50,
	}
}

// Validate lists every fault.
func (c *Config) Validate() error {
	var faults []error
	if c.Window < 0 || c.Window > 10*time.Second {
		faults = append(faults, fmt.Errorf("push.window is %s, 0s to 10s are possible", c.Window))
	}
	for name, d := range map[string]time.Duration{"auth-timeout": c.AuthTimeout, "idle-timeout": c.IdleTimeout, "write-timeout": c.WriteTimeout, "keep-alive": c.KeepAlive} {
		if d < 100*time.Millisecond {
			faults = append(faults, fmt.Errorf("push.%s is %s, at least 100ms are needed", name, d))
		}
	}
	if c.MaxFrame < 128<<10 {
		faults = append(faults, fmt.Errorf("push.max-frame is %d, the largest message needs 128KiB", c.MaxFrame))
	}
	if c.MaxConnections < 1 || c.MaxStrangers < 1 || c.MaxPerUser < 1 || c.MaxRequests < 1 || c.RequestRate <= 0 {
		faults = append(faults, errors.New("push.max-connections, max-strangers, max-per-user, max-requests and request-rate must be positive"))
	}
	return errors.Join(faults...)
}
