package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"io"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/pkg/chat"
)

// session is the time-out that the cluster of the tests sets: what a dead member holds its partitions for.
const session = 3 * time.Second

// owner gives the process of ingest that owns a partition.
func (b *bench) owner(s *site, partition int32) int {
	b.t.Helper()
	found := -1
	await(b.t, "the partition has one owner", time.Minute, func() bool {
		found = -1
		n := 0
		for i, p := range s.cluster.Ingest {
			answer, err := http.Get("http://" + ops(p) + "/metrics")
			if err != nil {
				continue
			}
			text, err := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			if err == nil && strings.Contains(string(text), fmt.Sprintf(`tideline_ingest_lag_records{partition="%d"}`, partition)) {
				found = i
				n++
			}
		}
		return n == 1
	})
	return found
}

// takeover is the other half of cell 9: the owner of the long group's partition is killed, and somebody waits for the
// number of a message.
func (b *bench) takeover(s *site, long imported) {
	partition := chat.Partition(long.conversation, 8)
	p := b.external(s, "import:nick7")
	g := &gun{groups: []string{long.conversation}}
	tab := b.table(fmt.Sprintf("9. Takeover of a partition with %d messages", long.messages), "what", "s from the kill", "s after the session's end, at most", "verdict")
	var kills, after, floors []float64
	var void []string
	last := long.last
	say := func() time.Time {
		out := g.message(nil, 0, p.token) // the same id again and again, until it has its number
		for deadline := time.Now().Add(time.Minute); ; {
			d, err := openDoor(s.api)
			if err == nil {
				var status int
				var text []byte
				status, text, err = d.ask(out)
				d.close()
				if err == nil && status == http.StatusOK {
					now := time.Now()
					seq, err := number(text, `"seq":`)
					if err != nil || seq != last+1 {
						void = voided(void, "gap: number %d follows %d, %v", seq, last, err)
					}
					last = seq
					return now
				}
			}
			if time.Now().After(deadline) {
				b.t.Fatalf("nothing is numbered any more: %v", err)
			}
		}
	}
	for range b.size.runs {
		say() // so that the owner has something, and says so
		b.settle(s)
		owner := s.cluster.Ingest[b.owner(s, partition)]
		killed := time.Now()
		owner.Kill()
		numbered := say()
		kills = append(kills, numbered.Sub(killed).Seconds())
		after = append(after, max(0, numbered.Sub(killed)-session).Seconds())
		owner.Start()
		floors = append(floors, b.bareTakeover(s))
		await(b.t, "both own partitions", time.Minute, func() bool {
			for _, i := range s.cluster.Ingest {
				if n, err := metric(i, "tideline_ingest_partitions"); err != nil || n != 4 {
					return false
				}
			}
			return true
		})
	}
	void = append(void, b.history(s, p.token, long.conversation, max(0, long.last-1000), last)...)
	k, a := spreadOf(kills), spreadOf(after)
	f := spreadOf(floors)
	tab.row(nil, "floor: a consumer group with nothing to take over", f, "", "")
	tab.row(void, fmt.Sprintf("until a send has its number (÷ floor %s)", short(k.median/f.median)), k, a, atMost(a.median, 2, " s"))
	tab.print()
}

const memberEnv = "TIDELINE_BENCH_MEMBER" // the broker and the group of a bare member

// member makes a member of a consumer group that does nothing.
func member(broker, group string, assigned func(n int)) (*kgo.Client, error) {
	var mu sync.Mutex
	owned := 0
	count := func(add int) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, m map[string][]int32) {
			mu.Lock()
			defer mu.Unlock()
			for _, list := range m {
				owned += add * len(list)
			}
			assigned(owned)
		}
	}
	return kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumerGroup(group), kgo.ConsumeTopics("bench.floor"), kgo.SessionTimeout(session), kgo.HeartbeatInterval(session/5),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.DisableAutoCommit(), kgo.OnPartitionsAssigned(count(1)), kgo.OnPartitionsRevoked(count(-1)), kgo.OnPartitionsLost(count(-1)))
}

// beMember prints how many partitions it has whenever that changes.
func beMember() error {
	broker, group, _ := strings.Cut(os.Getenv(memberEnv), " ")
	out := json.NewEncoder(os.Stdout)
	cl, err := member(broker, group, func(n int) { _ = out.Encode(n) })
	if err != nil {
		return err
	}
	defer cl.Close()
	cl.PauseFetchTopics("bench.floor")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// bareTakeover kills one of two members of a group, and gives the seconds until the other has everything.
func (b *bench) bareTakeover(s *site) float64 {
	b.t.Helper()
	group := "bench-" + newKey()
	c := startChild(b.t, "member", memberEnv+"="+s.Kafka+" "+group)
	for n := 0; n < 8; {
		if err := c.out.Decode(&n); err != nil {
			b.t.Fatal(err)
		}
	}
	changes := make(chan int, 64)
	cl, err := member(s.Kafka, group, func(n int) { changes <- n })
	if err != nil {
		b.t.Fatal(err)
	}
	defer cl.Close()
	cl.PauseFetchTopics("bench.floor")
	within := time.After(time.Minute)
	wait := func(want int) {
		for {
			select {
			case n := <-changes:
				if n == want {
					return
				}
			case <-within:
				b.t.Fatal("the bare group does not settle")
			}
		}
	}
	wait(4)
	killed := time.Now()
	c.kill()
	wait(8)
	return time.Since(killed).Seconds()
}
