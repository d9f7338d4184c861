package evening

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/client"
	"tideline/internal/kafka"
	"tideline/pkg/chat"
	"tideline/pkg/history"
	"tideline/test/platform"
)

// Evening is one evening. Prepare, Start, break and mend, Stop, Rest: in this order, once.
type Evening struct {
	// Path is where the history stands.
	Path string

	t    testing.TB
	pf   *platform.Platform
	plan Plan
	w    *history.Writer
	rng  *rand.Rand // of the one goroutine that decides

	producer *kgo.Client
	log      *follower
	big      *room
	rooms    []*room // with the big one
	speakers []*person
	online   []*person // of the big group; the speakers are online besides
	mine     map[*person][]*room

	run     context.Context // the acts
	stop    context.CancelFunc
	listen  context.Context // the ears
	deafen  context.CancelFunc
	seats   chan struct{}
	acts    sync.WaitGroup
	ears    sync.WaitGroup
	ids     atomic.Uint64
	counted counts
	poison  map[place]int64
	until   time.Time // when everybody must have been told of everything

	mu       sync.Mutex // guards troubles
	troubles []string
}

// counts are for the log of a test.
type counts struct{ numbered, refused, given, skipped atomic.Int64 }

// Prepare makes the people and the groups and begins the history.
func Prepare(t testing.TB, pf *platform.Platform, plan Plan) *Evening {
	t.Helper()
	// Clients of one process share a transport here; each of them has connections of its own elsewhere.
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = plan.Busy
	e := &Evening{
		Path: filepath.Join(t.TempDir(), "history.jsonl"), t: t, pf: pf, plan: plan, rng: rand.New(rand.NewPCG(plan.Seed, 1)),
		mine: map[*person][]*room{}, poison: map[place]int64{}, seats: make(chan struct{}, plan.Busy),
	}
	var err error
	e.w, err = history.Create(e.Path, history.Header{Driver: "evening", Settings: map[string]string{"seed": fmt.Sprint(plan.Seed), "test": t.Name()}})
	if err != nil {
		t.Fatal(err)
	}
	e.producer, err = kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(pf.Kafka), kgo.MetadataMinAge(100 * time.Millisecond), kgo.RecordDeliveryTimeout(20 * time.Second),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), // as somebody who does not know how keys are hashed
	}, pf.Backend...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.producer.Close)
	if e.log, err = newFollower(pf.Kafka, pf.InsideOpts(t)); err != nil {
		t.Fatal(err)
	}
	e.listen, e.deafen = context.WithCancel(context.WithoutCancel(t.Context()))
	e.run, e.stop = context.WithCancel(e.listen)
	t.Cleanup(func() { // also where the test ends early
		e.stop()
		e.acts.Wait()
		e.deafen()
		e.ears.Wait()
		_ = e.w.Close()
	})
	e.ears.Go(func() { e.log.run(e.listen) })
	e.gather()
	return e
}

// gather makes people and groups: the speakers are in the big group and in some of the others.
func (e *Evening) gather() {
	e.t.Helper()
	p := e.plan
	speakers := max(p.Members*p.Groups/4, 2*p.Members)
	ids := makePeople(e.t, e.pf, fmt.Sprintf("evening-%d", p.Seed), max(p.Big, speakers+p.Online))
	present := e.arriveAll(ids[:speakers+p.Online])
	e.speakers, e.online = present[:speakers], present[speakers:]
	e.big = e.found("Everybody", e.speakers[0], ids[1:], e.speakers)
	e.rooms = []*room{e.big}
	for i := range p.Groups {
		order := e.rng.Perm(speakers)
		talkers := make([]*person, p.Members)
		for j := range talkers {
			talkers[j] = e.speakers[order[j]]
		}
		var members []chat.UserID
		for _, q := range talkers[1:] {
			members = append(members, q.id)
		}
		r := e.found(fmt.Sprintf("Room %d", i), talkers[0], members, talkers)
		for _, j := range order[p.Members : p.Members+2] {
			r.guests[e.speakers[j]] = false
		}
		e.rooms = append(e.rooms, r)
	}
	for _, r := range e.rooms {
		for _, q := range r.talkers {
			e.mine[q] = append(e.mine[q], r)
		}
	}
}

func (e *Evening) found(name string, owner *person, members []chat.UserID, talkers []*person) *room {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.run, time.Minute)
	defer cancel()
	in := map[string]any{"name": name, "member_ids": texts(members), "client_msg_id": client.NewClientMsgID()}
	for {
		var g client.Group
		err := owner.c.Call(ctx, http.MethodPost, "/groups", in, &g)
		if err == nil {
			id, err := chat.ParseConversationID(g.Conversation)
			if err != nil {
				e.t.Fatal(err)
			}
			return &room{id: id, owner: owner, talkers: talkers, guests: map[*person]bool{}, moving: map[*person]struct{}{}}
		}
		var refused *client.Error
		if errors.As(err, &refused) && !refused.Retryable || ctx.Err() != nil {
			e.t.Fatalf("%s could not be made: %v", name, err)
		}
		time.Sleep(100 * time.Millisecond) // it is starting
	}
}

// Start lets people come online and begin; it returns when all are connected for the first time.
func (e *Evening) Start() {
	e.t.Helper()
	var connected sync.WaitGroup
	gate := make(chan struct{}, 32) // who comes back later comes as fast as the server allows
	for _, p := range append(append([]*person{}, e.speakers...), e.online...) {
		connected.Add(1)
		e.ears.Go(func() { e.listenAs(p, gate, sync.OnceFunc(connected.Done)) })
	}
	connected.Wait()
	e.acts.Go(e.decide)
}

// decide is the one that rolls the dice, so that a seed gives the same evening as far as it depends on us.
func (e *Evening) decide() {
	kinds := []struct {
		rate float64
		act  func(*rand.Rand)
	}{
		{e.plan.Messages, e.speak}, {e.plan.Reads, e.read}, {e.plan.Pulls, e.pull}, {e.plan.Changes, e.change}, {e.plan.Moves, e.move}, {e.plan.Asks, e.ask},
	}
	due := make([]float64, len(kinds))
	const step = 5 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-e.run.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		passed := now.Sub(last).Seconds()
		last = now
		for i, k := range kinds {
			for due[i] += passed * k.rate; due[i] >= 1; due[i]-- {
				seed := e.rng.Uint64()
				select {
				case e.seats <- struct{}{}:
					e.acts.Go(func() {
						defer func() { <-e.seats }()
						k.act(rand.New(rand.NewPCG(seed, uint64(i))))
					})
				default:
					e.counted.skipped.Add(1)
				}
			}
		}
	}
}

// Break says in the history that something is about to be broken.
func (e *Evening) Break(name string) history.FaultID {
	e.t.Logf("%s: %s", time.Duration(e.w.Now()).Round(time.Millisecond), name)
	return e.w.Break(name)
}

// Mended says that it is whole again, and within what time everybody must have been told of everything.
func (e *Evening) Mended(id history.FaultID, allowed time.Duration) {
	e.w.Mended(id, allowed)
	e.mustBeTold(allowed)
}

// Poisoned says that a record of im.messages is none, and that it is meant to be so.
func (e *Evening) Poisoned(partition int32, offset int64) {
	e.poison[place{kafka.TopicMessages, partition}] = offset
}

// mostTroubles is how many are kept.
const mostTroubles = 50

// minds notes what a client is told that has done nothing wrong, follows the close codes and expects to be answered: that it
// must try again, or nothing at all.
func (e *Evening) minds(err error) {
	var refused *client.Error
	var closed *client.Closed
	switch {
	case err == nil, e.listen.Err() != nil:
		return
	case errors.As(err, &closed) && closed.Name == "draining":
		return // come back, it says
	case errors.As(err, &refused) && !refused.Retryable:
		return // that is an answer
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.troubles) < mostTroubles {
		e.troubles = append(e.troubles, fmt.Sprintf("%s: %v", time.Duration(e.w.Now()).Round(time.Millisecond), err))
	}
}

// Troubles tells what clients were told who had done nothing wrong, the first of it: refusals that say to try again,
// connections that ended without a word, and answers that did not come. While nothing is broken there are none.
func (e *Evening) Troubles() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.troubles...)
}

// Told is how long after a number is known those who listen may be without a hint of it while nothing is broken: the window
// of hints many times over, as everything shares a small machine.
const Told = 5 * time.Second

func (e *Evening) mustBeTold(within time.Duration) {
	if until := time.Now().Add(within); until.After(e.until) {
		e.until = until
	}
}

// For lets the evening go on for a while.
func (e *Evening) For(d time.Duration) {
	select {
	case <-time.After(d):
	case <-e.t.Context().Done():
	}
}

// Stop lets everybody finish what they began: it returns when every message has its number or was given up.
func (e *Evening) Stop() {
	e.t.Helper()
	e.stop()
	e.acts.Wait()
	e.mustBeTold(Told)
	e.t.Logf("%d messages were numbered, %d commands refused, %d given up; %d acts were skipped as everybody was busy",
		e.counted.numbered.Load(), e.counted.refused.Load(), e.counted.given.Load(), e.counted.skipped.Load())
	if e.counted.numbered.Load() == 0 {
		e.t.Error("nothing was numbered")
	}
}

// newKey makes a client id: mostly as good clients do, some as others do.
func (e *Evening) newKey(r *rand.Rand) string {
	if r.IntN(20) == 0 {
		return fmt.Sprintf("key-%d", e.ids.Add(1))
	}
	return uuid.Must(uuid.NewV7()).String()
}
