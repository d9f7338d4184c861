package archive

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are what an operator sees of the archive.
type Metrics struct {
	rows, changes, retries, skipped, stuck prometheus.Counter

	refills       prometheus.Counter
	lost          *prometheus.GaugeVec
	block, insert prometheus.Histogram
	behind        *prometheus.GaugeVec
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "tideline_archive_" + name, Help: help})
	}
	return &Metrics{
		rows:    counter("rows_total", "Rows inserted into ClickHouse."),
		changes: counter("changes_total", "Rows changed by edits and recalls. Each batch of them is a mutation: when it rises fast, look at ClickHouse's merges."),
		retries: counter("retries_total", "Tries that ClickHouse or the store did not take. When it rises: look at ClickHouse; nothing else suffers."),
		skipped: counter("unreadable_total", "Records that cannot be read and were not archived. Any rise is a fault: see the log."),
		stuck:   counter("stuck_total", "Times retention had removed what was not archived (fill the archive from the store), or the log had an event of a kind that this version does not know. See the runbook."),
		refills: counter("refills_total", "Partitions that had lost rows and were filled again. When it rises: find out what removed ClickHouse's data."),
		lost:    f.NewGaugeVec(prometheus.GaugeOpts{Name: "tideline_archive_missing_rows", Help: "Rows of a partition that the archive had and has lost, at least, as found at the start. Above 0: fill it with `tideline archive fill`, or set archive.refill=auto."}, []string{"topic", "partition"}),
		block:   f.NewHistogram(prometheus.HistogramOpts{Name: "tideline_archive_block_rows", Help: "Rows of a block. Always small under load means a linger that is too short.", Buckets: prometheus.ExponentialBuckets(1, 4, 9)}),
		insert:  f.NewHistogram(prometheus.HistogramOpts{Name: "tideline_archive_insert_seconds", Help: "Time of an insert. When it rises: look at ClickHouse's parts and merges.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 12)}),
		behind:  f.NewGaugeVec(prometheus.GaugeOpts{Name: "tideline_archive_lag_records", Help: "Records of a partition that wait to be archived. When it rises and stays: look at ClickHouse."}, []string{"topic", "partition"}),
	}
}

func (m *Metrics) missing(topic string, partition int32, n int64) {
	m.lost.WithLabelValues(topic, strconv.Itoa(int(partition))).Set(float64(n))
}

func (m *Metrics) lag(topic string, partition int32, n int64) {
	m.behind.WithLabelValues(topic, strconv.Itoa(int(partition))).Set(float64(n))
}

func (m *Metrics) forget(topic string, partition int32) {
	m.behind.DeleteLabelValues(topic, strconv.Itoa(int(partition)))
}
