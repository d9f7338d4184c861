package socket

import (
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"

	"tideline/internal/accounts"
	"tideline/internal/kafka"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// Requests answers what clients ask; it is what HTTP has behind it, too.
type Requests interface {
	Authenticate(ctx context.Context, token string) (accounts.Caller, error)
	// Do runs an operation with a JSON body and gives a JSON result. The error is a *chat.Error, or ours.
	Do(ctx context.Context, caller accounts.Caller, op string, body []byte) (json.RawMessage, error)
}

// Memberships gives what a user is a member of.
type Memberships interface {
	Memberships(ctx context.Context, u chat.UserID, past bool) ([]timeline.Membership, error)
}

// Notifications passes on im.notify.
type Notifications interface{ Subscribe(tell func(chat.Notify)) }

// Server is the socket door: an http.Handler for GET /v1/ws, and a service.
type Server struct {
	cfg      Config
	kafka    kafka.Config
	requests Requests
	store    Memberships
	log      *slog.Logger
	metrics  *Metrics
	hub      *hub
	flush    *flusher
	presence *presence
	upgrader websocket.Upgrader
	id       string

	ctx    context.Context // of connections: ends when Run has let go of all of them
	cancel context.CancelFunc

	mu        sync.Mutex // guards what follows
	conns     map[*conn]struct{}
	strangers int
	closed    bool
}

// New makes the door and subscribes it; call it before the notifications run.
func New(cfg Config, kc kafka.Config, requests Requests, store Memberships, n Notifications, client redis.UniversalClient, log *slog.Logger, metrics *Metrics, id string) *Server {
	s := &Server{cfg: cfg, kafka: kc, requests: requests, store: store, log: log, metrics: metrics, id: id, conns: map[*conn]struct{}{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.flush = newFlusher(cfg.Window, cfg.MaxConnections, metrics)
	s.hub = newHub(s.flush, metrics)
	s.presence = newPresence(client, log, s.hub, cfg.IdleTimeout)
	s.upgrader = websocket.Upgrader{
		HandshakeTimeout: 5 * time.Second,
		// Frames of clients are small and rare: a large buffer for each would be most of what a connection costs.
		ReadBufferSize: 512, WriteBufferSize: 2048, WriteBufferPool: &sync.Pool{},
		Subprotocols: []string{subprotocol},
		CheckOrigin:  s.goodOrigin,
	}
	n.Subscribe(s.hub.notified)
	return s
}

// A token may come as a second subprotocol, for browsers that want to save a round trip: tideline.v1, bearer.<token>.
const (
	subprotocol  = "tideline.v1"
	bearerPrefix = "bearer."
)

func (s *Server) goodOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || slices.Contains(s.cfg.Origins, "*") || slices.Contains(s.cfg.Origins, origin) {
		return true // no browser sent it, or it is allowed
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

// ServeHTTP makes a socket of a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	full := s.closed || len(s.conns) >= s.cfg.MaxConnections || s.strangers >= s.cfg.MaxStrangers
	s.mu.Unlock()
	if full {
		s.metrics.refused.Inc()
		w.Header().Set("Retry-After", "5")
		http.Error(w, `{"error":{"code":"overloaded","message":"no more sockets are taken here","retryable":true,"retry_after_ms":5000,"request_id":""}}`, http.StatusServiceUnavailable)
		return
	}
	token := ""
	for _, p := range websocket.Subprotocols(r) {
		if t, ok := strings.CutPrefix(p, bearerPrefix); ok {
			token = t
		}
	}
	ws, err := s.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	ws.SetReadLimit(s.cfg.MaxFrame)
	if tcp, ok := ws.NetConn().(*net.TCPConn); ok {
		_ = tcp.SetKeepAlivePeriod(s.cfg.KeepAlive)
	}
	ctx, stop := context.WithCancel(s.ctx)
	c := &conn{s: s, ws: ws, opened: time.Now(), stop: stop, seats: make(chan struct{}, s.cfg.MaxRequests), tokens: 2 * s.cfg.RequestRate, tokensAt: time.Now()}
	c.seen.Store(c.opened.UnixMilli())
	ws.SetPingHandler(func(data string) error {
		c.seen.Store(time.Now().UnixMilli())
		return ws.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
	})
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		c.close(CloseDraining, time.Second)
		return
	}
	s.conns[c] = struct{}{}
	s.strangers++
	s.metrics.connections.Set(float64(len(s.conns)))
	s.metrics.strangers.Set(float64(s.strangers))
	s.mu.Unlock()
	// A goroutine of its own: when this one returns, what net/http kept for the request is let go of.
	go func() {
		if token != "" && !c.admit(ctx, token, func(result json.RawMessage, err error) { c.reply(request{Op: "auth"}, result, err) }) {
			s.forget(c)
			return
		}
		c.read(ctx)
	}()
}

// admitted is called once a connection has said who it is.
func (s *Server) admitted(c *conn) {
	s.mu.Lock()
	s.strangers--
	s.metrics.strangers.Set(float64(s.strangers))
	s.mu.Unlock()
	s.presence.renew(c)
}

func (s *Server) forget(c *conn) {
	c.stop()
	_ = c.ws.Close()
	s.hub.leave(c)
	s.mu.Lock()
	if _, there := s.conns[c]; there {
		delete(s.conns, c)
		c.mu.Lock()
		if !c.ready {
			s.strangers--
		}
		c.mu.Unlock()
		s.metrics.connections.Set(float64(len(s.conns)))
		s.metrics.strangers.Set(float64(s.strangers))
	}
	s.mu.Unlock()
	s.presence.drop(c)
}

func (s *Server) welcome(caller accounts.Caller) json.RawMessage {
	text, _ := json.Marshal(struct {
		User        chat.UserID `json:"user_id"`
		Session     string      `json:"session_id"`
		HeartbeatMS int64       `json:"heartbeat_ms"`
		IdleMS      int64       `json:"idle_timeout_ms"`
		MaxFrame    int64       `json:"max_frame_bytes"`
		ServerTime  int64       `json:"server_time"`
	}{caller.User, strconv.FormatInt(caller.Session, 10), (s.cfg.IdleTimeout * 2 / 5).Milliseconds(), s.cfg.IdleTimeout.Milliseconds(), s.cfg.MaxFrame, time.Now().UnixMilli()})
	return text
}

// Run works for the connections until the context ends, and then closes them in waves.
func (s *Server) Run(ctx context.Context) error {
	defer s.cancel()
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { s.flush.run(working) })
	wg.Go(func() { s.sweep(working) })
	wg.Go(func() { s.followMarks(working) })
	wg.Go(func() { s.presence.run(working, s.revoked) })
	<-ctx.Done()
	s.drain()
	stop()
	wg.Wait()
	return nil
}

// sweepEvery is the grain of the time-outs of connections; one look at all of them costs less than a timer for each.
const sweepEvery = time.Second

// tokenGrace is how long a connection may go on with a token that has ended, so that it can send a fresh one.
const tokenGrace = 10 * time.Second

func (s *Server) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		for _, c := range s.all() {
			c.mu.Lock()
			ready := c.ready
			c.mu.Unlock()
			switch {
			case !ready && now.Sub(c.opened) > s.cfg.AuthTimeout:
				c.close(CloseAuthTimeout, time.Second)
			case ready && now.UnixMilli() > c.expires.Load()+tokenGrace.Milliseconds():
				c.close(CloseTokenExpired, 0)
			case now.UnixMilli()-c.seen.Load() > s.cfg.IdleTimeout.Milliseconds():
				c.close(CloseIdle, time.Second)
			}
		}
	}
}

func (s *Server) all() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		out = append(out, c)
	}
	return out
}

// drain takes no more sockets and closes those that are there a few at a time, so that they do not come back all at once.
func (s *Server) drain() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	list := s.all()
	waves := min(20, len(list))
	for i := range waves {
		for _, c := range list[len(list)*i/waves : len(list)*(i+1)/waves] {
			c.close(CloseDraining, 500*time.Millisecond+rand.N(s.cfg.DrainTime+time.Second))
		}
		if i < waves-1 {
			time.Sleep(s.cfg.DrainTime / time.Duration(waves))
		}
	}
}

// revoked ends the connections of a session.
func (s *Server) revoked(session string) {
	for _, c := range s.hub.ofSession(session) {
		_ = c.writeText([]byte(`{"op":"kick","reason":"session_revoked"}`))
		c.close(CloseSessionRevoked, 0)
	}
}
