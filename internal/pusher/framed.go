package pusher

import (
	"bufio"
	"encoding/binary"
	"errors"
	"math"
	"net"
	"net/http"
)

// The library does not distinguish a close frame of one byte, which the protocol forbids, from one without a body. So the
// frames' headers are also read here, as they come from the network.

// tapping is a ResponseWriter whose hijacked connection is a framedConn.
type tapping struct{ http.ResponseWriter }

// Hijack takes the connection over from the HTTP server.
func (w tapping) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, errors.Join(errors.New("taking over the connection"), err)
	}
	return &framedConn{Conn: c}, rw, nil
}

// framedConn is a connection that notes the size of the client's close frame. It is read by one goroutine.
type framedConn struct {
	net.Conn
	left   uint64 // bytes of the payload under way
	header [14]byte
	have   int8 // bytes of the header under way

	closed    bool   // a close frame has begun
	closeSize uint64 // its size
}

// Read reads from the connection.
func (c *framedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.see(b[:n])
	return n, err //nolint:wrapcheck // it is the connection's own
}

func (c *framedConn) see(b []byte) {
	for len(b) > 0 {
		if c.left > 0 {
			n := min(c.left, uint64(len(b)))
			c.left -= n
			b = b[n:]
			continue
		}
		c.header[c.have], b = b[0], b[1:]
		c.have++
		c.endHeader()
	}
}

// endHeader takes a header that is complete.
func (c *framedConn) endHeader() {
	if c.have < 2 {
		return
	}
	size := uint64(c.header[1] & 0x7f)
	need := int8(2)
	switch size {
	case 126:
		need += 2
	case 127:
		need += 8
	}
	long := need
	if c.header[1]&0x80 != 0 {
		need += 4 // the mask
	}
	if c.have < need {
		return
	}
	switch long {
	case 4:
		size = uint64(binary.BigEndian.Uint16(c.header[2:]))
	case 10:
		size = binary.BigEndian.Uint64(c.header[2:])
	}
	if c.header[0]&0xf == opClose&0xf && !c.closed {
		c.closed, c.closeSize = true, size
	}
	c.left, c.have = min(size, math.MaxInt64), 0
}
