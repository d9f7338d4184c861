package pusher

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are what operators see of the pusher.
type Metrics struct {
	connections     prometheus.Gauge
	unauthenticated prometheus.Gauge
	turnedAway      *prometheus.CounterVec
	authFailures    *prometheus.CounterVec
	hints           prometheus.Counter
	coalesced       prometheus.Counter
	frames          prometheus.Counter
	bytes           prometheus.Counter
	blocked         prometheus.Gauge
	closed          *prometheus.CounterVec
	floods          prometheus.Counter
	refused         *prometheus.CounterVec
	took            *prometheus.HistogramVec
	registry        prometheus.Registerer
}

// NewMetrics makes and registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		registry:        r,
		connections:     f.NewGauge(prometheus.GaugeOpts{Name: "tideline_pusher_connections", Help: "Connections. Near push.max-connections: add a pusher."}),
		unauthenticated: f.NewGauge(prometheus.GaugeOpts{Name: "tideline_pusher_unauthenticated", Help: "Connections that have not said who they are. When it stays high: the store is slow, or somebody floods."}),
		turnedAway:      f.NewCounterVec(prometheus.CounterOpts{Name: "tideline_pusher_turned_away_total", Help: "Handshakes that were refused, by reason. full and unauthenticated: add a pusher or look for a flood. address and rate: one address connects again and again without a good token; if it is a proxy, name it in http.trusted-proxies."}, []string{"reason"}),
		authFailures:    f.NewCounterVec(prometheus.CounterOpts{Name: "tideline_pusher_auth_failures_total", Help: "Refused auth requests by code. unavailable: look at the store."}, []string{"code"}),
		hints:           f.NewCounter(prometheus.CounterOpts{Name: "tideline_pusher_hints_total", Help: "Hints for connections: pairs of a conversation's move and a member who is online."}),
		coalesced:       f.NewCounter(prometheus.CounterOpts{Name: "tideline_pusher_hints_coalesced_total", Help: "Hints that replaced an older one that was not written yet."}),
		frames:          f.NewCounter(prometheus.CounterOpts{Name: "tideline_pusher_frames_total", Help: "Frames written unasked. Near a core's worth (about 100,000/s): a longer push.window or another pusher."}),
		bytes:           f.NewCounter(prometheus.CounterOpts{Name: "tideline_pusher_bytes_total", Help: "Bytes written to sockets."}),
		blocked:         f.NewGauge(prometheus.GaugeOpts{Name: "tideline_pusher_blocked_writes", Help: "Sockets that do not take what is written at once. When it is high: slow clients, or the machine's own network."}),
		closed:          f.NewCounterVec(prometheus.CounterOpts{Name: "tideline_pusher_closes_total", Help: "Connections closed from here, by the name of the close code. slow_consumer: slow clients."}, []string{"reason"}),
		floods:          f.NewCounter(prometheus.CounterOpts{Name: "tideline_pusher_dropped_pings_total", Help: "Ping and pong frames over push.requests-per-second, which are not answered. When it rises: a client floods; it is closed with rate_limited if it goes on."}),
		refused:         f.NewCounterVec(prometheus.CounterOpts{Name: "tideline_pusher_refusals_total", Help: "Refused requests by code. internal: read the log by request id."}, []string{"code"}),
		took:            f.NewHistogramVec(prometheus.HistogramOpts{Name: "tideline_pusher_request_seconds", Help: "Time of a request once it has a worker. When it rises: look at the store and at ingest.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15)}, []string{"op"}),
	}
}

// watch adds the lengths of queues, which are asked for when somebody looks.
func (m *Metrics) watch(p *Pusher) {
	f := promauto.With(m.registry)
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "tideline_pusher_request_queue", Help: "Requests that wait for a worker. When it is high: raise push.workers, or look at what they wait for."},
		func() float64 { return float64(p.queued.Load()) })
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "tideline_pusher_flush_queue", Help: "Connections that wait to be written to. When it stays near their number at short windows: the pusher is short of CPU."},
		func() float64 {
			n := 0
			for _, f := range p.flushers {
				n += f.length()
			}
			return float64(n)
		})
}
