package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

// child is a process of this binary in a role of its own: a floor, or clients.
type child struct {
	t    testing.TB
	addr string
	in   *json.Encoder
	out  *json.Decoder
	pid  int
	end  func() // lets it end in good order
	kill func() // as a power cut does
}

// startChild starts one; it ends with the test.
func startChild(t testing.TB, role string, env ...string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), roleEnv+"="+role), env...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing outlives the test
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	started, gone := make(chan error, 1), make(chan struct{})
	go func() {
		// The signal comes when the thread ends that started the process, so this one stays for as long as that.
		runtime.LockOSThread()
		started <- cmd.Start()
		<-gone
	}()
	if err := <-started; err != nil {
		close(gone)
		t.Fatal(err)
	}
	c := &child{t: t, in: json.NewEncoder(in), out: json.NewDecoder(out), pid: cmd.Process.Pid}
	roleOf.Store(c.pid, role)
	ended := false
	c.end = func() {
		if !ended {
			ended = true
			_ = in.Close()
			_ = cmd.Wait()
			close(gone)
		}
	}
	c.kill = func() {
		_ = cmd.Process.Kill()
		c.end()
	}
	t.Cleanup(c.end)
	return c
}

// call gives a child something to do, and waits for what it says.
func (c *child) call(t testing.TB, ask, into any) {
	t.Helper()
	if err := c.in.Encode(ask); err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Error  string          `json:"error"`
		Result json.RawMessage `json:"result"`
	}
	err := c.out.Decode(&answer)
	if err == nil && answer.Error != "" {
		err = fmt.Errorf("a child says: %s", answer.Error)
	}
	if err == nil && into != nil {
		err = json.Unmarshal(answer.Result, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// serve answers what comes on the input until it ends.
func serve[A any](do func(A) (any, error)) error {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var ask A
		if err := in.Decode(&ask); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		result, err := do(ask)
		answer := map[string]any{"result": result}
		if err != nil {
			answer["error"] = err.Error()
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
}
