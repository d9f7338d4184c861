package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"tideline/internal/ops"
	"tideline/internal/version"
)

// said is what a run of the command ends with.
type said struct {
	code     int
	out, err string
}

func tideline(t *testing.T, args ...string) said {
	t.Helper()
	var out, errOut bytes.Buffer
	code := run(t.Context(), args, &out, &errOut)
	return said{code, out.String(), errOut.String()}
}

func TestUsage(t *testing.T) {
	if got := tideline(t); got.code != 2 || !strings.Contains(got.err, "topics create") || got.out != "" {
		t.Errorf("without a command: %+v", got)
	}
	for _, help := range []string{"-h", "--help"} {
		if got := tideline(t, help); got.code != 0 || !strings.Contains(got.out, "topics create") || got.err != "" {
			t.Errorf("%s: %+v", help, got)
		}
	}
	for _, c := range []struct {
		args []string
		err  string
	}{
		{[]string{"topics"}, `unknown command "topics"; known are topics create and topics check (-h lists the commands)`},
		{[]string{"topics", "crate"}, "known are topics create and topics check"},
		{[]string{"fsk", "-json"}, "did you mean fsck?"},
		{[]string{"nonsense"}, `unknown command "nonsense" (-h lists the commands)`},
		{[]string{"-data.dri", "x", "fsck"}, "unknown flag -data.dri; did you mean -data.dir? (-h lists the flags)"},
		{[]string{"-data.dir", "x"}, "topics create"},
	} {
		if got := tideline(t, c.args...); got.code != 2 || !strings.Contains(got.err, c.err) {
			t.Errorf("%q: %+v", c.args, got)
		}
	}
	if got := tideline(t, "topics", "check", "-kafka.partitons", "3"); got.code != 1 || !strings.Contains(got.err, "unknown flag -kafka.partitons; did you mean -kafka.partitions?") || strings.Count(got.err, "\n") != 1 {
		t.Errorf("a flag that is misspelt: %+v", got)
	}
	for _, c := range commands() {
		if got := tideline(t, append(strings.Fields(c.words), "-h")...); got.code != 0 {
			t.Errorf("%s has no help: %+v", c.words, got)
		}
		if got := tideline(t, append(strings.Fields(c.words), "-nope")...); got.code == 0 || strings.Count(got.err, "\n") != 1 {
			t.Errorf("%s with a wrong flag: %+v", c.words, got)
		}
		if got := tideline(t, append(strings.Fields(c.words), "-version")...); got.code != 0 || !strings.HasPrefix(got.out, "tideline ") {
			t.Errorf("%s has no -version: %+v", c.words, got)
		}
	}
	for _, args := range [][]string{{"version"}, {"-version"}} {
		if got := tideline(t, args...); got.code != 0 || got.out != version.Line("tideline")+"\n" {
			t.Errorf("%q: %+v", args, got)
		}
	}
}

func TestSettingsOfOthersAreNoMatter(t *testing.T) {
	t.Setenv("TIDELINE_PUSH_WINDOW", "1s")
	t.Setenv("TIDELINE_OPS_ADDR", "127.0.0.1:1")
	got := tideline(t, "health", "-print-config")
	if got.code != 0 || !strings.Contains(got.out, "127.0.0.1:1") || !strings.Contains(got.out, "TIDELINE_OPS_ADDR") {
		t.Errorf("the settings: %+v", got)
	}
}

func TestHealth(t *testing.T) {
	server, err := ops.Listen("127.0.0.1:0", ops.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	fault := errors.New("the store is not there yet")
	server.Check("store", func(context.Context) error { return fault })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()

	if got := tideline(t, "health", "-ops.addr", server.Addr()); got.code != 1 || !strings.Contains(got.err, "not there yet") {
		t.Errorf("a process that waits for something: %+v", got)
	}
	fault = nil
	_, port, _ := strings.Cut(server.Addr(), ":")
	if got := tideline(t, "health", "-ops.addr", ":"+port); got.code != 0 || !strings.Contains(got.out, `"store":"ok"`) {
		t.Errorf("a process that is well: %+v", got)
	}
	fault = errors.New("the store is away")
	if got := tideline(t, "health", "-ops.addr", server.Addr()); got.code != 0 || !strings.Contains(got.out, "the store is away") {
		t.Errorf("a process whose store is away: %+v", got)
	}
	server.SetDraining()
	if got := tideline(t, "health", "-ops.addr", server.Addr()); got.code != 1 || !strings.Contains(got.err, "draining") {
		t.Errorf("a process that stops: %+v", got)
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := tideline(t, "health", "-ops.addr", server.Addr()); got.code != 1 || !strings.Contains(got.err, "does not answer") {
		t.Errorf("a process that is gone: %+v", got)
	}
}

// A process that hangs is as bad as one that is gone, and whoever asks is told in time.
func TestHealthOfOneThatHangs(t *testing.T) {
	server, err := ops.Listen("127.0.0.1:0", ops.NewRegistry()) // it takes the connection, and nobody serves it
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if got := tideline(t, "health", "-ops.addr", server.Addr()); got.code != 1 || !strings.Contains(got.err, "does not answer") {
		t.Errorf("a process that hangs: %+v", got)
	}
	if took := time.Since(start); took > 2*healthTimeout {
		t.Errorf("it took %s to say so", took)
	}
}
