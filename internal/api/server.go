// Package api is the HTTP door: it turns requests into calls of internal/handlers and answers into the contract's form.
package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"tideline/internal/accounts"
	"tideline/internal/config"
	"tideline/internal/edge"
	"tideline/internal/handlers"
	"tideline/pkg/chat"
)

// Config says where the door is and how much may come in. Keys begin with http.
type Config struct {
	Addr        string        `conf:"addr" help:"where clients connect"`
	MaxBody     int64         `conf:"max-body" help:"bytes of a request body at most"`
	MaxRequests int           `conf:"max-requests" help:"requests under way at most; beyond that clients are told to come back"`
	Timeout     time.Duration `conf:"timeout" help:"of a whole request"`

	MaxPerUser    int    `conf:"max-requests-per-user" help:"requests of one person that are under way at most"`
	MaxPerAddress int    `conf:"max-requests-per-address" help:"requests without a valid token that are under way at most from an address (IPv6: a /64)"`
	PublicURL     string `conf:"public-url" help:"address at which clients reach the sockets, like https://chat.example.org; empty: taken from a trusted proxy's headers, or the address of the connection"`

	RatePerUser    float64  `conf:"rate-per-user" help:"requests a second that a person may make for long, at this process; 0 for any number"`
	BurstPerUser   int      `conf:"burst-per-user" help:"requests that a person may make at once"`
	RatePerAddress float64  `conf:"rate-per-address" help:"requests a second without a valid token that an address (IPv6: a /64) may make for long; 0 for any number"`
	BurstPerAddr   int      `conf:"burst-per-address" help:"requests without a valid token that an address may make at once"`
	TrustedProxies []string `conf:"trusted-proxies" help:"addresses or CIDRs of proxies whose X-Forwarded-For, -Proto and -Host are believed, on requests and on sockets; empty: none"`
}

// DefaultConfig listens on every address.
func DefaultConfig() Config {
	return Config{
		Addr: ":8080",
		// 10,000 user ids of 20 bytes with quotes and commas, the largest request, fit.
		MaxBody:     512 << 10,
		MaxRequests: 4096,
		Timeout:     15 * time.Second, // above every wait inside
		// A sixteenth of all seats: one person, or one address without a token, cannot take what others need. A page of a
		// browser has six requests under way, a busy bot some dozens.
		MaxPerUser: 256, MaxPerAddress: 64,
		// A person at a client makes a few a second, and some dozens after a start; a busy bot of one account some dozens.
		RatePerUser: 100, BurstPerUser: 1000,
		// A company, a campus or a mobile network is one address, and all of its people come back together.
		RatePerAddress: 50, BurstPerAddr: 1000,
	}
}

// Validate lists every fault.
func (c *Config) Validate() error {
	var faults []error
	if c.Addr == "" {
		faults = append(faults, errors.New("http.addr is empty"))
	}
	if c.MaxBody < 128<<10 {
		faults = append(faults, fmt.Errorf("http.max-body is %d, the largest message needs 128KiB", c.MaxBody))
	}
	if c.MaxRequests < 1 || c.Timeout < time.Second {
		faults = append(faults, fmt.Errorf("http.max-requests is %d and http.timeout %s", c.MaxRequests, c.Timeout))
	}
	if c.RatePerUser < 0 || c.RatePerUser > 0 && c.BurstPerUser < 1 {
		faults = append(faults, fmt.Errorf("http.rate-per-user is %g and http.burst-per-user %d", c.RatePerUser, c.BurstPerUser))
	}
	if c.RatePerAddress < 0 || c.RatePerAddress > 0 && c.BurstPerAddr < 1 {
		faults = append(faults, fmt.Errorf("http.rate-per-address is %g and http.burst-per-address %d", c.RatePerAddress, c.BurstPerAddr))
	}
	if c.MaxPerUser < 1 || c.MaxPerAddress < 1 {
		faults = append(faults, fmt.Errorf("http.max-requests-per-user is %d and http.max-requests-per-address %d, each must be at least 1", c.MaxPerUser, c.MaxPerAddress))
	}
	if _, err := edge.ParseProxies(c.TrustedProxies); err != nil {
		faults = append(faults, fmt.Errorf("http.trusted-proxies: %w", err))
	}
	if _, err := edge.ParsePublic(c.PublicURL, nil); err != nil {
		faults = append(faults, fmt.Errorf("http.public-url: %w", err))
	}
	return errors.Join(faults...)
}

// Proxies returns the trusted proxies. It returns none where Validate would have found a fault.
func (c *Config) Proxies() *edge.Proxies {
	p, err := edge.ParseProxies(c.TrustedProxies)
	if err != nil {
		return &edge.Proxies{}
	}
	return p
}

// Server is the HTTP door. It is a service.
type Server struct {
	cfg      Config
	service  *handlers.Service
	accounts *accounts.Accounts
	admin    config.Secret
	tracer   trace.Tracer
	log      *slog.Logger
	seats    chan struct{} // requests that are worked on
	logins   chan struct{} // the same for calls that hash a password
	underWay underWay
	proxies  *edge.Proxies
	public   *edge.Public
	limits   *rates
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	engine   *gin.Engine
	handler  http.Handler
	listener net.Listener
	draining func() bool
	silent   bool                // the tracer tells nobody
	fixed    map[string][]string // see fixedPaths

	bodyBytes  atomic.Int64 // of all bodies that are larger than firstBody
	turnedAway *prometheus.CounterVec
}

// DrainingWhen says how to know that the stop has begun: from then on connections end with the answer under way, so that
// none is closed under a request that is just being sent. Call it before Run.
func (s *Server) DrainingWhen(draining func() bool) { s.draining = draining }

// New makes the door. The socket, where given, is served at GET /v1/ws.
func New(cfg Config, service *handlers.Service, acc *accounts.Accounts, admin config.Secret, socket http.Handler, tracer trace.Tracer, log *slog.Logger, registry prometheus.Registerer) *Server {
	f := promauto.With(registry)
	s := &Server{
		cfg: cfg, service: service, accounts: acc, admin: admin, tracer: tracer, log: log, seats: make(chan struct{}, cfg.MaxRequests),
		logins: make(chan struct{}, maxLogins), underWay: underWay{of: map[client]int{}}, proxies: cfg.Proxies(),
		draining: func() bool { return false },
		limits:   newRates(cfg, f),
		requests: f.NewCounterVec(prometheus.CounterOpts{Name: "tideline_http_requests_total", Help: "Requests by method, route and status. A rise of 5xx: read the log by request id."}, []string{"method", "route", "status"}),
		took:     f.NewHistogramVec(prometheus.HistogramOpts{Name: "tideline_http_seconds", Help: "Time of a request. When it rises: look at ingest's batches and at the store.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15)}, []string{"method", "route"}),
	}
	s.turnedAway = f.NewCounterVec(prometheus.CounterOpts{
		Name: "tideline_http_turned_away_total",
		Help: "Requests that were refused before they were worked on, by reason. seats: add a process, or look at what requests wait for. logins: a crowd, or a flood of passwords; more processes take more. " +
			"address: many requests without a valid token from one address; if that is a proxy, name it in http.trusted-proxies. user: one client floods. slow_body: slow lines, or an attack with slow bodies; look at the proxy's log for addresses. " +
			"body_memory: a flood of large bodies; lower http.max-body or add a process.",
	}, []string{"reason"})
	s.public, _ = edge.ParsePublic("", s.proxies)
	if public, err := edge.ParsePublic(cfg.PublicURL, s.proxies); err == nil { // Validate reports it otherwise
		s.public = public
	}
	_, s.silent = tracer.(noop.Tracer)
	gin.SetMode(gin.ReleaseMode)
	g := gin.New()
	g.HandleMethodNotAllowed = true
	g.UseRawPath = true             // a client_msg_id in an address may have an escaped slash
	g.RedirectTrailingSlash = false // an address is right or not found; a redirected POST surprises everybody
	_ = g.SetTrustedProxies(nil)    // internal/edge decides what is believed
	g.NoRoute(s.noRoute)
	g.NoMethod(s.noMethod)
	g.Use(s.around)
	s.routes(g)
	s.engine = g
	s.fixed = fixedPaths(g.Routes())
	if socket != nil {
		s.fixed[socketPath] = []string{http.MethodGet} // no HEAD: a handshake has no answer to describe
	}
	s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead && r.URL.Path != socketPath {
			// net/http leaves the body out by the method of the request that it has read, which this copy does not change.
			get := *r
			get.Method = http.MethodGet
			r = &get
		}
		if socket != nil && r.URL.Path == socketPath && r.Method == http.MethodGet {
			w.Header().Set("X-Request-Id", requestID(r.Header.Get("X-Request-Id")))
			socket.ServeHTTP(w, r) // outside of gin: a connection outlives its request
			return
		}
		g.ServeHTTP(w, r)
	})
	return s
}

// socketPath is where the socket is, where this process has one.
const socketPath = "/v1/ws"

// Handler gives the door without a listener.
func (s *Server) Handler() http.Handler { return s.handler }

// Listen opens the listener, so that its address is known before Run.
func (s *Server) Listen() (net.Addr, error) {
	l, err := net.Listen("tcp", s.cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("http.addr: %w", err)
	}
	s.listener = l
	return l.Addr(), nil
}

// Run serves until the context ends, and then finishes the requests under way.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil {
		if _, err := s.Listen(); err != nil {
			return err
		}
	}
	server := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: bodyWithin + s.cfg.Timeout + 15*time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(s.listener) }()
	select {
	case err := <-done:
		return fmt.Errorf("the door: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timeout)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		_ = server.Close()
		return fmt.Errorf("closing the door: requests were cut off: %w", err)
	}
	return nil
}

// visit is the context of a request, with what is known of it.
type visit struct {
	context.Context
	id     string          // that the answer and the log have
	caller accounts.Caller // set where a session is needed

	payload payload
}

// visitOf gives the visit of a request that has come through around.
func visitOf(c *gin.Context) *visit {
	v, _ := c.Request.Context().(*visit)
	return v
}

// requestID gives the name that a client has made for its request, where it is a good one, or else a new one.
func requestID(given string) string {
	if goodRequestID(given) {
		return given
	}
	b := make([]byte, 12)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// Header values that every answer has; they are shared, and replaced where another one is set.
var (
	noSniff = []string{"nosniff"}
	noStore = []string{"no-store"}
	ownOnly = []string{"private, no-cache"}
	jsonOf  = []string{"application/json"}
)

// around is what every request goes through: an id, a place among the requests of its client, its whole body, a seat, a
// deadline, and an answer whatever happens. The seat comes after the body, so that a client that sends slowly waits alone.
func (s *Server) around(c *gin.Context) {
	id := requestID(c.GetHeader("X-Request-Id"))
	v := &visit{Context: c.Request.Context(), id: id}
	c.Request = c.Request.WithContext(v)
	h := c.Writer.Header()
	h.Set("X-Request-Id", id)
	h["X-Content-Type-Options"], h["Cache-Control"] = noSniff, noStore
	if s.draining() {
		h.Set("Connection", "close")
	}
	leave, reason, refused := s.enter(c)
	if refused != nil {
		h.Set("Connection", "close") // or else the HTTP server would read the body
		s.turnAway(c, reason, refused)
		return
	}
	defer leave()
	defer s.freeMemory(v)
	if reason, refused = s.readBody(c, v); refused != nil {
		s.turnAway(c, reason, refused)
		return
	}
	seats, reason := s.seatsOf(c)
	select {
	case seats <- struct{}{}:
	default:
		s.turnAway(c, reason, chat.Refuse(chat.CodeOverloaded, "too many requests are under way").After(time.Second))
		return
	}
	w := &seated{c.Writer, seats}
	c.Writer = w
	defer w.free()
	started := time.Now()
	ctx, cancel := context.WithTimeout(v.Context, s.cfg.Timeout)
	defer cancel()
	ctx, span := s.startSpan(ctx, c)
	defer func() { endSpan(span, c.Writer.Status()) }()
	v.Context = ctx // nobody else has it yet
	defer func() {
		if p := recover(); p != nil {
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			s.log.ErrorContext(ctx, "a request panicked", "request_id", id, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			if !c.Writer.Written() {
				s.refuse(c, chat.Refuse(chat.CodeInternal, "our fault; the log has the truth under the request id"))
			}
		}
		took := time.Since(started)
		s.counted(c)
		method, route := routeOf(c)
		s.took.WithLabelValues(method, route).Observe(took.Seconds())
		if !s.log.Enabled(ctx, slog.LevelDebug) {
			return
		}
		s.log.DebugContext(ctx, "request", "request_id", id, "method", c.Request.Method, "path", c.FullPath(), "status", c.Writer.Status(), "took", took.String())
	}()
	c.Next()
}

func (s *Server) counted(c *gin.Context) {
	method, route := routeOf(c)
	s.requests.WithLabelValues(method, route, strconv.Itoa(c.Writer.Status())).Inc()
}

// routeOf returns the labels of a request: the template of its route and not the path, which has ids. Requests without a
// route have one pair of labels, whatever a client makes up.
func routeOf(c *gin.Context) (method, route string) {
	if route = c.FullPath(); route == "" {
		return "unknown", "unknown"
	}
	return c.Request.Method, route
}

func goodRequestID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	return strings.IndexFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}) < 0
}

// errorBody is the contract's form of a refusal.
type errorBody struct {
	Error ErrorView `json:"error"`
}

// ErrorView is a refusal as clients see it.
type ErrorView struct {
	Code         chat.Code `json:"code"`
	Message      string    `json:"message"`
	Field        string    `json:"field,omitempty"`
	Retryable    bool      `json:"retryable"`
	RetryAfterMS int64     `json:"retry_after_ms,omitempty"`
	RequestID    string    `json:"request_id"`
}

// View gives the form of a refusal, and whether the error is one that clients may see. Everything else is ours.
func View(err error, requestID string) (view ErrorView, ours bool) {
	var e *chat.Error
	if !errors.As(err, &e) {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			e, ours = chat.Refuse(chat.CodeUnavailable, "something behind the door does not answer in time").After(2*time.Second), true
		} else {
			e, ours = chat.Refuse(chat.CodeInternal, "our fault; the log has the truth under the request id"), true
		}
	}
	return ErrorView{
		Code: e.Code, Message: e.Message, Field: e.Field, Retryable: chat.ReasonFor(e.Code).Retryable, RetryAfterMS: e.RetryAfter.Milliseconds(), RequestID: requestID,
	}, ours
}

func (s *Server) refuse(c *gin.Context, err error) {
	view, ours := View(err, visitOf(c).id)
	if ours && errors.Is(context.Cause(c.Request.Context()), context.Canceled) {
		// The client hung up: nobody reads the answer, and nothing of ours failed.
		s.log.DebugContext(c.Request.Context(), "a client hung up", "request_id", view.RequestID, "path", c.FullPath(), "err", err)
	} else if ours {
		s.log.ErrorContext(c.Request.Context(), "a request failed", "request_id", view.RequestID, "path", c.FullPath(), "err", err)
	}
	status := chat.ReasonFor(view.Code).Status
	if cause := errors.Unwrap(err); !ours && cause != nil && status >= http.StatusInternalServerError {
		s.log.WarnContext(c.Request.Context(), "a request was refused", "request_id", view.RequestID, "path", c.FullPath(), "err", err)
	}
	if (status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable) && view.RetryAfterMS <= 0 {
		view.RetryAfterMS = time.Second.Milliseconds() // whoever is sent away is told when to come back
	}
	if view.RetryAfterMS > 0 {
		c.Header("Retry-After", strconv.FormatInt((view.RetryAfterMS+999)/1000, 10))
	}
	if status == 0 {
		status = http.StatusInternalServerError
	}
	c.AbortWithStatusJSON(status, errorBody{view})
}

// body reads a JSON body strictly.
func (s *Server) body(c *gin.Context, into any) bool {
	v := visitOf(c)
	if v.payload.fault != nil {
		s.refuse(c, v.payload.fault)
		return false
	}
	raw := v.payload.bytes
	// What curl says of a body by default is taken too: a first try should not fail for a header. A page of another site
	// can make a browser send that type, or none, without asking (CORS): from there only JSON is taken.
	switch kind := strings.ToLower(c.ContentType()); {
	case len(raw) == 0 || kind == "application/json":
	case kind != "" && kind != "application/x-www-form-urlencoded":
		s.refuse(c, chat.Refuse(chat.CodeNotAcceptable, "the body is %.60s, not application/json", kind))
		return false
	case s.public.Foreign(c.Request):
		s.refuse(c, chat.Refuse(chat.CodeNotAcceptable, "the body must be application/json when a page of another site sends it"))
		return false
	}
	if err := handlers.Decode(raw, into); err != nil {
		s.refuse(c, err)
		return false
	}
	return true
}

// caller gives who asks; it has answered where nobody does.
func (s *Server) caller(c *gin.Context) (accounts.Caller, bool) {
	token, ok := edge.Bearer(c.Request)
	if !ok {
		if s.fromAddress(c) {
			s.refuse(c, chat.Refuse(chat.CodeUnauthenticated, "the header Authorization: Bearer <access token> is missing"))
		}
		return accounts.Caller{}, false
	}
	caller, err := s.service.Authenticate(c.Request.Context(), token)
	if err != nil {
		// Who tries tokens is counted as somebody without one.
		if chat.ReasonFor(chat.CodeOf(err)).Status != http.StatusUnauthorized || s.fromAddress(c) {
			s.refuse(c, err)
		}
		return caller, false
	}
	caller.Address = s.proxies.Address(c.Request)
	return caller, true
}

func (s *Server) isAdmin(c *gin.Context) bool {
	token, _ := edge.Bearer(c.Request)
	if s.admin.Reveal() == "" {
		s.refuse(c, chat.Refuse(chat.CodeForbidden, "administration is turned off here"))
		return false
	}
	if !s.isAdminToken(token) {
		s.accounts.AdminRefused(c.Request.Context(), s.proxies.Address(c.Request))
		if s.fromAddress(c) {
			s.refuse(c, chat.Refuse(chat.CodeUnauthenticated, "this is not the administrators' token"))
		}
		return false
	}
	return true
}

// answer gives a result or refuses.
func (s *Server) answer(c *gin.Context, status int, v any, err error) {
	if err != nil {
		s.refuse(c, err)
		return
	}
	text, err := json.Marshal(v)
	if err != nil {
		s.refuse(c, fmt.Errorf("encoding an answer: %w", err))
		return
	}
	c.Data(status, "application/json", text)
}
