package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"tideline/internal/config"
	"tideline/internal/embedded"
	"tideline/internal/ops"
)

const (
	// healthTimeout is more than a process takes to judge itself.
	healthTimeout = 5 * time.Second
	maxVerdict    = 64 << 10
)

// health asks a process whether it is ready, in the way that orchestrators do who run a command to find out.
func health(ctx context.Context, args []string, out io.Writer) error {
	cfg := ops.DefaultConfig()
	if printed, err := load("health", args, out, &dataFolder{}, config.Section{Name: "ops", Into: &cfg}); err != nil || printed {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+embedded.Dialled(cfg.Addr)+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("ops.addr: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("the process does not answer: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	verdict, err := io.ReadAll(io.LimitReader(resp.Body, maxVerdict))
	if err != nil {
		return fmt.Errorf("the process broke off its answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", strings.TrimSpace(string(verdict)))
	}
	_, err = out.Write(verdict)
	return err
}
