package platform

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tideline/internal/servers"
)

// Built gives the path of a command's binary, built once per run of the tests.
func Built(t testing.TB, name string) string {
	t.Helper()
	return build(t, name, "")
}

// build builds a command with tags, once.
var build = func() func(t testing.TB, name, tags string) string {
	var mu sync.Mutex
	dir := ""
	return func(t testing.TB, name, tags string) string {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if dir == "" {
			var err error
			if dir, err = os.MkdirTemp("", "tideline-e2e-"); err != nil {
				t.Fatal(err)
			}
			binDir = dir
		}
		path := filepath.Join(dir, name+tags)
		if _, err := os.Stat(path); err == nil {
			return path
		}
		if out, err := exec.Command("go", "build", "-tags", tags, "-o", path, "tideline/cmd/"+name).CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
		return path
	}
}()

var binDir string

// Main runs the tests of a package that uses platforms, and lets go of what they share.
func Main(m *testing.M) int {
	code := m.Run()
	servers.Stop()
	if binDir != "" {
		_ = os.RemoveAll(binDir)
	}
	return code
}

// AdminToken is that of the administrators of a cluster.
const AdminToken = "an administrators' token of the tests"

// Process is one of our programs.
type Process struct {
	// Name is the command's.
	Name string

	t       testing.TB
	command []string
	env     []string
	cmd     *exec.Cmd
	log     *Output
	// ended is closed once the process has, and fault is how.
	ended chan struct{}
	fault error
}

// Output is what a process has printed; safe for concurrent use.
type Output struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

// Write appends.
func (l *Output) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String gives all of it.
func (l *Output) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// StartProcess starts a command with variables; it ends with the test.
func StartProcess(t testing.TB, name string, env ...string) *Process {
	t.Helper()
	return startProcess(t, name, []string{Built(t, name)}, env)
}

func startProcess(t testing.TB, name string, command, env []string) *Process {
	t.Helper()
	p := &Process{Name: name, t: t, command: command, env: env, log: &Output{}}
	p.Start()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			lines := strings.Split(p.log.String(), "\n")
			t.Logf("the end of the log of %s:\n%s", name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	})
	return p
}

// Start starts it, again where it ended; more are variables of this run only.
func (p *Process) Start(more ...string) {
	p.t.Helper()
	p.cmd = exec.Command(p.command[0], p.command[1:]...)
	p.cmd.Env = slices.Concat([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, p.env, more)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing outlives the test
	cmd, ended, started := p.cmd, make(chan struct{}), make(chan error, 1)
	p.ended = ended
	go func() {
		// The signal comes when the thread ends that started the process, so this one stays for as long as that. Any other
		// may end with a goroutine that was locked to it.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.fault = cmd.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		p.t.Fatal(err)
	}
}

// Rebuild makes the next Start run the command built with other tags: another version of it.
func (p *Process) Rebuild(tags string) {
	p.t.Helper()
	p.command[len(p.command)-1] = build(p.t, p.Name, tags)
}

// Kill ends the process as a power cut does.
func (p *Process) Kill() {
	if p.cmd != nil && p.cmd.Process != nil {
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	p.cmd = nil
}

// Signal sends a signal to the process.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Errorf("%s: %v", p.Name, err)
	}
}

// AwaitEnd waits until the process has ended by itself, or was ended by a place of its own; see internal/failpoint.
func (p *Process) AwaitEnd(within time.Duration) {
	p.t.Helper()
	select {
	case <-p.ended:
		p.cmd = nil
	case <-time.After(within):
		p.t.Fatalf("%s has not ended within %s", p.Name, within)
	}
}

// AwaitSleep waits until the process sleeps because of SIGSTOP.
func (p *Process) AwaitSleep(within time.Duration) {
	p.t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/stat")
		if err != nil {
			p.t.Fatal(err)
		}
		// pid (name) state …
		if i := bytes.LastIndexByte(stat, ')'); i > 0 && len(stat) > i+2 && stat[i+2] == 'T' {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s does not sleep after %s", p.Name, within)
		}
	}
}

// Ended tells whether it has ended by itself.
func (p *Process) Ended() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// Log gives what it has printed so far.
func (p *Process) Log() string { return p.log.String() }

// PID gives the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Terminate asks the process to end, and fails where it does not in time.
func (p *Process) Terminate() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		if p.fault != nil {
			p.t.Errorf("%s ended with %v", p.Name, p.fault)
		}
	case <-time.After(30 * time.Second):
		p.t.Errorf("%s did not end within 30 s of SIGTERM", p.Name)
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	p.cmd = nil
}

// FreePort gives an address of this machine that nobody listened on a moment ago.
func FreePort(t testing.TB) string {
	t.Helper()
	port, err := servers.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
