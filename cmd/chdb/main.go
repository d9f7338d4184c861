// Command chdb serves the ClickHouse engine, as a library, behind ClickHouse's HTTP interface: for tests, and where one
// machine is enough. It is a process of its own, because the engine is a large C++ program.
package main

import (
	"context"
	"errors"
	"flag"
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
	loaded, err := config.Load("chdb", args, environ, os.Stderr, config.Section{Name: "chdb", Into: &cfg})
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		_, _ = fmt.Fprintf(os.Stderr, "chdb: the settings are not right:\n%v\n", err)
		return 2
	case len(loaded.Args) > 0:
		_, _ = fmt.Fprintf(os.Stderr, "chdb takes no arguments, and %q was given\n", loaded.Args)
		return 2
	case loaded.PrintConfig:
		if err := loaded.Print(os.Stdout); err != nil {
			return 1
		}
		return 0
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
