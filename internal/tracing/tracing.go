// Package tracing exports what a request did, process by process, as OpenTelemetry spans.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Config says where spans go. Keys begin with trace.
type Config struct {
	Endpoint string  `conf:"endpoint" help:"collector that takes OTLP over HTTP, as http://host:4318; empty: nothing is exported, and trace contexts are passed on"`
	Ratio    float64 `conf:"ratio" help:"part of the requests that is traced where the caller has not decided, 0 to 1"`
}

// DefaultConfig exports nothing.
func DefaultConfig() Config {
	return Config{Ratio: 0.01} // of a thousand requests a second, ten: enough to find a slow one within a minute
}

// Validate lists every fault.
func (c *Config) Validate() error {
	var faults []error
	if c.Endpoint != "" {
		if u, err := url.Parse(c.Endpoint); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			faults = append(faults, errors.New("trace.endpoint is not an http:// or https:// address"))
		}
	}
	if !(c.Ratio >= 0 && c.Ratio <= 1) {
		faults = append(faults, fmt.Errorf("trace.ratio is %g, 0 to 1 are possible", c.Ratio))
	}
	return errors.Join(faults...)
}

// Bounds of what waits to be exported. What does not fit is dropped: a collector that is away costs spans, never requests.
const (
	maxQueued     = 4096
	exportTimeout = 10 * time.Second
)

// Start gives the tracer of a process, and what sends the rest off at its end. Without an endpoint it is one that does
// nothing but pass contexts on. It does not connect: a collector that is away is tried again with every batch.
// A collector that wants credentials gets them by the variable OTEL_EXPORTER_OTLP_HEADERS, as everywhere.
func Start(ctx context.Context, c Config, process, instance string, log *slog.Logger) (trace.Tracer, func(context.Context) error, error) {
	if c.Endpoint == "" {
		return None(), func(context.Context) error { return nil }, nil
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, nil, fmt.Errorf("reading trace.endpoint: %w", err)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithTimeout(exportTimeout))
	if err != nil {
		return nil, nil, fmt.Errorf("making the exporter of traces: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("spans were not exported", "err", err) }))
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter, sdktrace.WithMaxQueueSize(maxQueued), sdktrace.WithExportTimeout(exportTimeout)),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.Ratio))),
		sdktrace.WithResource(resource.NewWithAttributes(semconv.SchemaURL,
			semconv.ServiceNamespace("tideline"), semconv.ServiceName("tideline-"+process), semconv.ServiceInstanceID(instance))),
	)
	return provider.Tracer(scope), provider.Shutdown, nil
}

// None gives a tracer that passes contexts on and tells nobody.
func None() trace.Tracer { return noop.NewTracerProvider().Tracer(scope) }

// scope names the origin of our spans.
const scope = "tideline"
