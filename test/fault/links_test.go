package fault

import (
	"fmt"
	"testing"
	"time"

	"tideline/internal/servers"
	"tideline/test/platform"
)

// The machine of a process that numbers and of the one that stores loses its network for longer than a session lasts, and nobody
// is told: connections are not torn down, they fall silent. The other one takes over, and who comes back must be refused.
func TestFault_ACableIsPulledOut(t *testing.T) {
	m := servers.NewMachine(t)
	away := map[string]bool{"ingest": true, "timeline": true} // the first of each runs there
	var broker string
	kafka := servers.StartKafkaBehind(t, func(server string) string {
		broker = m.Reach(server)
		return broker
	})
	c := begin(t, platform.Setup{
		Kafka: kafka,
		Through: func(server, addr string) string {
			if server == "kafka" {
				return broker
			}
			return m.Reach(addr)
		},
		Inside: func(process string) []string {
			if !away[process] {
				return nil
			}
			away[process] = false
			return m.Command()
		},
	})
	c.For(2 * time.Second)
	for range map[bool]int{true: 6, false: 2}[full()] {
		f := c.Break("the cable is out")
		m.Pull()
		c.For(c.moment(time.Second, 9*time.Second)) // a session lasts 3 s
		m.Plug()
		c.Mended(f, 2*allowed)
		c.For(c.moment(time.Second, 4*time.Second))
	}
	c.end()
}

// The ways to Kafka, MySQL and Redis are slow, cut in one direction, torn down again and again.
func TestFault_LinksAreSlowOneWayAndFlap(t *testing.T) {
	links := map[string]*servers.Link{}
	kafka := servers.StartKafkaBehind(t, func(server string) string {
		links["kafka"] = servers.NewLink(t, server)
		return links["kafka"].Addr
	})
	c := begin(t, platform.Setup{Kafka: kafka, Through: func(server, addr string) string {
		if links[server] == nil {
			links[server] = servers.NewLink(t, addr)
		}
		return links[server].Addr
	}})
	c.For(time.Second)
	spoilt := func(server, how string, d time.Duration, toxics ...servers.Toxic) {
		f := c.Break(fmt.Sprintf("the way to %s is %s", server, how))
		links[server].Spoil(toxics...)
		c.For(d)
		links[server].Heal()
		c.Mended(f, 2*allowed)
		c.For(time.Second)
	}
	for _, server := range []string{"kafka", "mysql", "redis"} {
		spoilt(server, "slow", long(15*time.Second, 3*time.Second),
			servers.Toxic{Type: "latency", Stream: "downstream", Attributes: map[string]int{"latency": 30, "jitter": 30}})
		stream := []string{"upstream", "downstream"}[c.rng.IntN(2)]
		spoilt(server, "cut "+stream, long(15*time.Second, 5*time.Second), servers.Toxic{Type: "timeout", Stream: stream, Attributes: map[string]int{"timeout": 0}})
		f := c.Break("the way to " + server + " flaps")
		for range 3 {
			links[server].Cut()
			c.For(c.moment(100*time.Millisecond, 800*time.Millisecond))
			links[server].Mend()
			c.For(c.moment(200*time.Millisecond, 800*time.Millisecond))
		}
		c.Mended(f, 2*allowed)
	}
	c.For(2 * time.Second)
	c.end()
}
