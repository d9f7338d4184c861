package pusher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"tideline/internal/accounts"
	"tideline/internal/handlers"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// request is a frame of a client, on its way to an answer.
type request struct {
	frame []byte
	wait  time.Duration // not 0: it came too early by this much and is refused

	id   json.RawMessage
	op   string
	body []byte // without id and op
}

// maxRefusalsInARow is how often a client may go on although it was told that its requests are too many.
const maxRefusalsInARow = 200

// accept takes a frame. It waits where the client does not take its answers. Reading goroutine only.
func (c *conn) accept(frame []byte) {
	r := request{frame: frame}
	r.wait = c.take()
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return
	}
	c.inFlight++
	c.inbox = append(c.inbox, r)
	if !c.driven {
		c.driven = true
		// Not here: the reading goroutine's stack would grow to what a request needs and stay so.
		c.p.hands.do(c.drive)
	}
	// Up to InFlight are worked on, as many again are told to come back, and then the socket has to wait.
	for c.inFlight >= 2*c.p.cfg.InFlight && !c.closing {
		c.waitForRoom()
	}
	c.mu.Unlock()
}

// drive takes requests from the inbox in order.
func (c *conn) drive() {
	for {
		c.mu.Lock()
		if len(c.inbox) == 0 || c.closing {
			c.inFlight -= len(c.inbox)
			c.driven, c.inbox = false, nil
			c.wakeReader()
			c.mu.Unlock()
			return
		}
		r := c.inbox[0]
		c.inbox[0] = request{}
		if c.inbox = c.inbox[1:]; len(c.inbox) == 0 {
			c.inbox = nil
		}
		crowded := c.atWork >= c.p.cfg.InFlight
		authed := c.authed
		c.mu.Unlock()
		if c.handle(r, authed, crowded) {
			return
		}
	}
}

// handle answers a request, or hands it to somebody who will. Where nothing waits behind it, it is worked on here; over tells
// that it was, and that somebody else takes what has come meanwhile.
func (c *conn) handle(r request, authed, crowded bool) (over bool) {
	hand := func(here bool, work func()) bool {
		if here {
			work()
		} else {
			c.p.hands.do(work)
		}
		return here
	}
	var err error
	if r.frame != nil { // otherwise it came with the handshake
		err = r.parse()
	}
	switch {
	case !authed && (err != nil || r.op != "auth"):
		c.reply(&r, nil, chat.Refuse(chat.CodeUnauthenticated, "the first frame must be auth"))
		c.shut(CloseBadFrame, 0)
	case err != nil:
		c.reply(&r, nil, err)
	case r.wait > 0:
		c.reply(&r, nil, chat.Refuse(chat.CodeRateLimited, "too many requests on this connection").After(r.wait))
	case r.op == "auth":
		c.auth(&r)
	case r.op == "ping":
		c.reply(&r, pong{ServerTime: time.Now().UnixMilli()}, nil)
	case crowded:
		c.reply(&r, nil, chat.Refuse(chat.CodeOverloaded, "more than %d requests of this connection are in flight", c.p.cfg.InFlight).After(100*time.Millisecond))
	case r.op == "unwatch":
		result, err := c.unwatch(r.body)
		c.reply(&r, result, err)
	case r.op == "watch":
		_, here := c.begin(nil)
		return hand(here, func() { c.work(&r, c.watch) })
	case r.op == "typing":
		_, here := c.begin(nil)
		return hand(here, func() { c.work(&r, c.typing) })
	case r.op == "send":
		// What is said on one connection is numbered in the order in which it was said.
		if start, here := c.begin(&r); start {
			return hand(here, c.sendAll)
		}
	case slices.Contains(doorOps, r.op):
		_, here := c.begin(nil)
		return hand(here, func() { c.work(&r, c.throughDoor(r.op)) })
	default:
		c.reply(&r, nil, chat.RefuseField(chat.CodeInvalidField, "op", "%.40q is no request", r.op))
	}
	return false
}

// begin counts a request that is worked on. One that is given stands in the row of sends; start tells that nobody works on
// that row, and here that nothing else waits: then the one who drives works, and drives no more.
func (c *conn) begin(send *request) (start, here bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.atWork++
	start = true
	if send != nil {
		c.sends = append(c.sends, *send)
		start = !c.sending
		c.sending = true
	}
	if start && len(c.inbox) == 0 {
		here, c.driven = true, false
	}
	return start, here
}

func (c *conn) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.atWork--
}

// doorOps are the requests that go the same way as over HTTP.
var doorOps = []string{"send", "pull", "sync", "read"}

type pong struct {
	ServerTime int64 `json:"server_time"`
}

func (c *conn) sendAll() {
	for {
		c.mu.Lock()
		if len(c.sends) == 0 {
			c.sending, c.sends = false, nil
			c.mu.Unlock()
			return
		}
		r := c.sends[0]
		c.sends = c.sends[1:]
		c.mu.Unlock()
		c.work(&r, c.throughDoor("send"))
	}
}

func (c *conn) throughDoor(op string) func(context.Context, []byte) (any, error) {
	return func(ctx context.Context, body []byte) (any, error) {
		ctx, span := c.p.tracer.Start(ctx, "socket "+op, trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		result, err := c.p.door.Do(ctx, c.who(), op, body)
		if err != nil && span.IsRecording() {
			span.SetStatus(codes.Error, string(chat.CodeOf(err)))
		}
		return result, err
	}
}

func (c *conn) who() accounts.Caller {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.caller
}

// work does a request with a worker's seat and within its time.
func (c *conn) work(r *request, do func(context.Context, []byte) (any, error)) {
	ctx, cancel := context.WithTimeout(c.p.base, c.p.cfg.RequestTimeout)
	defer cancel()
	defer c.done()
	if err := c.p.seat(ctx); err != nil {
		c.reply(r, nil, err)
		return
	}
	defer c.p.unseat()
	began := time.Now()
	result, err := c.p.guard(func() (any, error) { return do(ctx, r.body) })
	c.p.metrics.took.WithLabelValues(r.op).Observe(time.Since(began).Seconds())
	c.reply(r, result, err)
}

// reply answers a request.
func (c *conn) reply(r *request, result any, err error) {
	var text []byte
	if err == nil {
		switch v := result.(type) {
		case handlers.Answer:
			text = v.JSON
			defer v.Free() // it stands in the frame then
		case nil:
			text = []byte("{}")
		default:
			text, err = json.Marshal(v)
		}
	}
	op := r.op
	if op == "" {
		op = "error"
	}
	if errors.Is(err, errGone) { // the client hung up: no answer can arrive, and nothing failed
		c.p.log.Debug("client hung up during a request", "op", op)
		c.answer(reply{})
		return
	}
	if err != nil {
		v := c.p.refuse(err, c.serial, op)
		c.answer(answer(r.id, op, nil, &v))
		return
	}
	c.answer(answer(r.id, op, text, nil))
}

// refuse gives the contract's form of an error. What clients may not see is logged.
func (p *Pusher) refuse(err error, serial uint64, op string) refusal {
	requestID := fmt.Sprintf("%s-%d-%d", p.id, serial, p.refusals.Add(1))
	var e *chat.Error
	if !errors.As(err, &e) {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			e = chat.Refuse(chat.CodeUnavailable, "something behind the door does not answer in time").After(2 * time.Second)
		} else {
			e = chat.Refuse(chat.CodeInternal, "our fault; the log has the truth under the request id")
		}
		p.log.Error("a request on a socket failed", "request_id", requestID, "op", op, "err", err)
	}
	p.metrics.refused.WithLabelValues(string(e.Code)).Inc()
	return refusal{
		Code: e.Code, Message: e.Message, Field: e.Field, Retryable: chat.ReasonFor(e.Code).Retryable, RetryAfter: e.RetryAfter.Milliseconds(), RequestID: requestID,
	}
}

// guard turns a panic of one request into its failure: other people's connections are in the same process.
func (p *Pusher) guard(do func() (any, error)) (result any, err error) {
	defer func() {
		if v := recover(); v != nil {
			p.log.Error("a request panicked", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			result, err = nil, fmt.Errorf("a request panicked: %v", v)
		}
	}()
	return do()
}

// seat waits for a worker's seat. Not more than MaxQueued wait.
func (p *Pusher) seat(ctx context.Context) error {
	select {
	case p.seats <- struct{}{}:
		return nil
	default:
	}
	overloaded := chat.Refuse(chat.CodeOverloaded, "too many requests are under way").After(time.Second)
	if p.queued.Add(1) > int64(p.cfg.MaxQueued) {
		p.queued.Add(-1)
		return overloaded
	}
	defer p.queued.Add(-1)
	select {
	case p.seats <- struct{}{}:
		return nil
	case <-ctx.Done():
		return overloaded
	}
}

func (p *Pusher) unseat() { <-p.seats }

// maxID bounds the id of a request.
const maxID = 64

// parse takes a frame apart: one JSON object with id and op; the rest is the body. What could be read of id and op is
// there even when the frame is refused.
func (r *request) parse() error {
	frame := r.frame
	r.frame = nil
	fields, err := wire.OpenEnvelope(frame)
	if err != nil {
		return chat.Refuse(chat.CodeMalformed, "the frame is not a JSON object, with each field once").Because(err)
	}
	id := json.RawMessage(fields.ID)
	idFault := chat.RefuseField(chat.CodeInvalidField, "id", "is not a number or a string of at most %d bytes", maxID)
	if len(id) == 0 || len(id) > maxID || !(id[0] == '"' || id[0] == '-' || id[0] >= '0' && id[0] <= '9') {
		id, idFault.Cause = nil, errNoID
	}
	r.id = id
	var op string
	if err := json.Unmarshal(fields.Op, &op); err != nil || op == "" || len(op) > 40 {
		return chat.RefuseField(chat.CodeInvalidField, "op", "is not the name of a request")
	}
	r.op = op
	if id == nil {
		return idFault
	}
	if r.body = fields.Body; r.body == nil {
		r.body = []byte("{}")
	}
	return nil
}

var errNoID = errors.New("no usable id")
