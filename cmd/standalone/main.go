// Command standalone is the whole platform in one process, on embedded servers that speak the protocols of the real ones.
// One data directory holds everything; a kill at any time loses nothing that was answered.
package main

import (
	"context"
	"os"
	"runtime/debug"
)

// gcPercent lets the heap grow to four times what is live before it is collected. What is live is about 15 MB here, so
// that the default collects many times a second under load; this gives a tenth more sends for about 30 MB.
const gcPercent = 300

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(Main(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
