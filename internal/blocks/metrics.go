package blocks

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are what an operator sees of the cache.
type Metrics struct {
	hits, misses, shared prometheus.Counter
	bytes                prometheus.Gauge
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		hits:   f.NewCounter(prometheus.CounterOpts{Name: "tideline_blocks_hits_total", Help: "Blocks given from memory."}),
		misses: f.NewCounter(prometheus.CounterOpts{Name: "tideline_blocks_misses_total", Help: "Blocks read from the store. When it rises against the hits: give the cache more memory."}),
		shared: f.NewCounter(prometheus.CounterOpts{Name: "tideline_blocks_shared_total", Help: "Blocks for which a read that was under way was waited for."}),
		bytes:  f.NewGauge(prometheus.GaugeOpts{Name: "tideline_blocks_bytes", Help: "Memory of the cache."}),
	}
}
