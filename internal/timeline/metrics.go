package timeline

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are what an operator sees of the timeline's writers.
type Metrics struct {
	rows, twins, missing, holes, parked, restored, retries, hints, marks, dirty, stuck prometheus.Counter
	batch, apply, hint                                                                 prometheus.Histogram
	lag                                                                                *prometheus.GaugeVec
	owned                                                                              prometheus.Gauge
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "tideline_timeline_" + name, Help: help})
	}
	return &Metrics{
		rows:     counter("rows_total", "Rows stored."),
		twins:    counter("twins_total", "Events whose client id was taken. Any rise means that deduplication has failed: find out why."),
		missing:  counter("missing_targets_total", "Edits and recalls whose target the store does not have. A rise points at parked records."),
		holes:    counter("holes_total", "Numbers that have no row, because their event was parked. Look at `tideline parked list`, and whether all processes have the same version."),
		parked:   counter("parked_total", "Records that can never be stored as they are, or whose kind this version does not know. Look at them with `tideline parked`."),
		restored: counter("restored_total", "Events that were parked because their kind was not known, and that this version has applied."),
		retries:  counter("retries_total", "Batches that the store did not take at once. When it rises: look at the store."),
		hints:    counter("hints_total", "Records written to im.notify."),
		marks:    counter("marks_total", "Read marks made durable."),
		dirty:    counter("dirty_marks_total", "Times the fast read marks could not follow: look at Redis. They are filled again by themselves."),
		stuck:    counter("stuck_total", "Times retention had removed what was not stored. Any rise is an emergency: see the runbook."),
		batch:    f.NewHistogram(prometheus.HistogramOpts{Name: "tideline_timeline_batch_events", Help: "Events stored together. At the upper end the store is the bottleneck.", Buckets: prometheus.ExponentialBuckets(1, 2, 10)}),
		apply:    f.NewHistogram(prometheus.HistogramOpts{Name: "tideline_timeline_apply_seconds", Help: "Time of the store's transaction. When it rises: look at the store.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 13)}),
		hint:     f.NewHistogram(prometheus.HistogramOpts{Name: "tideline_timeline_hint_seconds", Help: "Time to write the hints of a batch. When it rises: look at Kafka.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 13)}),
		lag:      f.NewGaugeVec(prometheus.GaugeOpts{Name: "tideline_timeline_lag_records", Help: "Records of a partition of im.messages that wait to be stored. When it rises and stays: look at the store, or add processes."}, []string{"partition"}),
		owned:    f.NewGauge(prometheus.GaugeOpts{Name: "tideline_timeline_partitions", Help: "Partitions that this process owns."}),
	}
}
