package api

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace/noop"
)

// Once the stop has begun, whoever is answered hears that the connection ends with it, and sends the next request elsewhere.
func TestServer_EndsConnectionsWithTheAnswerWhileItDrains(t *testing.T) {
	s := New(DefaultConfig(), nil, nil, "", nil, noop.NewTracerProvider().Tracer(""), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	draining := false
	s.DrainingWhen(func() bool { return draining })
	for _, draining = range []bool{false, true} {
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/nothing", nil))
		if got := w.Header().Get("Connection") == "close"; w.Code != http.StatusNotFound || got != draining {
			t.Errorf("draining: %v; answered %d, with the end of the connection: %v", draining, w.Code, got)
		}
	}
}
