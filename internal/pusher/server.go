package pusher

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"tideline/pkg/chat"
)

// Subprotocols. A browser cannot set headers on a socket, so a token may come as the second of two subprotocols; it never
// stands in an address, which proxies log.
const (
	subprotocol  = "tideline.v1"
	bearerPrefix = "bearer."
)

// Sizes of buffers. What is read is small (requests, pings) and goes around the buffer when it is large; what is written
// goes around the library's buffer, which it only takes from the pool for close frames of its own.
const (
	readBuffer  = 256
	writeBuffer = 512
)

var writeBuffers sync.Pool

func (p *Pusher) newUpgrader() websocket.Upgrader {
	return websocket.Upgrader{
		HandshakeTimeout: p.cfg.WriteTimeout,
		ReadBufferSize:   readBuffer,
		WriteBufferSize:  writeBuffer,
		WriteBufferPool:  &writeBuffers,
		Subprotocols:     []string{subprotocol},
		CheckOrigin:      p.goodOrigin,
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			code := chat.CodeMalformed
			switch status {
			case http.StatusForbidden:
				code = chat.CodeForbidden
			case http.StatusMethodNotAllowed:
				code = chat.CodeMethodNotAllowed
			case http.StatusInternalServerError:
				code = chat.CodeInternal
			}
			p.turnAway(w, "handshake", chat.Refuse(code, "%s", strings.TrimPrefix(reason.Error(), "websocket: ")))
		},
	}
}

// goodOrigin tells whether a page of this origin may connect. Clients that are no browsers send none.
func (p *Pusher) goodOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	if u, err := url.Parse(origin); err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host) {
		return true
	}
	return slices.ContainsFunc(p.cfg.Origins, func(o string) bool { return o == "*" || strings.EqualFold(o, origin) })
}

// turnAway refuses a handshake in the contract's form.
func (p *Pusher) turnAway(w http.ResponseWriter, reason string, e *chat.Error) {
	p.metrics.turnedAway.WithLabelValues(reason).Inc()
	v := p.refuse(e, 0, "handshake")
	if v.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt((v.RetryAfter+999)/1000, 10))
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Sec-WebSocket-Version", "13") // the only one that the library speaks
	if e.Code == chat.CodeMethodNotAllowed {
		h.Set("Allow", http.MethodGet)
	}
	h.Set("X-Request-Id", v.RequestID)
	w.WriteHeader(chat.ReasonFor(e.Code).Status)
	_ = json.NewEncoder(w).Encode(struct {
		Error refusal `json:"error"`
	}{v})
}

// ServeHTTP is GET /v1/ws. It returns as soon as the connection is upgraded, so that what the HTTP server kept for the
// request is let go of.
func (p *Pusher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	address := p.proxies.Address(r)
	if reason, refused := p.enter(address); refused != nil {
		p.turnAway(w, reason, refused)
		return
	}
	var answer http.Header // the upgrader writes its own, and leaves out what the door has set
	if id := w.Header().Get("X-Request-Id"); id != "" {
		answer = http.Header{"X-Request-Id": {id}}
	}
	ws, err := p.upgrader.Upgrade(tapping{w}, r, answer)
	if err != nil {
		p.leaveHello(&hello{address})
		p.log.Debug("a handshake failed", "err", err)
		return
	}
	c := p.newConn(ws, address)
	p.mu.Lock()
	if p.draining {
		p.mu.Unlock()
		p.leaveHello(c.hello)
		_ = ws.Close()
		return
	}
	p.wg.Add(1) // before the drain can have begun to wait
	p.all[c] = struct{}{}
	p.metrics.connections.Set(float64(len(p.all)))
	p.mu.Unlock()
	if token := bearer(r); token != "" {
		// As if an auth frame had come first.
		body, _ := json.Marshal(authRequest{Token: token})
		c.mu.Lock()
		c.inFlight++
		c.inbox = append(c.inbox, request{op: "auth", body: body})
		c.driven = true
		p.hands.do(c.drive)
		c.mu.Unlock()
	}
	go c.read()
}

func bearer(r *http.Request) string {
	for _, s := range websocket.Subprotocols(r) {
		if token, ok := strings.CutPrefix(s, bearerPrefix); ok {
			return token
		}
	}
	return ""
}

// enter counts a connection that has not authenticated, or refuses its handshake.
func (p *Pusher) enter(address string) (reason string, refused *chat.Error) {
	if p.handshakes != nil {
		if wait := p.handshakes.Take(address); wait > 0 {
			return "rate", chat.Refuse(chat.CodeRateLimited, "this address makes more handshakes than are allowed").After(wait + p.retryAfter())
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.draining:
		return "draining", chat.Refuse(chat.CodeUnavailable, "this server stops").After(p.retryAfter())
	case len(p.all) >= p.cfg.MaxConnections:
		return "full", chat.Refuse(chat.CodeOverloaded, "this server has as many connections as it takes").After(p.retryAfter())
	case p.unauthenticated >= p.cfg.MaxUnauthenticated:
		return "unauthenticated", chat.Refuse(chat.CodeOverloaded, "too many connections have not said who they are").After(p.retryAfter())
	case p.addresses[address] >= p.cfg.MaxUnauthenticatedPerAddress:
		return "address", chat.Refuse(chat.CodeRateLimited, "too many connections of your address have not said who they are").After(p.retryAfter())
	}
	p.unauthenticated++
	p.addresses[address]++
	p.metrics.unauthenticated.Set(float64(p.unauthenticated))
	return "", nil
}

func (p *Pusher) leaveHello(h *hello) {
	if h == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unauthenticated--
	if p.addresses[h.address]--; p.addresses[h.address] <= 0 {
		delete(p.addresses, h.address)
	}
	p.metrics.unauthenticated.Set(float64(p.unauthenticated))
}

func (p *Pusher) newConn(ws *websocket.Conn, address string) *conn {
	nc := ws.NetConn()
	wire, _ := nc.(*framedConn)
	if wire != nil {
		nc = wire.Conn
	}
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: p.cfg.KeepAlive > 0, Idle: p.cfg.KeepAlive, Interval: p.cfg.KeepAlive, Count: 3})
	}
	serial := p.serial.Add(1)
	c := &conn{
		p: p, f: p.flushers[serial%uint64(len(p.flushers))], ws: ws, net: nc, raw: rawConn(nc), wire: wire, serial: serial,
		hello: &hello{address}, lastUnasked: -p.cfg.Window, bucket: bucket{tokens: float64(p.cfg.RequestBurst), at: p.clock()},
	}
	_ = nc.SetReadDeadline(time.Now().Add(p.cfg.AuthTimeout))
	return c
}

// forget lets go of a connection everywhere; it may be called twice.
func (p *Pusher) forget(c *conn) {
	c.mu.Lock()
	arrived, authed, caller, subs, watched, h := c.arrived, c.authed, c.caller, c.subs, c.watched, c.hello
	c.arrived, c.authed, c.subs, c.watched, c.hello, c.left = false, false, nil, nil, nil, nil
	c.mu.Unlock()
	p.leaveHello(h)
	p.mu.Lock()
	delete(p.all, c)
	p.metrics.connections.Set(float64(len(p.all)))
	p.mu.Unlock()
	for _, m := range subs {
		p.index.remove(m)
	}
	for _, id := range watched {
		p.index.watch(c, id, false)
		p.people.unwatch(c, peerOf(id, caller.User))
	}
	if arrived {
		p.index.leave(c, caller.User)
	}
	if authed {
		p.presence.Drop(caller.User, caller.Session)
	}
}

var errGone = errors.New("the connection has ended")
