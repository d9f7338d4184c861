package pusher

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/internal/accounts"
	"tideline/internal/schedules"
	"tideline/internal/tracing"
	"tideline/pkg/chat"
)

// temper is how a client of a simulation treats its socket.
type temper int

const (
	healthy temper = iota // reads whatever comes at once
	sleeper               // reads, with pauses that the server bears
	stuck                 // stops reading for good at some time
	broken                // hangs up at some time
)

// listener is a client, and what it has heard. All of it is of the client's goroutine until the bubble is at rest.
type listener struct {
	w      *pushWorld
	temper temper
	user   chat.UserID
	at     time.Duration // when it stops or hangs up
	c      *conn
	theirs net.Conn
	rnd    *rand.Rand

	mu       sync.Mutex // guards what follows
	hints    map[chat.ConversationID]heardHint
	reads    map[chat.ConversationID]heardHint
	receipts map[chat.ConversationID]heardHint
	stuckAt  time.Duration
	code     CloseCode
	fault    string
}

// pushWorld is a pusher in made time, and its clients.
type pushWorld struct {
	t         *testing.T
	rnd       *rand.Rand
	p         *Pusher
	groups    []chat.ConversationID
	listeners []*listener
	heads     map[chat.ConversationID]heardHint // the newest number, and since when it is
	reads     map[timelineKey]heardHint
}

type timelineKey struct {
	conversation chat.ConversationID
	user         chat.UserID
}

// late is how much later than it happened a healthy client may hear of something: as many windows as it takes to tell of all
// its conversations, and a tick for each.
func (w *pushWorld) late() time.Duration {
	frames := (len(w.groups) + w.p.cfg.HintItems - 1) / w.p.cfg.HintItems
	return time.Duration(frames)*(w.p.cfg.Window+w.p.tick) + w.p.tick
}

func (l *listener) listen(done func()) {
	defer done()
	r := bufio.NewReaderSize(l.theirs, 16)
	mood := l.temper
	for {
		switch now := l.w.p.clock(); {
		case mood == sleeper && l.rnd.IntN(3) == 0:
			time.Sleep(time.Duration(l.rnd.Int64N(int64(l.w.p.cfg.WriteTimeout / 4))))
		case mood == broken && now >= l.at:
			_ = l.theirs.Close()
			return
		case mood == stuck && now >= l.at:
			// It looks up when it is given up, in time to hear why, or later.
			l.mu.Lock()
			l.stuckAt = now
			l.mu.Unlock()
			time.Sleep(2*l.w.p.cfg.WriteTimeout + time.Duration(l.rnd.Int64N(int64(slowGrace))))
			mood = sleeper
		}
		op, payload, err := unframe(r)
		if err != nil {
			return
		}
		l.mu.Lock()
		l.take(op, payload)
		l.mu.Unlock()
	}
}

func (l *listener) take(op byte, payload []byte) {
	if op == opClose {
		l.code = CloseCode(binary.BigEndian.Uint16(payload))
		return
	}
	var f struct {
		Op    string `json:"op"`
		Items []struct {
			C chat.ConversationID `json:"c"`
			S int64               `json:"s"`
		} `json:"items"`
		Conversation chat.ConversationID `json:"conversation_id"`
		ReadSeq      int64               `json:"read_seq"`
	}
	if err := json.Unmarshal(payload, &f); err != nil {
		l.fault = err.Error()
		return
	}
	told := map[string]map[chat.ConversationID]heardHint{"hint": l.hints, "receipt": l.receipts}[f.Op]
	if f.Op == "read" {
		l.note(l.reads, "read", f.Conversation, f.ReadSeq)
	}
	for _, it := range f.Items {
		l.note(told, f.Op, it.C, it.S)
	}
}

// note takes something that is said, which has to be newer than what was said before.
func (l *listener) note(told map[chat.ConversationID]heardHint, op string, c chat.ConversationID, seq int64) {
	if seq <= told[c].seq {
		l.fault = op + " of " + c.String() + " goes back"
	}
	told[c] = heardHint{l.w.p.clock(), place{c, seq}}
}

func newPushWorld(t *testing.T, seed uint64) *pushWorld {
	rnd := rand.New(rand.NewPCG(seed, 11))
	cfg := testConfig()
	cfg.Window = time.Duration(rnd.IntN(4)) * time.Duration(1+rnd.IntN(60)) * time.Millisecond
	cfg.HintItems = 1 + rnd.IntN(6)
	cfg.WriteTimeout = time.Second
	w := &pushWorld{t: t, rnd: rnd, heads: map[chat.ConversationID]heardHint{}, reads: map[timelineKey]heardHint{}}
	w.p = newPusher(cfg, nil, nil, nil, &live{online: map[chat.UserID]map[int64]bool{}}, tracing.None(), slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()), "test")
	for i := range 1 + rnd.IntN(5) {
		w.groups = append(w.groups, group(int64(i+1)))
	}
	w.groups = append(w.groups, chat.PrivateConversation(1, 2))
	for i := range 2 + rnd.IntN(4) {
		l := &listener{
			w: w, temper: temper(rnd.IntN(4)), user: chat.UserID(1 + i%2), at: time.Duration(1 + rnd.Int64N(int64(400*time.Millisecond))), rnd: rand.New(rand.NewPCG(seed, 100+uint64(i))),
			hints: map[chat.ConversationID]heardHint{}, reads: map[chat.ConversationID]heardHint{}, receipts: map[chat.ConversationID]heardHint{},
		}
		if i == 0 {
			l.temper = healthy
		}
		l.c, l.theirs = pipe(w.p, w.groups...)
		l.c.caller = accounts.Caller{User: l.user, Session: int64(i + 1)}
		w.p.index.arrive(l.c, l.user, 100)
		w.listeners = append(w.listeners, l)
	}
	return w
}

// step moves something, or lets time pass.
func (w *pushWorld) step() {
	id := w.groups[w.rnd.IntN(len(w.groups))]
	switch w.rnd.IntN(10) {
	case 0, 1, 2, 3:
		seq := w.heads[id].seq + 1 + w.rnd.Int64N(3)
		w.heads[id] = heardHint{w.p.clock(), place{id, seq}}
		w.p.TakeNotify(notify(id, seq))
	case 4:
		if seq := w.heads[id].seq; seq > 0 { // said again, or said late
			w.p.TakeNotify(notify(id, 1+w.rnd.Int64N(seq)))
		}
	case 5, 6:
		k := timelineKey{id, chat.UserID(1 + w.rnd.IntN(2))}
		before := w.reads[k].seq
		seq := before + 1 + w.rnd.Int64N(3)
		w.reads[k] = heardHint{w.p.clock(), place{id, seq}}
		w.p.TakeMark(chat.ReadMark{User: k.user, Conversation: id, Seq: seq, PreviousSeq: before, Session: "0"})
	default:
		time.Sleep(time.Duration(w.rnd.Int64N(int64(40 * time.Millisecond))))
	}
	w.bounded()
}

// bounded holds what waits for a connection against what the connection has.
func (w *pushWorld) bounded() {
	for i, l := range w.listeners {
		l.c.mu.Lock()
		hints, reads, receipts, answers := len(l.c.out.hints), 0, 0, len(l.c.out.answers)
		if r := l.c.out.rare; r != nil {
			reads, receipts = len(r.reads), len(r.receipts)
		}
		seen := map[*membership]bool{}
		twice := false
		for _, m := range l.c.out.hints {
			twice = twice || seen[m]
			seen[m] = true
		}
		l.c.mu.Unlock()
		if twice || hints > len(w.groups) || reads > len(w.groups) || receipts > len(w.groups) || answers > 0 {
			w.t.Fatalf("for client %d wait %d hints (one of them twice: %t), %d reads, %d receipts, %d answers; it has %d conversations", i, hints, twice, reads, receipts, answers, len(w.groups))
		}
	}
}

// prompt holds what a healthy client has heard against what has happened: what is older than the bound is known.
func (w *pushWorld) prompt() {
	now := w.p.clock()
	for i, l := range w.listeners {
		if l.temper != healthy {
			continue
		}
		w.promptly(i, l, now)
	}
}

func (w *pushWorld) promptly(i int, l *listener, now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, head := range w.heads {
		w.knows(i, "head", l.hints[id], head, now)
		w.knows(i, "own mark", l.reads[id], w.reads[timelineKey{id, l.user}], now)
		if id.Kind == chat.KindPrivate {
			w.knows(i, "receipt", l.receipts[id], w.reads[timelineKey{id, 3 - l.user}], now)
		}
	}
}

func (w *pushWorld) knows(i int, what string, heard, is heardHint, now time.Duration) {
	if heard.seq < is.seq && now > is.at+w.late() {
		w.t.Fatalf("client %d knows %d of a %s that has been %d for %s; %s is the bound", i, heard.seq, what, is.seq, now-is.at, w.late())
	}
}

// TestCoalescer_TellsEverybodyInTimeWhateverOthersDo holds over every schedule: a healthy socket hears the newest number of each
// conversation, mark and receipt within its windows, whoever is slow beside it; nobody hears an older number after a newer one;
// what waits is bounded by the conversations; who stops reading is closed as slow, and nobody else is.
func TestCoalescer_TellsEverybodyInTimeWhateverOthersDo(t *testing.T) {
	schedules.Run(t, func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) {
			w := newPushWorld(t, seed)
			stop := make(chan struct{})
			for _, f := range w.p.flushers {
				w.p.wg.Go(func() { f.run(stop) })
			}
			var clients sync.WaitGroup
			for _, l := range w.listeners {
				clients.Add(1)
				go l.listen(clients.Done)
			}
			defer func() {
				for _, l := range w.listeners {
					_ = l.theirs.Close()
					_ = l.c.net.Close()
				}
				close(stop)
				clients.Wait()
				w.p.wg.Wait()
				w.p.abort()
			}()
			for range 40 {
				w.step()
				synctest.Wait()
				w.prompt()
			}
			// Something waits for everybody, and then it is quiet for so long that all are told or given up.
			for _, id := range w.groups {
				w.heads[id] = heardHint{w.p.clock(), place{id, w.heads[id].seq + 1}}
				w.p.TakeNotify(notify(id, w.heads[id].seq))
			}
			last := w.p.clock()
			time.Sleep(w.late() + time.Nanosecond)
			synctest.Wait()
			w.prompt()
			time.Sleep(time.Minute)
			synctest.Wait()
			for i, l := range w.listeners {
				w.settled(i, l, last)
			}
		})
	})
}

// settled looks at a client when everything is over; last is when something was said to everybody for the last time.
func (w *pushWorld) settled(i int, l *listener, last time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fault != "" {
		w.t.Fatalf("client %d: %s", i, l.fault)
	}
	l.c.mu.Lock()
	closing := l.c.closing
	l.c.mu.Unlock()
	switch {
	case l.temper == broken:
	case l.code != 0 && l.code != CloseSlowConsumer:
		w.t.Fatalf("client %d was closed with %s", i, l.code)
	case l.temper == healthy && closing:
		w.t.Fatalf("client %d read all the time, and was closed", i)
	case !closing && l.stuckAt > 0 && l.stuckAt < last:
		w.t.Fatalf("client %d has not read since %s, and was told something at %s; it is not closed", i, l.stuckAt, last)
	case !closing:
		for id, head := range w.heads {
			if l.hints[id].seq != head.seq {
				w.t.Fatalf("client %d is open, and knows %d of %s at %d", i, l.hints[id].seq, id, head.seq)
			}
		}
	}
}
