package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// countsAtOnce is about what a screen shows.
const countsAtOnce = 20

// wantedCounts is how many counts a second there must be, and at which rate their latency is judged.
const wantedCounts = 5000

// receipts is cell 5.
func (b *bench) receipts() {
	tab := b.table(fmt.Sprintf("5. Receipts in a group of %d with %d read marks/s running, %d counts a request", b.size.members, b.size.marks, countsAtOnce),
		"on", "counts/s", "p50 ms", "p99 ms", fmt.Sprintf("at %d counts/s: p50 ms", wantedCounts), "p99 ms", "marks/s", "floor: ZCOUNT/s", "÷ floor", "CPU µs of a count with the marks, by process", "exact after s", "verdict")
	for _, name := range b.size.sites {
		b.receiptsOn(b.site(name), tab)
	}
	tab.print()
}

// ledger is what the marks must be.
type ledger struct {
	mu    sync.Mutex // guards marks
	marks []int64
	void  []string
	done  int
}

func (b *bench) receiptsOn(s *site, tab *table) {
	members := b.people(s, b.size.members)
	speaker := b.people(s, 1)
	g := b.target(s, append(speaker, members[:b.size.members-1]...), 1)
	members = members[:b.size.members-1]
	g.tokens = g.tokens[:1]
	const messages = 300
	joined := g.last[0]
	for g.last[0] < joined+messages {
		if l := g.fire(1, 0, 200*time.Millisecond); len(l.void) > 0 {
			b.t.Fatal(l.void)
		}
	}
	b.settle(s)
	c := g.groups[0]
	book := &ledger{marks: make([]int64, len(members))}
	for i := range book.marks {
		book.marks[i] = joined
	}
	path := "/v1/conversations/" + c + "/receipts?"
	var seqs []int64
	for i := range int64(countsAtOnce) {
		seqs = append(seqs, joined+1+i*messages/countsAtOnce)
		path += fmt.Sprintf("seq=%d&", seqs[i])
	}
	ask := request("GET", strings.TrimSuffix(path, "&"), speaker[0].token, nil)
	for range 20 { // what is asked for the first time is filled
		if _, err := s.try("GET", strings.TrimSuffix(path, "&"), speaker[0].token, nil); err != nil {
			b.t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.warm(s, members, c, joined)
	var rates, medians, tails, calm, calmTails, marked, floors []float64
	all, counts := used{}, 0
	for range b.size.runs {
		ctx, stop := context.WithCancel(b.t.Context())
		var running sync.WaitGroup
		done := b.profile(s, "receipts", b.size.cell)
		begun := book.done
		running.Go(func() { b.markAll(ctx, s, c, members, book, joined+messages) })
		times, use, void := b.countAll(s, ask, seqs, 0)
		done()
		steady, _, more := b.countAll(s, ask, seqs, wantedCounts/countsAtOnce)
		stop()
		running.Wait()
		book.void = append(append(book.void, void...), more...)
		all.add(use)
		times, steady = sortedTimes(times), sortedTimes(steady)
		calm, calmTails = append(calm, ms(quantile(steady, 0.5))), append(calmTails, ms(quantile(steady, 0.99)))
		counts += len(times) * countsAtOnce
		rates = append(rates, float64(len(times)*countsAtOnce)/b.size.cell.Seconds())
		medians, tails = append(medians, ms(quantile(times, 0.5))), append(tails, ms(quantile(times, 0.99)))
		marked = append(marked, float64(book.done-begun)/(2*b.size.cell.Seconds()))
		floors = append(floors, b.zcount(s, len(members)))
	}
	exact := book.compare(b, s, ask, seqs)
	r, tail, f := spreadOf(rates), spreadOf(calmTails), spreadOf(floors)
	tab.row(book.void, s.name, r, spreadOf(medians), spreadOf(tails), spreadOf(calm), tail, spreadOf(marked), f, short(r.median/f.median), all.each(counts), short(exact.Seconds()),
		"rate: "+atLeast(r.median, wantedCounts, "/s")+"; p99: "+atMost(tail.median, 10, " ms"))
}

// warm lets each member come as one who reads comes: known to the door, with a set of marks that stands, before the mark moves.
func (b *bench) warm(s *site, members []person, c string, joined int64) {
	b.t.Helper()
	began := time.Now()
	for pass := 1; ; pass++ {
		before := s.marksFromStore(b)
		b.each(s.api, len(members), 16, func(d *door, i int) error {
			_, err := d.get(request("PUT", "/v1/conversations/"+c+"/read", members[i].token, fmt.Appendf(nil, `{"seq":%d}`, joined)))
			return err
		})
		if s.marksFromStore(b) == before {
			return
		}
		if time.Since(began) > 4*patience {
			b.t.Fatalf("after %d passes the sets of %d members are not filled", pass, len(members))
		}
	}
}

// markAll moves read marks at a rate, each forward; whoever is not answered in time makes the cell void.
func (b *bench) markAll(ctx context.Context, s *site, c string, members []person, book *ledger, last int64) {
	due := make(chan int, b.size.marks*60)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			d, err := openDoor(s.api)
			if err != nil {
				b.t.Error(err)
				return
			}
			defer d.close()
			for i := range due {
				book.mu.Lock()
				to := min(book.marks[i]+7, last)
				book.mu.Unlock()
				text, err := d.get(request("PUT", "/v1/conversations/"+c+"/read", members[i].token, fmt.Appendf(nil, `{"seq":%d}`, to)))
				at := int64(0)
				if err == nil {
					at, err = number(text, `"read_seq":`)
				}
				book.mu.Lock()
				if err != nil {
					book.void = voided(book.void, "error: a mark: %v", err)
				} else {
					book.marks[i] = at
					book.done++
				}
				book.mu.Unlock()
			}
		})
	}
	began := time.Now()
	for n := 0; ctx.Err() == nil; n++ {
		time.Sleep(time.Duration(n)*time.Second/time.Duration(b.size.marks) - time.Since(began))
		book.mu.Lock()
		i := (book.done*31 + n) % len(members)
		book.mu.Unlock()
		due <- i
	}
	close(due)
	wg.Wait()
}

// countAll asks again and again: a count never goes down on one connection. With a rate, requests are due so many times a
// second, and their latency counts from then.
func (b *bench) countAll(s *site, ask []byte, seqs []int64, rate int) (times []time.Duration, use used, void []string) {
	ctx, stop := context.WithTimeout(b.t.Context(), b.size.cell)
	defer stop()
	var mu sync.Mutex
	var next atomic.Int64
	before, began := cpu(), time.Now()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			d, err := openDoor(s.api)
			if err != nil {
				b.t.Error(err)
				return
			}
			defer d.close()
			var mine []time.Duration
			least := make([]int64, len(seqs))
			for ctx.Err() == nil {
				sent := time.Now()
				if rate > 0 {
					sent = began.Add(time.Duration(next.Add(1)) * time.Second / time.Duration(rate))
					time.Sleep(time.Until(sent))
				}
				text, err := d.get(ask)
				mine = append(mine, time.Since(sent))
				var counts []int64
				if err == nil {
					counts, err = readCounts(text, seqs)
				}
				mu.Lock()
				if err != nil {
					void = voided(void, "error: %v", err)
				}
				for i, n := range counts {
					if n < least[i] {
						void = voided(void, "partial: %d have read %d, and before it were %d", n, seqs[i], least[i])
					}
					least[i] = n
				}
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
	return times, cpu().since(before), void
}

func readCounts(text []byte, seqs []int64) ([]int64, error) {
	var v struct {
		Receipts []struct {
			Seq  int64 `json:"seq"`
			Read int64 `json:"read_count"`
		} `json:"receipts"`
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, err
	}
	if len(v.Receipts) != len(seqs) {
		return nil, fmt.Errorf("%d of %d receipts", len(v.Receipts), len(seqs))
	}
	out := make([]int64, len(seqs))
	for i, r := range v.Receipts {
		if r.Seq != seqs[i] {
			return nil, fmt.Errorf("the receipt of %d stands at the place of %d", r.Seq, seqs[i])
		}
		out[i] = r.Read
	}
	return out, nil
}

// compare counts the marks by hand, and gives how long it took until the counts were the same: a mark that Redis did not
// take at once is raised by the writer of marks.
func (l *ledger) compare(b *bench, s *site, ask []byte, seqs []int64) time.Duration {
	b.t.Helper()
	d, err := openDoor(s.api)
	if err != nil {
		b.t.Fatal(err)
	}
	defer d.close()
	began := time.Now()
	for {
		var counts []int64
		text, err := d.get(ask)
		if err == nil {
			counts, err = readCounts(text, seqs)
		}
		if err != nil {
			b.t.Fatal(err)
		}
		var wrong []string
		for i, seq := range seqs {
			var n int64
			for _, at := range l.marks {
				if at >= seq {
					n++
				}
			}
			if n != counts[i] {
				wrong = voided(wrong, "wrong: %d are told to have read %d, and %d have", counts[i], seq, n)
			}
		}
		if len(wrong) == 0 {
			return time.Since(began)
		}
		if time.Since(began) > patience {
			l.void = append(l.void, wrong...)
			return time.Since(began)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// zcount counts in a set of the same size, as fast as the Redis behind the platform does.
func (b *bench) zcount(s *site, members int) float64 {
	b.t.Helper()
	var addr string
	if s.cluster != nil {
		addr = s.cluster.Redis.Addr
	} else {
		_, rest, _ := strings.Cut(s.Parts[0].Log(), `"redis":"`)
		addr, _, _ = strings.Cut(rest, `"`)
	}
	cl := redis.NewClient(&redis.Options{Addr: addr})
	defer func() { _ = cl.Close() }()
	ctx := b.t.Context()
	var set []redis.Z
	for i := range members {
		set = append(set, redis.Z{Score: float64(i % 300), Member: fmt.Sprintf("%08d", i)})
	}
	if err := cl.ZAdd(ctx, "bench:floor", set...).Err(); err != nil {
		b.t.Fatal(err)
	}
	var n atomic.Int64
	began := time.Now()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for time.Since(began) < b.size.floor {
				pipe := cl.Pipeline()
				for i := range countsAtOnce {
					pipe.ZCount(ctx, "bench:floor", fmt.Sprint(i*15), "+inf")
				}
				if _, err := pipe.Exec(ctx); err != nil {
					b.t.Error(err)
					return
				}
				n.Add(countsAtOnce)
			}
		})
	}
	wg.Wait()
	rate := float64(n.Load()) / time.Since(began).Seconds()
	if err := cl.Del(ctx, "bench:floor").Err(); err != nil {
		b.t.Fatal(err)
	}
	return rate
}

// marksFromStore counts the questions about marks that no set could answer.
func (s *site) marksFromStore(b *bench) (n float64) {
	b.t.Helper()
	for _, p := range s.Parts {
		n += b.metric(p, `tideline_marks_answers_total{from="store"}`)
	}
	return n
}
