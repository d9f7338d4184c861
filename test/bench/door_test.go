package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// door is an HTTP connection that costs the generator as little as possible: requests are bytes that are ready, and of an
// answer it reads the status and the body. It is not safe for concurrent use.
type door struct {
	conn net.Conn
	r    *bufio.Reader
	body []byte
}

// patience bounds every wait for an answer.
const patience = 30 * time.Second

func openDoor(addr string) (*door, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	return &door{conn: conn, r: bufio.NewReaderSize(conn, 16<<10)}, nil
}

func (d *door) close() { _ = d.conn.Close() }

// request makes the bytes of one.
func request(method, path, token string, body []byte) []byte {
	b := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: tideline\r\nAuthorization: Bearer %s\r\n", method, path, token)
	if body != nil {
		b = fmt.Appendf(b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	return append(append(b, "\r\n"...), body...)
}

var (
	contentLength = []byte("Content-Length: ")
	chunked       = []byte("Transfer-Encoding: chunked")
)

// ask sends a request and gives status and body of its answer; the body is valid until the next call.
func (d *door) ask(request []byte) (int, []byte, error) {
	_ = d.conn.SetDeadline(time.Now().Add(patience))
	if _, err := d.conn.Write(request); err != nil {
		return 0, nil, err
	}
	line, err := d.line()
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 12 {
		return 0, nil, fmt.Errorf("the answer begins with %q", line)
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, nil, fmt.Errorf("the answer begins with %q", line)
	}
	length, inChunks := 0, false
	for {
		if line, err = d.line(); err != nil {
			return status, nil, err
		}
		if len(line) == 0 {
			break
		}
		if bytes.HasPrefix(line, contentLength) {
			if length, err = strconv.Atoi(string(line[len(contentLength):])); err != nil {
				return status, nil, err
			}
		}
		inChunks = inChunks || bytes.Equal(line, chunked)
	}
	d.body = d.body[:0]
	if !inChunks {
		return status, d.body, d.take(length)
	}
	for {
		if line, err = d.line(); err != nil {
			return status, nil, err
		}
		n, err := strconv.ParseInt(string(line), 16, 32)
		if err != nil {
			return status, nil, err
		}
		if err := d.take(int(n)); err != nil {
			return status, nil, err
		}
		if _, err := d.line(); err != nil {
			return status, nil, err
		}
		if n == 0 {
			return status, d.body, nil
		}
	}
}

// get is ask, as a body that is taken after the fact.
func (d *door) get(request []byte) ([]byte, error) {
	status, _, err := d.ask(request)
	if err != nil {
		return nil, err
	}
	if status < 200 || status > 201 {
		return nil, fmt.Errorf("answered %d: %.200s", status, d.body)
	}
	return d.body, nil
}

func (d *door) line() ([]byte, error) {
	line, err := d.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

func (d *door) take(n int) error {
	have := len(d.body)
	if cap(d.body) < have+n {
		d.body = append(make([]byte, 0, 2*(have+n)), d.body...)
	}
	d.body = d.body[:have+n]
	_, err := io.ReadFull(d.r, d.body[have:])
	return err
}

// number gives the digits behind a key of a JSON text, such as `"seq":`.
func number(text []byte, key string) (int64, error) {
	i := bytes.Index(text, []byte(key))
	if i < 0 {
		return 0, fmt.Errorf("there is no %s in %.200s", key, text)
	}
	var n int64
	digits := 0
	for _, c := range text[i+len(key):] {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int64(c-'0')
		digits++
	}
	if digits == 0 {
		return 0, errors.New("no digits behind " + key)
	}
	return n, nil
}
