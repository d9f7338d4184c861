//go:build unix

package pusher

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// attempt writes what a socket takes without waiting.
type attempt struct {
	b   []byte
	n   int
	err error
	run func(fd uintptr) bool // bound once, so that a write allocates nothing
}

var attempts = sync.Pool{New: func() any {
	a := &attempt{}
	a.run = func(fd uintptr) bool {
		for a.n < len(a.b) {
			n, err := syscall.Write(int(fd), a.b[a.n:])
			switch {
			case n > 0:
				a.n += n
			case errors.Is(err, syscall.EINTR):
			case errors.Is(err, syscall.EAGAIN):
				return true
			default:
				a.err = err
				return true
			}
		}
		return true
	}
	return a
}}

// rawConn gives access to the socket below a connection, or nil where there is none (TLS, pipes).
func rawConn(c net.Conn) syscall.RawConn {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// writeNow writes as much as the socket takes at once and gives how much that was. Where it cannot tell without waiting it
// writes nothing.
func writeNow(raw syscall.RawConn, b []byte) (int, error) {
	if raw == nil {
		return 0, nil
	}
	a := attempts.Get().(*attempt)
	a.b, a.n, a.err = b, 0, nil
	err := raw.Write(a.run)
	n := a.n
	if err == nil {
		err = a.err
	}
	a.b = nil
	attempts.Put(a)
	return n, err
}
