package ops

import (
	"os"
	"runtime/debug"
)

// CollectAt sets how much a process may allocate, in per cent of what is in use, before its memory is collected. Whoever sets
// GOGC knows better.
func CollectAt(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}
