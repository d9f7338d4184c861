package accounts

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics count what an operator who looks for an attack asks for.
type Metrics struct {
	Failed        prometheus.Counter
	Throttled     *prometheus.CounterVec // by address, address_and_name, name
	AdminRefused  prometheus.Counter
	AdminSessions prometheus.Counter
	Ended         *prometheus.CounterVec // why: see the ended constants
}

// Why a session ended.
const (
	endedByLogout   = "logout"
	endedByOwner    = "owner"
	endedByPassword = "password"
	endedByTheft    = "spent_token"
)

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	m := &Metrics{
		Failed: f.NewCounter(prometheus.CounterOpts{
			Name: "tideline_auth_failed_logins_total",
			Help: "Wrong passwords, at logins, at changes of a password and at repeated registrations. When it rises: read the log (login failed) for addresses, and block them in front of us.",
		}),
		Throttled: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tideline_auth_throttled_total",
			Help: "Logins refused because of earlier failures. by=name rises: one account is guessed at from many addresses, and its owner cannot log in meanwhile. by=address: one address tries many names, or http.trusted-proxies does not name the proxy before us.",
		}, []string{"by"}),
		AdminRefused: f.NewCounter(prometheus.CounterOpts{
			Name: "tideline_auth_refused_admin_tokens_total",
			Help: "Administration calls without the administrators' token. When it rises: the log has the addresses; a backend has an old token, or somebody guesses.",
		}),
		AdminSessions: f.NewCounter(prometheus.CounterOpts{
			Name: "tideline_auth_admin_sessions_total",
			Help: "Sessions that the administrators' token began for people. When it rises beyond what your backends do: change auth.admin-token, the log has the people.",
		}),
		Ended: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tideline_auth_ended_sessions_total",
			Help: "Sessions that were ended. why=spent_token rises: refresh tokens are stolen, or a client keeps them in two places.",
		}, []string{"why"}),
	}
	for _, by := range []string{byAddress, byPair, byName} {
		m.Throttled.WithLabelValues(by)
	}
	for _, why := range []string{endedByLogout, endedByOwner, endedByPassword, endedByTheft} {
		m.Ended.WithLabelValues(why)
	}
	return m
}
