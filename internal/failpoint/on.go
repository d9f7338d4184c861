//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

type act struct {
	name   string
	signal syscall.Signal
	left   atomic.Int64
}

var (
	armed = arm(os.Getenv("FAILPOINT"))
	skew  = skewed(os.Getenv("CLOCK_SKEW"))
)

// arm reads the variable. A mistake in it is a mistake in a test, which must not pass because nothing happened.
func arm(text string) *act {
	if text == "" {
		return nil
	}
	parts := strings.Split(text, ":")
	signals := map[string]syscall.Signal{"kill": syscall.SIGKILL, "stop": syscall.SIGSTOP}
	if len(parts) == 3 && signals[parts[2]] != 0 {
		if n, err := strconv.ParseInt(parts[1], 10, 64); err == nil && n > 0 {
			a := &act{name: parts[0], signal: signals[parts[2]]}
			a.left.Store(n)
			return a
		}
	}
	panic(fmt.Sprintf("FAILPOINT is %q, and not of the form name:n:kill or name:n:stop", text))
}

func skewed(text string) time.Duration {
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(fmt.Sprintf("CLOCK_SKEW: %v", err))
	}
	return d
}

// Here is a place at which a test may end the process.
func Here(name string) {
	if armed == nil || armed.name != name || armed.left.Add(-1) != 0 {
		return
	}
	_ = syscall.Kill(os.Getpid(), armed.signal)
	if armed.signal == syscall.SIGKILL {
		select {} // nothing happens between the signal and the end
	}
	// A stop takes effect within moments, in every thread; this one does not go on before.
	time.Sleep(50 * time.Millisecond)
}

// Now gives the time of day, as far off as CLOCK_SKEW says.
func Now() time.Time { return time.Now().Add(skew) }
