// Command chdb serves the ClickHouse engine, as a library, behind ClickHouse's HTTP interface: for tests, and where one
// machine is enough. It is a process of its own, because the engine is a large C++ program.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"tideline/internal/chdb"
	"tideline/internal/config"
	"tideline/internal/ops"
)

func main() { os.Exit(run(os.Args[1:], os.Environ())) }

func run(args, environ []string) int {
	cfg := chdb.DefaultConfig()
	if code, goOn := config.Command("chdb", args, environ, os.Stdout, os.Stderr, config.Section{Name: "chdb", Into: &cfg}); !goOn {
		return code
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil)).With("process", "chdb")
	ctx, stop := ops.Signals(context.Background(), log)
	defer stop()
	if cfg.WithParent {
		var end context.CancelFunc
		ctx, end = context.WithCancel(ctx)
		defer end()
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			log.Info("stopping: the process that started this one has gone")
			end()
		}()
	}
	server, err := chdb.Listen(cfg, log)
	if err != nil {
		log.Error("the process ends", "err", err)
		return 1
	}
	_, _ = fmt.Printf("chdb listens on %s\n", server.Addr())
	if err := server.Run(ctx); err != nil {
		log.Error("the process ends", "err", err)
		return 1
	}
	return 0
}
