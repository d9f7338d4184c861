package fault

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tideline/test/platform"
)

// Read marks move and receipts are counted while Redis loses everything again and again: a partial count is a fault.
func TestFault_RedisForgetsGoesAwayAndComesBackEmpty(t *testing.T) {
	c := begin(t, platform.Setup{})
	cl := redis.NewClient(&redis.Options{Addr: c.Redis.Addr})
	defer func() { _ = cl.Close() }()
	f := c.Break("FLUSHALL every two seconds")
	for end := time.Now().Add(long(30*time.Second, 8*time.Second)); time.Now().Before(end); c.For(2 * time.Second) {
		if err := cl.FlushAll(context.Background()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	c.Mended(f, allowed)
	f = c.Break("Redis is away, and comes back empty")
	c.Redis.Kill()
	c.For(long(20*time.Second, 5*time.Second))
	c.Redis.Restart()
	c.Mended(f, allowed)
	c.For(3 * time.Second)
	f = c.Break("Redis is restarted")
	c.Redis.Restart()
	c.Mended(f, allowed)
	c.For(2 * time.Second)
	c.end()
}

func TestFault_ClickHouseIsAway(t *testing.T) {
	c := begin(t, platform.Setup{})
	c.For(time.Second)
	f := c.Break("ClickHouse is away")
	c.ClickHouseServer.Kill()
	c.For(long(time.Minute, 8*time.Second))
	c.ClickHouseServer.Restart()
	c.Mended(f, allowed)
	f = c.Break("ClickHouse is killed as it catches up")
	c.For(c.moment(0, 2*time.Second))
	c.ClickHouseServer.Restart()
	c.Mended(f, allowed)
	c.For(time.Second)
	c.end()
}
