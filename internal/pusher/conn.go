package pusher

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"tideline/internal/accounts"
	"tideline/pkg/chat"
)

// conn is one connection. It costs one goroutine, which reads; everything else borrows one for as long as there is work.
type conn struct {
	p      *Pusher
	f      *flusher
	ws     *websocket.Conn // for reading; what is written goes around it, see frames.go
	net    net.Conn
	wire   *framedConn     // nil where the connection was not taken over from an HTTP server
	raw    syscall.RawConn // nil where the socket cannot be written to without waiting
	serial uint64
	next   *conn // in a slot of the flusher's wheel; guarded by the flusher

	// Of the reading goroutine alone:
	bucket  bucket
	refused int // requests in a row that were too many

	mu     sync.Mutex // guards what follows
	hello  *hello     // until it has said who it is
	caller accounts.Caller
	out    outbox
	subs   []*membership
	left   map[chat.ConversationID]int64  // conversations that ended while connected, with the number of the leave
	news   map[chat.ConversationID]change // changes of membership while the memberships are loaded; nil otherwise

	inbox    []request
	sends    []request
	atWork   int           // requests that somebody works on
	inFlight int           // requests whose answers are not written yet, those at work included
	room     chan struct{} // closed when there is room for requests again; nil while nobody waits

	watched      []chat.ConversationID
	lastTyping   time.Duration
	talks        chat.ConversationID // the last private one typed in that both people have said something in
	lastUnasked  time.Duration
	lastDeadline time.Duration
	closeFrame   []byte
	quiet        chan struct{} // closed when the close frame was written, or cannot be; nil while nobody waits

	arrived bool // stands in the index
	authed  bool // and was told so: hints flow
	planned bool // stands with the flusher
	busy    bool // somebody writes
	driven  bool // somebody takes requests from the inbox
	sending bool // somebody takes requests from sends
	closing bool // nothing more is taken on
	gone    bool // the reading goroutine has ended
	byeSent bool // the close frame was written
}

// hello is what is kept of a connection until it has said who it is.
type hello struct {
	address string
}

// change is a change of a membership.
type change struct {
	seq     int64
	present bool
}

// Times of closing.
const (
	closeGrace = 2 * time.Second // for the client to answer a close frame
	slowGrace  = 5 * time.Second // for a client that was too slow to begin to read, so that it hears why
)

// maxHelloFrame is the largest frame of a connection that has not authenticated: a token of at most 2 KiB, with room. It is
// what such a connection can make this process keep. 5,000 of them are then 40 MB.
const maxHelloFrame = 8 << 10

var errTooLarge = errors.New("the frame is too large")

// read is the reading goroutine.
func (c *conn) read() {
	defer c.p.wg.Done()
	defer c.end()
	c.ws.SetPingHandler(c.ping)
	c.ws.SetPongHandler(c.pong)
	c.ws.SetCloseHandler(c.echoClose)
	for {
		limit := c.frameLimit()
		kind, r, err := c.ws.NextReader()
		if err != nil {
			c.readFailed(err)
			return
		}
		if c.isClosing() {
			continue // the library skips what is left of the frame
		}
		if kind != websocket.TextMessage {
			c.shut(CloseBadFrame, 0)
			continue
		}
		b, err := readFrame(r, limit)
		if errors.Is(err, errTooLarge) {
			c.shut(CloseFrameTooLarge, 0)
			continue
		}
		if err != nil {
			c.readFailed(err)
			return
		}
		c.touch()
		c.accept(b)
	}
}

// frameLimit returns the size that the next frame may have. While auth is under way it waits: until then nothing more of
// the client is read, so that what is kept of it is one frame.
func (c *conn) frameLimit() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.arrived && c.inFlight > 0 && !c.closing {
		c.waitForRoom()
	}
	if c.arrived || c.closing {
		return c.p.cfg.MaxFrameBytes
	}
	return min(maxHelloFrame, c.p.cfg.MaxFrameBytes)
}

// waitForRoom waits until an answer was written or the connection closes. c.mu is held, and released while waiting.
func (c *conn) waitForRoom() {
	if c.room == nil {
		c.room = make(chan struct{})
	}
	room := c.room
	c.mu.Unlock()
	<-room
	c.mu.Lock()
}

var scratch = sync.Pool{New: func() any { b := make([]byte, 4096); return &b }}

// readFrame returns a copy of the frame in a slice of just its size. Its buffer never has more bytes than limit.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	p := scratch.Get().(*[]byte)
	defer func() {
		if p != nil {
			scratch.Put(p)
		}
	}()
	b := (*p)[:min(len(*p), limit)]
	n := 0
	for {
		if n == limit { // full: the frame must end here
			var more [1]byte
			switch m, err := r.Read(more[:]); {
			case m > 0:
				return nil, errTooLarge
			case err == io.EOF:
				return append(make([]byte, 0, n), b[:n]...), nil
			case err != nil:
				return nil, err
			}
			continue
		}
		m, err := r.Read(b[n:])
		n += m
		if err == io.EOF {
			return append(make([]byte, 0, n), b[:n]...), nil
		}
		if err != nil {
			return nil, err
		}
		if n == len(b) && n < limit {
			grown := make([]byte, min(2*len(b), limit))
			copy(grown, b)
			b = grown // too large for the pool
			if p != nil {
				scratch.Put(p)
				p = nil
			}
		}
	}
}

// readFailed closes a connection from which nothing more can be read.
func (c *conn) readFailed(err error) {
	var closed *websocket.CloseError
	var broken net.Error
	switch {
	case errors.As(err, &broken) && broken.Timeout():
		c.mu.Lock()
		authed := c.authed
		c.mu.Unlock()
		if authed {
			c.shut(CloseIdle, 0)
		} else {
			c.shut(CloseAuthTimeout, c.p.retryAfter())
		}
	case errors.As(err, &closed), errors.As(err, &broken), errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
	default:
		if errors.Is(err, websocket.ErrReadLimit) { // a length of 2^63 or more, which the library only returns
			c.bye(websocket.FormatCloseMessage(websocket.CloseProtocolError, ""))
		}
		// A broken protocol, of which the library has told the client in a close frame of the standard. What is still on
		// its way is read, because closing a socket with unread bytes can destroy what was written to it.
		c.shut(CloseBadFrame, 0)
		_ = c.net.SetReadDeadline(time.Now().Add(closeGrace))
		_, _ = io.CopyN(io.Discard, c.net, 4<<20)
	}
}

// end lets go of everything. It runs once, when the reading goroutine ends.
func (c *conn) end() {
	c.mu.Lock()
	c.closing, c.gone = true, true
	c.wakeReader()
	var quiet chan struct{}
	if c.closeFrame != nil && !c.byeSent && c.busy {
		quiet = make(chan struct{})
		c.quiet = quiet
	}
	c.mu.Unlock()
	c.p.forget(c)
	if quiet != nil { // somebody else is about to write the close frame
		grace := time.NewTimer(closeGrace)
		defer grace.Stop()
		select {
		case <-quiet:
		case <-grace.C:
		}
	}
	_ = c.net.Close()
}

func (c *conn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

// touch notes that the client lives. The deadline moves only when it is a good part of the way: moving it costs more than
// looking at a clock.
func (c *conn) touch() {
	now := c.p.clock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.authed || c.closing || now-c.lastDeadline < c.p.cfg.IdleTimeout/8 {
		return
	}
	c.lastDeadline = now
	_ = c.net.SetReadDeadline(time.Now().Add(c.p.cfg.IdleTimeout))
	c.p.presence.Renew(c.caller.User, c.caller.Session)
}

// ping answers a ping frame. It counts as a request; one too many is not answered.
func (c *conn) ping(data string) error {
	if !c.control() {
		return nil
	}
	c.touch()
	c.mu.Lock()
	if !c.closing {
		c.out.pong(data)
	}
	c.push()
	return nil
}

// pong takes a pong frame, for which nothing asked: the server never pings.
func (c *conn) pong(string) error {
	if c.control() {
		c.touch()
	}
	return nil
}

// control counts a control frame as a request, and reports whether it is within the limit. Reading goroutine only.
func (c *conn) control() bool {
	if c.isClosing() {
		return false
	}
	if c.take() > 0 {
		c.p.metrics.floods.Inc()
		return false
	}
	return true
}

// take takes a request from the connection's bucket, or returns how long there is none. A client that goes on all the same
// is closed. Reading goroutine only.
func (c *conn) take() time.Duration {
	wait := c.bucket.take(c.p.clock(), c.p.cfg.RequestsPerSecond, c.p.cfg.RequestBurst)
	switch {
	case wait == 0:
		c.refused = 0
	case c.refused >= maxRefusalsInARow:
		c.shut(CloseRateLimited, time.Second+c.p.retryAfter())
	default:
		c.refused++
	}
	return wait
}

// echoClose answers a close frame of the client.
func (c *conn) echoClose(code int, _ string) error {
	payload := []byte{}
	if code == websocket.CloseNoStatusReceived && c.wire != nil && c.wire.closeSize > 0 { // one byte, half a code
		code = websocket.CloseProtocolError
	}
	if code != websocket.CloseNoStatusReceived {
		payload = []byte{byte(code >> 8), byte(code)}
	}
	c.bye(payload)
	return nil
}

// shut closes the connection with a code, after the answers that are there.
func (c *conn) shut(code CloseCode, retryAfter time.Duration) {
	if c.bye(code.payload(retryAfter)) {
		c.p.metrics.closed.WithLabelValues(code.String()).Inc()
	}
}

func (c *conn) bye(payload []byte) bool {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return false
	}
	c.closing = true
	c.closeFrame = appendFrame(nil, opClose, payload)
	c.out.hints, c.out.rare = nil, nil
	c.wakeReader()
	c.push()
	return true
}

// wakeReader lets a reader go on that waits for room. c.mu is held.
func (c *conn) wakeReader() {
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
}

// wakeEnd lets the reading goroutine end that waits for the close frame to be written. c.mu is held.
func (c *conn) wakeEnd() {
	if c.quiet != nil {
		close(c.quiet)
		c.quiet = nil
	}
}

// hint notes that a conversation is at seq.
func (c *conn) hint(m *membership, seq int64, now time.Duration) (coalesced bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return false
	}
	coalesced = c.out.hint(m, seq)
	c.plan(now)
	return coalesced
}

// unasked notes something else that is said unasked.
func (c *conn) unasked(note func(o *outbox)) {
	now := c.p.clock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || !c.authed {
		return
	}
	note(&c.out)
	c.plan(now)
}

// plan hands the connection to its flusher, if something waits that nobody writes. c.mu is held.
func (c *conn) plan(now time.Duration) {
	if c.planned || c.busy || c.closing || !c.authed || !c.out.unasked() {
		return
	}
	c.planned = true
	if due := c.lastUnasked + c.p.cfg.Window; due <= now {
		c.f.now(c)
	} else {
		c.f.later(c, due)
	}
}

// flush is the flusher's call.
func (c *conn) flush() {
	c.mu.Lock()
	c.planned = false
	c.push()
}

// answer queues the answer to a request, whose place is free again once it was written.
func (c *conn) answer(frame reply) {
	c.mu.Lock()
	if c.closing {
		c.inFlight--
		c.wakeReader()
		c.mu.Unlock()
		return
	}
	c.out.answers = append(c.out.answers, frame)
	c.push()
}

// written says what a piece was that was written.
type written uint8

const (
	wroteAnswer written = iota + 1
	wroteUnasked
	wrotePong
	wroteClose
)

// nextPiece gives the next piece to be written; it has no bytes where there is none. c.mu is held.
func (c *conn) nextPiece() (reply, written) {
	if c.byeSent {
		return reply{}, 0
	}
	if b := c.out.takePong(); b != nil && c.closeFrame == nil {
		return reply{bytes: b}, wrotePong
	}
	if len(c.out.answers) > 0 {
		r := c.out.answers[0]
		c.out.answers[0] = reply{}
		if c.out.answers = c.out.answers[1:]; len(c.out.answers) == 0 {
			c.out.answers = nil
		}
		return r, wroteAnswer
	}
	if c.closeFrame != nil {
		return reply{bytes: c.closeFrame}, wroteClose
	}
	if c.authed && c.out.unasked() {
		if now := c.p.clock(); now >= c.lastUnasked+c.p.cfg.Window {
			b, n := c.out.takeUnasked(c.p.cfg.HintItems)
			c.lastUnasked = now
			c.p.metrics.frames.Add(float64(n))
			return reply{bytes: b}, wroteUnasked
		}
	}
	return reply{}, 0
}

// push writes what there is, without waiting, unless somebody writes already, who will take it along. c.mu is held and
// is released.
func (c *conn) push() {
	if c.busy {
		c.mu.Unlock()
		return
	}
	c.busy = true
	for {
		piece, what := c.nextPiece()
		b := piece.bytes
		if b == nil {
			c.busy = false
			c.plan(c.p.clock())
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		n, err := writeNow(c.raw, b)
		if err != nil {
			c.fail()
			return
		}
		if n < len(b) {
			c.p.metrics.blocked.Inc()
			c.p.wg.Go(func() { defer c.p.metrics.blocked.Dec(); c.finish(piece, n, what) })
			return
		}
		c.p.metrics.bytes.Add(float64(len(b)))
		piece.free()
		c.mu.Lock()
		c.wrote(what)
	}
}

// wrote notes that a piece was written. c.mu is held.
func (c *conn) wrote(what written) {
	switch what {
	case wroteAnswer:
		c.inFlight--
		c.wakeReader()
	case wroteClose:
		c.byeSent = true
		c.wakeEnd()
		// The client has this long to answer; then the reading goroutine ends.
		_ = c.net.SetReadDeadline(time.Now().Add(closeGrace))
	}
}

// finish writes the rest of a piece that the socket did not take at once, and whatever has come up meanwhile.
func (c *conn) finish(piece reply, from int, what written) {
	for {
		rest := piece.bytes[from:]
		for len(rest) > 0 {
			// Each stretch has the whole time: a large answer over a thin line is not slow, a line that does not move is.
			stretch := rest[:min(len(rest), 64<<10)]
			_ = c.net.SetWriteDeadline(time.Now().Add(c.p.cfg.WriteTimeout))
			n, err := c.net.Write(stretch)
			c.p.metrics.bytes.Add(float64(n))
			rest = rest[n:]
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				c.slow(rest, what)
				return
			}
			if err != nil {
				c.fail()
				return
			}
		}
		_ = c.net.SetWriteDeadline(time.Time{})
		piece.free()
		c.mu.Lock()
		c.wrote(what)
		if piece, what = c.nextPiece(); piece.bytes == nil {
			c.busy = false
			c.plan(c.p.clock())
			c.mu.Unlock()
			return
		}
		from = 0
		c.mu.Unlock()
	}
}

// fail ends a connection that cannot be written to. It stays busy, so that nobody else tries.
func (c *conn) fail() {
	c.mu.Lock()
	c.closing = true
	c.out = outbox{}
	c.wakeReader()
	c.wakeEnd()
	c.mu.Unlock()
	_ = c.net.Close()
}

// slow ends a connection whose client did not read in time. Its memory is let go of at once; then the client has a last
// while to take the rest of the frame and the reason. The connection stays busy.
func (c *conn) slow(rest []byte, what written) {
	c.mu.Lock()
	c.closing = true
	c.out = outbox{}
	c.inbox, c.sends = nil, nil
	c.wakeReader()
	c.mu.Unlock()
	if what != wroteClose {
		c.p.metrics.closed.WithLabelValues(CloseSlowConsumer.String()).Inc()
		rest = appendFrame(append([]byte(nil), rest...), opClose, CloseSlowConsumer.payload(c.p.retryAfter()))
	}
	c.p.forget(c)
	_ = c.net.SetWriteDeadline(time.Now().Add(slowGrace))
	if _, err := c.net.Write(rest); err != nil {
		_ = c.net.Close()
		return
	}
	_ = c.net.SetReadDeadline(time.Now().Add(closeGrace))
}
