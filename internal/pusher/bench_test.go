package pusher

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"tideline/pkg/chat"
)

// The benchmarks ask what a pusher costs when 10,000 members of one group are online. Their clients run in a process of
// their own, so that the CPU time of this one is the server's; the floor is a bare broadcaster on the library as it is,
// with the same clients in the same run. TIDELINE_TEST_SOCKETS sets another number of clients.
//
//	go test ./internal/pusher -run xxx -bench . -benchtime 1x

const (
	swarmEnv    = "TIDELINE_TEST_SWARM" // <address> <clients>: be the clients
	socketsEnv  = "TIDELINE_TEST_SOCKETS"
	usualSwarm  = 10_000
	sayPerSec   = 20
	sayFor      = 10 * time.Second
	swarmWindow = 200 * time.Millisecond
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(swarmEnv); spec != "" {
		if err := swarm(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// swarm connects many clients that only read. It says "ready" once each has been welcomed, then answers each line of its
// input with the bytes and reads so far, and ends with its input.
func swarm(spec string) error {
	address, count, _ := strings.Cut(spec, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	var bytes atomic.Int64
	var failed atomic.Value
	var welcomed sync.WaitGroup
	gate := make(chan struct{}, 64)
	for i := range n {
		welcomed.Add(1)
		gate <- struct{}{}
		go func() {
			conn, err := swarmClient(address, i+1)
			<-gate
			welcomed.Done()
			if err != nil {
				failed.Store(err)
				return
			}
			b := make([]byte, 1024)
			for {
				k, err := conn.Read(b)
				if err != nil {
					return
				}
				bytes.Add(int64(k))
			}
		}()
	}
	welcomed.Wait()
	if err := failed.Load(); err != nil {
		return err.(error)
	}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fmt.Println(bytes.Load())
	}
	return nil
}

func swarmClient(address string, user int) (net.Conn, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	auth := fmt.Sprintf(`{"id":1,"op":"auth","token":"%d"}`, user)
	_, err = io.WriteString(conn, "GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if err != nil {
		return nil, err
	}
	b := make([]byte, 1024)
	if n, err := conn.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 101") {
		return nil, errors.Join(fmt.Errorf("the handshake was answered %q", b[:n]), err)
	}
	// A masked frame with the mask of zeros.
	if _, err = conn.Write(append([]byte{0x81, 0x80 | byte(len(auth)), 0, 0, 0, 0}, auth...)); err != nil {
		return nil, err
	}
	if n, err := conn.Read(b); err != nil || strings.Contains(string(b[:n]), "error") {
		return nil, errors.Join(fmt.Errorf("auth was answered %q", b[:n]), err)
	}
	return conn, nil
}

type swarmProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startSwarm(b *testing.B, address string, n int) *swarmProcess {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), swarmEnv+"="+address+" "+strconv.Itoa(n))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	s := &swarmProcess{cmd, in, bufio.NewScanner(out)}
	if !s.out.Scan() || s.out.Text() != "ready" {
		b.Fatalf("the clients did not connect: %q", s.out.Text())
	}
	return s
}

// bytes tells what the clients have read so far.
func (s *swarmProcess) bytes(b *testing.B) int64 {
	b.Helper()
	_, _ = io.WriteString(s.in, "\n")
	s.out.Scan()
	n, err := strconv.ParseInt(s.out.Text(), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

func (s *swarmProcess) end(b *testing.B) {
	b.Helper()
	_ = s.in.Close()
	if err := s.cmd.Wait(); err != nil {
		b.Fatal(err)
	}
}

func sockets(b *testing.B) int {
	if n, err := strconv.Atoi(os.Getenv(socketsEnv)); err == nil {
		return n
	}
	if testing.Short() {
		return 500
	}
	return usualSwarm
}

// cpu gives the CPU time of this process, in seconds.
func cpu() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// used gives heap and stacks that are in use after a collection, and the resident memory of the process.
func used() (inUse, resident float64) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	statm, _ := os.ReadFile("/proc/self/statm")
	var size, pages float64
	_, _ = fmt.Sscan(string(statm), &size, &pages)
	return float64(m.HeapAlloc + m.StackInuse), pages * float64(os.Getpagesize())
}

// say tells of a new message sayPerSec times a second, and gives how many times.
func say(tell func(seq int64)) int {
	tick := time.NewTicker(time.Second / sayPerSec)
	defer tick.Stop()
	total := int(sayFor.Seconds() * sayPerSec)
	for seq := range total {
		tell(int64(seq + 2))
		<-tick.C
	}
	return total
}

func BenchmarkFanout(b *testing.B) {
	n := sockets(b)
	var ours float64
	b.Run("pusher", func(b *testing.B) { // first: what it keeps resident is not what the other has left
		for range b.N {
			ours = benchPusher(b, n)
		}
		b.ReportMetric(ours, "cpu-s/Mpairs")
	})
	b.Run("floor=bare-library", func(b *testing.B) {
		var floor float64
		for range b.N {
			floor = benchFloor(b, n)
		}
		b.ReportMetric(floor, "cpu-s/Mpairs")
		if ours > 0 {
			b.ReportMetric(ours/floor, "pusher/floor")
		}
	})
}

func benchPusher(b *testing.B, n int) float64 {
	r := newRig(b, func(c *Config) { c.Window = swarmWindow; c.MaxUnauthenticatedPerAddress = 1000 })
	for u := range n {
		r.store.join(chat.UserID(u+1), group(1), 1, 0)
	}
	before, residentBefore := used()
	s := startSwarm(b, r.server.Listener.Addr().String(), n)
	eventually(b, "all are members", func() bool {
		sh := r.p.index.ofConversation(group(1))
		sh.mu.RLock()
		defer sh.mu.RUnlock()
		return sh.all[group(1)] != nil && len(sh.all[group(1)].members) == n
	})
	after, resident := used()
	bytes := s.bytes(b)
	began := cpu()
	b.ResetTimer()
	times := say(func(seq int64) { r.p.TakeNotify(notify(group(1), seq)) })
	b.StopTimer()
	took := cpu() - began
	b.ReportMetric((after-before)/float64(n), "B/idle-conn")
	b.ReportMetric((resident-residentBefore)/float64(n), "resident-B/idle-conn")
	pairs := float64(times) * float64(n)
	b.ReportMetric(float64(s.bytes(b)-bytes)/float64(n)/sayFor.Seconds(), "B/conn/s")
	s.end(b)
	return took / pairs * 1e6
}

// benchFloor broadcasts the same frames with what the library offers: one prepared message a window, written to every
// connection in turn by as many goroutines as there are cores.
func benchFloor(b *testing.B, n int) float64 {
	var mu sync.Mutex
	var all []*websocket.Conn
	up := websocket.Upgrader{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		_, _, _ = ws.ReadMessage()
		_ = ws.WriteMessage(websocket.TextMessage, []byte("{}"))
		mu.Lock()
		all = append(all, ws)
		mu.Unlock()
		_, _, _ = ws.ReadMessage()
		_ = ws.Close()
	}))
	defer server.Close()
	before, residentBefore := used()
	s := startSwarm(b, server.Listener.Addr().String(), n)
	eventually(b, "all are there", func() bool { mu.Lock(); defer mu.Unlock(); return len(all) == n })
	after, resident := used()
	bytes := s.bytes(b)
	var newest atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	began := cpu()
	b.ResetTimer()
	wg.Go(func() {
		tick := time.NewTicker(swarmWindow)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			pm, err := websocket.NewPreparedMessage(websocket.TextMessage, appendItems(nil, "hint", []place{{group(1), newest.Load()}}))
			if err != nil {
				return
			}
			var writers sync.WaitGroup
			cores := runtime.GOMAXPROCS(0)
			for k := range cores {
				writers.Go(func() {
					for i := k; i < len(all); i += cores {
						_ = all[i].SetWriteDeadline(time.Now().Add(10 * time.Second))
						_ = all[i].WritePreparedMessage(pm)
					}
				})
			}
			writers.Wait()
		}
	})
	times := say(newest.Store)
	close(stop)
	wg.Wait()
	b.StopTimer()
	took := cpu() - began
	b.ReportMetric((after-before)/float64(n), "B/idle-conn")
	b.ReportMetric((resident-residentBefore)/float64(n), "resident-B/idle-conn")
	b.ReportMetric(float64(s.bytes(b)-bytes)/float64(n)/sayFor.Seconds(), "B/conn/s")
	s.end(b)
	return took / (float64(times) * float64(n)) * 1e6
}

// BenchmarkTouch is what one member who is online costs when a message comes and a hint is pending already.
func BenchmarkTouch(b *testing.B) {
	r := newRig(b, func(c *Config) { c.Window = 10 * time.Second })
	const members = 1000
	for i := range members {
		c := &conn{p: r.p, f: r.p.flushers[i%len(r.p.flushers)], planned: true, authed: true}
		r.p.index.add(c, group(1), 1)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for seq := range b.N {
		r.p.TakeNotify(notify(group(1), int64(seq+2)))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/members, "ns/member")
}
