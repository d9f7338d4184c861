package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"tideline/internal/api"
)

// rawConn is a connection on which a test writes bytes itself.
type rawConn struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dialRaw(t *testing.T, base string) *rawConn {
	t.Helper()
	host := strings.TrimSuffix(strings.TrimPrefix(base, "http://"), "/v1")
	c, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return &rawConn{t, c, bufio.NewReader(c)}
}

func (w *rawConn) write(text string) {
	w.t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		w.t.Fatal(err)
	}
}

// answer reads an answer; 100 counts as one.
func (w *rawConn) answer() *http.Response {
	w.t.Helper()
	res, err := http.ReadResponse(w.r, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if res.StatusCode != http.StatusContinue {
		body, err := io.ReadAll(res.Body)
		if err != nil {
			w.t.Fatal(err)
		}
		res.Body = io.NopCloser(strings.NewReader(string(body)))
	}
	return res
}

// begin sends the head of a POST and waits until the server reads its body, or returns the refusal.
func (w *rawConn) begin(path, framing string, headers ...string) *http.Response {
	w.t.Helper()
	w.write("POST /v1" + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n" + framing + "\r\n" + strings.Join(append(headers, "", ""), "\r\n"))
	if res := w.answer(); res.StatusCode != http.StatusContinue {
		return res
	}
	return nil
}

// 620 slow bodies at max-requests 600 once refused everyone for half a minute.
func TestBodies_SlowOnesHoldNoSeats(t *testing.T) {
	good, flooder := join(t, "ada"), join(t, "eve")
	const connections, seats = 620, 600
	for _, c := range []struct {
		name    string
		taken   int // how many may be under way
		headers func(i int) []string
	}{
		{"from one address without a token", 64, func(int) []string { return nil }},
		{"from one address with a wrong token", 64, func(int) []string { return []string{"Authorization: Bearer guess"} }},
		{"from one IPv6 network", 64, func(i int) []string { return []string{fmt.Sprintf("X-Forwarded-For: 2001:db8:1:2::%x", i+1)} }},
		{"from one account", 256, func(i int) []string {
			return []string{"Authorization: bearer " + flooder.token, fmt.Sprintf("X-Forwarded-For: 10.0.%d.%d", i/200, i%200+1)}
		}},
		{"from many addresses", connections, func(i int) []string { return []string{fmt.Sprintf("X-Forwarded-For: 10.0.%d.%d", i/200, i%200+1)} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := api.DefaultConfig()
			cfg.MaxRequests, cfg.RatePerAddress, cfg.RatePerUser, cfg.TrustedProxies = seats, 0, 0, []string{"127.0.0.1"}
			good.base = theRig(t).door(t, cfg)
			var held []*rawConn
			for i := range connections {
				w := dialRaw(t, good.base)
				if res := w.begin("/sessions", "Content-Length: 2", c.headers(i)...); res == nil {
					w.write("{") // one byte, and no more
					held = append(held, w)
				} else if res.StatusCode != 429 || !res.Close || res.Header.Get("Retry-After") == "" {
					t.Fatalf("connection %d was answered %s, close %t", i+1, res.Status, res.Close)
				}
			}
			if len(held) != c.taken {
				t.Errorf("%d slow bodies are under way, want %d", len(held), c.taken)
			}
			// Someone with a token at the very same address is answered at once, and so is every address that is not theirs.
			good.call("POST", "/sync", m{}, header{"X-Forwarded-For", "10.0.0.1"}).must(200)
			good.get("/openapi.json", header{"X-Forwarded-For", "192.0.2.77"}, header{"Authorization", ""}).must(200)
			for _, w := range held {
				res := w.answer()
				text, _ := io.ReadAll(res.Body)
				if res.StatusCode != 408 || !res.Close || !strings.Contains(string(text), `"body_timeout"`) {
					t.Fatalf("a slow body was answered %s %s", res.Status, text)
				}
			}
		})
	}
}

// A body is timed whatever way it comes in.
func TestBodies_MustArriveInTime(t *testing.T) {
	base := theRig(t).door(t, api.DefaultConfig())
	for _, c := range []struct {
		name, framing, first string
		then                 string // sent again and again
		least                time.Duration
	}{
		{"nothing", "Content-Length: 100", "", "", 2 * time.Second},
		{"one byte", "Content-Length: 100", "{", "", 2 * time.Second},
		{"half of a large one", "Content-Length: 8192", strings.Repeat(" ", 4096), "", 5 * time.Second},
		{"a chunk", "Transfer-Encoding: chunked", "1\r\n{\r\n", "", 2 * time.Second},
		{"half of a chunk", "Transfer-Encoding: chunked", "ff\r\n{", "", 2 * time.Second},
		{"a trickle", "Content-Length: 8192", "", " ", 2 * time.Second},
		{"a trickle of chunks", "Transfer-Encoding: chunked", "", "1\r\n \r\n", 2 * time.Second},
		{"fast enough, and no end", "Content-Length: 500000", "", strings.Repeat(" ", 256), 9 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := dialRaw(t, base)
			if res := w.begin("/sessions", c.framing); res != nil {
				t.Fatal(res.Status)
			}
			started := time.Now()
			w.write(c.first)
			var writers sync.WaitGroup
			stop := make(chan struct{})
			if c.then != "" {
				pace := time.NewTicker(100 * time.Millisecond) // the property is about time
				defer pace.Stop()
				writers.Go(func() {
					for {
						select {
						case <-stop:
							return
						case <-pace.C:
							if _, err := io.WriteString(w, c.then); err != nil {
								return // the server has closed
							}
						}
					}
				})
			}
			res := w.answer()
			took := time.Since(started)
			close(stop)
			writers.Wait()
			if res.StatusCode != 408 || took < c.least-100*time.Millisecond {
				t.Errorf("answered %s after %s, want 408 after %s at least", res.Status, took, c.least)
			}
		})
	}
}

func TestBodies_ThatComeWholeAreTakenInEveryForm(t *testing.T) {
	ada := join(t, "ada")
	auth := "Authorization: BEARER " + ada.token
	w := dialRaw(t, ada.base)
	for _, c := range []struct {
		framing string
		pieces  []string
	}{
		{"Content-Length: 2", []string{"{}"}},
		{"Content-Length: 2", []string{"{", "}"}},
		{"Transfer-Encoding: chunked", []string{"1\r\n{\r\n", "1\r\n}\r\n", "0\r\n\r\n"}},
		{"Content-Length: 20002", []string{"{" + strings.Repeat(" ", 20_000) + "}"}},
		{"Transfer-Encoding: chunked", []string{"4e22\r\n{" + strings.Repeat(" ", 20_000) + "}\r\n0\r\n\r\n"}},
	} {
		if res := w.begin("/sync", c.framing, auth); res != nil {
			t.Fatal(res.Status)
		}
		for _, p := range c.pieces {
			w.write(p)
		}
		if res := w.answer(); res.StatusCode != 200 || res.Close { // the next goes over the same connection
			t.Errorf("%s: answered %s, close %t", c.framing, res.Status, res.Close)
		}
	}
	// What is too large by its own word is not even asked for.
	if res := w.begin("/sync", "Content-Length: 600000", auth); res == nil || res.StatusCode != 413 || !res.Close {
		t.Errorf("600,000 bytes: %v", res)
	}
}

func TestForms_OfAnotherSiteAreNotTaken(t *testing.T) {
	ada := join(t, "ada")
	ada.http = http.DefaultClient // the document knows JSON only
	host := strings.TrimPrefix(strings.TrimSuffix(ada.base, "/v1"), "http://")
	type headers = []header
	for name, c := range map[string]struct {
		kind   string
		from   headers
		status int
	}{
		"curl":                           {"application/x-www-form-urlencoded", nil, 200},
		"curl, with a charset":           {"application/x-www-form-urlencoded; charset=utf-8", nil, 200},
		"a program without a type":       {"", nil, 200},
		"our own page":                   {"application/x-www-form-urlencoded", headers{{"Origin", "http://" + host}, {"Sec-Fetch-Site", "same-origin"}}, 200},
		"JSON of another site":           {"application/json", headers{{"Origin", "https://evil.example"}, {"Sec-Fetch-Site", "cross-site"}}, 200},
		"JSON in capitals":               {"Application/JSON", headers{{"Origin", "https://evil.example"}}, 200},
		"a form of another site":         {"application/x-www-form-urlencoded", headers{{"Origin", "https://evil.example"}}, 415},
		"a form of a sandboxed page":     {"application/x-www-form-urlencoded", headers{{"Origin", "null"}}, 415},
		"a form of another site, silent": {"application/x-www-form-urlencoded", headers{{"Sec-Fetch-Site", "cross-site"}}, 415},
		"a form of the site beside":      {"application/x-www-form-urlencoded", headers{{"Sec-Fetch-Site", "same-site"}}, 415},
		"a blob without a type":          {"", headers{{"Origin", "https://evil.example"}}, 415},
		"plain text":                     {"text/plain", nil, 415},
		"a form with files":              {"multipart/form-data; boundary=x", nil, 415},
	} {
		hs := append(headers{{"Content-Type", c.kind}}, c.from...)
		if a := ada.call("PATCH", "/users/me", raw(`{"nickname":"Curly"}`), hs...); a.status != c.status {
			t.Errorf("%s was answered %d, want %d: %s", name, a.status, c.status, a.body)
		}
		v := visitor(t)
		v.http = http.DefaultClient
		want := c.status
		if want == 200 {
			want = 201
		}
		if a := v.call("POST", "/sessions", raw(`{"username":"`+ada.name+`","password":"`+password+`","platform":"bot"}`), hs...); a.status != want {
			t.Errorf("login by %s was answered %d, want %d: %s", name, a.status, want, a.body)
		}
	}
}

func TestSessions_SocketURLDoesNotFollowAnyHost(t *testing.T) {
	ada := join(t, "ada")
	login := func(base string, lines ...string) string {
		t.Helper()
		w := dialRaw(t, base)
		body := `{"username":"` + ada.name + `","password":"` + password + `","platform":"bot"}`
		w.write("POST /v1/sessions HTTP/1.1\r\nContent-Type: application/json\r\n" + strings.Join(lines, "\r\n") + fmt.Sprintf("\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		res := w.answer()
		text, _ := io.ReadAll(res.Body)
		return (&answer{t: t, call: "login", status: res.StatusCode, body: text}).must(201).text("socket_url")
	}
	forged := []string{"Host: evil.example", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example"}
	plain := theRig(t).door(t, api.DefaultConfig())
	host := strings.TrimPrefix(strings.TrimSuffix(plain, "/v1"), "http://")
	_, port, _ := net.SplitHostPort(host)
	if got := login(plain, forged...); got != "ws://"+host+"/v1/ws" {
		t.Errorf("a stranger's headers make %s", got)
	}
	if got := login(plain, "Host: localhost:"+port); got != "ws://localhost:"+port+"/v1/ws" {
		t.Errorf("localhost becomes %s", got)
	}
	cfg := api.DefaultConfig()
	cfg.PublicURL = "https://chat.example.org"
	if got := login(theRig(t).door(t, cfg), forged...); got != "wss://chat.example.org/v1/ws" {
		t.Errorf("with http.public-url it is %s", got)
	}
	cfg = api.DefaultConfig()
	cfg.TrustedProxies = []string{"127.0.0.0/8"}
	if got := login(theRig(t).door(t, cfg), "Host: inside", "X-Forwarded-Proto: https", "X-Forwarded-Host: im.example.org"); got != "wss://im.example.org/v1/ws" {
		t.Errorf("a trusted proxy's headers make %s", got)
	}
}

func TestBearer_IsTakenInAnyCaseAndNeverWithoutItsScheme(t *testing.T) {
	ada := join(t, "ada")
	for _, scheme := range []string{"Bearer", "bearer", "BEARER"} {
		ada.get("/users/me", header{"Authorization", scheme + " " + ada.token}).must(200)
		visitor(t).call("POST", "/admin/users", m{}, header{"Authorization", scheme + " " + adminToken}).refused(400, "invalid_field", "users")
	}
	ada.get("/users/me", header{"Authorization", ada.token}).refused(401, "unauthenticated", "")
	visitor(t).call("POST", "/admin/users", m{}, header{"Authorization", adminToken}).refused(401, "unauthenticated", "")
}
