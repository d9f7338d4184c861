package pusher

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"

	"tideline/internal/accounts"
	"tideline/internal/edge"
	"tideline/internal/handlers"
	"tideline/internal/kafka"
	"tideline/internal/limits"
	"tideline/internal/presence"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// Requests is the door that all clients' requests go through. Both methods are called by many at once and end with their
// context; refusals that clients may see are *chat.Error.
type Requests interface {
	// Authenticate gives who has an access token.
	Authenticate(ctx context.Context, token string) (accounts.Caller, error)
	// Do runs an operation: send, pull, sync or read, with the fields that it has over HTTP.
	Do(ctx context.Context, caller accounts.Caller, op string, body []byte) (handlers.Answer, error)
	// Outside returns the refusal of a user who was found not to be a member of a conversation.
	Outside(ctx context.Context, u chat.UserID, id chat.ConversationID) error
	// MayType reports whether others are told that a member types; the error refuses those who are no members.
	MayType(ctx context.Context, u chat.UserID, id chat.ConversationID) (bool, error)
	// BothSaid returns those of some private conversations in which both people have said something.
	BothSaid(ctx context.Context, ids []chat.ConversationID) ([]chat.ConversationID, error)
}

// Memberships gives all memberships of a user, with the heads of their conversations.
type Memberships interface {
	Memberships(ctx context.Context, u chat.UserID, past bool) ([]timeline.Membership, error)
}

// Notifications calls tell for everything in im.notify, in order and from one goroutine.
type Notifications interface {
	Subscribe(tell func(chat.Notify))
	// OnGap adds somebody who is told that notifications were missed.
	OnGap(tell func())
}

// Presence is what may be lost: leases of sessions, and what pushers tell one another. Only Of may wait.
type Presence interface {
	Renew(u chat.UserID, session int64)
	Drop(u chat.UserID, session int64)
	Tell(presence.Signal)
	Of(ctx context.Context, users []chat.UserID) (map[chat.UserID]bool, error)
}

// Pusher keeps connections. ServeHTTP is the door, Run the service; all methods are safe for concurrent use.
type Pusher struct {
	cfg      Config
	id       string
	door     Requests
	store    Memberships
	presence Presence
	beside   []func(ctx context.Context) error // what runs until the last connection is closed
	tracer   trace.Tracer
	log      *slog.Logger
	metrics  *Metrics

	upgrader websocket.Upgrader
	index    *index
	people   *people
	flushers []*flusher
	tick     time.Duration // of the wheels
	started  time.Time
	base     context.Context // of requests; ends when the drain is over
	abort    context.CancelFunc
	hands    *hands

	proxies    *edge.Proxies
	handshakes *limits.Keyed[string] // by address; nil where any number is allowed

	seats    chan struct{} // workers
	queued   atomic.Int64  // requests that wait for a seat
	loads    chan struct{} // memberships that are loaded at once
	serial   atomic.Uint64
	refusals atomic.Uint64

	wg sync.WaitGroup // everything that works for a connection

	mu              sync.Mutex // guards what follows
	all             map[*conn]struct{}
	draining        bool
	unauthenticated int
	addresses       map[string]int      // unauthenticated connections by address
	revoked         map[int64]time.Time // sessions that ended a moment ago, with the time when that was heard
}

// A session that ends while one of its connections is being admitted, on a token that was looked at before, must not
// slip through: what has ended is remembered for longer than an admission takes and than an answer about a session is
// kept. Beyond the bound, a session that ends in that very moment is caught when its token expires.
const (
	revokedKept = time.Minute
	revokedMost = 1 << 16
)

// maxAddresses bounds the addresses whose handshakes are counted: 20 MB at most.
const maxAddresses = 100_000

// loadsAtOnce bounds how many users' memberships are loaded at the same time: when everybody comes back at once the store
// has other things to do as well.
const loadsAtOnce = 32

// New makes a pusher that follows im.notify, im.receipts and what is said in Redis. Call it before the notifications run.
func New(cfg Config, proxies *edge.Proxies, kc kafka.Config, requests Requests, store Memberships, n Notifications, client redis.UniversalClient, tracer trace.Tracer, log *slog.Logger, metrics *Metrics, id string) *Pusher {
	// A lease outlives the silence that a connection is allowed.
	live := presence.New(client, cfg.IdleTimeout+cfg.Heartbeat, log, metrics.registry)
	p := newPusher(cfg, proxies, requests, store, live, tracer, log, metrics, id)
	n.Subscribe(p.TakeNotify)
	n.OnGap(p.MissedNotify)
	live.Hear(p.takeSignal)
	live.HearOn(accounts.RevokedChannel, p.takeRevoked)
	marks := &markFollower{cfg: kc, log: log, id: id, tell: p.TakeMark}
	p.beside = append(p.beside, live.Run, marks.Run)
	return p
}

func newPusher(cfg Config, proxies *edge.Proxies, requests Requests, store Memberships, live Presence, tracer trace.Tracer, log *slog.Logger, metrics *Metrics, id string) *Pusher {
	p := &Pusher{
		cfg: cfg, id: id, door: requests, store: store, presence: live, tracer: tracer, log: log, metrics: metrics,
		index: newIndex(), people: newPeople(), tick: max(cfg.Window/ticksPerWindow, leastTick), started: time.Now(),
		seats: make(chan struct{}, cfg.Workers), loads: make(chan struct{}, loadsAtOnce),
		all: map[*conn]struct{}{}, addresses: map[string]int{}, revoked: map[int64]time.Time{},
	}
	p.proxies = proxies
	if cfg.HandshakesPerSecond > 0 {
		p.handshakes = limits.New[string](cfg.HandshakesPerSecond, cfg.HandshakeBurst, maxAddresses, time.Now)
	}
	p.base, p.abort = context.WithCancel(context.Background())
	p.hands = newHands(p.base, &p.wg)
	p.upgrader = p.newUpgrader()
	for range max(2, runtime.GOMAXPROCS(0)) {
		p.flushers = append(p.flushers, newFlusher(p))
	}
	metrics.watch(p)
	return p
}

// clock gives the time since the pusher was made.
func (p *Pusher) clock() time.Duration { return time.Since(p.started) }

// retryAfter gives a time after which to come back, spread so that a crowd does not come together.
func (p *Pusher) retryAfter() time.Duration { return 500*time.Millisecond + rand.N(4*time.Second) }

// Run keeps connections until the context ends, and then closes them in waves: each with a code that says so, none with a
// request of its own under way, all within the time of the drain.
func (p *Pusher) Run(ctx context.Context) error {
	stop := make(chan struct{})
	var flushers, others sync.WaitGroup
	for _, f := range p.flushers {
		flushers.Go(func() { f.run(stop) })
	}
	beside, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	failed := make(chan error, len(p.beside))
	for _, run := range p.beside {
		others.Go(func() {
			if err := run(beside); err != nil {
				failed <- err
			}
		})
	}
	others.Go(func() { p.sweep(beside) })

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	p.drain()
	close(stop)
	flushers.Wait()
	p.abort()
	p.wg.Wait()
	end()
	others.Wait()
	return err
}

// MissedNotify closes all connections: which conversations they have is not known any more, and what moved was not told.
// Those who come back load it anew. It does not wait.
func (p *Pusher) MissedNotify() {
	p.mu.Lock()
	all := make([]*conn, 0, len(p.all))
	for c := range p.all {
		all = append(all, c)
	}
	p.mu.Unlock()
	p.log.Error("notifications were missed: all connections are closed, so that they come back and catch up", "connections", len(all))
	for _, c := range all {
		c.shut(CloseUnavailable, p.retryAfter())
	}
}

// drain closes all connections.
func (p *Pusher) drain() {
	p.mu.Lock()
	p.draining = true
	left := make([]*conn, 0, len(p.all))
	for c := range p.all {
		left = append(left, c) // in the map's order, which is none
	}
	p.mu.Unlock()
	if len(left) == 0 {
		return
	}
	// The whole time only for a crowd: two hundred a second disturb nobody.
	over := min(p.cfg.Drain, time.Duration(len(left))*drainPace)
	p.log.Info("closing the connections", "connections", len(left), "over", over.String())
	began, total := time.Now(), len(left)
	wave := time.NewTicker(drainWave)
	defer wave.Stop()
	for {
		gone := time.Since(began)
		due := total
		if gone < over {
			due = int(float64(total) * float64(gone) / float64(over))
		}
		var busy []*conn
		for n := due - (total - len(left)); n > 0 && len(left) > 0; n-- {
			c := left[len(left)-1]
			left = left[:len(left)-1]
			if gone < p.cfg.Drain && c.occupied() {
				busy = append(busy, c) // its answer first
				continue
			}
			c.shut(CloseDraining, p.retryAfter())
		}
		if left = append(busy, left...); len(left) == 0 {
			break
		}
		<-wave.C
	}
	// Clients have this long to answer the close frame.
	deadline := time.NewTimer(closeGrace + drainLast)
	defer deadline.Stop()
	check := time.NewTicker(drainWave / 5)
	defer check.Stop()
	for {
		p.mu.Lock()
		n := len(p.all)
		p.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-check.C:
		case <-deadline.C:
			p.mu.Lock()
			for c := range p.all {
				_ = c.net.Close()
			}
			p.mu.Unlock()
			return
		}
	}
}

const (
	drainWave = 50 * time.Millisecond
	drainPace = 5 * time.Millisecond
	drainLast = time.Second
)

// occupied tells whether a request of the connection is under way or its answer not written.
func (c *conn) occupied() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inFlight > 0
}

// sweepEvery is how often tokens are looked at. A timer for each connection would cost more than it is worth.
const sweepEvery = time.Second

// sweep closes connections whose token has expired, and asks again for the people who are watched.
func (p *Pusher) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	asked := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.forgetRevoked(time.Now().Add(-revokedKept))
		late := time.Now().Add(-p.cfg.TokenGrace)
		for _, c := range p.which(func(c *conn) bool { return c.authed && c.caller.ExpiresAt.Before(late) }) {
			c.shut(CloseTokenExpired, 0)
		}
		if time.Since(asked) >= p.cfg.Heartbeat {
			asked = time.Now()
			p.askPeople(ctx)
		}
	}
}

// which gives the connections for which something holds; each is locked when it is asked about.
func (p *Pusher) which(holds func(*conn) bool) []*conn {
	var list []*conn
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.all {
		c.mu.Lock()
		if holds(c) {
			list = append(list, c)
		}
		c.mu.Unlock()
	}
	return list
}

// takeRevoked ends the connections of a session that was ended.
func (p *Pusher) takeRevoked(text string) {
	session, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		p.log.Warn("the end of a session is not readable", "err", err)
		return
	}
	p.mu.Lock()
	if len(p.revoked) < revokedMost {
		p.revoked[session] = time.Now()
	}
	p.mu.Unlock()
	// Those that are being admitted have a caller as well.
	for _, c := range p.which(func(c *conn) bool { return c.caller.User != 0 && c.caller.Session == session }) {
		c.kick()
	}
}

// hasEnded tells whether a session ended a moment ago.
func (p *Pusher) hasEnded(session int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ended := p.revoked[session]
	return ended
}

func (p *Pusher) forgetRevoked(before time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for session, at := range p.revoked {
		if at.Before(before) {
			delete(p.revoked, session)
		}
	}
}

// kick tells a connection that its session has ended, and closes it.
func (c *conn) kick() {
	c.mu.Lock()
	if !c.closing {
		c.inFlight++ // as every answer, it frees its place when it is written
		c.out.answers = append(c.out.answers, reply{bytes: appendFrame(nil, opText, []byte(`{"op":"kick","reason":"session_revoked"}`))})
	}
	c.push()
	c.shut(CloseSessionRevoked, 0)
}
