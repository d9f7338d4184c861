package ingest

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"tideline/internal/kafka"
	"tideline/pkg/chat"
	"tideline/pkg/seq"
)

// spans begins a span for each record of a batch that came with a trace, as of when the batch was read, and gives the
// contexts by inbound offset. Most records have none.
func (l *partitionLog) spans(b *seq.Batch) map[int64]context.Context {
	var spans map[int64]context.Context
	for i := range b.Outcomes {
		o := &b.Outcomes[i]
		ctx, there := kafka.TraceOf(context.Background(), o.Record.Attached.(*attached).record)
		if !there {
			continue
		}
		ctx, span := l.tracer.Start(ctx, "number "+kafka.TopicInbound, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(l.polled))
		if span.IsRecording() {
			span.SetAttributes(
				attribute.String("messaging.system", "kafka"), attribute.String("messaging.destination.name", kafka.TopicInbound),
				attribute.Int("messaging.destination.partition.id", int(l.partition.ID)), attribute.Int64("messaging.kafka.offset", o.Record.Offset),
				attribute.Int("messaging.batch.message_count", len(b.Outcomes)),
			)
			if c := o.Record.Command; c != nil && !c.Conversation.IsZero() {
				span.SetAttributes(attribute.String("tideline.conversation", c.Conversation.String()))
			}
			switch {
			case o.Event != nil:
				span.SetAttributes(attribute.Int64("tideline.seq", o.Event.Seq))
			case o.Rejection != nil:
				span.SetAttributes(attribute.String("tideline.rejected", string(o.Rejection.Code)))
				if o.Rejection.Code != chat.CodeDuplicate && !o.Moves() {
					span.SetStatus(codes.Error, string(o.Rejection.Code))
				}
			}
		}
		if spans == nil {
			spans = map[int64]context.Context{}
		}
		spans[o.Record.Offset] = ctx
	}
	return spans
}

func endSpans(spans map[int64]context.Context, err error) {
	for _, ctx := range spans {
		span := trace.SpanFromContext(ctx)
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}
