package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/sony/gobreaker/v2"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"tideline/pkg/chat"
)

// Times of the guard. A statement that hangs costs its caller the store's time-out; these bound everything around that.
const (
	// seatWait is how long a statement waits for its turn. A crowd that comes back together is through in a second; who
	// waits longer is better told to come back.
	seatWait = 2 * time.Second
	// openFor is how long a store that failed again and again is left alone before one statement tries it.
	openFor = time.Second
	// probeTimeout bounds that statement: a store that needs longer has not come back.
	probeTimeout = time.Second
	// seatsPerConnection is how many statements there may be, under way or waiting, for each connection.
	seatsPerConnection = 4
)

// guard stands between people who wait and a store that may hang: a bounded number of statements, and a circuit breaker.
type guard struct {
	seats    chan struct{}
	breaker  *gobreaker.TwoStepCircuitBreaker[struct{}]
	refused  *prometheus.CounterVec
	failures prometheus.Counter
}

// Guarded gives the same store for those whom somebody waits for. When statements fail again and again because the store
// does not answer, the next ones are refused at once, until one that is tried every second succeeds; and there is a
// bounded number of them at any time. A refusal is a *chat.Error, unavailable or overloaded, that says when to come back.
//
// What everybody who comes back asks for is asked for many at a time while the store is busy.
//
// Writers that have nothing else to do than to wait for the store use it unguarded. The guards of one process are one:
// call it once.
func (s *Store) Guarded(log *slog.Logger, registry prometheus.Registerer) *Store {
	f := promauto.With(registry)
	g := &guard{
		seats:    make(chan struct{}, seatsPerConnection*max(s.db.Stats().MaxOpenConnections, 1)),
		failures: f.NewCounter(prometheus.CounterOpts{Name: "tideline_store_failures_total", Help: "Statements to which the store gave no answer. When it rises: the store hangs, or the network to it."}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tideline_store_refused_total",
			Help: "Statements that were not tried: the store is left alone after failures (open), or too many are under way (busy). When busy rises alone: the store is slow, or store.max-open is too small.",
		}, []string{"why"}),
	}
	state := f.NewGauge(prometheus.GaugeOpts{
		Name: "tideline_store_circuit", Help: "0: the store is asked; 1: one statement tries whether it answers again; 2: it is left alone. When it is not 0: requests are answered 503; look at the store.",
	})
	g.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name: "store", MaxRequests: 1, Interval: 10 * time.Second, Timeout: openFor,
		// One statement that hangs is a lock or a lost packet. Five in a row, or half of many, are the store.
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.ConsecutiveFailures >= 5 || c.Requests >= 50 && c.TotalFailures*2 >= c.Requests
		},
		IsExcluded: func(err error) bool { return errors.Is(err, errNoVerdict) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			state.Set(float64(to))
			log.Warn("the road to the store changed; requests are refused while it is not closed", "from", from.String(), "to", to.String())
		},
	})
	guarded := *s
	guarded.guard = g
	guarded.crowds = newCrowds(guarded)
	return &guarded
}

// errNoVerdict tells the breaker that a statement says nothing of the store: its caller went away.
var errNoVerdict = errors.New("the caller did not wait for the answer")

// run runs a statement, with its own time-out, if the guard lets it.
func (s *Store) run(ctx context.Context, do func(ctx context.Context) error) error {
	g, timeout := s.guard, s.timeout
	if g == nil {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return do(ctx)
	}
	done, err := g.breaker.Allow()
	if err != nil {
		g.refused.WithLabelValues("open").Inc()
		return chat.Refuse(chat.CodeUnavailable, "the store does not answer for now").After(openFor)
	}
	if err := g.sit(ctx); err != nil {
		done(errNoVerdict)
		return err
	}
	defer func() { <-g.seats }()
	if g.breaker.State() == gobreaker.StateHalfOpen {
		timeout = min(timeout, probeTimeout)
	}
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = do(within)
	switch {
	case err == nil:
		done(nil)
		return nil
	case contended(err):
		done(nil)
		return chat.Refuse(chat.CodeUnavailable, "others change the same at this moment").After(100 * time.Millisecond).Because(err)
	case !unanswered(err):
		done(nil)
		return err
	case ctx.Err() != nil:
		done(errNoVerdict) // it was the caller's time that ended
		return err
	}
	done(err)
	g.failures.Inc()
	return chat.Refuse(chat.CodeUnavailable, "the store does not answer").After(openFor).Because(err)
}

// sit takes a seat, or gives up after a while.
func (g *guard) sit(ctx context.Context) error {
	select {
	case g.seats <- struct{}{}:
		return nil
	default:
	}
	wait := time.NewTimer(seatWait)
	defer wait.Stop()
	select {
	case g.seats <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the store: %w", ctx.Err())
	case <-wait.C:
		g.refused.WithLabelValues("busy").Inc()
		return chat.Refuse(chat.CodeOverloaded, "too many wait for the store").After(seatWait)
	}
}

// unanswered tells whether an error is not an answer of the store to the statement, but the lack of one.
func unanswered(err error) bool {
	var network net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network) {
		return true
	}
	var m *mysql.MySQLError
	if errors.As(err, &m) {
		switch m.Number {
		case 1040, // too many connections
			1053, // the server shuts down
			1203, // too many connections of this user
			1290, // the server is read-only
			1836, // the same
			1927: // the connection was killed
			return true
		}
	}
	var l *sqlite.Error
	if errors.As(err, &l) {
		switch l.Code() & 0xff { // the rest says why
		case sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN:
			return true
		}
	}
	return false
}

// contended tells whether the store gave up one statement for the sake of others: it works, and the statement may be tried
// again.
func contended(err error) bool {
	var m *mysql.MySQLError
	if errors.As(err, &m) {
		return m.Number == 1205 || m.Number == 1213 // a lock was not given in time; a deadlock
	}
	var l *sqlite.Error
	return errors.As(err, &l) && (l.Code()&0xff == sqlite3.SQLITE_BUSY || l.Code()&0xff == sqlite3.SQLITE_LOCKED)
}
