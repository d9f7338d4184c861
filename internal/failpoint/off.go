//go:build !failpoints

package failpoint

import "time"

// Here is a place at which a test may end the process.
func Here(string) {}

// Now gives the time of day. Whatever is decided by the clock of one process and read by another asks here, so that tests
// can let the clocks differ.
func Now() time.Time { return time.Now() }
