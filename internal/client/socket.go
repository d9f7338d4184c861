package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// Socket is one connection that has said who it is. It is safe for concurrent use.
type Socket struct {
	ws      *websocket.Conn
	Welcome Welcome
	unasked func(Frame)
	ended   chan struct{} // closed when err is set

	silence atomic.Int64 // that is allowed, in nanoseconds; 0 until the welcome

	write sync.Mutex // held while a frame is written

	mu      sync.Mutex // guards what follows
	next    int64
	waiting map[string]chan Frame
	err     error
}

// Welcome answers auth.
type Welcome struct {
	User          string `json:"user_id"`
	Session       string `json:"session_id"`
	HeartbeatMS   int64  `json:"heartbeat_ms"`
	IdleTimeoutMS int64  `json:"idle_timeout_ms"`
	MaxFrameBytes int    `json:"max_frame_bytes"`
	ServerTime    int64  `json:"server_time"`
}

// Frame is what the server says, asked or unasked.
type Frame struct {
	ID           json.RawMessage `json:"id"`
	Op           string          `json:"op"`
	Result       json.RawMessage `json:"result"`
	Error        *Error          `json:"error"`
	Items        []Item          `json:"items"`
	Conversation string          `json:"conversation_id"`
	ReadSeq      int64           `json:"read_seq"`
	Reason       string          `json:"reason"`
}

// Item is an entry of a frame that was said unasked: of a hint or a receipt C and S, of presence User and Online, of typing
// Conversation and User.
type Item struct {
	C            string `json:"c"`
	S            int64  `json:"s"`
	User         string `json:"user_id"`
	Online       bool   `json:"online"`
	Conversation string `json:"conversation_id"`
}

// Closed is how a connection ended.
type Closed struct {
	Code       int // of the close frame; 1006 where there was none
	Name       string
	RetryAfter time.Duration
	Cause      error
}

// Error says how.
func (c *Closed) Error() string {
	return fmt.Sprintf("the connection was closed with %d %s: %v", c.Code, c.Name, c.Cause)
}

// Unwrap gives the cause.
func (c *Closed) Unwrap() error { return c.Cause }

// ComeBack tells whether to connect again.
func (c *Closed) ComeBack() bool { return c.Code < 4500 }

// Bounds of time.
const (
	writeTime = 10 * time.Second // for a frame to be written
	dialTime  = 20 * time.Second // for the welcome
)

// Dial connects and says who it is. What is said unasked is given to a function, from one goroutine; it must not block.
// It is an *Error where auth was refused.
func Dial(ctx context.Context, url, token string, unasked func(Frame)) (*Socket, error) {
	dialer := websocket.Dialer{HandshakeTimeout: dialTime, Proxy: http.ProxyFromEnvironment}
	ws, response, err := dialer.DialContext(ctx, url, nil)
	if err != nil {
		if response != nil {
			defer func() { _ = response.Body.Close() }()
			var refused struct{ Error Error }
			if json.NewDecoder(response.Body).Decode(&refused) == nil && refused.Error.Code != "" {
				refused.Error.Status = response.StatusCode
				return nil, &refused.Error
			}
		}
		return nil, fmt.Errorf("connecting to %s: %w", url, err)
	}
	s := &Socket{ws: ws, unasked: unasked, ended: make(chan struct{}), waiting: map[string]chan Frame{}}
	_ = ws.SetReadDeadline(time.Now().Add(dialTime))
	go s.read()
	if err := s.Ask(ctx, "auth", map[string]string{"token": token}, &s.Welcome); err != nil {
		s.Close()
		return nil, err
	}
	// Every ping is answered: a server that is silent for longer is gone.
	s.silence.Store((5 * s.Welcome.HeartbeatMS / 2) * int64(time.Millisecond))
	_ = ws.SetReadDeadline(time.Now().Add(time.Duration(s.silence.Load())))
	return s, nil
}

// Ask makes a request and waits for its answer. The fields are a struct or map that becomes a JSON object, or nil; out may
// be nil. A refusal is an *Error; where the connection ends first, the error wraps a *Closed.
func (s *Socket) Ask(ctx context.Context, op string, fields, out any) error {
	frame := map[string]any{}
	if fields != nil {
		text, err := json.Marshal(fields)
		if err == nil {
			err = json.Unmarshal(text, &frame)
		}
		if err != nil {
			return fmt.Errorf("encoding %s: %w", op, err)
		}
	}
	answer := make(chan Frame, 1)
	s.mu.Lock()
	s.next++
	id := strconv.FormatInt(s.next, 10)
	s.waiting[id] = answer
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiting, id)
		s.mu.Unlock()
	}()
	frame["id"], frame["op"] = json.RawMessage(id), op
	text, err := json.Marshal(frame)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", op, err)
	}
	if err := s.send(text); err != nil {
		return fmt.Errorf("asking %s: %w", op, s.untaken(ctx, err))
	}
	select {
	case f := <-answer:
		if f.Error != nil {
			return f.Error
		}
		if out == nil {
			return nil
		}
		if err := json.Unmarshal(f.Result, out); err != nil {
			return fmt.Errorf("reading the answer to %s: %w", op, err)
		}
		return nil
	case <-s.ended:
		select {
		case f := <-answer: // it came with the last frames
			if f.Error != nil {
				return f.Error
			}
			if out != nil {
				return json.Unmarshal(f.Result, out)
			}
			return nil
		default:
		}
		return fmt.Errorf("asking %s: %w", op, s.Err())
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Socket) send(frame []byte) error {
	s.write.Lock()
	defer s.write.Unlock()
	_ = s.ws.SetWriteDeadline(time.Now().Add(writeTime))
	return s.ws.WriteMessage(websocket.TextMessage, frame)
}

func (s *Socket) read() {
	for {
		var f Frame
		_, text, err := s.ws.ReadMessage()
		if err != nil {
			s.end(closedBy(err))
			return
		}
		if silence := s.silence.Load(); silence > 0 {
			_ = s.ws.SetReadDeadline(time.Now().Add(time.Duration(silence)))
		}
		if err := json.Unmarshal(text, &f); err != nil {
			s.end(&Closed{Code: websocket.CloseInvalidFramePayloadData, Name: "unreadable", Cause: err})
			return
		}
		if f.Result == nil && f.Error == nil {
			s.unasked(f)
			continue
		}
		s.mu.Lock()
		answer := s.waiting[string(f.ID)]
		s.mu.Unlock()
		if answer != nil {
			select {
			case answer <- f:
			default: // an answer twice: the first one counts
			}
		}
	}
}

func closedBy(err error) *Closed {
	c := &Closed{Code: websocket.CloseAbnormalClosure, Cause: err}
	var closed *websocket.CloseError
	if errors.As(err, &closed) {
		c.Code = closed.Code
		var reason struct {
			Code       string `json:"code"`
			RetryAfter int64  `json:"retry_after_ms"`
		}
		if json.Unmarshal([]byte(closed.Text), &reason) == nil {
			c.Name, c.RetryAfter = reason.Code, time.Duration(reason.RetryAfter)*time.Millisecond
		}
	}
	return c
}

func (s *Socket) end(err error) {
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	close(s.ended)
	_ = s.ws.Close()
}

// Ended is closed when the connection has ended.
func (s *Socket) Ended() <-chan struct{} { return s.ended }

// Err gives how the connection ended, a *Closed; nil while it stands.
func (s *Socket) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close closes the connection, and waits until it has ended.
func (s *Socket) Close() {
	_ = s.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
	s.awaitEnd(context.Background())
}

// awaitEnd gives the other side a moment to say how the connection ends, and ends it.
func (s *Socket) awaitEnd(ctx context.Context) {
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-s.ended:
		return
	case <-t.C:
	case <-ctx.Done():
	}
	_ = s.ws.Close()
	<-s.ended
}

// untaken tells how a connection ended that did not take a frame: what the server said at last counts, or else why it could not be
// written.
func (s *Socket) untaken(ctx context.Context, cause error) error {
	s.awaitEnd(ctx)
	var closed *Closed
	if err := s.Err(); errors.As(err, &closed) && closed.Code != websocket.CloseAbnormalClosure {
		return err
	}
	return &Closed{Code: websocket.CloseAbnormalClosure, Cause: cause}
}
