package api

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace/noop"
)

func bare(change func(*Config)) *Server {
	cfg := DefaultConfig()
	change(&cfg)
	return New(cfg, nil, nil, "", nil, noop.NewTracerProvider().Tracer(""), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

func ask(s *Server, method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, path, in)
	r.Header.Set("Content-Type", "application/json")
	s.handler.ServeHTTP(w, r)
	return w
}

// A client that does not read its answer holds no seat while it is written.
func TestSeats_AreFreeWhileAnAnswerIsWritten(t *testing.T) {
	s := bare(func(c *Config) { c.MaxRequests = 1 })
	writing, over := make(chan struct{}), make(chan struct{})
	s.engine.GET("/large", func(c *gin.Context) {
		close(writing)
		c.Data(http.StatusOK, "text/plain", make([]byte, 64<<20)) // more than any socket's buffers
		close(over)
	})
	server := httptest.NewServer(s.handler)
	defer server.Close()
	res, err := http.Get(server.URL + "/large") // returns with the head of the answer
	if err != nil {
		t.Fatal(err)
	}
	<-writing
	if got := ask(s, http.MethodGet, "/nothing", ""); got.Code != http.StatusNotFound {
		t.Errorf("beside an answer that is not read, the next request is answered %d: %s", got.Code, got.Body)
	}
	select {
	case <-over:
		t.Error("the answer fitted into the buffers: the test proves nothing")
	default:
	}
	_ = res.Body.Close()
	<-over
	server.Close() // waits until the request is over
	if len(s.seats) != 0 || len(s.underWay.of) != 0 {
		t.Errorf("%d seats and %d clients are left", len(s.seats), len(s.underWay.of))
	}
}

func TestSeats_OfLoginsAreTheirOwn(t *testing.T) {
	s := bare(func(*Config) {})
	for range cap(s.logins) {
		s.logins <- struct{}{}
	}
	for _, path := range []string{"/v1/users", "/v1/sessions"} {
		w := ask(s, http.MethodPost, path, "{")
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s with a full queue of logins is answered %d", path, w.Code)
		}
	}
	if w := ask(s, http.MethodPost, "/v1/sessions/refresh", "{"); w.Code != http.StatusBadRequest {
		t.Errorf("a refresh waits for logins: %d", w.Code)
	}
	s = bare(func(c *Config) { c.MaxRequests = 1 })
	s.seats <- struct{}{}
	if w := ask(s, http.MethodGet, "/v1/nothing", ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("without a seat a request is answered %d", w.Code)
	}
	if w := ask(s, http.MethodPost, "/v1/sessions", "{"); w.Code != http.StatusBadRequest {
		t.Errorf("a login needs a seat of others: %d", w.Code)
	}
	if len(s.logins) != 0 || len(s.seats) != 1 {
		t.Errorf("%d seats of logins and %d of others are taken", len(s.logins), len(s.seats))
	}
}

func TestBodies_LargeOnesShareABudget(t *testing.T) {
	s := bare(func(*Config) {})
	s.bodyBytes.Store(maxBodyBytes - 10<<10)
	if w := ask(s, http.MethodPost, "/v1/sessions", strings.Repeat("[", 30<<10)); w.Code != http.StatusServiceUnavailable {
		t.Errorf("beyond the budget: answered %d", w.Code)
	}
	for _, size := range []int{1, 3 << 10, 7 << 10} {
		if w := ask(s, http.MethodPost, "/v1/sessions", strings.Repeat("[", size)); w.Code != http.StatusBadRequest {
			t.Errorf("%d bytes within the budget: answered %d", size, w.Code)
		}
	}
	if left := s.bodyBytes.Load(); left != maxBodyBytes-10<<10 {
		t.Errorf("the budget lost %d bytes", left-(maxBodyBytes-10<<10))
	}
}

// Content-Length is only a word: memory follows what arrives.
func TestBodies_AnnouncedOnesTakeNoMemory(t *testing.T) {
	s := bare(func(*Config) {})
	counted := make(chan int64, 1)
	r := httptest.NewRequest(http.MethodPost, "/v1/sessions", io.MultiReader(strings.NewReader("{"), readerFunc(func([]byte) (int, error) {
		select {
		case counted <- s.bodyBytes.Load():
		default:
		}
		return 0, io.ErrUnexpectedEOF
	})))
	r.ContentLength = 512 << 10
	s.handler.ServeHTTP(httptest.NewRecorder(), r)
	select {
	case n := <-counted:
		if n != 0 {
			t.Errorf("%d bytes are counted after one has arrived", n)
		}
	case <-time.After(5 * time.Second):
		t.Error("the body was not read")
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
