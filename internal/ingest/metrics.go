package ingest

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"tideline/pkg/chat"
	"tideline/pkg/seq"
)

// Metrics are what an operator sees of numbering.
type Metrics struct {
	numbered *prometheus.CounterVec
	rejected *prometheus.CounterVec
	batch    prometheus.Histogram
	write    prometheus.Histogram
	lag      *prometheus.GaugeVec
	owned    prometheus.Gauge
	pauses   prometheus.Counter
	takeover prometheus.Histogram
	untold   prometheus.Counter
	stuck    prometheus.Counter
	failures prometheus.Counter
	again    prometheus.Counter
	damaged  prometheus.Counter

	unreadable prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		numbered:   f.NewCounterVec(prometheus.CounterOpts{Name: "tideline_ingest_events_total", Help: "Events that were numbered, by kind."}, []string{"kind"}),
		rejected:   f.NewCounterVec(prometheus.CounterOpts{Name: "tideline_ingest_rejections_total", Help: "Commands that did not become events, by code. A rise of moved: a producer uses another partitioner. Of malformed: look into im.rejected."}, []string{"code"}),
		batch:      f.NewHistogram(prometheus.HistogramOpts{Name: "tideline_ingest_batch_records", Help: "Records that were numbered together. At the upper end ingest is the bottleneck: add processes.", Buckets: prometheus.ExponentialBuckets(1, 2, 11)}),
		write:      f.NewHistogram(prometheus.HistogramOpts{Name: "tideline_ingest_write_seconds", Help: "Time to write a batch's records for good; fenced, it is a transaction. When it rises: look at the brokers.", Buckets: prometheus.ExponentialBuckets(0.0005, 1.8, 16)}),
		lag:        f.NewGaugeVec(prometheus.GaugeOpts{Name: "tideline_ingest_lag_records", Help: "Records of a partition of im.inbound that wait to be numbered. When it rises and stays: add processes, or look for a pause."}, []string{"partition"}),
		owned:      f.NewGauge(prometheus.GaugeOpts{Name: "tideline_ingest_partitions", Help: "Partitions that this process owns. The sum over all processes must be the partition count."}),
		pauses:     f.NewCounter(prometheus.CounterOpts{Name: "tideline_ingest_pauses_total", Help: "Times a partition paused because the timeline's writer was too far behind: look at the store."}),
		takeover:   f.NewHistogram(prometheus.HistogramOpts{Name: "tideline_ingest_takeover_seconds", Help: "Time from the assignment of a partition to its first poll. It grows with the lag of the timeline's writer.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 12)}),
		untold:     f.NewCounter(prometheus.CounterOpts{Name: "tideline_ingest_untold_batches_total", Help: "Batches of outcomes that could not be told over Redis: clients wait for the store to be asked. Look at Redis."}),
		stuck:      f.NewCounter(prometheus.CounterOpts{Name: "tideline_ingest_stuck_total", Help: "Times numbering stopped because log and store do not fit together, or because the log has an event of a kind that this version does not know. Any rise is an emergency: see the runbook."}),
		failures:   f.NewCounter(prometheus.CounterOpts{Name: "tideline_ingest_owner_failures_total", Help: "Owners of partitions that ended with an error and were started again. A few come with a failure of Kafka or the store; the log says which."}),
		unreadable: f.NewCounter(prometheus.CounterOpts{Name: "tideline_ingest_unreadable_records_total", Help: "Records of im.messages and im.rejected that a takeover could not read and went past. Any rise: something else than ingest can write there, see the runbook and the ACLs."}),
		again:      f.NewCounter(prometheus.CounterOpts{Name: "tideline_ingest_repeated_failures_total", Help: "Owners that ended where the one before them had ended: their partition does not move. When it rises while Kafka and the store answer: see the runbook."}),
		damaged:    f.NewCounter(prometheus.CounterOpts{Name: "tideline_ingest_unreadable_batches_total", Help: "Batches of im.inbound that could not be read and were rejected as a whole. When it rises: im.rejected says which offsets; find out which producer wrote them."}),
	}
}

func (m *Metrics) count(outcomes []seq.Outcome) {
	m.batch.Observe(float64(len(outcomes)))
	kinds, codes := map[chat.Kind]int{}, map[chat.Code]int{}
	for i := range outcomes {
		if e := outcomes[i].Event; e != nil {
			kinds[e.Kind]++
		} else {
			codes[outcomes[i].Rejection.Code]++
		}
	}
	for k, n := range kinds {
		m.numbered.WithLabelValues(k.String()).Add(float64(n))
	}
	for c, n := range codes {
		m.rejected.WithLabelValues(string(c)).Add(float64(n))
	}
}
