package bench

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"tideline/internal/accounts"
	"tideline/internal/api"
	"tideline/internal/handlers"
	"tideline/internal/heads"
	"tideline/internal/kafka"
	"tideline/internal/sender"
	"tideline/internal/sqlstore"
	"tideline/internal/tracing"
	"tideline/pkg/chat"
)

// The floors are one process: the HTTP door with a sender that answers at once, bytes from memory, and a broadcaster that
// is the socket library and nothing else.

// floorAdmin is its administrators' token.
const floorAdmin = "the administrators of the floor"

// floorAsk is what the floor is told over its input.
type floorAsk struct {
	Bytes  map[string]string `json:"bytes"`  // to be served at /floor/<name>, and as the answer to a frame that holds the name
	Window *time.Duration    `json:"window"` // of the broadcaster
	Say    string            `json:"say"`    // the newest frame to broadcast
	Leave  bool              `json:"leave"`  // the connections are closed
}

// beFloor prints where it listens, and serves until its input ends.
func beFloor() error {
	debug.SetGCPercent(300) // as in our commands: a small heap is not collected many times a second
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var pages sync.Map // of []byte by name
	b := newBroadcaster(&pages)
	mux := http.NewServeMux()
	mux.Handle("/v1/", instantAPI())
	mux.Handle("/v1/ws", b)
	mux.HandleFunc("GET /floor/{name}", func(w http.ResponseWriter, r *http.Request) {
		text, known := pages.Load(r.PathValue("name"))
		if !known {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text.([]byte))
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(l) }() // it ends with the process
	if err := json.NewEncoder(os.Stdout).Encode(l.Addr().String()); err != nil {
		return err
	}
	return serve(func(ask floorAsk) (any, error) {
		for name, text := range ask.Bytes {
			pages.Store(name, []byte(text))
		}
		if ask.Window != nil {
			b.window.Store(int64(*ask.Window))
		}
		if ask.Say != "" {
			b.say(ask.Say)
		}
		if ask.Leave {
			b.leave()
		}
		return nil, nil
	})
}

// instantAPI is the door of the api itself: routing, sessions, decoding, validation and encoding are its own. Only the
// sender behind it sends nothing.
func instantAPI() http.Handler {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	store := &instantStore{sessions: map[int64]sqlstore.Session{}}
	cfg := accounts.DefaultConfig()
	cfg.TokenKey, cfg.AccessTTL = "a token key of the floor, long enough", 12*time.Hour
	cache := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}) // nothing here speaks to it
	acc := accounts.New(cfg, store, &store.ids, cache, log, accounts.NewMetrics(prometheus.NewRegistry()))
	service := handlers.New(handlers.Parts{
		Config: handlers.DefaultConfig(), Kafka: kafka.DefaultConfig(), Store: store, Accounts: acc, Sender: &instantSender{},
		Heads: heads.New(kafka.DefaultConfig(), log, "floor"), IDs: &store.ids, Log: log, Registry: prometheus.NewRegistry(),
	})
	door := api.DefaultConfig()
	door.RatePerUser, door.RatePerAddress = 0, 0
	return api.New(door, service, acc, floorAdmin, nil, tracing.None(), log, prometheus.NewRegistry()).Handler()
}

// instantStore knows everybody, and their sessions. Nothing else is asked of it.
type instantStore struct {
	handlers.Store
	ids counter

	mu       sync.Mutex // guards sessions
	sessions map[int64]sqlstore.Session
}

type counter struct{ n atomic.Int64 }

// NextID counts.
func (c *counter) NextID() (int64, error) { return c.n.Add(1), nil }

// Users gives whoever is asked for.
func (s *instantStore) Users(_ context.Context, ids []chat.UserID) ([]sqlstore.User, error) {
	var out []sqlstore.User
	for _, id := range ids {
		out = append(out, sqlstore.User{ID: id, Nickname: id.String()})
	}
	return out, nil
}

// CreateSession remembers.
func (s *instantStore) CreateSession(_ context.Context, v sqlstore.Session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[v.ID] = v
	return nil
}

// SessionByID gives what was remembered.
func (s *instantStore) SessionByID(_ context.Context, id int64) (sqlstore.Session, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, there := s.sessions[id]
	return v, there, nil
}

// instantSender numbers at once, and keeps nothing.
type instantSender struct{ last atomic.Int64 }

// Send gives the next number.
func (s *instantSender) Send(context.Context, *chat.Command) (sender.Outcome, error) {
	n := s.last.Add(1)
	return sender.Outcome{Numbered: true, First: chat.FirstEvent{Seq: n, MessageID: n, SentAt: time.Now().UnixMilli()}}, nil
}

// Begin is not for messages.
func (s *instantSender) Begin(context.Context, *chat.Command) (*sender.Pending, error) {
	return nil, chat.Refuse(chat.CodeUnsupported, "the floor takes messages only")
}
