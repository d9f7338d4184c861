package pusher

import (
	"errors"
	"fmt"
	"time"
)

// Config says how connections are kept. Keys begin with push.
type Config struct {
	Origins []string `conf:"origins" help:"web origins (https://chat.example.org) that may connect besides the server's own; * for any"`

	MaxConnections               int           `conf:"max-connections" help:"connections at most; further ones are told to come back"`
	MaxPerUser                   int           `conf:"max-per-user" help:"connections of one user at most"`
	MaxUnauthenticated           int           `conf:"max-unauthenticated" help:"connections that have not said who they are, at most"`
	MaxUnauthenticatedPerAddress int           `conf:"max-unauthenticated-per-address" help:"the same for one address (IPv6: a /64)"`
	HandshakesPerSecond          float64       `conf:"handshakes-per-second" help:"handshakes a second that an address may make for long; one that leads to a good auth does not count; 0 for any number"`
	HandshakeBurst               int           `conf:"handshake-burst" help:"handshakes that an address may make at once"`
	AuthTimeout                  time.Duration `conf:"auth-timeout" help:"time that a new connection has to say who it is"`
	TokenGrace                   time.Duration `conf:"token-grace" help:"time after the end of its access token that a connection has to bring a fresh one"`

	Window    time.Duration `conf:"window" help:"least time between two frames of hints to one connection; 0 for none"`
	HintItems int           `conf:"hint-items" help:"conversations in one frame of hints at most"`

	MaxFrameBytes     int           `conf:"max-frame-bytes" help:"largest frame taken from a client"`
	RequestsPerSecond float64       `conf:"requests-per-second" help:"requests that a connection may make for long"`
	RequestBurst      int           `conf:"request-burst" help:"requests that a connection may make at once"`
	InFlight          int           `conf:"in-flight" help:"requests of one connection that are worked on at once"`
	Workers           int           `conf:"workers" help:"requests of all connections that are worked on at once"`
	MaxQueued         int           `conf:"max-queued" help:"requests of all connections that wait for a worker at most"`
	RequestTimeout    time.Duration `conf:"request-timeout" help:"time that a request may take"`

	Heartbeat    time.Duration `conf:"heartbeat" help:"how often clients are asked to ping"`
	IdleTimeout  time.Duration `conf:"idle-timeout" help:"silence after which a connection is closed"`
	KeepAlive    time.Duration `conf:"keep-alive" help:"interval of TCP keep-alive probes; 0 for none"`
	WriteTimeout time.Duration `conf:"write-timeout" help:"time that a client has to take what is written to it"`

	MaxWatched  int           `conf:"max-watched" help:"conversations that a connection may watch for typing and presence"`
	TypingEvery time.Duration `conf:"typing-every" help:"least time between two notes of typing of one connection"`

	Drain time.Duration `conf:"drain" help:"time over which connections are closed in waves when the server stops"`
}

// DefaultConfig is for a server on the open internet.
func DefaultConfig() Config {
	return Config{
		MaxConnections:               100_000, // a gigabyte
		MaxPerUser:                   20,
		MaxUnauthenticated:           5_000, // a crowd that comes back together; each needs milliseconds
		MaxUnauthenticatedPerAddress: 1_000, // a company, a campus or a proxy is one address
		HandshakesPerSecond:          50,    // as http.rate-per-address
		HandshakeBurst:               1_000, // all that may wait for auth from one address
		AuthTimeout:                  10 * time.Second,
		TokenGrace:                   time.Minute,

		Window:    200 * time.Millisecond, // too short for a person to notice, long enough to bundle what a busy group says
		HintItems: 256,                    // about 10 KB

		MaxFrameBytes:     256 << 10, // content of 64 KiB with every character escaped has its place, nearly always
		RequestsPerSecond: 25,
		RequestBurst:      100, // the first seconds after a start pull a lot
		InFlight:          8,
		Workers:           256,
		MaxQueued:         20_000, // ten thousand who pull together, twice
		RequestTimeout:    10 * time.Second,

		Heartbeat:    30 * time.Second, // shorter than what NATs of mobile networks forget
		IdleTimeout:  75 * time.Second, // two heartbeats may be lost
		KeepAlive:    time.Minute,
		WriteTimeout: 10 * time.Second,

		MaxWatched:  100,
		TypingEvery: 2 * time.Second,

		Drain: 10 * time.Second,
	}
}

// Validate lists every fault.
func (c *Config) Validate() error {
	var faults []error
	atLeast := func(name string, v, least int) {
		if v < least {
			faults = append(faults, fmt.Errorf("push.%s is %d, at least %d is needed", name, v, least))
		}
	}
	atLeast("max-connections", c.MaxConnections, 1)
	atLeast("max-per-user", c.MaxPerUser, 1)
	atLeast("max-unauthenticated", c.MaxUnauthenticated, 1)
	atLeast("max-unauthenticated-per-address", c.MaxUnauthenticatedPerAddress, 1)
	atLeast("hint-items", c.HintItems, 1)
	atLeast("max-frame-bytes", c.MaxFrameBytes, 1024)
	atLeast("request-burst", c.RequestBurst, 1)
	atLeast("in-flight", c.InFlight, 1)
	atLeast("workers", c.Workers, 1)
	atLeast("max-queued", c.MaxQueued, 0)
	atLeast("max-watched", c.MaxWatched, 0)
	if c.HandshakesPerSecond < 0 || c.HandshakesPerSecond > 0 && c.HandshakeBurst < 1 {
		faults = append(faults, fmt.Errorf("push.handshakes-per-second is %g and push.handshake-burst %d", c.HandshakesPerSecond, c.HandshakeBurst))
	}
	positive := func(name string, d time.Duration) {
		if d <= 0 {
			faults = append(faults, fmt.Errorf("push.%s is %s, it must be positive", name, d))
		}
	}
	positive("auth-timeout", c.AuthTimeout)
	positive("request-timeout", c.RequestTimeout)
	positive("heartbeat", c.Heartbeat)
	positive("write-timeout", c.WriteTimeout)
	if c.RequestsPerSecond <= 0 {
		faults = append(faults, fmt.Errorf("push.requests-per-second is %g, it must be positive", c.RequestsPerSecond))
	}
	if c.Window < 0 || c.Window > 10*time.Second {
		faults = append(faults, fmt.Errorf("push.window is %s, 0 to 10s are possible", c.Window))
	}
	if c.IdleTimeout <= c.Heartbeat {
		faults = append(faults, fmt.Errorf("push.idle-timeout (%s) is not longer than push.heartbeat (%s)", c.IdleTimeout, c.Heartbeat))
	}
	if c.TokenGrace < 0 || c.KeepAlive < 0 || c.TypingEvery < 0 || c.Drain < 0 {
		faults = append(faults, errors.New("push.token-grace, keep-alive, typing-every and drain must not be negative"))
	}
	return errors.Join(faults...)
}
