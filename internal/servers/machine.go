package servers

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// Machine is a network namespace of its own: what runs in it reaches this machine over a cable that can be pulled out.
// Nothing is refused then and no connection is torn down: what is sent is gone, and neither side hears of it.
type Machine struct {
	// Host is the address of this machine at the other end of the cable.
	Host string

	t         testing.TB
	name, end string
}

// NewMachine makes one, which ends with the test. It takes the rights of root.
func NewMachine(t testing.TB) *Machine {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "a network namespace", errors.New("it takes the rights of root"))
	}
	sweepMachines()
	id := os.Getpid()
	m := &Machine{t: t, name: fmt.Sprintf("tideline-%d", id), end: fmt.Sprintf("tlb%d", id), Host: fmt.Sprintf("10.213.%d.1", id%250)}
	near := fmt.Sprintf("tla%d", id)
	t.Cleanup(func() {
		_ = exec.Command("ip", "link", "del", near).Run() // both ends go
		_ = exec.Command("ip", "netns", "del", m.name).Run()
	})
	for _, c := range []string{
		"netns add " + m.name,
		"link add " + near + " type veth peer name " + m.end + " netns " + m.name,
		"addr add " + m.Host + "/30 dev " + near,
		"link set " + near + " up",
		"-n " + m.name + " addr add " + strings.TrimSuffix(m.Host, "1") + "2/30 dev " + m.end,
		"-n " + m.name + " link set lo up",
		"-n " + m.name + " link set " + m.end + " up",
	} {
		m.ip(c)
	}
	return m
}

// sweepMachines removes those whose process was killed before it could.
func sweepMachines() {
	list, err := exec.Command("ip", "netns", "list").Output()
	if err != nil {
		return // what needs one says so
	}
	for line := range strings.Lines(string(list)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		pid, ours := strings.CutPrefix(name, "tideline-")
		if _, err := os.Stat("/proc/" + pid); ours && os.IsNotExist(err) {
			_ = exec.Command("ip", "netns", "del", name).Run() // its end of the cable goes with it, and so does ours
		}
	}
}

func (m *Machine) ip(arguments string) {
	m.t.Helper()
	if out, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput(); err != nil {
		m.t.Fatalf("ip %s: %v: %s", arguments, err, out)
	}
}

// Command runs a command in it, with the command as its arguments.
func (m *Machine) Command() []string { return []string{"ip", "netns", "exec", m.name} }

// Pull pulls the cable out, until Plug.
func (m *Machine) Pull() { m.t.Helper(); m.ip("-n " + m.name + " link set " + m.end + " down") }

// Plug puts it in again.
func (m *Machine) Plug() { m.t.Helper(); m.ip("-n " + m.name + " link set " + m.end + " up") }

// Reach gives the address at which a server of this machine's loopback is reached from both sides of the cable.
func (m *Machine) Reach(server string) string {
	m.t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(m.Host, "0"))
	if err != nil {
		m.t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // guards open and over
	open, over := map[net.Conn]bool{}, false
	keep := func(c net.Conn) bool {
		mu.Lock()
		defer mu.Unlock()
		open[c] = true
		return !over
	}
	m.t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		over = true
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	relay := func(in net.Conn) {
		defer func() { _ = in.Close() }()
		out, err := net.DialTimeout("tcp", server, 5*time.Second)
		if err != nil {
			return
		}
		defer func() { _ = out.Close() }()
		if !keep(in) || !keep(out) {
			return
		}
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			delete(open, in)
			delete(open, out)
		}()
		both := make(chan struct{}, 2)
		for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
			go func() {
				_, _ = io.Copy(way[0], way[1])
				both <- struct{}{}
			}()
		}
		<-both // one side has ended: so does the other
		_ = in.Close()
		_ = out.Close()
		<-both
	}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { relay(c) })
		}
	})
	return l.Addr().String()
}
