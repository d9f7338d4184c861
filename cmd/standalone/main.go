// Command standalone is the whole platform in one process, on embedded servers that speak the protocols of the real ones.
// One data directory holds everything; a kill at any time loses nothing that was answered.
package main

import (
	"context"
	"os"
)

func main() { os.Exit(Main(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) }
