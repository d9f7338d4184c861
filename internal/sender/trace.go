package sender

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"tideline/internal/kafka"
	"tideline/pkg/chat"
)

// startSpan begins a span beneath the one of the request, made by the same provider.
func startSpan(ctx context.Context, c *chat.Command, partition int32) (context.Context, trace.Span) {
	ctx, span := trace.SpanFromContext(ctx).TracerProvider().Tracer("tideline").Start(ctx, "send "+kafka.TopicInbound, trace.WithSpanKind(trace.SpanKindProducer))
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("messaging.system", "kafka"), attribute.String("messaging.destination.name", kafka.TopicInbound),
			attribute.Int("messaging.destination.partition.id", int(partition)), attribute.String("tideline.conversation", c.Conversation.String()),
			attribute.String("tideline.command", c.Type.String()),
		)
	}
	return ctx, span
}

func endSpan(span trace.Span, o Outcome, err error) {
	if span.IsRecording() {
		if o.First.Seq > 0 {
			span.SetAttributes(attribute.Int64("tideline.seq", o.First.Seq))
		}
		if err != nil {
			span.SetStatus(codes.Error, string(chat.CodeOf(err)))
		}
	}
	span.End()
}
