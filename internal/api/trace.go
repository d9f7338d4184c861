package api

import (
	"context"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// startSpan begins the span of a request, beneath the caller's where it has one.
func (s *Server) startSpan(ctx context.Context, c *gin.Context) (context.Context, trace.Span) {
	if s.silent && c.GetHeader("Traceparent") == "" {
		return ctx, trace.SpanFromContext(ctx)
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(c.Request.Header))
	route := c.FullPath() // the pattern: an address has ids of people
	if route == "" {
		route = "unknown"
	}
	ctx, span := s.tracer.Start(ctx, c.Request.Method+" "+route, trace.WithSpanKind(trace.SpanKindServer))
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("http.request.method", c.Request.Method), attribute.String("http.route", route), attribute.String("tideline.request_id", visitOf(c).id),
		)
	}
	return ctx, span
}

func endSpan(span trace.Span, status int) {
	if span.IsRecording() {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= 500 {
			span.SetStatus(codes.Error, "")
		}
	}
	span.End()
}
