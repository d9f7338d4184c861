package api

import (
	"crypto/subtle"
	"net/http"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"tideline/internal/edge"
	"tideline/pkg/chat"
)

// maxLogins bounds the logins and registrations that wait for their password to be hashed. Two are hashed at a time, about
// fifty a second: the last of 256 waits five seconds, within every client's patience. They take no seat of other requests.
const maxLogins = 256

// client is what requests under way are counted by: the person of a valid access token, or else the address.
type client struct {
	user    chat.UserID
	address string
}

// underWay counts requests of each client from before their bodies are read until they are answered. Its size is bounded by
// the number of connections. It is safe for concurrent use.
type underWay struct {
	mu sync.Mutex // guards of
	of map[client]int
}

func (u *underWay) enter(who client, most int) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of[who] >= most {
		return false
	}
	u.of[who]++
	return true
}

func (u *underWay) leave(who client) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of[who]--; u.of[who] <= 0 {
		delete(u.of, who)
	}
}

// enter counts a request of its client; leave must be called once it is over. The token is judged by its signature and
// time alone: this must not wait for the store. An administrator is not counted.
func (s *Server) enter(c *gin.Context) (leave func(), reason string, refused *chat.Error) {
	who, most, by := client{}, s.cfg.MaxPerUser, "user"
	token, given := edge.Bearer(c.Request)
	switch {
	case given && s.isAdminToken(token):
		return func() {}, "", nil
	case given:
		who.user, _ = s.accounts.Signed(token)
	}
	if who.user == 0 {
		who.address, most, by = s.proxies.Address(c.Request), s.cfg.MaxPerAddress, "address"
	}
	if !s.underWay.enter(who, most) {
		return nil, by, chat.Refuse(chat.CodeRateLimited, "this %s has %d requests under way, more are not allowed", by, most).After(time.Second)
	}
	return func() { s.underWay.leave(who) }, "", nil
}

func (s *Server) isAdminToken(token string) bool {
	want := s.admin.Reveal()
	return want != "" && subtle.ConstantTimeCompare([]byte(token), []byte(want)) == 1
}

// seatsOf returns the seats of a request: calls that hash a password have their own.
func (s *Server) seatsOf(c *gin.Context) (seats chan struct{}, reason string) {
	if c.Request.Method == http.MethodPost && (c.FullPath() == "/v1/sessions" || c.FullPath() == "/v1/users") ||
		c.Request.Method == http.MethodPut && c.FullPath() == "/v1/users/me/password" {
		return s.logins, "logins"
	}
	return s.seats, "seats"
}

// seated is the writer of an answer. The first byte frees the seat: a client that reads its answer slowly holds nothing
// that others need.
type seated struct {
	gin.ResponseWriter
	seats chan struct{} // nil once the seat is free
}

func (w *seated) free() {
	if w.seats != nil {
		<-w.seats
		w.seats = nil
	}
}

// Write frees the seat and writes.
func (w *seated) Write(b []byte) (int, error) {
	w.free()
	return w.ResponseWriter.Write(b)
}

// WriteString frees the seat and writes.
func (w *seated) WriteString(text string) (int, error) {
	w.free()
	return w.ResponseWriter.WriteString(text)
}

// turnAway refuses a request that has no seat.
func (s *Server) turnAway(c *gin.Context, reason string, refused *chat.Error) {
	s.turnedAway.WithLabelValues(reason).Inc()
	s.refuse(c, refused)
	s.counted(c)
}
