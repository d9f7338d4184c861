package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// textBytes is the length of a message's text: what people write is mostly shorter.
const textBytes = 120

var words = strings.Repeat("about as long as what people write to one another ", 3)[:textBytes]

// gun sends messages to an address: to the platform, or to a floor that answers at once.
type gun struct {
	addr   string
	groups []string // conversations
	tokens []string // of somebody who may send to the group of the same place; with one group, of senders in turn
	last   []int64  // numbers of the groups before the next run; nil for a floor
	turn   atomic.Int64
}

// load is what a run of a gun gave.
type load struct {
	shots  []shot
	began  time.Time
	took   time.Duration
	use    used
	void   []string
	p50    time.Duration
	p99    time.Duration
	slow   time.Duration // the slowest
	second float64       // answers a second
}

func (g *gun) pick(worker int) (group int, token string) {
	if len(g.groups) == 1 {
		return 0, g.tokens[worker%len(g.tokens)]
	}
	n := int(g.turn.Add(1)) % len(g.groups)
	return n, g.tokens[n]
}

// fire sends with so many in flight, as fast as they are answered; or, with a rate, when they are due: then a send that has
// to wait for its turn is late, and that counts.
func (g *gun) fire(inFlight, rate int, d time.Duration) load {
	uuid.EnableRandPool()
	var due chan time.Duration
	if rate > 0 {
		due = make(chan time.Duration, int(d.Seconds()*float64(rate))+1)
	}
	var mu sync.Mutex
	var all load
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		all.void = append(all.void, "error: "+err.Error())
	}
	doors := make([]*door, inFlight)
	for i := range doors {
		var err error
		if doors[i], err = openDoor(g.addr); err != nil {
			fail(err)
			return all
		}
		defer doors[i].close()
	}
	before, began := cpu(), time.Now()
	var wg sync.WaitGroup
	for i := range doors {
		wg.Go(func() {
			var mine []shot
			var out []byte
			for {
				now := time.Since(began)
				intended := now
				if due != nil {
					var open bool
					if intended, open = <-due; !open {
						break
					}
					now = time.Since(began)
				} else if now >= d {
					break
				}
				group, token := g.pick(i)
				out = g.message(out[:0], group, token)
				text, err := doors[i].get(out)
				answered := time.Since(began)
				if err != nil {
					fail(err)
					break
				}
				seq, err := number(text, `"seq":`)
				if err != nil { // accepted, and no number in time
					fail(err)
					break
				}
				mine = append(mine, shot{group, now, answered, intended, seq})
			}
			mu.Lock()
			defer mu.Unlock()
			all.shots = append(all.shots, mine...)
		})
	}
	if due != nil {
		for n := range int(d.Seconds() * float64(rate)) {
			at := time.Duration(n) * time.Second / time.Duration(rate)
			time.Sleep(at - time.Since(began))
			due <- at
		}
		close(due)
	}
	wg.Wait()
	all.began, all.took = began, time.Since(began)
	all.use = cpu().since(before)
	var times []time.Duration
	for _, s := range all.shots {
		times = append(times, s.answered-s.intended)
	}
	slices.Sort(times)
	all.p50, all.p99, all.slow = quantile(times, 0.5), quantile(times, 0.99), quantile(times, 1)
	all.second = float64(len(all.shots)) / all.took.Seconds()
	if g.last != nil {
		all.void = append(all.void, faults(all.shots, g.last)...)
		for _, s := range all.shots {
			g.last[s.group] = max(g.last[s.group], s.seq)
		}
	}
	return all
}

func (g *gun) message(b []byte, group int, token string) []byte {
	id := uuid.Must(uuid.NewV7())
	body := len(`{"client_msg_id":"","type":"text","content":{"text":""}}`) + 36 + textBytes
	b = append(b, "POST /v1/conversations/"...)
	b = append(b, g.groups[group]...)
	b = append(b, "/messages HTTP/1.1\r\nHost: tideline\r\nAuthorization: Bearer "...)
	b = append(b, token...)
	b = fmt.Appendf(b, "\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", body)
	b = append(b, `{"client_msg_id":"`...)
	text, _ := id.MarshalText()
	b = append(b, text...)
	b = append(b, `","type":"text","content":{"text":"`...)
	b = append(b, words...)
	return append(b, `"}}`...)
}

// target makes groups and those who talk in them: one group of all, or many of four each.
func (b *bench) target(s *site, talkers []person, groups int) *gun {
	b.t.Helper()
	g := &gun{addr: s.api, groups: make([]string, groups), tokens: make([]string, groups), last: make([]int64, groups)}
	if groups == 1 {
		d, err := openDoor(s.api)
		if err != nil {
			b.t.Fatal(err)
		}
		defer d.close()
		if g.groups[0], g.last[0], err = d.group(talkers); err != nil {
			b.t.Fatal(err)
		}
		g.tokens = nil
		for _, p := range talkers {
			g.tokens = append(g.tokens, p.token)
		}
		return g
	}
	b.each(s.api, groups, 8, func(d *door, i int) (err error) {
		var of []person
		for k := range 4 {
			of = append(of, talkers[(i+k)%len(talkers)])
		}
		g.tokens[i] = of[0].token
		g.groups[i], g.last[i], err = d.group(of)
		return err
	})
	return g
}

// check pulls what a run has sent, unless it is void already.
func (b *bench) check(s *site, g *gun, before []int64, l *load) {
	b.t.Helper()
	if len(l.void) > 0 { // numbers may have been given that nobody was told
		b.each(s.api, len(g.groups), 8, func(d *door, i int) error {
			text, err := d.get(request("GET", "/v1/conversations/"+g.groups[i], g.tokens[i], nil))
			if err == nil {
				g.last[i], err = number(text, `"max_seq":`)
			}
			return err
		})
		return
	}
	for i, c := range g.groups {
		if g.last[i] > before[i] {
			l.void = append(l.void, b.history(s, g.tokens[i], c, before[i], g.last[i])...)
		}
	}
}

// send is cell 1.
func (b *bench) send() {
	floor := b.theFloor()
	for _, name := range b.size.sites {
		s := b.site(name)
		talkers := b.people(s, 256)
		one, many := b.target(s, talkers, 1), b.target(s, talkers, b.size.groups)
		bare := make([]person, 16)
		for i := range bare {
			bare[i].id = fmt.Sprint(1000 + i)
		}
		b.sessions(floor.addr, floorAdmin, bare)
		instant := &gun{addr: floor.addr, groups: one.groups}
		for _, p := range bare {
			instant.tokens = append(instant.tokens, p.token)
		}
		log := b.newLog(s)
		tab := b.table("1. Send to numbered ack, "+name, "groups", "in flight", "sends/s", "p50 ms", "p99 ms", "÷ handler floor", "÷ produce floor", "CPU µs of one, by process", "verdict")
		for _, k := range b.size.inFlight {
			handler, produce := []load{}, []load{}
			runs := map[int][]load{}
			for range b.size.runs {
				handler = append(handler, instant.fire(k, 0, b.size.floor))
				produce = append(produce, log.fire(k, b.size.floor))
				for _, g := range []*gun{one, many} {
					before := slices.Clone(g.last)
					done := b.profile(s, fmt.Sprintf("send-%d-%d", len(g.groups), k), b.size.cell)
					l := g.fire(k, 0, b.size.cell)
					done()
					b.settle(s)
					b.check(s, g, before, &l)
					runs[len(g.groups)] = append(runs[len(g.groups)], l)
				}
			}
			rate := func(l load) float64 { return l.second }
			h, p := spreadOf(figures(handler, rate)).median, spreadOf(figures(produce, rate)).median
			tab.row(voids(handler), "floor: handler", k, spreadOf(figures(handler, rate)), spreadOf(figures(handler, p50)), spreadOf(figures(handler, p99)), "1", "–", each(handler), "")
			tab.row(voids(produce), "floor: produce", k, spreadOf(figures(produce, rate)), spreadOf(figures(produce, p50)), spreadOf(figures(produce, p99)), "–", "1", each(produce), "")
			for _, groups := range []int{1, len(many.groups)} {
				list := runs[groups]
				r := spreadOf(figures(list, rate))
				verdict := ""
				if groups == 1 && (name == "standalone" && k == 64 || name == "cluster" && k == 256) {
					verdict = atLeast(r.median, 7000, "/s")
				}
				tab.row(voids(list), groups, k, r, spreadOf(figures(list, p50)), spreadOf(figures(list, p99)), short(r.median/h), short(r.median/p), each(list), verdict)
			}
		}
		tab.print()
		b.offered(s, one, instant)
	}
}

// offered sends at rates, and counts from when a send was due.
func (b *bench) offered(s *site, one, instant *gun) {
	tab := b.table("1. Send at a rate, latency from the time at which it was due, "+s.name, "offered/s", "p50 ms", "p99 ms", "slowest ms", "floor p99 ms", "p99 ÷ floor", "CPU µs of one, by process", "verdict")
	const atOnce = 128 // more than any rate here has in flight, but in a stall
	for _, rate := range b.size.offered {
		var floors, list []load
		for range b.size.runs {
			floors = append(floors, instant.fire(atOnce, rate, b.size.floor))
			before := slices.Clone(one.last)
			l := one.fire(atOnce, rate, b.size.cell)
			b.settle(s)
			b.check(s, one, before, &l)
			list = append(list, l)
		}
		verdict := ""
		tail, bare := spreadOf(figures(list, p99)), spreadOf(figures(floors, p99))
		if rate == 500 {
			verdict = atMost(tail.median, 50, " ms")
		}
		tab.row(append(voids(floors), voids(list)...), rate, spreadOf(figures(list, p50)), tail, spreadOf(figures(list, func(l load) float64 { return ms(l.slow) })), bare,
			short(tail.median/bare.median), each(list), verdict)
	}
	tab.print()
}

func p50(l load) float64 { return ms(l.p50) }
func p99(l load) float64 { return ms(l.p99) }

func figures(list []load, of func(load) float64) []float64 {
	out := make([]float64, len(list))
	for i, l := range list {
		out[i] = of(l)
	}
	return out
}

func voids(list []load) []string {
	var out []string
	for _, l := range list {
		out = append(out, l.void...)
	}
	return out
}

// each gives the CPU time of one answer, by process.
func each(list []load) string {
	sum, n := used{}, 0
	for _, l := range list {
		sum.add(l.use)
		n += len(l.shots)
	}
	return sum.each(n)
}

// bareLog is the floor of a log: records of the same size with acks from all, and nobody who reads them.
type bareLog struct {
	cl    *kgo.Client
	value []byte
}

func (b *bench) newLog(s *site) *bareLog {
	b.t.Helper()
	cl, err := kgo.NewClient(append(s.InsideOpts(b.t), kgo.SeedBrokers(s.Kafka), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0), kgo.MetadataMinAge(100*time.Millisecond))...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(cl.Close)
	if _, err := kadm.NewClient(cl).CreateTopic(b.t.Context(), 8, 1, nil, "bench.floor"); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		b.t.Fatal(err)
	}
	group, err := chat.ParseConversationID("g-1")
	if err != nil {
		b.t.Fatal(err)
	}
	return &bareLog{cl, wire.EncodeCommand(&chat.Command{
		Type: chat.KindMessage, Conversation: group, Sender: 1, ClientMsgID: newKey(),
		Message: &chat.Message{Type: chat.TypeText, Content: []byte(`{"text":"` + words + `"}`)},
	})}
}

// fire produces with so many in flight: to one partition, as one group does.
func (l *bareLog) fire(inFlight int, d time.Duration) load {
	var mu sync.Mutex
	var all load
	before, began := cpu(), time.Now()
	var wg sync.WaitGroup
	for range inFlight {
		wg.Go(func() {
			var mine []shot
			for time.Since(began) < d {
				sent := time.Since(began)
				err := l.cl.ProduceSync(context.Background(), &kgo.Record{Topic: "bench.floor", Key: []byte("g-1"), Value: l.value}).FirstErr()
				if err != nil {
					mu.Lock()
					all.void = append(all.void, "error: "+err.Error())
					mu.Unlock()
					return
				}
				mine = append(mine, shot{sent: sent, answered: time.Since(began)})
			}
			mu.Lock()
			defer mu.Unlock()
			all.shots = append(all.shots, mine...)
		})
	}
	wg.Wait()
	all.took, all.use = time.Since(began), cpu().since(before)
	var times []time.Duration
	for _, s := range all.shots {
		times = append(times, s.answered-s.sent)
	}
	slices.Sort(times)
	all.p50, all.p99 = quantile(times, 0.5), quantile(times, 0.99)
	all.second = float64(len(all.shots)) / all.took.Seconds()
	return all
}
