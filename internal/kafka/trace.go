package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Trace context travels in the headers of records as W3C writes it: traceparent and tracestate.

// WithTrace adds the trace context of ctx to a record's headers.
func WithTrace(ctx context.Context, headers []kgo.RecordHeader) []kgo.RecordHeader {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return headers
	}
	c := headerCarrier{&headers}
	propagation.TraceContext{}.Inject(ctx, c)
	return headers
}

// TraceOf gives ctx with the trace context that came with a record, and whether there is a readable one.
func TraceOf(ctx context.Context, r *kgo.Record) (context.Context, bool) {
	for i := range r.Headers {
		if r.Headers[i].Key == HeaderTraceparent {
			ctx = propagation.TraceContext{}.Extract(ctx, headerCarrier{&r.Headers})
			return ctx, trace.SpanContextFromContext(ctx).IsValid()
		}
	}
	return ctx, false
}

// headerCarrier lets the propagator read and write the headers of a record.
type headerCarrier struct{ headers *[]kgo.RecordHeader }

func (c headerCarrier) Get(key string) string {
	for _, h := range *c.headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func (c headerCarrier) Set(key, value string) {
	*c.headers = append(*c.headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
}

func (c headerCarrier) Keys() []string {
	keys := make([]string, len(*c.headers))
	for i, h := range *c.headers {
		keys[i] = h.Key
	}
	return keys
}
