package sender

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"tideline/pkg/chat"
)

// Metrics are what an operator sees of commands on their way.
type Metrics struct {
	ack      *prometheus.HistogramVec
	produce  prometheus.Histogram
	inFlight prometheus.Gauge
	asked    prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	seconds := prometheus.ExponentialBuckets(0.001, 1.6, 18) // 1 ms to 3 s
	return &Metrics{
		ack: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tideline_send_ack_seconds", Buckets: seconds,
			Help: "Time from a command's arrival to its outcome, by outcome. numbered rises: compare with tideline_send_produce_seconds and tideline_ingest_write_seconds. accepted rises: outcomes are not told, look at ingest and Redis.",
		}, []string{"outcome"}),
		produce: f.NewHistogram(prometheus.HistogramOpts{
			Name: "tideline_send_produce_seconds", Buckets: seconds,
			Help: "Time until Kafka has a command on all in-sync replicas. When it rises: look at the brokers.",
		}),
		inFlight: f.NewGauge(prometheus.GaugeOpts{
			Name: "tideline_send_in_flight", Help: "Commands whose outcome is awaited. Near send.max-in-flight senders are turned away: find out what is slow.",
		}),
		asked: f.NewCounter(prometheus.CounterOpts{
			Name: "tideline_send_asked_total", Help: "Times the store was asked for an outcome that nobody told. When it rises: look at Redis, and at ingest.",
		}),
	}
}

func (m *Metrics) observe(begun time.Time, o Outcome, err error) {
	outcome := "accepted"
	switch {
	case err != nil && chat.ReasonFor(chat.CodeOf(err)).Retryable:
		outcome = "unavailable"
	case err != nil:
		outcome = "refused"
	case o.Duplicate:
		outcome = "duplicate"
	case o.Numbered:
		outcome = "numbered"
	}
	m.ack.WithLabelValues(outcome).Observe(time.Since(begun).Seconds())
}
