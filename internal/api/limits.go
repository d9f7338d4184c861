package api

import (
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"tideline/internal/accounts"
	"tideline/internal/limits"
	"tideline/pkg/chat"
)

// maxLimited bounds the people, and the addresses, that are counted: 20 MB each at most.
const maxLimited = 100_000

// rates are the limits on how often somebody asks. They are this process's own: with n of them behind a balancer a person
// has up to n times as much, which is what protects each process.
type rates struct {
	users     *limits.Keyed[chat.UserID] // nil where any number is allowed
	addresses *limits.Keyed[string]
	refused   *prometheus.CounterVec
}

func newRates(cfg Config, f promauto.Factory) *rates {
	r := &rates{refused: f.NewCounterVec(prometheus.CounterOpts{
		Name: "tideline_http_limited_total",
		Help: "Requests that were refused because a person or an address asked too often. When it rises: one that floods, or http.trusted-proxies does not name the proxy before us.",
	}, []string{"by"})}
	if cfg.RatePerUser > 0 {
		r.users = limits.New[chat.UserID](cfg.RatePerUser, cfg.BurstPerUser, maxLimited, time.Now)
	}
	if cfg.RatePerAddress > 0 {
		r.addresses = limits.New[string](cfg.RatePerAddress, cfg.BurstPerAddr, maxLimited, time.Now)
	}
	return r
}

// fromUser tells whether a person may ask now; it has answered where not.
func (s *Server) fromUser(c *gin.Context, caller accounts.Caller) bool {
	if s.limits.users == nil {
		return true
	}
	return s.within(c, "user", s.limits.users.Take(caller.User))
}

// fromAddress tells whether an address may ask without a token now; it has answered where not.
func (s *Server) fromAddress(c *gin.Context) bool {
	if s.limits.addresses == nil {
		return true
	}
	return s.within(c, "address", s.limits.addresses.Take(s.proxies.Address(c.Request)))
}

func (s *Server) within(c *gin.Context, by string, wait time.Duration) bool {
	if wait == 0 {
		return true
	}
	s.limits.refused.WithLabelValues(by).Inc()
	s.refuse(c, chat.Refuse(chat.CodeRateLimited, "this %s asks more often than is allowed", by).After(wait))
	return false
}
