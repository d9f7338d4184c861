package bench

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The crowd is a process with many clients on sockets. They read frames as they are and decode no more than the number of
// a hint, because they share the cores with what is measured. Times that cross processes are of the wall clock.

// crowdAsk is what the crowd is told; one of the fields is set.
type crowdAsk struct {
	Connect *crowdConnect `json:"connect"`
	Hear    []int64       `json:"hear"`  // numbers of the groups from which on hints are noted
	Heard   *crowdHeard   `json:"heard"` // waits until all have heard
	Pull    *crowdPull    `json:"pull"`
	Deafen  *crowdDeafen  `json:"deafen"`
	Leave   bool          `json:"leave"`
}

// crowdConnect connects clients that stay.
type crowdConnect struct {
	Addr   string   `json:"addr"`
	Tokens []string `json:"tokens"` // one for each client
	Groups []int    `json:"groups"` // which group's hints they hear; empty for the first
	AtOnce int      `json:"at_once"`
	Then   string   `json:"then"` // a frame to send when welcomed, whose answer must hold Want
	Want   string   `json:"want"`
}

// crowdHeard tells when the messages of each group were due, in the order of their numbers (ns since 1970).
type crowdHeard struct {
	Sent [][]int64 `json:"sent"`
}

// crowdPull lets clients ask in turn, each once until as many have asked; the answer to a frame must begin with what is
// wanted.
type crowdPull struct {
	Frames []string `json:"frames"`
	Want   []string `json:"want"`
	Pulls  int      `json:"pulls"`
}

// crowdDeafen lets the first clients ask many times and read nothing any more.
type crowdDeafen struct {
	Clients int    `json:"clients"`
	Frame   string `json:"frame"`
	Times   int    `json:"times"`
}

// crowdSaw is what became of it.
type crowdSaw struct {
	Took  time.Duration   `json:"took"`
	Count int             `json:"count"` // connections, pairs or answers
	P50   time.Duration   `json:"p50"`
	P99   time.Duration   `json:"p99"`
	Last  []time.Duration `json:"last"` // of each message until the last client knew, in no order
	Bytes int64           `json:"bytes"`
	Void  []string        `json:"void"`
}

// listener is one client.
type listener struct {
	conn  net.Conn
	r     *bufio.Reader
	group int
	deaf  atomic.Bool

	asking sync.Mutex // held while an answer to a pull is awaited

	mu       sync.Mutex // guards what follows
	base     int64
	last     int64
	arrived  []int64 // when the numbers behind base were heard, ns since 1970
	back     bool    // a hint told a lower number than the one before
	err      error
	expected string
	answered chan error // where an answer is awaited
}

type crowd struct {
	all   []*listener
	bytes atomic.Int64
}

func beCrowd() error {
	debug.SetGCPercent(400)
	c := &crowd{}
	return serve(func(ask crowdAsk) (any, error) {
		switch {
		case ask.Connect != nil:
			return c.connect(ask.Connect), nil
		case ask.Hear != nil:
			for _, l := range c.all {
				l.mu.Lock()
				l.base, l.last, l.arrived, l.back = ask.Hear[l.group], ask.Hear[l.group], nil, false
				l.mu.Unlock()
			}
			c.bytes.Store(0)
			return nil, nil
		case ask.Heard != nil:
			return c.heard(ask.Heard), nil
		case ask.Pull != nil:
			return c.pull(ask.Pull), nil
		case ask.Deafen != nil:
			return c.deafen(ask.Deafen), nil
		case ask.Leave:
			for _, l := range c.all {
				_ = l.conn.Close()
			}
			c.all = nil
			return nil, nil
		}
		return nil, errors.New("nothing is asked")
	})
}

// frame masks a client's text frame with zeros, which changes nothing.
func frame(text string) []byte {
	b := []byte{0x81, 0x80 | 126}
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	return append(append(b, 0, 0, 0, 0), text...)
}

// next reads a frame; its payload is valid until the next call.
func (l *listener) next() ([]byte, error) {
	h, err := l.r.Peek(2)
	if err != nil {
		return nil, err
	}
	op, n, header := h[0]&0xf, int(h[1]&0x7f), 2
	switch n {
	case 126:
		if h, err = l.r.Peek(4); err != nil {
			return nil, err
		}
		n, header = int(binary.BigEndian.Uint16(h[2:])), 4
	case 127:
		if h, err = l.r.Peek(10); err != nil {
			return nil, err
		}
		n, header = int(binary.BigEndian.Uint64(h[2:])), 10
	}
	_, _ = l.r.Discard(header) // it was peeked
	var payload []byte
	if n <= l.r.Size() {
		if payload, err = l.r.Peek(n); err != nil {
			return nil, err
		}
		_, _ = l.r.Discard(n)
	} else {
		payload = make([]byte, n)
		if _, err := io.ReadFull(l.r, payload); err != nil {
			return nil, err
		}
	}
	if op == 8 {
		code := 0
		if n >= 2 {
			code = int(binary.BigEndian.Uint16(payload))
		}
		return nil, fmt.Errorf("closed with %d", code)
	}
	return payload, nil
}

// dial connects and says who it is.
func (l *listener) dial(addr, token string) (err error) {
	if l.conn, err = net.DialTimeout("tcp", addr, patience); err != nil {
		return err
	}
	_ = l.conn.SetDeadline(time.Now().Add(patience))
	l.r = bufio.NewReaderSize(l.conn, 512)
	_, err = io.WriteString(l.conn, "GET /v1/ws HTTP/1.1\r\nHost: tideline\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		line, err := l.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 101")) {
			return fmt.Errorf("the handshake was answered %q", line)
		}
		if len(line) <= 2 {
			break
		}
	}
	return l.exchange(`{"id":1,"op":"auth","token":"`+token+`"}`, `"result"`)
}

// exchange asks before anybody reads.
func (l *listener) exchange(text, want string) error {
	if _, err := l.conn.Write(frame(text)); err != nil {
		return err
	}
	for {
		answer, err := l.next()
		if err != nil {
			return err
		}
		if bytes.HasPrefix(answer, []byte(`{"op"`)) {
			continue // said unasked
		}
		if !bytes.Contains(answer, []byte(want)) {
			return fmt.Errorf("there is no %s in %.300s", want, answer)
		}
		return nil
	}
}

// voided keeps the first few of many faults.
func voided(list []string, format string, args ...any) []string {
	if len(list) < 5 {
		list = append(list, fmt.Sprintf(format, args...))
	}
	return list
}

func (c *crowd) connect(ask *crowdConnect) crowdSaw {
	var mu sync.Mutex
	var saw crowdSaw
	var times []time.Duration
	began := time.Now()
	gate := make(chan struct{}, ask.AtOnce)
	var wg sync.WaitGroup
	for i, token := range ask.Tokens {
		gate <- struct{}{}
		wg.Go(func() {
			l := &listener{}
			if len(ask.Groups) > 0 {
				l.group = ask.Groups[i]
			}
			err := l.dial(ask.Addr, token)
			if err == nil && ask.Then != "" {
				err = l.exchange(ask.Then, ask.Want)
			}
			took := time.Since(began)
			<-gate
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				saw.Void = voided(saw.Void, "error: %v", err)
				return
			}
			_ = l.conn.SetDeadline(time.Time{})
			times = append(times, took)
			c.all = append(c.all, l)
			go c.read(l) // it ends with its connection
		})
	}
	wg.Wait()
	saw.Took, saw.Count = time.Since(began), len(times)
	slices.Sort(times)
	saw.P50, saw.P99 = quantile(times, 0.5), quantile(times, 0.99)
	return saw
}

func (c *crowd) read(l *listener) {
	for {
		payload, err := l.next()
		if l.deaf.Load() {
			return
		}
		now := time.Now().UnixNano()
		c.bytes.Add(int64(len(payload) + 2))
		l.mu.Lock()
		if err != nil {
			l.err = err
			if l.answered != nil {
				l.answered <- err
				l.answered = nil
			}
			l.mu.Unlock()
			return
		}
		switch {
		case bytes.HasPrefix(payload, []byte(`{"op":"hint"`)):
			if seq, err := number(payload, `"s":`); err == nil {
				l.back = l.back || seq < l.last
				for l.base+int64(len(l.arrived)) < seq {
					l.arrived = append(l.arrived, now)
				}
				l.last = seq
			}
		case l.answered != nil && !bytes.HasPrefix(payload, []byte(`{"op"`)):
			var err error
			if !strings.HasPrefix(string(payload), l.expected) {
				err = fmt.Errorf("the answer is another one: %.200s", payload)
			}
			l.answered <- err
			l.answered = nil
		}
		l.mu.Unlock()
	}
}

func (c *crowd) heard(ask *crowdHeard) crowdSaw {
	var saw crowdSaw
	var times []time.Duration
	slowest := make([][]time.Duration, len(ask.Sent))
	for g, sent := range ask.Sent {
		slowest[g] = make([]time.Duration, len(sent))
	}
	deadline := time.Now().Add(20 * time.Second)
	for _, l := range c.all {
		if l.deaf.Load() {
			continue
		}
		sent := ask.Sent[l.group]
		for {
			l.mu.Lock()
			n, err, back := len(l.arrived), l.err, l.back
			l.mu.Unlock()
			if back {
				saw.Void = voided(saw.Void, "inversion: a hint told a lower number than the one before it")
			}
			if err != nil {
				saw.Void = voided(saw.Void, "error: %v", err)
			}
			if n >= len(sent) || err != nil {
				break
			}
			if time.Now().After(deadline) {
				saw.Void = voided(saw.Void, "gap: a client has heard of %d of %d messages", n, len(sent))
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		l.mu.Lock()
		for i := range min(len(sent), len(l.arrived)) {
			took := time.Duration(l.arrived[i] - sent[i])
			times = append(times, took)
			slowest[l.group][i] = max(slowest[l.group][i], took)
		}
		l.mu.Unlock()
	}
	for _, list := range slowest {
		saw.Last = append(saw.Last, list...)
	}
	slices.Sort(times)
	saw.Count, saw.P50, saw.P99, saw.Bytes = len(times), quantile(times, 0.5), quantile(times, 0.99), c.bytes.Load()
	return saw
}

func (c *crowd) pull(ask *crowdPull) crowdSaw {
	frames := make([][]byte, len(ask.Frames))
	for i, text := range ask.Frames {
		frames[i] = frame(text)
	}
	var mu sync.Mutex
	var saw crowdSaw
	var times []time.Duration
	began := time.Now()
	var wg sync.WaitGroup
	const writers = 256
	for w := range writers {
		wg.Go(func() {
			for i := w; i < ask.Pulls; i += writers {
				l := c.all[i%len(c.all)]
				l.asking.Lock()
				done := make(chan error, 1)
				l.mu.Lock()
				l.answered, l.expected = done, ask.Want[i%len(ask.Want)]
				l.mu.Unlock()
				sent := time.Now()
				_, err := l.conn.Write(frames[i%len(frames)])
				if err == nil {
					select {
					case err = <-done:
					case <-time.After(patience):
						err = errors.New("no answer in time")
					}
				}
				took := time.Since(sent)
				l.asking.Unlock()
				mu.Lock()
				if err != nil {
					saw.Void = voided(saw.Void, "error: %v", err)
				}
				times = append(times, took)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	saw.Took, saw.Count = time.Since(began), len(times)
	slices.Sort(times)
	saw.P50, saw.P99 = quantile(times, 0.5), quantile(times, 0.99)
	return saw
}

func (c *crowd) deafen(ask *crowdDeafen) crowdSaw {
	var saw crowdSaw
	for _, l := range c.all[:min(ask.Clients, len(c.all))] {
		l.deaf.Store(true)
		for range ask.Times {
			if _, err := l.conn.Write(frame(ask.Frame)); err != nil {
				saw.Void = voided(saw.Void, "error: %v", err)
			}
		}
		saw.Count++
	}
	return saw
}
