package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tideline/internal/version"
)

type httpSettings struct {
	Addr    string        `conf:"addr" help:"where to listen"`
	Timeout time.Duration `conf:"read-timeout" help:"patience"`
	Body    int64         `conf:"max-body" help:"bytes"`
	Origins []string      `conf:"origins" help:"who may"`
	Token   Secret        `conf:"token" help:"hidden"`
	On      bool          `conf:"on" help:"switch"`
}

func load(t *testing.T, args, env []string) (*httpSettings, *Loaded, error) {
	t.Helper()
	s := &httpSettings{Addr: "default:1", Timeout: time.Second}
	l, err := Load("test", args, env, io.Discard, Section{"http", s})
	return s, l, err
}

func TestLoad_TakesTheStrongestSourceAndTellsIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("http:\n  addr: file:2\n  read-timeout: 3s\n  origins: [a, b]\n  max-body: 2MiB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, l, err := load(t, []string{"-config", file, "-http.addr", "flag:4", "-http.on"}, []string{"TIDELINE_HTTP_ADDR=env:3", "TIDELINE_HTTP_READ_TIMEOUT=4s", "OTHER=1"})
	if err != nil {
		t.Fatal(err)
	}
	if s.Addr != "flag:4" || s.Timeout != 4*time.Second || s.Body != 2<<20 || strings.Join(s.Origins, "+") != "a+b" || !s.On {
		t.Fatalf("got %+v", s)
	}
	var out bytes.Buffer
	if err := l.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"flag -http.addr", "environment TIDELINE_HTTP_READ_TIMEOUT", "file " + file, "default"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table does not tell %q:\n%s", want, out.String())
		}
	}
}

func TestLoad_RefusesWhatItDoesNotKnowWithTheNearestName(t *testing.T) {
	for _, c := range []struct{ args, env []string }{
		{nil, []string{"TIDELINE_HTTP_ADR=x"}},
		{[]string{"-http.adr", "x"}, nil},
	} {
		_, _, err := load(t, c.args, c.env)
		if err == nil || !strings.Contains(err.Error(), "did you mean") || !strings.Contains(strings.ToLower(err.Error()), "addr?") {
			t.Errorf("%v %v: %v", c.args, c.env, err)
		}
	}
}

func TestLoad_ListsEveryFaultAtOnce(t *testing.T) {
	_, _, err := load(t, []string{"-http.max-body", "many"}, []string{"TIDELINE_HTTP_READ_TIMEOUT=soon"})
	if err == nil || !strings.Contains(err.Error(), "http.max-body") || !strings.Contains(err.Error(), "http.read-timeout") {
		t.Fatal(err)
	}
}

func TestSecret_IsNeverShown(t *testing.T) {
	secretFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secretFile, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, l, err := load(t, nil, []string{"TIDELINE_HTTP_TOKEN_FILE=" + secretFile})
	if err != nil {
		t.Fatal(err)
	}
	if s.Token.Reveal() != "hush" {
		t.Fatalf("got %q", s.Token.Reveal())
	}
	var table bytes.Buffer
	if err := l.Print(&table); err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{table.String(), fmt.Sprintf("%v %+v %#v %s", s, s, s.Token, s.Token), string(asJSON)} {
		if strings.Contains(shown, "hush") {
			t.Errorf("the secret is shown in %s", shown)
		}
	}
}

// A wrong flag used to write its one line above a hundred lines of usage.
func TestParseFlags_WritesNothingButReturnsOneLineForAWrongFlag(t *testing.T) {
	for args, want := range map[string]string{
		"-nope":              "unknown flag -nope (-h lists the flags)",
		"-http.adr=x":        "unknown flag -http.adr; did you mean -http.addr? (-h lists the flags)",
		"-print-confg":       "unknown flag -print-confg; did you mean -print-config? (-h lists the flags)",
		"-print-config=much": `invalid boolean value "much" for -print-config: parse error (-h lists the flags)`,
		"-http.addr":         "flag needs an argument: -http.addr (-h lists the flags)",
		"-=":                 "bad flag syntax: -= (-h lists the flags)",
	} {
		var out bytes.Buffer
		_, err := Load("test", []string{args}, nil, &out, Section{"http", &httpSettings{}})
		if err == nil || err.Error() != want || out.Len() > 0 {
			t.Errorf("%s: %v, and wrote %q; want %s", args, err, &out, want)
		}
	}
}

func TestLoad_SuggestsNothingThatIsFarFromWhatWasGiven(t *testing.T) {
	_, _, err := load(t, nil, []string{"TIDELINE_LOG_FORMAT=json"})
	if err == nil || err.Error() != "unknown variable TIDELINE_LOG_FORMAT" {
		t.Errorf("got %v", err)
	}
}

// folder finds settings as the data folder of a standalone does.
type folder struct {
	Dir string `conf:"data.dir" help:"where to find them"`
}

func (f *folder) Find() (string, map[string]string, error) {
	switch f.Dir {
	case "":
		return "", nil, nil
	case "missing":
		return "", nil, fmt.Errorf("data.dir: there is no %s", f.Dir)
	}
	return "folder " + f.Dir, map[string]string{"http.addr": "found:1", "http.read-timeout": "7s", "http.token": "hush", "kafka.addr": "of another section"}, nil
}

func TestLoad_TakesWhatASectionHasFoundWhereNothingElseIsSet(t *testing.T) {
	for _, c := range []struct {
		args, env []string
		addr      string
	}{
		{args: []string{"-data.dir", "d"}, addr: "found:1"},
		{env: []string{"TIDELINE_DATA_DIR=d"}, addr: "found:1"},
		{args: []string{"-data.dir", "d", "-http.addr", "flag:2"}, addr: "flag:2"},
		{args: []string{"-data.dir", "d"}, env: []string{"TIDELINE_HTTP_ADDR=env:3"}, addr: "env:3"},
		{addr: "default:1"},
	} {
		s := &httpSettings{Addr: "default:1", Timeout: time.Second}
		l, err := Load("test", c.args, c.env, io.Discard, Section{"http", s}, Section{"", &folder{}})
		if err != nil || s.Addr != c.addr {
			t.Fatalf("%v %v: %q, %v", c.args, c.env, s.Addr, err)
		}
		var table bytes.Buffer
		if err := l.Print(&table); err != nil {
			t.Fatal(err)
		}
		found := len(c.args)+len(c.env) > 0
		if (s.Timeout == 7*time.Second) != found || strings.Contains(table.String(), "folder d") != found || strings.Contains(table.String(), "hush") {
			t.Errorf("%v %v: %+v\n%s", c.args, c.env, s, &table)
		}
	}
	if _, err := Load("test", []string{"-data.dir", "missing"}, nil, io.Discard, Section{"", &folder{}}); err == nil || err.Error() != "data.dir: there is no missing" {
		t.Errorf("got %v", err)
	}
}

type picky struct {
	Addr string `conf:"addr" help:"where to listen"`
}

func (p *picky) Validate() error {
	if p.Addr == "" {
		return fmt.Errorf("picky.addr is empty")
	}
	return nil
}

func TestCommand_ShowsWhereAWrongSettingComesFrom(t *testing.T) {
	for _, c := range []struct {
		args, env []string
		code      int
		goesOn    bool
		out, err  string
	}{
		{args: []string{"-picky.addr=a"}, goesOn: true},
		{args: []string{"-picky.addr=a", "-print-config"}, out: "flag -picky.addr"},
		{code: 2, err: "picky.addr is empty"},
		{args: []string{"-print-config"}, env: []string{"TIDELINE_PICKY_ADDR="}, code: 2, out: "environment TIDELINE_PICKY_ADDR", err: "picky.addr is empty"},
		{args: []string{"-print-config"}, env: []string{"TIDELINE_PICKY_ADR=a"}, code: 2, out: "default", err: "did you mean TIDELINE_PICKY_ADDR"},
		{args: []string{"-h"}, err: "TIDELINE_PICKY_ADDR"},
		{args: []string{"-picky.addr=a", "more"}, code: 2, err: "takes no arguments"},
		{args: []string{"-nope"}, code: 2, err: "test: unknown flag -nope (-h lists the flags)\n"},
		{args: []string{"-version"}, env: []string{"TIDELINE_PICKY_ADR=a"}, out: version.Line("test") + "\n"},
	} {
		var out, errOut bytes.Buffer
		code, goesOn := Command("test", c.args, c.env, &out, &errOut, Section{"picky", &picky{}})
		if code != c.code || goesOn != c.goesOn || !strings.Contains(out.String(), c.out) || !strings.Contains(errOut.String(), c.err) {
			t.Errorf("%v %v ends with %d (goes on: %v)\n%s\n%s", c.args, c.env, code, goesOn, &out, &errOut)
		}
	}
}
