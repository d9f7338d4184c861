package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// pulled is what a run of pulls gave.
type pulled struct {
	second   float64
	p50, p99 time.Duration
	cpu      float64 // seconds of the server
	use      used
	reads    float64 // blocks that were read from the store
	void     []string
}

const blockSize = 64 // numbers in a block of the timeline

// blast asks n requests at some doors, as fast as they are answered. Answers to the same question must be the same bytes.
func (b *bench) blast(addr string, n int, question func(i int) (which int, request []byte)) pulled {
	b.t.Helper()
	const doors = 64
	var mu sync.Mutex
	var p pulled
	var times []time.Duration
	seed := maphash.MakeSeed()
	first := map[int]uint64{}
	open := make([]*door, doors)
	for i := range open {
		var err error
		if open[i], err = openDoor(addr); err != nil {
			b.t.Fatal(err)
		}
		defer open[i].close()
	}
	var next atomic.Int64
	before, began := cpu(), time.Now()
	var wg sync.WaitGroup
	for _, d := range open {
		wg.Go(func() {
			var mine []time.Duration
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				which, ask := question(i)
				sent := time.Now()
				text, err := d.get(ask)
				mine = append(mine, time.Since(sent))
				sum := maphash.Bytes(seed, forAll(text))
				mu.Lock()
				if before, there := first[which]; there && before != sum && err == nil {
					p.void = voided(p.void, "two answers to the same question differ")
				}
				if err != nil {
					p.void = voided(p.void, "error: %v", err)
				}
				first[which] = sum
				mu.Unlock()
				if err != nil {
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			times = append(times, mine...)
		})
	}
	wg.Wait()
	took := time.Since(began)
	p.use = cpu().since(before)
	slices.Sort(times)
	p.second, p.p50, p.p99 = float64(len(times))/took.Seconds(), quantile(times, 0.5), quantile(times, 0.99)
	return p
}

// forAll is the part of a page that is the same for all members: what may be the first number depends on when one joined.
func forAll(page []byte) []byte {
	all, _, _ := bytes.Cut(page, []byte(`,"min_seq":`))
	return all
}

// pages gives the answers to pulls of some ranges, each looked at.
func (b *bench) pages(s *site, token, conversation string, afters []int64, told int64) (out []string) {
	b.t.Helper()
	d, err := openDoor(s.api)
	if err != nil {
		b.t.Fatal(err)
	}
	defer d.close()
	for _, after := range afters {
		text, err := d.get(request("GET", pullPath(conversation, after, told), token, nil))
		if err != nil {
			b.t.Fatal(err)
		}
		var page struct {
			Messages []struct {
				Seq     int64 `json:"seq"`
				Content struct {
					Text string `json:"text"`
				} `json:"content"`
			} `json:"messages"`
		}
		if err := json.Unmarshal(text, &page); err != nil {
			b.t.Fatal(err)
		}
		if len(page.Messages) != 50 {
			b.t.Fatalf("a pull after %d gives %d messages", after, len(page.Messages))
		}
		for i, m := range page.Messages {
			if m.Seq != after+1+int64(i) || m.Content.Text != words {
				b.t.Fatalf("a pull after %d gives number %d at place %d with %q", after, m.Seq, i, m.Content.Text)
			}
		}
		out = append(out, string(text))
	}
	return out
}

func pullPath(conversation string, after, told int64) string {
	return fmt.Sprintf("/v1/conversations/%s/messages?after=%d&limit=50&told=%d", conversation, after, told)
}

// pull is cell 3.
func (b *bench) pull() {
	s, floor := b.site("cluster"), b.theFloor()
	n := b.size.online[len(b.size.online)-1]
	members := b.people(s, n)
	speakers := b.people(s, 16)
	g := b.target(s, append(slices.Clone(speakers), members[:min(n, 9000)]...), 1)
	members = members[:min(n, 9000)]
	g.tokens = tokensOf(speakers)
	// The ranges begin behind the group's first event, and no two of them share a block.
	total := int64(blockSize * (b.size.ranges + 2*b.size.runs + 2))
	for g.last[0] < total {
		if l := g.fire(64, 0, b.size.floor); len(l.void) > 0 {
			b.t.Fatal(l.void)
		}
	}
	b.settle(s)
	told := g.last[0]
	placed := func(i int) int64 { return int64(blockSize * (i + 1)) }
	b.overHTTP(s, floor, g.groups[0], members, told, placed)
	b.overSockets(s, floor, g.groups[0], members, told, placed)
}

func (b *bench) overHTTP(s *site, floor *child, c string, members []person, told int64, at func(int) int64) {
	tab := b.table(fmt.Sprintf("3. %d pulls of 50 messages over HTTP", b.size.pulls), "ranges", "pulls/s", "floor", "÷ floor", "p50 ms", "p99 ms", "api CPU µs a pull", "floor the same", "store reads of a run", "verdict")
	api := s.cluster.API
	for _, ranges := range []int{1, b.size.ranges} {
		b.restart(api) // so that nothing is in its memory
		await(b.t, "the door is open", time.Minute, func() bool { _, err := s.try("GET", "/v1/users/me", members[0].token, nil); return err == nil })
		var ours, floors []pulled
		var void []string
		for run := range b.size.runs {
			var afters []int64
			for i := range ranges {
				if ranges == 1 {
					i = b.size.ranges + run // a range of its own for each run: it is cold
				}
				afters = append(afters, at(i))
			}
			before := b.metric(api, "tideline_blocks_misses_total")
			done := b.profile(s, fmt.Sprintf("pull-%d", ranges), b.size.floor)
			p := b.blast(s.api, b.size.pulls, func(i int) (int, []byte) {
				return i % ranges, request("GET", pullPath(c, afters[i%ranges], told), members[i%len(members)].token, nil)
			})
			done()
			p.cpu, p.reads = p.use.of("api"), b.metric(api, "tideline_blocks_misses_total")-before
			pages := b.pages(s, members[0].token, c, afters, told)
			texts := map[string]string{}
			for i, text := range pages {
				texts[fmt.Sprintf("http-%d", i)] = text
			}
			floor.call(b.t, floorAsk{Bytes: texts}, nil)
			f := b.blast(floor.addr, b.size.pulls, func(i int) (int, []byte) {
				return i % ranges, request("GET", fmt.Sprintf("/floor/http-%d", i%ranges), members[i%len(members)].token, nil)
			})
			f.cpu = f.use.of("floor")
			ours, floors, void = append(ours, p), append(floors, f), append(append(void, p.void...), f.void...)
		}
		b.pullRow(tab, ranges, ours, floors, void)
	}
	tab.print()
}

// pullRow judges: each block is read once, by the first run that needs it.
func (b *bench) pullRow(tab *table, ranges int, ours, floors []pulled, void []string) {
	figures := func(list []pulled, of func(pulled) float64) spread {
		var out []float64
		for _, p := range list {
			out = append(out, of(p))
		}
		return spreadOf(out)
	}
	rate := func(p pulled) float64 { return p.second }
	cost := func(p pulled) float64 { return p.cpu / float64(b.size.pulls) * 1e6 }
	r, f := figures(ours, rate), figures(floors, rate)
	reads := ""
	most := 0.0
	for _, p := range ours {
		reads += fmt.Sprintf("%g ", p.reads)
		most = max(most, p.reads)
	}
	tab.row(void, ranges, r, f, short(r.median/f.median), figures(ours, func(p pulled) float64 { return ms(p.p50) }), figures(ours, func(p pulled) float64 { return ms(p.p99) }),
		figures(ours, cost), figures(floors, cost), reads, "rate: "+atLeast(r.median/f.median, 0.8, "")+"; reads: "+atMost(most, float64(ranges), ""))
}

func (b *bench) overSockets(s *site, floor *child, c string, members []person, told int64, at func(int) int64) {
	tab := b.table(fmt.Sprintf("3. %d pulls of 50 messages on sockets", b.size.pulls), "ranges", "pulls/s", "floor", "÷ floor", "p50 ms", "p99 ms", "pusher CPU µs a pull", "floor the same", "store reads of a run", "verdict")
	pusher := s.cluster.Pusher
	b.restart(pusher)
	ears, bare := startChild(b.t, "crowd"), startChild(b.t, "crowd")
	defer ears.end()
	defer bare.end()
	b.connect(ears, crowdConnect{Addr: s.ws, Tokens: tokensOf(members)})
	b.connect(bare, crowdConnect{Addr: floor.addr, Tokens: tokensOf(members)})
	for _, ranges := range []int{1, b.size.ranges} {
		var ours, floors []pulled
		var void []string
		for run := range b.size.runs {
			var afters []int64
			var asks, floorAsks, wants []string
			for i := range ranges {
				if ranges == 1 {
					i = b.size.ranges + run
				}
				afters = append(afters, at(i))
			}
			texts := map[string]string{}
			for i, page := range b.pages(s, members[0].token, c, afters, told) { // from the api: the pusher's memory has none of it
				asks = append(asks, fmt.Sprintf(`{"id":2,"op":"pull","conversation_id":"%s","after":%d,"limit":50,"told":%d}`, c, afters[i], told))
				floorAsks = append(floorAsks, fmt.Sprintf(`{"id":2,"floor":"socket-%d"}`, i))
				texts[fmt.Sprintf("socket-%d", i)] = page
				wants = append(wants, `{"id":2,"op":"pull","result":`+string(forAll([]byte(page))))
			}
			floor.call(b.t, floorAsk{Bytes: texts}, nil)
			before := b.metric(pusher, "tideline_blocks_misses_total")
			done := b.profile(s, fmt.Sprintf("socket-pull-%d", ranges), b.size.floor)
			p := b.askAll(ears, "pusher", crowdPull{Frames: asks, Want: wants, Pulls: b.size.pulls})
			done()
			p.reads = b.metric(pusher, "tideline_blocks_misses_total") - before
			f := b.askAll(bare, "floor", crowdPull{Frames: floorAsks, Want: wants, Pulls: b.size.pulls})
			ours, floors, void = append(ours, p), append(floors, f), append(append(void, p.void...), f.void...)
		}
		b.pullRow(tab, ranges, ours, floors, void)
	}
	tab.print()
}

func (b *bench) askAll(c *child, server string, ask crowdPull) pulled {
	b.t.Helper()
	before := cpu()
	var saw crowdSaw
	c.call(b.t, crowdAsk{Pull: &ask}, &saw)
	use := cpu().since(before)
	return pulled{second: float64(saw.Count) / saw.Took.Seconds(), p50: saw.P50, p99: saw.P99, cpu: use.of(server), use: use, void: saw.Void}
}
