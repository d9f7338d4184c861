package servers

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// Link is a way to a server that can be made bad: slow, narrow, cut in one direction, torn down again and again. It is one
// of toxiproxy's, inside this process.
type Link struct {
	// Addr is host:port, for whoever shall go this way.
	Addr string

	t     testing.TB
	proxy *toxiproxy.Proxy
}

// NewLink makes a good one, which ends with the test.
func NewLink(t testing.TB, server string) *Link {
	t.Helper()
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	l := &Link{t: t, proxy: toxiproxy.NewProxy(api, server, "127.0.0.1:0", server)}
	if err := l.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	l.Addr = l.proxy.Listen
	t.Cleanup(l.proxy.Stop)
	return l
}

// Toxic is a way in which a link is bad. Stream is "upstream", what clients say, or "downstream", what the server says.
// The types and their attributes are toxiproxy's: latency (latency and jitter, ms), bandwidth (rate, KB/s), timeout (ms; 0
// for ever: nothing comes through), reset_peer (ms), slicer (average_size, size_variation, bytes, and delay, µs).
type Toxic struct {
	Type       string         `json:"type"`
	Stream     string         `json:"stream"`
	Attributes map[string]int `json:"attributes"`
}

// Spoil makes it bad, until Heal.
func (l *Link) Spoil(toxics ...Toxic) {
	l.t.Helper()
	for _, toxic := range toxics {
		text, err := json.Marshal(toxic)
		if err == nil {
			_, err = l.proxy.Toxics.AddToxicJson(strings.NewReader(string(text)))
		}
		if err != nil {
			l.t.Fatalf("spoiling a link: %v", err)
		}
	}
}

// Heal makes it good again.
func (l *Link) Heal() { l.proxy.Toxics.ResetToxics(l.t.Context()) }

// Cut ends all connections and refuses new ones, until Mend.
func (l *Link) Cut() { l.proxy.Stop() }

// Mend lets connections be made again, at the same address.
func (l *Link) Mend() {
	l.t.Helper()
	if err := l.proxy.Start(); err != nil {
		l.t.Fatalf("mending a link: %v", err)
	}
}
