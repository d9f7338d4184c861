package bench

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"tideline/test/platform"
)

// said is how often somebody says something, a second.
const said = 20

// hinted is what a run of hints gave.
type hinted struct {
	crowdSaw
	cpu  float64 // seconds of the server's process
	use  used
	last time.Duration // p99 over the messages until the last client knew
}

func (h *hinted) perMillion() float64 { return h.cpu / float64(max(h.Count, 1)) * 1e6 }

func hintFigures(list []hinted, of func(*hinted) float64) spread {
	var out []float64
	for i := range list {
		out = append(out, of(&list[i]))
	}
	return spreadOf(out)
}

func hintVoids(list ...hinted) []string {
	var out []string
	for i := range list {
		out = append(out, list[i].Void...)
	}
	return out
}

// restart ends a process as a power cut does, and starts it with more settings.
func (b *bench) restart(p *platform.Process, env ...string) {
	b.t.Helper()
	p.Kill()
	before := strings.Count(p.Log(), `"ops":"`)
	p.Start(env...)
	await(b.t, p.Name+" is up", time.Minute, func() bool { return strings.Count(p.Log(), `"ops":"`) > before })
	await(b.t, p.Name+" is ready", time.Minute, func() bool {
		answer, err := http.Get("http://" + ops(p) + "/readyz")
		if err != nil {
			return false
		}
		_ = answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

func tokensOf(list []person) []string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = p.token
	}
	return out
}

// connect lets a crowd come.
func (b *bench) connect(c *child, ask crowdConnect) crowdSaw {
	b.t.Helper()
	if ask.AtOnce == 0 {
		ask.AtOnce = 64
	}
	var saw crowdSaw
	c.call(b.t, crowdAsk{Connect: &ask}, &saw)
	if len(saw.Void) > 0 || saw.Count != len(ask.Tokens) {
		b.t.Fatalf("%d of %d connected: %q", saw.Count, len(ask.Tokens), saw.Void)
	}
	return saw
}

// listened lets somebody talk, and asks the crowd what it heard.
func (b *bench) listened(s *site, c *child, g *gun, rate int, d time.Duration) hinted {
	b.t.Helper()
	base := append([]int64{}, g.last...)
	c.call(b.t, crowdAsk{Hear: base}, nil)
	before, began := cpu(), time.Now()
	done := b.profile(s, "hints", d)
	l := g.fire(32, rate, d)
	done()
	sent := make([][]int64, len(base))
	for i := range sent {
		sent[i] = make([]int64, g.last[i]-base[i])
	}
	if len(l.void) == 0 {
		for _, s := range l.shots {
			sent[s.group][s.seq-base[s.group]-1] = l.began.Add(s.intended).UnixNano()
		}
	}
	var h hinted
	c.call(b.t, crowdAsk{Heard: &crowdHeard{Sent: sent}}, &h.crowdSaw)
	h.use = cpu().since(before)
	h.Took = time.Since(began)
	h.cpu = h.use.of("pusher")
	h.last = quantile(sortedTimes(h.Last), 0.99)
	h.Void = append(l.void, h.Void...)
	b.check(s, g, base, &l)
	h.Void = append(h.Void, l.void...)
	return h
}

// broadcast does the same at the floor: it is told over a pipe what a broker tells us.
func (b *bench) broadcast(c *child, window time.Duration, from int64, d time.Duration) hinted {
	b.t.Helper()
	floor := b.theFloor()
	floor.call(b.t, floorAsk{Window: &window}, nil)
	c.call(b.t, crowdAsk{Hear: []int64{from}}, nil)
	before, began := cpu(), time.Now()
	var sent []int64
	for n := range int(d.Seconds() * said) {
		at := began.Add(time.Duration(n) * time.Second / said)
		time.Sleep(time.Until(at))
		sent = append(sent, at.UnixNano())
		floor.call(b.t, floorAsk{Say: fmt.Sprintf(`{"op":"hint","items":[{"c":"g-153363360857063424","s":%d}]}`, from+int64(n)+1)}, nil)
	}
	var h hinted
	c.call(b.t, crowdAsk{Heard: &crowdHeard{Sent: [][]int64{sent}}}, &h.crowdSaw)
	h.use = cpu().since(before)
	h.cpu = h.use.of("floor")
	h.last = quantile(sortedTimes(h.Last), 0.99)
	return h
}

// hints is cell 2. The pusher is a process of its own on the cluster, so that its CPU and memory are those of hints.
func (b *bench) hints() {
	s := b.site("cluster")
	pusher := s.cluster.Pusher
	tab := b.table("2. Hints, 20 messages/s into one group", "online", "window ms", "pusher CPU-s per million pairs", "floor the same", "÷ floor", "pair p50 ms", "pair p99 ms", "p99 to the last ms", "floor p99 to the last ms", "KB resident per idle connection", "KB live, all of the process", "verdict")
	var group *gun
	var crowd, bare *child
	for _, n := range b.size.online {
		listeners := b.people(s, n)
		speaker := b.people(s, 1)
		group = b.target(s, append(speaker, listeners...), 1)
		group.tokens = group.tokens[:1]
		from := int64(0)
		bare = startChild(b.t, "crowd")
		b.connect(bare, crowdConnect{Addr: b.theFloor().addr, Tokens: tokensOf(listeners)})
		crowd = startChild(b.t, "crowd")
		for _, w := range b.size.windows {
			b.restart(pusher, "TIDELINE_PUSH_WINDOW="+w.String())
			idle := resident(pusher.PID())
			b.connect(crowd, crowdConnect{Addr: s.ws, Tokens: tokensOf(listeners)})
			time.Sleep(2 * b.size.floor) // what the handshakes left is collected
			each := (resident(pusher.PID()) - idle) / float64(n) / 1024
			live := b.live(pusher) / float64(n) / 1024
			var ours, floors []hinted
			for range b.size.runs {
				floors = append(floors, b.broadcast(bare, w, from, b.size.cell))
				from += int64(b.size.cell.Seconds() * said)
				ours = append(ours, b.listened(s, crowd, group, said, b.size.cell))
			}
			cost, floor := hintFigures(ours, (*hinted).perMillion), hintFigures(floors, (*hinted).perMillion)
			last := hintFigures(ours, lastMS)
			verdict := ""
			if n == 10_000 {
				verdict = "last: " + atMost(last.median, ms(w)+300, " ms")
				if w == 200*time.Millisecond {
					verdict = "CPU: " + atMost(cost.median, 3.5, "") + "; memory: " + atMost(each, 10, " KB") + "; " + verdict
				}
			}
			tab.row(append(hintVoids(ours...), hintVoids(floors...)...), n, w.Milliseconds(), cost, floor, short(cost.median/floor.median),
				hintFigures(ours, func(h *hinted) float64 { return ms(h.P50) }), hintFigures(ours, p99MS), last, hintFigures(floors, lastMS), short(each), short(live), verdict)
			if n == b.size.online[len(b.size.online)-1] && w == 200*time.Millisecond {
				b.deaf(s, crowd, group, ours)
			}
			crowd.call(b.t, crowdAsk{Leave: true}, nil)
		}
		bare.end()
		b.theFloor().call(b.t, floorAsk{Leave: true}, nil)
		crowd.end()
		if n == b.size.online[len(b.size.online)-1] {
			tab.print()
			b.smallGroups(s, listeners)
		}
	}
	b.restart(pusher)
}

// live gives what a process keeps in use after a collection: heap and stacks. The rest of what is resident is what the
// runtime has not given back.
func (b *bench) live(p *platform.Process) float64 {
	b.t.Helper()
	answer, err := http.Get("http://" + ops(p) + "/debug/pprof/heap?gc=1")
	if err != nil {
		b.t.Fatal(err)
	}
	_ = answer.Body.Close()
	return b.metric(p, "go_memstats_heap_alloc_bytes") + b.metric(p, "go_memstats_stack_inuse_bytes")
}

func lastMS(h *hinted) float64 { return ms(h.last) }
func p99MS(h *hinted) float64  { return ms(h.P99) }

// deaf lets one client in a hundred ask for what it does not read.
func (b *bench) deaf(s *site, crowd *child, group *gun, sound []hinted) {
	tab := b.table("2. Hints while 1 % of the clients do not read", "online", "not reading", "pair p99 ms of the others", "without them", "÷ without", "pusher CPU-s per million pairs", "verdict")
	c := group.groups[0]
	n := max(1, b.size.online[len(b.size.online)-1]/100)
	// There has to be something that they do not read: pulls of all that was said so far, until the sockets are full.
	var saw crowdSaw
	crowd.call(b.t, crowdAsk{Deafen: &crowdDeafen{Clients: n, Times: 60, Frame: fmt.Sprintf(`{"id":2,"op":"pull","conversation_id":"%s","before":%d,"limit":200}`, c, group.last[0]+1)}}, &saw)
	var ours []hinted
	for range b.size.runs {
		ours = append(ours, b.listened(s, crowd, group, said, b.size.cell))
	}
	with, without := hintFigures(ours, p99MS), hintFigures(sound, p99MS)
	tab.row(append(saw.Void, hintVoids(ours...)...), b.size.online[len(b.size.online)-1], n, with, without, short(with.median/without.median),
		hintFigures(ours, (*hinted).perMillion), atMost(with.median/without.median, 1.5, " times"))
	tab.print()
}

// smallGroups lets the same people be in groups of ten.
func (b *bench) smallGroups(s *site, listeners []person) {
	const members = 10
	groups := max(1, len(listeners)/members)
	g := &gun{addr: s.api, groups: make([]string, groups), tokens: make([]string, groups), last: make([]int64, groups)}
	speaker := b.people(s, 1)[0]
	b.each(s.api, groups, 8, func(d *door, i int) (err error) {
		g.tokens[i] = speaker.token
		g.groups[i], g.last[i], err = d.group(append([]person{speaker}, listeners[i*members:(i+1)*members]...))
		return err
	})
	of := make([]int, groups*members)
	for i := range of {
		of[i] = i / members
	}
	b.restart(s.cluster.Pusher)
	crowd := startChild(b.t, "crowd")
	defer crowd.end()
	b.connect(crowd, crowdConnect{Addr: s.ws, Tokens: tokensOf(listeners[:len(of)]), Groups: of})
	tab := b.table("2. Hints, the same people in groups of ten, 200 ms", "groups", "messages/s in all", "pair p50 ms", "pair p99 ms", "p99 to the last ms", "CPU-s of a run", "verdict")
	for _, rate := range []int{said, 10 * said} {
		var ours []hinted
		all := used{}
		for range b.size.runs {
			h := b.listened(s, crowd, g, rate, b.size.cell)
			all.add(h.use)
			ours = append(ours, h)
		}
		for name := range all {
			all[name] /= time.Duration(len(ours))
		}
		tab.row(hintVoids(ours...), groups, rate, hintFigures(ours, func(h *hinted) float64 { return ms(h.P50) }), hintFigures(ours, p99MS), hintFigures(ours, lastMS), all.text(), "")
	}
	tab.print()
}
