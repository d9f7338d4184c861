package socket

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are what an operator sees of the sockets.
type Metrics struct {
	connections, strangers                                 prometheus.Gauge
	hints, coalesced, frames, bytes, slow, refused, failed prometheus.Counter
	closed                                                 *prometheus.CounterVec
	requests                                               *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "tideline_pusher_" + name, Help: help})
	}
	return &Metrics{
		connections: f.NewGauge(prometheus.GaugeOpts{Name: "tideline_pusher_connections", Help: "Sockets that are open."}),
		strangers:   f.NewGauge(prometheus.GaugeOpts{Name: "tideline_pusher_strangers", Help: "Sockets that have not said who they are. When it stays high: somebody opens sockets for nothing."}),
		hints:       counter("hints_total", "Conversations told of."),
		coalesced:   counter("coalesced_total", "Hints that a newer one replaced before they were written."),
		frames:      counter("frames_total", "Frames written."),
		bytes:       counter("bytes_total", "Bytes of frames written."),
		slow:        counter("slow_total", "Connections closed for not taking frames in time."),
		refused:     counter("refused_total", "Sockets refused because there were too many."),
		failed:      counter("auth_failures_total", "Sockets whose token was not taken."),
		closed:      f.NewCounterVec(prometheus.CounterOpts{Name: "tideline_pusher_closed_total", Help: "Connections closed by us, by close code."}, []string{"code"}),
		requests:    f.NewCounterVec(prometheus.CounterOpts{Name: "tideline_pusher_requests_total", Help: "Requests on sockets, by op and result."}, []string{"op", "result"}),
	}
}
