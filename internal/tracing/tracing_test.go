package tracing

import (
	"context"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestConfig_SaysWhatIsWrong(t *testing.T) {
	for _, c := range []Config{{Endpoint: "localhost:4318"}, {Endpoint: "grpc://x:4317"}, {Ratio: -0.1}, {Ratio: 1.1}, {Ratio: math.NaN()}} {
		if c.Validate() == nil {
			t.Errorf("%+v passes", c)
		}
	}
	for _, c := range []Config{DefaultConfig(), {Endpoint: "http://x:4318", Ratio: 1}, {Endpoint: "https://x/otlp/v1/traces"}} {
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// A collector that hangs costs spans, and nobody waits for it but the end of the process, for as long as that allows.
func TestStart_ACollectorThatHangsHoldsNobodyUp(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer s.Close()
	defer close(release)
	tracer, flush, err := Start(t.Context(), Config{Endpoint: s.URL, Ratio: 1}, "test", "1", slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 10 * maxQueued {
		_, span := tracer.Start(t.Context(), "x")
		span.End()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := flush(ctx); err == nil {
		t.Error("spans are said to be exported that were not")
	}
	if took := time.Since(began); took > exportTimeout {
		t.Errorf("it took %s", took)
	}
}

func TestStart_WithoutAnEndpointNothingIsRecorded(t *testing.T) {
	tracer, flush, err := Start(t.Context(), DefaultConfig(), "test", "1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, span := tracer.Start(t.Context(), "x"); span.IsRecording() {
		t.Error("a span is recorded for nobody")
	}
	if err := flush(t.Context()); err != nil {
		t.Error(err)
	}
}
