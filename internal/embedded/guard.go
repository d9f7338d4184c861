package embedded

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/xdg-go/scram"

	"tideline/internal/kafka"
)

// User is the name that our own connections to the embedded broker use; the password is kept in the data directory.
const User = "tideline"

// Limits of the broker's connections. Those that have proved to be ours have no bound of their own: they are as many as the
// services of this process and of the operators' commands need.
const (
	// maxStrangers is how many connections of others there may be: a client has up to five.
	maxStrangers = 256
	// maxUnknown is how many there may be that are not known yet to be ours or a stranger's. Above it the oldest is closed,
	// so that they keep no other connection out: proving the secret takes milliseconds.
	maxUnknown = 256
	// sayWait is how long a connection may stay unknown, whatever it asks meanwhile.
	sayWait = 10 * time.Second
	// idleWait is how long a connection of others may say nothing. Brokers have the same default.
	idleWait = 10 * time.Minute
	// frameWait is how long a request may take to arrive once its length has.
	frameWait = 30 * time.Second
	// maxRequest bounds a request that produces: a full batch for each of 16 partitions.
	maxRequest = 16 << 20
	// maxOther bounds any other request of strangers. Those of clients have some hundred bytes.
	maxOther = 256 << 10
	// smallRequest is what any number of requests may have at once; of larger ones, maxLarge arrive at once.
	smallRequest = 64 << 10
	maxLarge     = 8
	// maxProduced bounds the topics, and the partitions of a topic, that one request produces to.
	maxProduced = 4096
)

// Guard stands between the listener and the broker. It takes requests of a known kind and version and of a bounded size,
// whose memory is taken as their bytes arrive; it checks batches as a broker does; and it lets those that do not know the
// secret do no more than the contract says. The broker behind it was written for tests and does none of this.
type Guard struct {
	log      *slog.Logger
	unpacker *kafka.Unpacker
	scram    *scram.Server
	dir      *directory
	versions map[int16]kmsg.ApiVersionsResponseApiKey
	large    chan struct{}

	net.Listener
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once

	mu        sync.Mutex     // guards what follows, and own and stranger of all connections
	unknown   []*guardedConn // the oldest first
	strangers int
}

// known takes a connection from those that are unknown. The caller holds the lock.
func (g *Guard) known(c *guardedConn) {
	if i := slices.Index(g.unknown, c); i >= 0 {
		g.unknown = slices.Delete(g.unknown, i, i+1)
	}
}

// hidden are keys that are not offered: metrics that clients push, share groups, and a way to ask for topics that clients
// have another for.
var hidden = map[kmsg.Key]bool{
	kmsg.GetTelemetrySubscriptions: true, kmsg.PushTelemetry: true, kmsg.DescribeTopicPartitions: true,
	kmsg.ShareGroupHeartbeat: true, kmsg.ShareGroupDescribe: true, kmsg.ShareFetch: true, kmsg.ShareAcknowledge: true,
	kmsg.DescribeShareGroupOffsets: true, kmsg.AlterShareGroupOffsets: true, kmsg.DeleteShareGroupOffsets: true,
}

// newGuard makes a guard in front of a listener.
func newGuard(l net.Listener, secret string, maxUnpacked int64, log *slog.Logger) (*Guard, error) {
	unpacker, err := kafka.NewUnpacker(maxUnpacked)
	if err != nil {
		return nil, err
	}
	client, err := scram.SHA512.NewClient(User, secret, "")
	if err != nil {
		return nil, fmt.Errorf("preparing the broker's secret: %w", err)
	}
	const iterations = 4096 // the secret is random: more would only make every connection slower
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: rand.Text(), Iters: iterations})
	if err != nil {
		return nil, fmt.Errorf("preparing the broker's secret: %w", err)
	}
	server, err := scram.SHA512.NewServer(func(user string) (scram.StoredCredentials, error) {
		if user != User {
			return scram.StoredCredentials{}, errors.New("unknown user")
		}
		return stored, nil
	})
	if err != nil {
		return nil, fmt.Errorf("preparing the broker's secret: %w", err)
	}
	g := &Guard{
		log: log, unpacker: unpacker, scram: server, dir: &directory{topics: map[[16]byte]string{}, producers: map[int64]bool{}, groups: map[string]bool{}},
		large: make(chan struct{}, maxLarge), Listener: l, accepted: make(chan net.Conn), closed: make(chan struct{}),
	}
	return g, nil
}

// learnVersions asks the broker behind the guard which requests it knows.
func (g *Guard) learnVersions() error {
	ours, theirs := net.Pipe()
	defer func() { _ = ours.Close() }()
	select {
	case g.accepted <- theirs:
	case <-g.closed:
		return net.ErrClosed
	}
	if err := ours.SetDeadline(time.Now().Add(sayWait)); err != nil {
		return err
	}
	ask := []byte{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 0, 0xff, 0xff}
	if _, err := ours.Write(ask); err != nil {
		return fmt.Errorf("asking the broker for its versions: %w", err)
	}
	in := bufio.NewReader(ours)
	head := make([]byte, 4)
	if _, err := io.ReadFull(in, head); err != nil {
		return fmt.Errorf("asking the broker for its versions: %w", err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head))
	if _, err := io.ReadFull(in, body); err != nil {
		return fmt.Errorf("asking the broker for its versions: %w", err)
	}
	resp := kmsg.NewPtrApiVersionsResponse()
	if err := resp.ReadFrom(body[4:]); err != nil {
		return fmt.Errorf("asking the broker for its versions: %w", err)
	}
	versions := map[int16]kmsg.ApiVersionsResponseApiKey{}
	for _, k := range resp.ApiKeys {
		if kmsg.RequestForKey(k.ApiKey) == nil || hidden[kmsg.Key(k.ApiKey)] {
			continue
		}
		if walks[kmsg.Key(k.ApiKey)] == nil {
			// Tagged fields keep a decoder busy, see walk. Our own connections need no more than this for those kinds.
			if k.MaxVersion = plain(k.ApiKey, k.MinVersion, k.MaxVersion); k.MaxVersion < 0 {
				continue
			}
		}
		versions[k.ApiKey] = k
	}
	g.versions = versions
	return nil
}

// listen accepts connections until the guard is closed.
func (g *Guard) listen() {
	for pause := time.Millisecond; ; {
		c, err := g.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, most likely
			select {
			case <-g.closed:
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = time.Millisecond
		guarded := &guardedConn{Conn: c, g: g, in: bufio.NewReaderSize(c, 4<<10), since: time.Now()}
		guarded.answered = sync.NewCond(&guarded.mu)
		var oldest *guardedConn
		g.mu.Lock()
		if len(g.unknown) >= maxUnknown {
			oldest = g.unknown[0]
		}
		g.unknown = append(g.unknown, guarded)
		g.mu.Unlock()
		if oldest != nil {
			_ = oldest.Close()
		}
		select {
		case g.accepted <- guarded:
		case <-g.closed:
			_ = guarded.Close()
			return
		}
	}
}

// Accept gives the broker its next connection.
func (g *Guard) Accept() (net.Conn, error) {
	select {
	case c := <-g.accepted:
		return c, nil
	case <-g.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (g *Guard) Close() error {
	g.once.Do(func() { close(g.closed) })
	return g.Listener.Close()
}

// guardedConn is a connection as the broker sees it: it reads requests that the guard lets pass, and writes one response
// with each call. The broker works on one request of a connection and reads one ahead, so that this is what is held.
type guardedConn struct {
	net.Conn
	g   *Guard
	in  *bufio.Reader
	buf []byte // of a request that passes, and that the broker has not read yet

	since    time.Time
	own      bool // has proved to know the secret
	stranger bool // has asked for something without it
	talk     *scram.ServerConversation
	mayTalk  bool // a mechanism was chosen

	mu       sync.Mutex // guards what follows
	answered *sync.Cond
	pending  []passed
	gone     bool
}

// passed is a request that the broker has not answered yet.
type passed struct {
	resp  kmsg.Response // of the kind and version
	after func(kmsg.Response)
	done  func()
}

// errRefused closes a connection that does not speak the protocol, or asks for what is not known.
var errRefused = errors.New("the request is not one that the broker knows")

// Close implements net.Conn. It may be called more than once.
func (c *guardedConn) Close() error {
	c.mu.Lock()
	first := !c.gone
	c.gone = true
	pending := c.pending
	c.pending = nil
	c.answered.Broadcast()
	c.mu.Unlock()
	if first {
		for _, p := range pending {
			if p.done != nil {
				p.done()
			}
		}
		c.g.mu.Lock()
		c.g.known(c)
		if c.stranger {
			c.g.strangers--
		}
		c.g.mu.Unlock()
	}
	return c.Conn.Close()
}

// Read gives the broker the bytes of requests that pass.
func (c *guardedConn) Read(p []byte) (n int, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			c.g.log.Error("a request to the embedded broker was not understood; its connection is closed", "err", fmt.Sprint(fault), "stack", string(debug.Stack()))
			n, err = 0, errRefused
		}
		if err != nil {
			_ = c.Close()
		}
	}()
	for len(c.buf) == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n = copy(p, c.buf)
	if c.buf = c.buf[n:]; len(c.buf) == 0 {
		c.buf = nil
	}
	return n, nil
}

// next takes one request from the connection: it passes, or is answered here.
func (c *guardedConn) next() error {
	wait := time.Time{}
	switch {
	case c.own:
	case c.stranger:
		wait = time.Now().Add(idleWait)
	default:
		wait = c.since.Add(sayWait)
	}
	if err := c.SetReadDeadline(wait); err != nil {
		return err
	}
	head, err := c.in.Peek(8) // length, key and version
	if err != nil {
		return err
	}
	size, key, version := int64(int32(binary.BigEndian.Uint32(head))), int16(binary.BigEndian.Uint16(head[4:])), int16(binary.BigEndian.Uint16(head[6:]))
	limit := int64(maxOther)
	if c.own || key == int16(kmsg.Produce) {
		limit = maxRequest
	}
	known, ok := c.g.versions[key]
	if size < 10 || size > limit || !ok || version < known.MinVersion || version > known.MaxVersion && key != int16(kmsg.ApiVersions) {
		return errRefused
	}
	if c.own || c.stranger {
		wait = time.Now().Add(frameWait)
	}
	if err := c.SetReadDeadline(wait); err != nil {
		return err
	}
	var done func()
	if size > smallRequest && !c.own {
		if done, err = c.seat(); err != nil {
			return err
		}
		defer func() {
			if done != nil {
				done()
			}
		}()
	}
	// The buffer grows as the bytes arrive: what a length promises costs nothing.
	var frame bytes.Buffer
	if _, err := io.CopyN(&frame, c.in, size+4); err != nil {
		return err
	}
	release, err := c.take(frame.Bytes(), key, version, done)
	if release {
		done = nil // is called when the request was answered
	}
	return err
}

// seat waits for one of the seats that large requests of strangers share.
func (c *guardedConn) seat() (func(), error) {
	select {
	case c.g.large <- struct{}{}:
		return sync.OnceFunc(func() { <-c.g.large }), nil
	case <-time.After(frameWait):
		return nil, errRefused
	}
}

// take judges a whole request. It reports whether done was passed on.
func (c *guardedConn) take(frame []byte, key, version int16, done func()) (bool, error) {
	reader := kbin.Reader{Src: frame[8:]}
	corr := reader.Int32()
	reader.NullableString() // the client's name
	request := kmsg.RequestForKey(key)
	request.SetVersion(version)
	if key == int16(kmsg.ApiVersions) && version > c.g.versions[key].MaxVersion {
		return false, c.answer(corr, c.unknownVersion())
	}
	head := walk{Reader: reader, flexible: request.IsFlexible()}
	head.tags()
	if head.bad || !head.Ok() {
		return false, errRefused
	}
	body := head.Src
	if whole, ok := walked(request, body); ok && !whole && (!c.own || key == int16(kmsg.Produce)) {
		return false, errRefused
	}
	header := frame[:len(frame)-len(body)]
	p := passed{resp: request.ResponseKind(), done: done}
	switch kmsg.Key(key) {
	case kmsg.ApiVersions:
		p.after = c.g.offer
		if err := request.ReadFrom(body); err != nil {
			return false, errRefused
		}
		return true, c.pass(frame, p)
	case kmsg.SASLHandshake, kmsg.SASLAuthenticate:
		if err := request.ReadFrom(body); err != nil {
			return false, errRefused
		}
		return false, c.authenticate(corr, request)
	}
	if err := c.classify(); err != nil {
		return false, err
	}
	if key == int16(kmsg.Produce) {
		return c.produce(frame, header, body, corr, request.(*kmsg.ProduceRequest), p)
	}
	if c.own {
		if key == int16(kmsg.Metadata) || key == int16(kmsg.InitProducerID) {
			p.after = func(resp kmsg.Response) { c.g.dir.learn(resp, true) }
		}
		return true, c.pass(frame, p)
	}
	if err := request.ReadFrom(body); err != nil {
		return false, errRefused
	}
	r := c.g.dir.judge(request)
	if r.answer != nil {
		return false, c.answer(corr, r.answer)
	}
	if p.after = r.after; key == int16(kmsg.Metadata) {
		p.after = func(resp kmsg.Response) {
			r.after(resp)
			c.g.dir.learn(resp, false)
		}
	}
	if r.changed {
		frame = again(header, request)
	}
	return true, c.pass(frame, p)
}

// again encodes a request that was changed.
func again(header []byte, request kmsg.Request) []byte {
	frame := request.AppendTo(bytes.Clone(header))
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	return frame
}

// classify counts a connection that asks without the secret as a stranger's.
func (c *guardedConn) classify() error {
	if c.own || c.stranger {
		return nil
	}
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	if c.g.strangers >= maxStrangers {
		return fmt.Errorf("there are %d connections without the secret: %w", maxStrangers, errRefused)
	}
	c.g.known(c)
	c.g.strangers++
	c.stranger = true
	return nil
}

// unknownVersion is the answer to a client that is newer than the broker: it asks again with what it is told.
func (c *guardedConn) unknownVersion() kmsg.Response {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = kerr.UnsupportedVersion.Code
	resp.ApiKeys = append(resp.ApiKeys, c.g.versions[int16(kmsg.ApiVersions)])
	return resp
}

// offer leaves in an answer about versions what the guard lets pass.
func (g *Guard) offer(resp kmsg.Response) {
	r := resp.(*kmsg.ApiVersionsResponse)
	kept := make([]kmsg.ApiVersionsResponseApiKey, 0, len(r.ApiKeys))
	for _, k := range r.ApiKeys {
		if offered, ok := g.versions[k.ApiKey]; ok {
			kept = append(kept, offered)
		}
	}
	r.ApiKeys = kept
}

// mechanism is the one that our clients speak.
const mechanism = "SCRAM-SHA-512"

// authenticate speaks SASL. A connection that fails is closed with its answer.
func (c *guardedConn) authenticate(corr int32, request kmsg.Request) error {
	switch req := request.(type) {
	case *kmsg.SASLHandshakeRequest:
		resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
		resp.SupportedMechanisms = []string{mechanism}
		if c.own || c.stranger || req.Mechanism != mechanism {
			resp.ErrorCode = kerr.UnsupportedSaslMechanism.Code
			return errors.Join(c.answer(corr, resp), errRefused)
		}
		c.talk, c.mayTalk = c.g.scram.NewConversation(), true
		return c.answer(corr, resp)
	case *kmsg.SASLAuthenticateRequest:
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		if !c.mayTalk || c.talk == nil {
			resp.ErrorCode = kerr.IllegalSaslState.Code
			return errors.Join(c.answer(corr, resp), errRefused)
		}
		said, err := c.talk.Step(string(req.SASLAuthBytes))
		if err != nil || c.talk.Done() && !c.talk.Valid() {
			resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
			resp.ErrorMessage = kmsg.StringPtr("Authentication failed.")
			return errors.Join(c.answer(corr, resp), errRefused)
		}
		resp.SASLAuthBytes = []byte(said)
		if c.talk.Valid() {
			c.talk, c.mayTalk = nil, false
			c.g.mu.Lock()
			c.g.known(c)
			c.own = true
			c.g.mu.Unlock()
		}
		return c.answer(corr, resp)
	}
	return errRefused
}

// pass gives a request to the broker.
func (c *guardedConn) pass(frame []byte, p passed) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		if p.done != nil {
			p.done()
		}
		return net.ErrClosed
	}
	c.pending = append(c.pending, p)
	c.buf = frame
	return nil
}

// answer writes a response of the guard's, behind those of earlier requests.
func (c *guardedConn) answer(corr int32, resp kmsg.Response) error {
	c.mu.Lock()
	for len(c.pending) > 0 && !c.gone {
		c.answered.Wait()
	}
	gone := c.gone
	c.mu.Unlock()
	if gone {
		return net.ErrClosed
	}
	return c.write(response(corr, resp))
}

func response(corr int32, resp kmsg.Response) []byte {
	out := make([]byte, 8)
	binary.BigEndian.PutUint32(out[4:], uint32(corr))
	if resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions) {
		out = append(out, 0) // no tags
	}
	out = resp.AppendTo(out)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out
}

// write sends bytes to the client, which must take them: a broker that waits for a client holds its answer in memory.
func (c *guardedConn) write(out []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(frameWait)); err != nil {
		return err
	}
	_, err := c.Conn.Write(out)
	return err
}

// Write takes one response from the broker.
func (c *guardedConn) Write(out []byte) (n int, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			c.g.log.Error("a response of the embedded broker was not understood; its connection is closed", "err", fmt.Sprint(fault), "stack", string(debug.Stack()))
			err = errRefused
		}
		if err != nil {
			_ = c.Close()
		}
	}()
	c.mu.Lock()
	if len(c.pending) == 0 {
		c.mu.Unlock()
		return 0, net.ErrClosed
	}
	p := c.pending[0]
	c.mu.Unlock()
	sent := out
	if p.after != nil && len(out) >= 8 {
		reader := kbin.Reader{Src: out[8:]}
		if p.resp.IsFlexible() && p.resp.Key() != int16(kmsg.ApiVersions) {
			kmsg.SkipTags(&reader)
		}
		if err := p.resp.ReadFrom(reader.Src); err != nil {
			return 0, fmt.Errorf("reading a response of the broker: %w", err)
		}
		p.after(p.resp)
		sent = response(int32(binary.BigEndian.Uint32(out[4:])), p.resp)
	}
	if err := c.write(sent); err != nil {
		return 0, err
	}
	c.finish()
	return len(out), nil
}

// finish forgets the oldest request: it was answered, or has no answer.
func (c *guardedConn) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == 0 {
		return
	}
	p := c.pending[0]
	c.pending = c.pending[1:]
	if p.done != nil {
		p.done()
	}
	if len(c.pending) == 0 {
		c.answered.Broadcast()
	}
}
