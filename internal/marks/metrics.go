package marks

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are what an operator sees of the fast read marks.
type Metrics struct {
	fromRedis, fromStore, failed, epochs prometheus.Counter
	fills                                prometheus.Histogram
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	answers := f.NewCounterVec(prometheus.CounterOpts{
		Name: "tideline_marks_answers_total",
		Help: "Questions about read marks, by who answered. Many from the store for long: look at Redis, and at the failed fills.",
	}, []string{"from"})
	return &Metrics{
		fromRedis: answers.WithLabelValues("redis"),
		fromStore: answers.WithLabelValues("store"),
		failed: f.NewCounter(prometheus.CounterOpts{
			Name: "tideline_marks_failed_fills_total",
			Help: "Fills that did not make a set ready. A few are normal; when it rises steadily look at the lag of the timeline's writers.",
		}),
		epochs: f.NewCounter(prometheus.CounterOpts{
			Name: "tideline_marks_epochs_total",
			Help: "Times all fast marks were declared unready. When it rises look at Redis: it was away, or restarted.",
		}),
		fills: f.NewHistogram(prometheus.HistogramOpts{
			Name: "tideline_marks_fill_seconds", Help: "Time to fill one set. When it rises look at the lag of the timeline's writers, then at the store.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 12),
		}),
	}
}
