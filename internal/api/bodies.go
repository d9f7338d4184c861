package api

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/gin-gonic/gin"

	"tideline/pkg/chat"
)

// How fast a body must arrive. A body that is not there within bodyWithin, or that has fallen below bodyRate once
// bodyGrace has passed, is refused. A phone on a bad line reaches several KiB/s; the largest message then takes most of
// the ten seconds. Connections with slow bodies hold no seat, but each holds a goroutine and what has arrived.
const (
	bodyWithin = 10 * time.Second
	bodyGrace  = 2 * time.Second
	bodyRate   = 1 << 10 // bytes a second
)

// Memory for bodies grows as bytes arrive, whatever Content-Length says.
const (
	// firstBody is the size of the first buffer. Nearly every request fits, and it is not counted.
	firstBody = 4 << 10
	// maxBodyBytes bounds the memory of all larger bodies together: 512 of the largest that the default http.max-body allows.
	maxBodyBytes = 256 << 20
)

// payload is the body of a request, read before the request gets a seat.
type payload struct {
	bytes   []byte
	counted int64       // bytes taken from the budget of all bodies
	fault   *chat.Error // why it is not whole; reported by the calls that take a body
}

// readBody reads the body of a request. Its error is for requests that end here, whatever they ask for: the body came too
// slowly, or there is no memory for it.
func (s *Server) readBody(c *gin.Context, v *visit) (reason string, refused *chat.Error) {
	body := c.Request.Body
	if body == nil || body == http.NoBody {
		return "", nil
	}
	announced := c.Request.ContentLength
	if announced > s.cfg.MaxBody { // refused unread; with Expect: 100-continue it is not even sent
		c.Header("Connection", "close")
		v.payload.fault = s.tooLarge()
		return "", nil
	}
	body = http.MaxBytesReader(c.Writer, body, s.cfg.MaxBody)
	connection := http.NewResponseController(c.Writer)
	started := time.Now()
	size := int64(firstBody)
	if announced >= 0 {
		size = min(size, announced+1) // one more, so that the end is found without growing
	}
	b := make([]byte, 0, size)
	for {
		due := min(bodyGrace+time.Duration(len(b))*time.Second/bodyRate, bodyWithin)
		_ = connection.SetReadDeadline(started.Add(due)) // fails only without a network, in tests
		n, err := body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		var large *http.MaxBytesError
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			v.payload.bytes = b
			// The deadline must not end the request while it is worked on: the HTTP server goes on reading, to notice that
			// the client hung up.
			_ = connection.SetReadDeadline(time.Time{})
			return "", nil
		case errors.As(err, &large):
			v.payload.fault = s.tooLarge()
			return "", nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			c.Header("Connection", "close")
			return "slow_body", chat.Refuse(chat.CodeBodyTimeout, "the body must arrive within %s, and at least %d bytes a second after %s", bodyWithin, bodyRate, bodyGrace)
		default:
			c.Header("Connection", "close")
			v.payload.fault = chat.Refuse(chat.CodeMalformed, "the body could not be read").Because(err)
			return "", nil
		}
		if len(b) < cap(b) {
			continue
		}
		grown := int64(2 * cap(b))
		if announced >= 0 {
			grown = min(grown, announced+1)
		}
		grown = min(max(grown, int64(cap(b))+1), s.cfg.MaxBody+1)
		if !s.takeMemory(v, grown) {
			c.Header("Connection", "close")
			return "body_memory", chat.Refuse(chat.CodeOverloaded, "too many large bodies are under way").After(time.Second)
		}
		b = append(make([]byte, 0, grown), b...)
	}
}

func (s *Server) tooLarge() *chat.Error {
	return chat.Refuse(chat.CodeTooLarge, "the body is over %d bytes", s.cfg.MaxBody)
}

// takeMemory counts a body that grows to size against the budget of all bodies.
func (s *Server) takeMemory(v *visit, size int64) bool {
	more := size - v.payload.counted
	if s.bodyBytes.Add(more) > max(maxBodyBytes, 4*s.cfg.MaxBody) {
		s.bodyBytes.Add(-more)
		return false
	}
	v.payload.counted = size
	return true
}

// freeMemory returns what a body took from the budget.
func (s *Server) freeMemory(v *visit) {
	s.bodyBytes.Add(-v.payload.counted)
	v.payload.counted = 0
}
