package config

import (
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

// plainSettings has a setting of every type that one can have.
type plainSettings struct {
	Addr  string        `conf:"addr" help:"text"`
	Wait  time.Duration `conf:"wait" help:"time"`
	Body  int64         `conf:"max-body" help:"bytes"`
	Some  int           `conf:"some" help:"number"`
	Share float64       `conf:"share" help:"number"`
	List  []string      `conf:"list" help:"list"`
	On    bool          `conf:"on" help:"switch"`
	Token Secret        `conf:"token" help:"hidden"`
}

// given names a value as a variable and as a flag.
func (p *plainSettings) given() (env, args []string) {
	for key, value := range map[string]string{
		"addr": p.Addr, "wait": p.Wait.String(), "max-body": strconv.FormatInt(p.Body, 10), "some": strconv.Itoa(p.Some), "share": strconv.FormatFloat(p.Share, 'g', -1, 64),
		"list": strings.Join(p.List, ","), "on": strconv.FormatBool(p.On), "token": p.Token.Reveal(),
	} {
		env = append(env, "TIDELINE_P_"+strings.ReplaceAll(strings.ToUpper(key), "-", "_")+"="+value)
		args = append(args, "-p."+key+"="+value)
	}
	return env, args
}

func same(a, b plainSettings) bool {
	if a.Share != a.Share && b.Share != b.Share { // what is not a number is not even itself
		a.Share, b.Share = 0, 0
	}
	return reflect.DeepEqual(a, b)
}

// FuzzLoad_File: whatever a file has, it is read or refused, without a panic, and always in the same way. What it gives is what
// the environment and flags give for the same values: no source has values of its own. What is refused gives the file's name,
// and never a secret.
func FuzzLoad_File(f *testing.F) {
	for _, s := range []string{
		"", "p:\n", "p: {addr: a, wait: 3s, max-body: 2MiB, list: [a, b], on: true, token: hush}\n", "p.addr: a\np: {addr: b}\n", "p: {adr: a}\n", "p:\n  addr:\n", "p: {addr: ~}",
		"p: {token: 0123}\n", "p: {addr: 1.10}", "p: {addr: 2024-01-01}", "p: {addr: yes, on: yes}", "p: {max-body: 1e6, some: 0x10}", "p: {some: 9223372036854775808}", "p: {share: .nan}",
		"a: &a {addr: x}\np: *a\n", "a: &a [*a]\n", "p: {<<: {addr: a}}", "p: {list: [[a], ~]}", "p: {addr: a}\n---\np: {addr: b}\n", "? {a: b}\n: c\n", "[p]", "p: {addr: !!binary aGk=}",
		"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c]\n", "\xff", "p: {token: &t hush, wait: *t}", "%YAML 9.9\n---\np: {}",
	} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(dir, "c.yaml")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		var got, again plainSettings
		_, err := Load("test", []string{"-config", file}, nil, io.Discard, Section{"p", &got})
		_, errAgain := Load("test", []string{"-config", file}, nil, io.Discard, Section{"p", &again})
		if (err == nil) != (errAgain == nil) || err != nil && err.Error() != errAgain.Error() || !same(got, again) {
			t.Fatalf("%q is read in two ways: %v, %v", text, err, errAgain)
		}
		if err != nil {
			if !strings.Contains(err.Error(), file) {
				t.Fatalf("%q is refused with %v", text, err)
			}
			return
		}
		env, args := got.given()
		var fromEnv, fromFlags plainSettings
		if _, err := Load("test", nil, env, io.Discard, Section{"p", &fromEnv}); err != nil || !same(got, fromEnv) {
			t.Fatalf("%q gives %+v, and as variables %+v, %v", text, got, fromEnv, err)
		}
		l, err := Load("test", args, nil, io.Discard, Section{"p", &fromFlags})
		if err != nil || !same(got, fromFlags) {
			t.Fatalf("%q gives %+v, and as flags %+v, %v", text, got, fromFlags, err)
		}
		var table strings.Builder
		if err := l.Print(&table); err != nil {
			t.Fatal(err)
		}
		if secret := got.Token.Reveal(); len(secret) > 20 && got.Addr != secret && strings.Contains(table.String(), secret) {
			t.Fatalf("the secret is shown in %s", table.String())
		}
	})
}

// FuzzLoad_EnvironmentAndFlags: whatever stands in one variable and one flag, it is read or refused, without a panic; what is
// unknown is refused with its name; a flag that is read is stronger than the variable.
func FuzzLoad_EnvironmentAndFlags(f *testing.F) {
	for _, c := range [][3]string{
		{"ADDR", "a", "-p.addr=b"}, {"ADR", "a", "-p.adr=b"}, {"WAIT", "3s", "-p.wait"}, {"WAIT", "-9223372036854775808ns", "-p.on"}, {"MAX_BODY", "8796093022208MiB", "-p.max-body=-1KiB"},
		{"MAX_BODY", " 1 KiB", "-p.some=0x10"}, {"SHARE", "1e400", "-p.share=nan"}, {"LIST", " a,, b ,", "-p.list=,"}, {"TOKEN_FILE", "/dev/null", "-p.token=hush"}, {"", "", "--"}, {"=", "=", "-=-"},
		{"ADR", "a", "-version"}, {"ADR", "a", "-version=f"}, {"ADDR_FILE", "/dev/null", "-h"}, {"ADDR", "\x00", "p.addr"},
	} {
		f.Add(c[0], c[1], c[2])
	}
	f.Fuzz(func(t *testing.T, name, value, arg string) {
		if strings.HasSuffix(name, "_FILE") && value != "/dev/null" || name == "CONFIG" || strings.Contains(arg, "config") {
			t.Skip() // reads files at will
		}
		var got plainSettings
		l, err := Load("test", []string{arg}, []string{"TIDELINE_P_" + name + "=" + value}, io.Discard, Section{"p", &got})
		if err == nil && l.PrintVersion {
			return // nothing else is looked at
		}
		known := map[string]bool{"ADDR": true, "WAIT": true, "MAX_BODY": true, "SOME": true, "SHARE": true, "LIST": true, "ON": true, "TOKEN": true, "TOKEN_FILE": true}
		if before, _, _ := strings.Cut(name, "="); !known[before] && err == nil && !strings.Contains(arg, "print-config") {
			t.Fatalf("the variable %q is unknown, and was taken", name)
		}
		if err != nil {
			if !errors.Is(err, flag.ErrHelp) && err.Error() == "" {
				t.Fatal("it is refused without a word")
			}
			return
		}
		if flagged, ok := strings.CutPrefix(arg, "-p.addr="); ok && got.Addr != flagged {
			t.Fatalf("%q gives %q", arg, got.Addr)
		}
	})
}

// A value that is empty, or that YAML would take for a number or a day, used to come as "<nil>", or in another spelling.
func TestLoad_TakesAFileByTheLetter(t *testing.T) {
	for text, want := range map[string]string{
		"http: {addr: 0123}": "0123", "http: {addr: 1.10}": "1.10", "http: {addr: 2024-01-01}": "2024-01-01", "http.addr: 1e3": "1e3", "http: {addr: ''}": "",
		"http:\n  addr:\n": "!has no value", "http: {origins: [a, [b]]}": "!part 2", "http: {addr: a}\nhttp.addr: b": "!twice", "http: {addr: a}\n---\nhttp: {addr: b}": "!more than one",
		"http: {addr: {a: b}}": "!unknown setting http.addr.a",
	} {
		file := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, _, err := load(t, []string{"-config", file}, nil)
		if fault, wrong := strings.CutPrefix(want, "!"); wrong {
			if err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if err != nil || s.Addr != want {
			t.Errorf("%q gives %q, %v", text, s.Addr, err)
		}
	}
}
