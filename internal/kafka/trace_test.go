package kafka

import (
	"context"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"
)

func TestTrace_TravelsInTheHeadersOfARecord(t *testing.T) {
	id, _ := trace.TraceIDFromHex("0af7651916cd43dd8448eb211c80319c")
	span, _ := trace.SpanIDFromHex("b7ad6b7169203331")
	state, err := trace.ParseTraceState("vendor=1")
	if err != nil {
		t.Fatal(err)
	}
	sent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: trace.FlagsSampled, TraceState: state})
	r := &kgo.Record{Headers: WithTrace(trace.ContextWithSpanContext(t.Context(), sent), []kgo.RecordHeader{{Key: "producer", Value: []byte("x")}})}
	if len(r.Headers) != 3 || Header(r, HeaderTraceparent) != "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" || Header(r, "tracestate") != "vendor=1" {
		t.Fatalf("the headers are %+v", r.Headers)
	}
	ctx, there := TraceOf(t.Context(), r)
	if got := trace.SpanContextFromContext(ctx); !there || !got.Equal(sent.WithRemote(true)) {
		t.Errorf("it arrived as %+v", got)
	}
}

func TestTrace_WhatIsNotReadableIsNotPassedOn(t *testing.T) {
	if h := WithTrace(t.Context(), nil); h != nil {
		t.Errorf("without a trace: %+v", h)
	}
	for _, text := range []string{"", "00", "00-0-0-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "zz-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", strings.Repeat("x", 1<<16), "\xff"} {
		r := &kgo.Record{Headers: []kgo.RecordHeader{{Key: HeaderTraceparent, Value: []byte(text)}}}
		if ctx, there := TraceOf(context.Background(), r); there || len(WithTrace(ctx, nil)) > 0 {
			t.Errorf("%.60q passes for a trace", text)
		}
	}
}
