// Package edge decides what the HTTP server and the socket server believe of where a request comes from: the address of
// the client, the public address of this server, and whether a page of another site sent it.
package edge

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// maxHops bounds the addresses of X-Forwarded-For that are looked at, from the right. A chain of trusted proxies is two or
// three long; what a stranger writes on the left of it is never reached.
const maxHops = 16

// Proxies are the proxies whose forwarded headers are believed. The zero value and nil trust none.
type Proxies struct{ trusted []netip.Prefix }

// ParseProxies returns the proxies of a list of addresses and CIDRs. The error names the first entry that is neither.
func ParseProxies(list []string) (*Proxies, error) {
	p := &Proxies{}
	for _, text := range list {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("%q is not an address and not a CIDR", text)
			}
			addr = plain(addr)
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
		}
		p.trusted = append(p.trusted, prefix.Masked())
	}
	return p, nil
}

func (p *Proxies) trusts(a netip.Addr) bool {
	if p == nil {
		return false
	}
	for _, t := range p.trusted {
		if t.Contains(a) {
			return true
		}
	}
	return false
}

// Trusted reports whether the request was sent by a trusted proxy, whose forwarded headers are believed.
func (p *Proxies) Trusted(r *http.Request) bool {
	peer, ok := peerOf(r)
	return ok && p.trusts(peer)
}

// Address returns the key by which the client of a request is counted: its IPv4 address, or the /64 that an IPv6 client
// has to itself. It is the address of the connection, unless that is a trusted proxy. Then X-Forwarded-For is read from
// the right, where each proxy appends what it saw, up to the first address that is not a trusted proxy. An entry that is
// no address ends the walk: the client is then counted as the proxy that wrote it.
func (p *Proxies) Address(r *http.Request) string {
	at, ok := peerOf(r)
	if !ok {
		return r.RemoteAddr // a test without a network
	}
	if p.trusts(at) {
		at = p.behind(at, r.Header["X-Forwarded-For"])
	}
	return key(at)
}

// behind returns the client behind a trusted proxy.
func (p *Proxies) behind(at netip.Addr, lines []string) netip.Addr {
	hops := 0
	for i := len(lines) - 1; i >= 0; i-- {
		for rest := lines[i]; ; {
			cut := strings.LastIndexByte(rest, ',')
			hop, ok := parseHop(strings.TrimSpace(rest[cut+1:]))
			if hops++; !ok || hops > maxHops {
				return at
			}
			if at = hop; !p.trusts(at) {
				return at
			}
			if cut < 0 {
				break
			}
			rest = rest[:cut]
		}
	}
	return at
}

// parseHop reads one entry of X-Forwarded-For. Some proxies append the port.
func parseHop(text string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(text); err == nil {
		return plain(a), true
	}
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return plain(ap.Addr()), true
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if a, err := netip.ParseAddr(strings.TrimSuffix(inner, "]")); err == nil {
			return plain(a), true
		}
	}
	return netip.Addr{}, false
}

func peerOf(r *http.Request) (netip.Addr, bool) { return parseHop(r.RemoteAddr) }

// plain returns an address in the one form in which it is compared and counted.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func key(a netip.Addr) string {
	if a.Is4() {
		return a.String()
	}
	network, err := a.Prefix(64)
	if err != nil {
		return a.String()
	}
	return network.String()
}

// Public is the public address of this server.
type Public struct {
	proxies *Proxies
	set     *url.URL // nil where no setting names it
}

// ParsePublic returns the public address of a setting, such as https://chat.example.org; it may have a path. Where the
// setting is empty, the address is derived from each request: see SocketURL.
func ParsePublic(setting string, proxies *Proxies) (*Public, error) {
	p := &Public{proxies: proxies}
	if setting == "" {
		return p, nil
	}
	u, err := url.Parse(setting)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		(u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "ws" && u.Scheme != "wss") {
		return nil, fmt.Errorf("%q is not an address like https://chat.example.org", setting)
	}
	p.set = u
	return p, nil
}

// SocketURL returns the address of the socket at path. The setting comes first. Without one, a trusted proxy says with
// X-Forwarded-Host (or Host) and X-Forwarded-Proto what the client asked for. A client without a proxy gets the address
// that its connection came in on; its own Host is used only where both the connection and the Host are loopback, so that
// localhost stays localhost.
func (p *Public) SocketURL(r *http.Request, path string) string {
	if p.set != nil {
		scheme := "ws"
		if p.set.Scheme == "https" || p.set.Scheme == "wss" {
			scheme = "wss"
		}
		return scheme + "://" + p.set.Host + strings.TrimSuffix(p.set.Path, "/") + path
	}
	scheme := "ws"
	if r.TLS != nil || p.proxies.Trusted(r) && strings.EqualFold(last(r.Header["X-Forwarded-Proto"]), "https") {
		scheme = "wss"
	}
	return scheme + "://" + p.host(r) + path
}

// host returns host and port by which the client reaches this server, as far as can be believed.
func (p *Public) host(r *http.Request) string {
	if p.proxies.Trusted(r) {
		if h := last(r.Header["X-Forwarded-Host"]); goodHost(h) {
			return h
		}
		if goodHost(r.Host) {
			return r.Host
		}
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return "localhost" // a test without a network
	}
	if a, ok := parseHop(local.String()); ok && a.IsLoopback() && r.Host != "" && LoopbackHost(r.Host) {
		return r.Host
	}
	return local.String()
}

// last returns the entry that the nearest proxy wrote.
func last(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	line := lines[len(lines)-1]
	return strings.TrimSpace(line[strings.LastIndexByte(line, ',')+1:])
}

// goodHost reports whether a text is a host with an optional port and nothing else.
func goodHost(h string) bool {
	if h == "" || len(h) > 255 {
		return false
	}
	u, err := url.Parse("//" + h)
	return err == nil && u.Host == h && u.User == nil && u.Path == ""
}

// Foreign reports whether a page of another site made a browser send the request: Sec-Fetch-Site says so, or Origin is
// not this server. Browsers always send at least one of them with a POST to another site; programs such as curl send
// neither.
func (p *Public) Foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		return true
	}
	origins := r.Header["Origin"]
	if len(origins) == 0 {
		return false
	}
	return len(origins) > 1 || !p.own(r, origins[0])
}

func (p *Public) own(r *http.Request, origin string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" { // "null" of a sandboxed page as well
		return false
	}
	if p.set != nil && strings.EqualFold(u.Host, p.set.Host) || strings.EqualFold(u.Host, r.Host) {
		return true
	}
	return p.proxies.Trusted(r) && strings.EqualFold(u.Host, last(r.Header["X-Forwarded-Host"]))
}

// LoopbackHost reports whether the value of a Host header, with or without a port, is a name or an address of loopback.
// A page whose own name was pointed at 127.0.0.1 (DNS rebinding) sends that name.
func LoopbackHost(host string) bool {
	if a, ok := parseHop(host); ok {
		return a.IsLoopback()
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") // RFC 6761: resolves to loopback only
}

// Loopback answers a request only if its Host is loopback; others are refused with 421 and counted by refused. It is for
// listeners on loopback without authentication.
func Loopback(next http.Handler, refused func()) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "" && !LoopbackHost(r.Host) { // only HTTP/1.0 has none, which no browser speaks
			refused()
			http.Error(w, "this listener is on loopback and answers only to loopback host names, such as localhost", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Bearer returns the token of an Authorization header. The scheme is case-insensitive (RFC 9110).
func Bearer(r *http.Request) (string, bool) {
	scheme, token, found := strings.Cut(r.Header.Get("Authorization"), " ")
	if !found || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimLeft(token, " "), true
}
