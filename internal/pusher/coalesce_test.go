package pusher

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/internal/tracing"
	"tideline/pkg/chat"
)

// unframe reads one frame of a server.
func unframe(r io.Reader) (op byte, payload []byte, err error) {
	var h [8]byte
	if _, err = io.ReadFull(r, h[:2]); err != nil {
		return 0, nil, err
	}
	op = h[0]
	n := uint64(h[1])
	switch n {
	case 126:
		if _, err = io.ReadFull(r, h[:2]); err != nil {
			return 0, nil, err
		}
		n = uint64(binary.BigEndian.Uint16(h[:2]))
	case 127:
		if _, err = io.ReadFull(r, h[:8]); err != nil {
			return 0, nil, err
		}
		n = binary.BigEndian.Uint64(h[:8])
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return op, payload, err
}

func TestFrames_OfEveryLengthAreReadAsTheyWereWritten(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 100_000} {
		f := newFrame(0)
		f.b = append(f.b, bytes.Repeat([]byte("x"), n)...)
		for _, b := range [][]byte{f.seal(), appendFrame(nil, opText, bytes.Repeat([]byte("x"), n))} {
			op, payload, err := unframe(bytes.NewReader(b))
			if op != opText || len(payload) != n || err != nil {
				t.Fatalf("%d bytes were read as %d of type %x, %v", n, len(payload), op, err)
			}
		}
	}
}

// hintsOf gives what frames of hints say, in order.
func hintsOf(t *testing.T, b []byte) (frames int, items []place) {
	t.Helper()
	for r := bytes.NewReader(b); r.Len() > 0; frames++ {
		op, payload, err := unframe(r)
		if err != nil || op != opText {
			t.Fatalf("frame %x: %v", op, err)
		}
		items = append(items, hintItems(t, payload)...)
	}
	return frames, items
}

func hintItems(t testing.TB, payload []byte) []place {
	t.Helper()
	var s struct {
		Op    string `json:"op"`
		Items []struct {
			C chat.ConversationID `json:"c"`
			S int64               `json:"s"`
		} `json:"items"`
	}
	if err := json.Unmarshal(payload, &s); err != nil || s.Op != "hint" {
		t.Fatalf("%s: %v", payload, err)
	}
	var items []place
	for _, it := range s.Items {
		items = append(items, place{it.C, it.S})
	}
	return items
}

// TestOutbox_Hints holds, over any order of moves and writes: of each conversation the newest number is told last, no number
// is told twice or backwards, nothing is lost, and what waits is never more than there are conversations.
func TestOutbox_Hints(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		conversations := 1 + rnd.IntN(8)
		limit := 1 + rnd.IntN(4)
		var o outbox
		members := make([]*membership, conversations)
		heads := make([]int64, conversations)
		told := map[chat.ConversationID]int64{}
		for i := range members {
			members[i] = &membership{conversation: &conversation{id: group(int64(i + 1))}}
		}
		take := func() int {
			b, n := o.takeUnasked(limit)
			frames, items := hintsOf(t, b)
			if frames != n || n > 1 || len(items) > limit {
				t.Fatalf("seed %d: %d frames of %d items, %d were announced", seed, frames, len(items), n)
			}
			for _, it := range items {
				if it.seq <= told[it.conversation] {
					t.Fatalf("seed %d: %v was told after %d", seed, it, told[it.conversation])
				}
				told[it.conversation] = it.seq
			}
			return len(items)
		}
		for range 200 {
			if rnd.IntN(4) == 0 {
				take()
				continue
			}
			i := rnd.IntN(conversations)
			seq := heads[i] + int64(rnd.IntN(4)) - 1 // also what is old
			heads[i] = max(heads[i], seq)
			if seq > 0 {
				o.hint(members[i], seq)
			}
			if len(o.hints) > conversations {
				t.Fatalf("seed %d: %d hints wait for %d conversations", seed, len(o.hints), conversations)
			}
		}
		for take() > 0 {
		}
		for i, m := range members {
			if told[m.conversation.id] != heads[i] {
				t.Fatalf("seed %d: %s is at %d, %d was told", seed, m.conversation.id, heads[i], told[m.conversation.id])
			}
		}
		if o.unasked() {
			t.Fatalf("seed %d: something waits after all was taken", seed)
		}
	}
}

func TestOutbox_OfSeldomThingsTheNewestIsKeptAndTheRestIsBounded(t *testing.T) {
	var o outbox
	private := chat.PrivateConversation(1, 2)
	for i := range int64(10_000) {
		o.read(place{group(i % 1000), i})
		o.receipt(place{group(1), i})
		o.receipt(place{private, i})
		o.types(typing{group(1), chat.UserID(i + 1)})
		o.online(person{chat.UserID(i%3 + 1), i%2 == 0})
		o.pong(fmt.Sprint(i))
	}
	r := o.rare
	if len(r.reads) > maxReads || len(r.receipts) > maxReceipts || len(r.typing) > maxTyping || len(r.presence) != 3 {
		t.Fatalf("%d reads, %d receipts, %d typing, %d presence wait", len(r.reads), len(r.receipts), len(r.typing), len(r.presence))
	}
	if !slices.Contains(r.reads, place{group(999), 9999}) || !slices.Contains(r.receipts, place{private, 9999}) || !slices.Contains(r.receipts, place{group(1), 9999}) {
		t.Fatal("the newest is not among them")
	}
	b, n := o.takeUnasked(10)
	rd := bytes.NewReader(b)
	frames := 0
	for ; rd.Len() > 0; frames++ {
		_, payload, err := unframe(rd)
		if err != nil || !json.Valid(payload) {
			t.Fatalf("frame %d: %s, %v", frames, payload, err)
		}
	}
	if frames != n || o.unasked() {
		t.Fatalf("%d frames, %d announced, more waits: %v", frames, n, o.unasked())
	}
	if op, payload, _ := unframe(bytes.NewReader(o.takePong())); op != opPong || string(payload) != "9999" {
		t.Fatalf("pong is %x %s", op, payload)
	}
}

// pipe gives a connection of a pusher whose client is the other end, without HTTP.
func pipe(p *Pusher, ids ...chat.ConversationID) (*conn, net.Conn) {
	ours, theirs := net.Pipe()
	serial := p.serial.Add(1)
	c := &conn{p: p, f: p.flushers[serial%uint64(len(p.flushers))], net: ours, serial: serial, lastUnasked: -p.cfg.Window, arrived: true, authed: true}
	for _, id := range ids {
		c.subs = append(c.subs, p.index.add(c, id, 1))
	}
	return c, theirs
}

type heardHint struct {
	at time.Duration
	place
}

// TestWindow holds, in time that is made: the first hint of a quiet connection goes at once; between two frames lies a
// window at least; the newest number is out one window and a tick after it came.
func TestWindow(t *testing.T) {
	for _, window := range []time.Duration{0, 5 * time.Millisecond, 200 * time.Millisecond} {
		t.Run(window.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := testConfig()
				cfg.Window = window
				cfg.HintItems = 3
				p := newPusher(cfg, nil, nil, nil, &live{}, tracing.None(), slog.New(slog.NewTextHandler(io.Discard, nil)), NewMetrics(prometheus.NewRegistry()), "test")
				stop := make(chan struct{})
				for _, f := range p.flushers {
					p.wg.Go(func() { f.run(stop) })
				}
				ids := []chat.ConversationID{group(1), group(2), group(3), group(4), group(5)}
				c, theirs := pipe(p, ids...)
				var frames []time.Duration
				var heard []heardHint
				done := make(chan error)
				go func() {
					r := bufio.NewReader(theirs)
					for {
						_, payload, err := unframe(r)
						if err != nil {
							done <- err
							return
						}
						frames = append(frames, p.clock())
						for _, it := range hintItems(t, payload) {
							heard = append(heard, heardHint{p.clock(), it})
						}
					}
				}()
				rnd := rand.New(rand.NewPCG(uint64(window), 7))
				heads := map[chat.ConversationID]int64{}
				moved := map[chat.ConversationID]time.Duration{}
				last := time.Duration(-1)
				for range 300 {
					time.Sleep(time.Duration(rnd.IntN(int(max(window, time.Millisecond)))) * time.Duration(1+rnd.IntN(2)))
					id := ids[rnd.IntN(len(ids))]
					quiet := last < 0 || p.clock()-last > 3*window+3*p.tick
					heads[id]++
					moved[id], last = p.clock(), p.clock()
					p.TakeNotify(notify(id, heads[id]))
					if quiet {
						synctest.Wait()
						if n := len(heard); n == 0 || heard[n-1].at != last || heard[n-1].place != (place{id, heads[id]}) {
							t.Fatalf("after a quiet time %s at %d did not go at once", id, heads[id])
						}
						time.Sleep(4*window + time.Millisecond)
						last = p.clock() - 4*window
					}
				}
				time.Sleep(4*window + 4*p.tick)
				synctest.Wait()
				for i := 1; i < len(frames); i++ {
					if frames[i]-frames[i-1] < window {
						t.Fatalf("two frames within %s", frames[i]-frames[i-1])
					}
				}
				for id, head := range heads {
					i := slices.IndexFunc(heard, func(h heardHint) bool { return h.place == place{id, head} })
					if i < 0 {
						t.Fatalf("%s at %d was never told", id, head)
					}
					// With five conversations and three in a frame, the next frame at the latest.
					if late := heard[i].at - moved[id]; late > 2*window+2*p.tick {
						t.Fatalf("%s at %d was told %s late", id, head, late)
					}
				}
				close(stop)
				_ = c.net.Close()
				if err := <-done; !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				p.wg.Wait()
				p.abort()
			})
		})
	}
}

// TestSlowSocket_CostsMemoryByItsConversationsOnly writes to a socket that takes nothing, and to one beside it that does.
func TestSlowSocket_CostsMemoryByItsConversationsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Window = 10 * time.Millisecond
		p := newPusher(cfg, nil, nil, nil, &live{online: map[chat.UserID]map[int64]bool{}}, tracing.None(), slog.New(slog.NewTextHandler(io.Discard, nil)), NewMetrics(prometheus.NewRegistry()), "test")
		stop := make(chan struct{})
		for _, f := range p.flushers {
			p.wg.Go(func() { f.run(stop) })
		}
		slow, slowEnd := pipe(p, group(1), group(2))
		_, quickEnd := pipe(p, group(1), group(2))
		quick := make(chan place, 10_000)
		go func() {
			for r := bufio.NewReader(quickEnd); ; {
				_, payload, err := unframe(r)
				if err != nil {
					return
				}
				for _, it := range hintItems(t, payload) {
					quick <- it
				}
			}
		}()
		for seq := int64(1); seq <= 500; seq++ {
			p.TakeNotify(notify(group(1+seq%2), seq))
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			if got := <-quick; got != (place{group(1 + seq%2), seq}) {
				t.Fatalf("the quick one heard %v at %d", got, seq)
			}
			slow.mu.Lock()
			if n := len(slow.out.hints); n > 2 || len(slow.out.answers) > 0 {
				t.Fatalf("%d hints wait for two conversations", n)
			}
			slow.mu.Unlock()
		}
		// It begins to read before its time is over, and hears the newest.
		r := bufio.NewReader(slowEnd)
		newest := map[chat.ConversationID]int64{}
		for newest[group(1)] != 500 || newest[group(2)] != 499 {
			_, payload, err := unframe(r)
			if err != nil {
				t.Fatal(err)
			}
			for _, it := range hintItems(t, payload) {
				newest[it.conversation] = it.seq
			}
		}
		// Then it stops for good, and is given up; it hears why when it looks up within the grace.
		p.TakeNotify(notify(group(1), 501))
		time.Sleep(cfg.WriteTimeout + time.Second)
		synctest.Wait()
		if _, payload, err := unframe(r); err != nil || len(hintItems(t, payload)) != 1 {
			t.Fatalf("the frame that was begun: %s, %v", payload, err)
		}
		op, payload, err := unframe(r)
		if err != nil || op != opClose || CloseCode(binary.BigEndian.Uint16(payload)) != CloseSlowConsumer {
			t.Fatalf("closed with %x %s, %v", op, payload, err)
		}
		close(stop)
		_ = slowEnd.Close()
		_ = quickEnd.Close()
		p.wg.Wait()
		p.abort()
	})
}

func TestBucket_LetsABurstThroughAndThenARate(t *testing.T) {
	b := bucket{tokens: 3}
	now := time.Duration(0)
	for range 3 {
		if wait := b.take(now, 2, 3); wait != 0 {
			t.Fatalf("wait %s within the burst", wait)
		}
	}
	if wait := b.take(now, 2, 3); wait != 500*time.Millisecond {
		t.Fatalf("wait %s", wait)
	}
	now += 500 * time.Millisecond
	if wait := b.take(now, 2, 3); wait != 0 {
		t.Fatalf("wait %s after waiting", wait)
	}
}
