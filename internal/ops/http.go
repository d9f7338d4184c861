// Package ops is what every process has for its operators: a private listener with health, metrics and profiles, the
// logger, and the order in which services start and stop.
package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tideline/internal/edge"
	"tideline/internal/version"
)

// Config says where the private listener is and how much is logged. Keys begin with ops.
type Config struct {
	Addr     string        `conf:"addr" help:"private listener: health, metrics, profiles; never open it to the world; on loopback it answers loopback host names only"`
	LogLevel string        `conf:"log-level" help:"debug, info, warn or error"`
	Drain    time.Duration `conf:"drain" help:"how long an orderly stop may take, with the linger"`
	Linger   time.Duration `conf:"linger" help:"how long the doors stay open after /readyz has said no, until balancers have seen it; 0 without a balancer"`
}

// DefaultConfig listens on this machine only.
func DefaultConfig() Config {
	return Config{Addr: "127.0.0.1:9090", LogLevel: "info", Drain: 25 * time.Second} // orchestrators kill after 30 s
}

// Validate lists every fault.
func (c *Config) Validate() error {
	var level slog.Level
	var faults []error
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		faults = append(faults, fmt.Errorf("ops.log-level is %q; debug, info, warn and error are known", c.LogLevel))
	}
	if c.Drain < time.Second {
		faults = append(faults, fmt.Errorf("ops.drain is %s, at least 1s is needed", c.Drain))
	}
	if c.Linger < 0 || c.Linger > c.Drain/2 {
		faults = append(faults, fmt.Errorf("ops.linger is %s; 0 to half of ops.drain (%s) is possible", c.Linger, c.Drain))
	}
	return errors.Join(faults...)
}

// NewLogger gives a JSON logger on w that names the process.
func NewLogger(w io.Writer, c Config, process string) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // judged by Validate
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})).With("process", process)
}

// NewRegistry returns a registry with the collectors of the Go runtime and the process, and with the version of the build.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	promauto.With(r).NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "tideline_build_info",
		Help:        "Always 1; the labels say which build this process runs. Two versions for longer than a rollout takes mean that it stopped half-way.",
		ConstLabels: prometheus.Labels{"version": version.String(), "goversion": runtime.Version()},
	}, func() float64 { return 1 })
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Server is the private listener. It is a Service; it stops last, so that the end can be watched.
type Server struct {
	listener net.Listener
	registry *prometheus.Registry
	draining atomic.Bool
	foreign  prometheus.Counter

	mu     sync.Mutex // guards what follows
	checks map[string]func(context.Context) error
	passed map[string]bool // those that were true once
}

// Listen opens the private listener.
func Listen(addr string, registry *prometheus.Registry) (*Server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("ops.addr: opening the private listener: %w", err)
	}
	foreign := promauto.With(registry).NewCounter(prometheus.CounterOpts{
		Name: "tideline_ops_foreign_host_total",
		Help: "Requests to a loopback ops.addr that were refused because their Host is not loopback. When it rises: a web page tries to read metrics by DNS rebinding, or a proxy on this machine must send Host: localhost.",
	})
	return &Server{listener: l, registry: registry, foreign: foreign, checks: map[string]func(context.Context) error{}, passed: map[string]bool{}}, nil
}

// Addr tells where it listens.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Check adds a condition of readiness, which must have been true once. It must end with its context.
func (s *Server) Check(name string, check func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[name] = check
}

// Note adds something that /readyz says and that is no condition of readiness. It must end with its context.
func (s *Server) Note(name string, check func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[name], s.passed[name] = check, true
}

// SetDraining makes /readyz false for good.
func (s *Server) SetDraining() { s.draining.Store(true) }

// Draining tells whether the stop has begun.
func (s *Server) Draining() bool { return s.draining.Load() }

// Run serves until the context ends.
func (s *Server) Run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", index)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	var handler http.Handler = mux
	if at, ok := s.listener.Addr().(*net.TCPAddr); ok && at.IP.IsLoopback() {
		handler = edge.Loopback(mux, s.foreign.Inc)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	done := make(chan error, 1)
	go func() { done <- server.Serve(s.listener) }()
	select {
	case err := <-done:
		return fmt.Errorf("the private listener: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		_ = server.Close() // a profile under way is cut off
	}
	_ = <-done // it ended because it was told to
	return nil
}

// pages are what the private listener has, with what each is for.
var pages = [...]struct{ path, what string }{
	{"/healthz", "whether the process lives: 200"},
	{"/readyz", "whether it takes requests: 200 or 503, with each condition as JSON"},
	{"/metrics", "metrics for Prometheus, each with what to do when it is high"},
	{"/debug/pprof/", "profiles of CPU, memory and goroutines"},
}

// index lists what the private listener has.
func index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = fmt.Fprintf(w, "Tideline %s, private listener\n\n", version.String())
	for _, p := range pages {
		_, _ = fmt.Fprintf(w, "%-14s %s\n", p.path, p.what)
	}
}

// How long the conditions of readiness may take: before each of them was true once, and afterwards, when they are there to be
// read and whoever asks wants to know whether to send people here.
const (
	firstChecks = 2 * time.Second
	laterChecks = 200 * time.Millisecond
)

// ready says yes from when each condition was true for the first time until the stop begins. What ceases to be true in between is
// told, and no more: all processes have it from the same servers, so that a no would leave nobody to send people to, not even
// for what goes on without those servers.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	checks := make(map[string]func(context.Context) error, len(s.checks))
	within := laterChecks
	for name, check := range s.checks {
		checks[name] = check
		if !s.passed[name] {
			within = firstChecks
		}
	}
	s.mu.Unlock()
	answer := map[string]string{}
	status := http.StatusOK
	if s.draining.Load() { // at once, whatever else is slow
		answer["draining"], status, checks = "yes", http.StatusServiceUnavailable, nil
	}
	for name, check := range checks {
		answer[name] = "ok"
		ctx, cancel := context.WithTimeout(r.Context(), within) // of its own: one that is slow says nothing of the others
		err := check(ctx)
		cancel()
		s.mu.Lock()
		switch {
		case err == nil:
			s.passed[name] = true
		case s.passed[name]:
			answer[name] = err.Error()
		default:
			answer[name], status = err.Error(), http.StatusServiceUnavailable
		}
		s.mu.Unlock()
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}
