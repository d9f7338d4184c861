package fault

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"tideline/internal/servers"
	"tideline/test/platform"
)

func TestFault_KafkaIsKilledTwiceWithinItsRecovery(t *testing.T) {
	c := begin(t, platform.Setup{})
	c.For(time.Second)
	f := c.Break("Kafka is killed")
	c.KafkaServer.Kill()
	c.For(c.moment(0, 2*time.Second))
	c.KafkaServer.Restart()
	c.For(c.moment(100*time.Millisecond, 1500*time.Millisecond)) // owners take over, transactions are settled
	c.KafkaServer.Restart()
	c.Mended(f, 2*allowed) // groups are formed anew, too
	c.For(3 * time.Second)
	c.end()
}

// endTxn is the number of the request that commits a transaction, in the protocol of Kafka: a request is its length, then
// this number.
const endTxn = 26

// Answers to commits come later than an owner waits for them: the outcome is unknown, and the next owner finds out.
func TestFault_AnswersToCommitsComeTooLate(t *testing.T) {
	var proxy *servers.Proxy
	kafka := servers.StartKafkaBehind(t, func(server string) string {
		proxy = servers.NewProxy(t, server)
		return proxy.Addr
	})
	c := begin(t, platform.Setup{Kafka: kafka, Through: func(server, addr string) string {
		if server == "kafka" {
			return proxy.Addr
		}
		return addr
	}})
	c.For(time.Second)
	f := c.Break("answers to commits are late, or lost")
	var late, lost atomic.Int64
	proxy.Meddle(func(said []byte) servers.Answer {
		if len(said) < 8 || binary.BigEndian.Uint16(said[4:]) != endTxn {
			return servers.Answer{}
		}
		switch rand.IntN(200) {
		case 0:
			late.Add(1)
			return servers.Answer{Late: 25 * time.Second} // an owner gives up after 20
		case 1, 2, 3:
			lost.Add(1)
			return servers.Answer{Lost: true}
		}
		return servers.Answer{}
	})
	c.For(long(60*time.Second, 10*time.Second))
	proxy.Meddle(nil)
	c.Mended(f, 3*allowed) // a late answer holds its partition for 20 s
	t.Logf("%d answers to commits were late, %d were lost", late.Load(), lost.Load())
	if lost.Load() == 0 {
		t.Error("no answer to a commit was lost")
	}
	c.For(2 * time.Second)
	c.end()
}
