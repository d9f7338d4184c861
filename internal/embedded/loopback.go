package embedded

import "net"

// Loopback reports whether only this machine reaches an address to listen on.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	if host == "" {
		return false
	}
	found, err := net.LookupIP(host)
	if err != nil || len(found) == 0 {
		return false
	}
	for _, ip := range found {
		if !ip.IsLoopback() {
			return false
		}
	}
	return true
}
