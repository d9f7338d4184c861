package edge

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

func request(remote string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "http://attacker.example/v1/sessions", nil)
	r.RemoteAddr = remote
	for h := range slices.Chunk(headers, 2) {
		if h[0] == "Host" {
			r.Host = h[1]
		} else {
			r.Header.Add(h[0], h[1])
		}
	}
	return r
}

func TestProxies_AddressIsTheFirstThatIsNoTrustedProxy(t *testing.T) {
	p, err := ParseProxies([]string{"10.0.0.0/8", "::ffff:192.0.2.9", "fd00::/64", "2001:db8::53"})
	if err != nil {
		t.Fatal(err)
	}
	const xff = "X-Forwarded-For"
	for _, c := range []struct {
		name, remote string
		headers      []string
		want         string
	}{
		{"no proxy", "203.0.113.7:999", nil, "203.0.113.7"},
		{"a stranger who writes the header", "203.0.113.7:999", []string{xff, "198.51.100.1"}, "203.0.113.7"},
		{"one proxy", "10.0.0.1:999", []string{xff, "198.51.100.1"}, "198.51.100.1"},
		{"one proxy, and a client that wrote the header before it", "10.0.0.1:999", []string{xff, "127.0.0.1, 198.51.100.1"}, "198.51.100.1"},
		{"several proxies", "10.0.0.1:999", []string{xff, "1.1.1.1, 198.51.100.1, 192.0.2.9,10.2.3.4"}, "198.51.100.1"},
		{"several proxies with a line each", "10.0.0.1:999", []string{xff, "1.1.1.1", xff, "198.51.100.1", xff, "10.2.3.4"}, "198.51.100.1"},
		{"an IPv6 proxy", "[fd00::3]:999", []string{xff, "198.51.100.1"}, "198.51.100.1"},
		{"an IPv6 proxy by address", "[2001:db8::53]:999", []string{xff, "198.51.100.1"}, "198.51.100.1"},
		{"its neighbour", "[2001:db8::54]:999", []string{xff, "198.51.100.1"}, "2001:db8::/64"},
		{"no header", "10.0.0.1:999", nil, "10.0.0.1"},
		{"only X-Real-IP, which nothing here sets", "10.0.0.1:999", []string{"X-Real-Ip", "198.51.100.1"}, "10.0.0.1"},
		{"proxies alone", "10.0.0.1:999", []string{xff, "10.0.0.7, 10.0.0.8"}, "10.0.0.7"},
		{"no address", "10.0.0.1:999", []string{xff, "198.51.100.1, unknown"}, "10.0.0.1"},
		{"no address behind a proxy", "10.0.0.1:999", []string{xff, "unknown, 10.0.0.8"}, "10.0.0.8"},
		{"nothing", "10.0.0.1:999", []string{xff, ""}, "10.0.0.1"},
		{"with a port", "10.0.0.1:999", []string{xff, "198.51.100.1:4711"}, "198.51.100.1"},
		{"IPv6 with a port", "10.0.0.1:999", []string{xff, "[2001:db8:1:2::9]:4711"}, "2001:db8:1:2::/64"},
		{"IPv6 in brackets", "10.0.0.1:999", []string{xff, "[2001:db8:1:2::9]"}, "2001:db8:1:2::/64"},
		{"IPv4 as IPv6", "[::ffff:203.0.113.7]:999", nil, "203.0.113.7"},
		{"a proxy of IPv4 as IPv6", "[::ffff:10.0.0.1]:999", []string{xff, "::ffff:198.51.100.1"}, "198.51.100.1"},
		{"a zone", "[fe80::1%eth0]:999", nil, "fe80::/64"},
	} {
		if got := p.Address(request(c.remote, c.headers...)); got != c.want {
			t.Errorf("%s: counted as %s, want %s", c.name, got, c.want)
		}
	}
	long := "198.51.100.1"
	for range 10_000 {
		long += ", 10.0.0.2"
	}
	if got := p.Address(request("10.0.0.1:9", xff, long)); got != "10.0.0.2" {
		t.Errorf("a chain of 10,000 is counted as %s", got)
	}
	var none *Proxies
	if got := none.Address(request("10.0.0.1:9", xff, "198.51.100.1")); got != "10.0.0.1" {
		t.Errorf("without proxies the header is believed: %s", got)
	}
	if _, err := ParseProxies([]string{"proxy.example.org"}); err == nil {
		t.Error("a name is taken for an address")
	}
}

func TestPublic_SocketURLIsNotWhatAStrangerWrites(t *testing.T) {
	proxies, err := ParseProxies([]string{"10.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	lan := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 5), Port: 8080}
	loopback := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080}
	forged := []string{"X-Forwarded-Proto", "https", "X-Forwarded-Host", "attacker.example"}
	for _, c := range []struct {
		name, setting, remote string
		local                 net.Addr
		headers               []string
		want                  string
	}{
		{"the setting", "https://chat.example.org", "203.0.113.7:9", lan, forged, "wss://chat.example.org/v1/ws"},
		{"the setting with a path", "http://chat.example.org:81/im/", "10.0.0.1:9", lan, forged, "ws://chat.example.org:81/im/v1/ws"},
		{"the setting as a socket's", "wss://push.example.org", "203.0.113.7:9", lan, nil, "wss://push.example.org/v1/ws"},
		{"a stranger", "", "203.0.113.7:9", lan, forged, "ws://192.0.2.5:8080/v1/ws"},
		{"a stranger on loopback", "", "127.0.0.1:9", loopback, forged, "ws://127.0.0.1:8080/v1/ws"},
		{"localhost", "", "127.0.0.1:9", loopback, []string{"Host", "localhost:8080"}, "ws://localhost:8080/v1/ws"},
		{"localhost from elsewhere", "", "203.0.113.7:9", lan, []string{"Host", "localhost:8080"}, "ws://192.0.2.5:8080/v1/ws"},
		{"a trusted proxy", "", "10.0.0.1:9", lan, []string{"Host", "inside:8080", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "chat.example.org"}, "wss://chat.example.org/v1/ws"},
		{"a trusted proxy that passes Host on", "", "10.0.0.1:9", lan, []string{"Host", "chat.example.org"}, "ws://chat.example.org/v1/ws"},
		{"a trusted proxy that appends", "", "10.0.0.1:9", lan, []string{"X-Forwarded-Host", "attacker.example, chat.example.org", "X-Forwarded-Proto", "https, http"}, "ws://chat.example.org/v1/ws"},
		{"a trusted proxy that passes nonsense on", "", "10.0.0.1:9", lan, []string{"Host", "a/b", "X-Forwarded-Host", "x@attacker.example/?"}, "ws://192.0.2.5:8080/v1/ws"},
	} {
		p, err := ParsePublic(c.setting, proxies)
		if err != nil {
			t.Fatal(err)
		}
		r := request(c.remote, c.headers...)
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, c.local))
		if got := p.SocketURL(r, "/v1/ws"); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	for _, bad := range []string{"chat.example.org", "ftp://chat.example.org", "https://", "https://a:b@chat.example.org", "https://chat.example.org/?x=1", "https://x#y"} {
		if _, err := ParsePublic(bad, nil); err == nil {
			t.Errorf("%s is taken for a public address", bad)
		}
	}
}

func TestPublic_ForeignIsWhatAnotherSitesPageSends(t *testing.T) {
	proxies, err := ParseProxies([]string{"10.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePublic("https://chat.example.org", proxies)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, remote string
		headers      []string
		foreign      bool
	}{
		{"curl", "203.0.113.7:9", nil, false},
		{"typed into the address bar", "203.0.113.7:9", []string{"Sec-Fetch-Site", "none"}, false},
		{"our own page", "203.0.113.7:9", []string{"Sec-Fetch-Site", "same-origin", "Origin", "https://chat.example.org"}, false},
		{"our own page by the name it asked for", "203.0.113.7:9", []string{"Host", "127.0.0.1:8080", "Origin", "http://127.0.0.1:8080"}, false},
		{"our own page behind a proxy", "10.0.0.1:9", []string{"Host", "inside", "X-Forwarded-Host", "im.example.org", "Origin", "https://im.example.org"}, false},
		{"a stranger who forges the proxy's header", "203.0.113.7:9", []string{"Host", "inside", "X-Forwarded-Host", "evil.example", "Origin", "https://evil.example"}, true},
		{"another site", "203.0.113.7:9", []string{"Origin", "https://evil.example"}, true},
		{"another site by fetch metadata", "203.0.113.7:9", []string{"Sec-Fetch-Site", "cross-site"}, true},
		{"a neighbour's site", "203.0.113.7:9", []string{"Sec-Fetch-Site", "same-site"}, true},
		{"a word that we do not know", "203.0.113.7:9", []string{"Sec-Fetch-Site", "elsewhere"}, true},
		{"a sandboxed page", "203.0.113.7:9", []string{"Origin", "null"}, true},
		{"an empty origin", "203.0.113.7:9", []string{"Origin", ""}, true},
		{"two origins", "203.0.113.7:9", []string{"Origin", "https://chat.example.org", "Origin", "https://evil.example"}, true},
		{"a name that begins like ours", "203.0.113.7:9", []string{"Origin", "https://chat.example.org.evil.example"}, true},
	} {
		if got := p.Foreign(request(c.remote, c.headers...)); got != c.foreign {
			t.Errorf("%s: foreign is %t", c.name, got)
		}
	}
}

func TestLoopback_AnswersLoopbackHostNamesOnly(t *testing.T) {
	refused := 0
	h := Loopback(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }), func() { refused++ })
	for host, status := range map[string]int{
		"localhost": 204, "LOCALHOST:9090": 204, "localhost.": 204, "ops.localhost:1": 204, "127.0.0.1": 204, "127.9.9.9:9090": 204, "[::1]:9090": 204, "[::1]": 204, "": 204,
		"attacker.example": 421, "attacker.example:9090": 421, "localhost.attacker.example": 421, "127.0.0.1.nip.io:9090": 421, "notlocalhost": 421, "10.0.0.1:9090": 421, "0.0.0.0:9090": 421, "[::]": 421,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request("127.0.0.1:9", "Host", host))
		if w.Code != status {
			t.Errorf("Host %q was answered %d, want %d", host, w.Code, status)
		}
	}
	if refused != 8 {
		t.Errorf("%d refusals are counted", refused)
	}
}

func TestBearer_TakesTheSchemeInAnyCase(t *testing.T) {
	for header, want := range map[string]string{
		"Bearer a.b": "a.b", "bearer a.b": "a.b", "BEARER a.b": "a.b", "bEaReR   a.b": "a.b",
		"": "-", "a.b": "-", "Bearer": "-", "Basic a.b": "-", "Bearera.b": "-", " Bearer a.b": "-", "Bearer ": "",
	} {
		token, ok := Bearer(request("127.0.0.1:9", "Authorization", header))
		if !ok {
			token = "-"
		}
		if token != want {
			t.Errorf("%q has the token %q, want %q", header, token, want)
		}
	}
}
