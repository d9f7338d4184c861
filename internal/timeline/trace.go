package timeline

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"tideline/internal/kafka"
)

// trace tells, for each record of a batch that came with a trace, when it was taken and that it is stored.
func (o *partition) trace(began time.Time, records []*kgo.Record, err error) {
	for _, r := range records {
		ctx, there := kafka.TraceOf(context.Background(), r)
		if !there {
			continue
		}
		_, span := o.tracer.Start(ctx, "store "+kafka.TopicMessages, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(began))
		if span.IsRecording() {
			span.SetAttributes(
				attribute.String("messaging.system", "kafka"), attribute.String("messaging.destination.name", kafka.TopicMessages),
				attribute.Int("messaging.destination.partition.id", int(r.Partition)), attribute.Int64("messaging.kafka.offset", r.Offset),
				attribute.Int("messaging.batch.message_count", len(records)),
				attribute.String("tideline.conversation", string(r.Key)), attribute.String("tideline.seq", kafka.Header(r, kafka.HeaderSeq)),
			)
			if err != nil {
				span.SetStatus(codes.Error, err.Error())
			}
		}
		span.End()
	}
}
