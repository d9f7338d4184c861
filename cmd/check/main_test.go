package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// record makes a history of one message, told as it was or otherwise, in a file.
func record(t *testing.T, answered int64, stored history.Body) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "history.jsonl")
	w, err := history.Create(path, history.Header{Driver: "test"})
	if err != nil {
		t.Fatal(err)
	}
	c := chat.PrivateConversation(1, 2)
	body := history.BodyOf([]byte(`{"text":"hi"}`))
	who := w.Opened(1, history.DoorSocket)
	op := w.Begin(who, c, history.Begin{Call: history.CallSend, Door: history.DoorSocket, ClientMsgID: "k", Body: body})
	w.End(op, history.End{Outcome: history.OutcomeOK, Seq: answered, MessageID: 9})
	op = w.Begin(who, c, history.Begin{Call: history.CallPull, Door: history.DoorHTTP, Told: 1})
	w.End(op, history.End{Outcome: history.OutcomeOK, Pull: &history.Pull{MinSeq: 1, MaxSeq: 1, Entries: []history.Entry{
		{Seq: 1, Type: "text", MessageID: 9, Sender: 1, ClientMsgID: "k", Body: body},
	}}})
	w.Closed(who, 1000, "")
	w.Rest()
	inbound := int64(4)
	w.Found(c, history.Event{Source: history.SourceLog, Seq: 1, Kind: chat.KindMessage, MessageID: 9, Sender: 1, ClientMsgID: "k", Body: body, InboundOffset: &inbound})
	w.Found(c, history.Event{Source: history.SourceStore, Seq: 1, Kind: chat.KindMessage, MessageID: 9, Sender: 1, ClientMsgID: "k", Body: stored})
	w.ReadToEnd(history.SourceLog, 1)
	w.ReadToEnd(history.SourceStore, 1)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

var hi = history.BodyOf([]byte(`{"text":"hi"}`))

func TestCheck_ExitsWithZeroAndSaysWhatItLookedAt(t *testing.T) {
	var out, errOut bytes.Buffer
	if code := run([]string{record(t, 1, hi)}, &out, &errOut); code != exitKept {
		t.Fatalf("exits with %d: %s%s", code, &out, &errOut)
	}
	for _, want := range []string{
		"1 clients, 1 connections, 1 conversations", "send      socket  ok", "numbered sends", "log               1",
		"archive           0  not read to its end", "acknowledged  P1            1          0", "archived      P9      NOTHING          0",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, &out)
		}
	}
}

func TestCheck_ExitsWithOneAndShowsTheLinesOfEachViolation(t *testing.T) {
	var out, errOut bytes.Buffer
	path := record(t, 2, "0000000000000000")
	if code := run([]string{"-quiet", path}, &out, &errOut); code != exitBroken {
		t.Fatalf("exits with %d: %s%s", code, &out, &errOut)
	}
	for _, want := range []string{
		"acknowledged P1: p-1-2: a send of user 1 was answered with number 2, and the log has it at 1\n  3: {", `"end":{"outcome":"ok","seq":2`,
		"agree P1: p-1-2: number 1 has another content in store than in the log", `"source":"store"`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not show %q:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "looked at") {
		t.Errorf("it is not quiet:\n%s", &out)
	}
}

func TestCheck_ExitsWithTwoWhereItCannotTell(t *testing.T) {
	path := record(t, 1, hi)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "broken.jsonl")
	if err := os.WriteFile(broken, bytes.Replace(text, []byte(`"op":1`), []byte(`"op":7`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no file":               {[]string{filepath.Join(t.TempDir(), "none")}, "no such file"},
		"no argument":           {nil, "usage"},
		"two":                   {[]string{path, path}, "usage"},
		"an unknown flag":       {[]string{"-mood", path}, "mood"},
		"a senseless flag":      {[]string{"-grace=-1s", "-keep=0", path}, "grace is negative"},
		"another file":          {[]string{"main.go"}, "line 1"},
		"an end without begin":  {[]string{broken}, "line 4: operation 1 ends"},
		"a directory, no file ": {[]string{t.TempDir()}, "directory"},
	} {
		var out, errOut bytes.Buffer
		if code := run(c.args, &out, &errOut); code != exitUsage || !strings.Contains(errOut.String(), c.want) {
			t.Errorf("%s: exits with %d and says %s, want %q", name, code, &errOut, c.want)
		}
	}
}

func TestCheck_JudgesATornHistoryAndSaysSo(t *testing.T) {
	path := record(t, 1, hi)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text[:len(text)-5], 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	if code := run([]string{path}, &out, &errOut); code != exitKept || !strings.Contains(out.String(), "TORN") {
		t.Errorf("exits with %d: %s%s", code, &out, &errOut)
	}
}
