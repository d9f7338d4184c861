package e2e

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"tideline/test/platform"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector takes spans as any OpenTelemetry collector does.
type collector struct {
	addr string
	mu   sync.Mutex // guards spans
	// spans by the service that told of them.
	spans map[string][]*tracev1.Span
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{spans: map[string][]*tracev1.Span{}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collectorv1.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &request) != nil {
			http.Error(w, "not spans", http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, resource := range request.GetResourceSpans() {
			service := ""
			for _, a := range resource.GetResource().GetAttributes() {
				if a.GetKey() == "service.name" {
					service = a.GetValue().GetStringValue()
				}
			}
			for _, scope := range resource.GetScopeSpans() {
				c.spans[service] = append(c.spans[service], scope.GetSpans()...)
			}
		}
	}))
	t.Cleanup(s.Close)
	c.addr = s.URL
	return c
}

// find gives the span of a name in a trace that a service told of, or nil.
func (c *collector) find(service, name, traceID string) *tracev1.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans[service] {
		if s.GetName() == name && hex.EncodeToString(s.GetTraceId()) == traceID {
			return s
		}
	}
	return nil
}

// traced adds a trace context to every request.
type traced struct {
	http.RoundTripper
	traceparent string
}

func (t traced) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("traceparent", t.traceparent)
	return t.RoundTripper.RoundTrip(r)
}

func TestCluster_OneTraceFromTheRequestToTheStore(t *testing.T) {
	const traceID, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	spans := startCollector(t)
	c := platform.StartCluster(t, "TIDELINE_TRACE_ENDPOINT="+spans.addr, "TIDELINE_TRACE_RATIO=0", "OTEL_BSP_SCHEDULE_DELAY=100")
	ada := c.Join(t, "ada")
	var g struct {
		ID string `json:"conversation_id"`
	}
	ada.Eventually(201, "POST", "/groups", map[string]any{"name": "Traced"}, &g)
	ada.HTTP.Transport = traced{ada.HTTP.Transport, "00-" + traceID + "-" + caller + "-01"}
	ada.Send(g.ID, "1", "follow me")

	parent := caller
	for _, step := range []struct{ service, name string }{
		{"tideline-api", "POST /v1/conversations/:cid/messages"}, {"tideline-api", "send im.inbound"},
		{"tideline-ingest", "number im.inbound"}, {"tideline-timeline", "store im.messages"},
	} {
		var s *tracev1.Span
		for deadline := time.Now().Add(20 * time.Second); s == nil; {
			if s = spans.find(step.service, step.name, traceID); s == nil && time.Now().After(deadline) {
				t.Fatalf("%s told nothing of %q", step.service, step.name)
			}
			time.Sleep(10 * time.Millisecond) // between looks
		}
		if got := hex.EncodeToString(s.GetParentSpanId()); got != parent {
			t.Errorf("%q of %s is a child of %s, not of %s", step.name, step.service, got, parent)
		}
		if s.GetEndTimeUnixNano() <= s.GetStartTimeUnixNano() {
			t.Errorf("%q took no time", step.name)
		}
		parent = hex.EncodeToString(s.GetSpanId())
	}
	if n := len(spans.spans["tideline-pusher"]); n > 0 {
		t.Errorf("the pusher told of %d spans, and none of its requests is traced at a ratio of 0", n)
	}
}
