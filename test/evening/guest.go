package evening

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// Guest is somebody who says one thing while something breaks, repeats it, and is removed meanwhile.
type Guest struct {
	e    *Evening
	at   *room
	who  *person
	key  string
	body json.RawMessage
	acts sync.WaitGroup
}

// Guest lets a new person come to one of the rooms.
func (e *Evening) Guest() *Guest {
	e.t.Helper()
	n := e.ids.Add(1)
	id := makePeople(e.t, e.pf, fmt.Sprintf("guest-%d-%d", e.plan.Seed, n), 1)[0]
	who, err := e.arrive(id)
	if err != nil {
		e.t.Fatal(err)
	}
	g := &Guest{e: e, at: e.rooms[1+int(n)%(len(e.rooms)-1)], who: who, key: fmt.Sprintf("guest-%d", n), body: content("I was here")}
	begin := history.Begin{Call: history.CallJoin, Door: history.DoorHTTP, ClientMsgID: g.key + "-in", Users: []chat.UserID{id}}
	in := map[string]any{"client_msg_id": begin.ClientMsgID, "user_ids": []string{id.String()}}
	if !e.command(g.at.id, g.at.owner, begin, http.MethodPost, "/groups/"+g.at.id.String()+"/members", in) {
		e.t.Fatalf("guest %s could not come to %s", id, g.at.id)
	}
	g.at.mu.Lock()
	g.at.past = append(g.at.past, who)
	g.at.mu.Unlock()
	return g
}

// Says lets the guest begin to say it; nobody waits for the answer.
func (g *Guest) Says() { g.try(g.body) }

// SaysAgain repeats it, with the same body and with another, until there is an answer to each.
func (g *Guest) SaysAgain() {
	g.try(g.body)
	g.try(content("I was never here"))
}

func (g *Guest) try(body json.RawMessage) {
	g.e.acts.Add(1)
	g.acts.Go(func() {
		defer g.e.acts.Done()
		g.e.surely(func(ctx context.Context) (bool, time.Duration) {
			return g.e.sendOnce(ctx, g.at, g.who, g.key, body, false)
		})
	})
}

// IsRemoved waits until what was said has an outcome, and lets the owner of the room remove the guest.
func (g *Guest) IsRemoved() {
	g.acts.Wait()
	begin := history.Begin{Call: history.CallLeave, Door: history.DoorHTTP, ClientMsgID: g.key + "-out", Users: []chat.UserID{g.who.id}}
	in := map[string]any{"client_msg_id": begin.ClientMsgID}
	g.e.command(g.at.id, g.at.owner, begin, http.MethodDelete, "/groups/"+g.at.id.String()+"/members/"+g.who.id.String(), in)
}

// RefusedRun produces records to the partition of one of the rooms that become no event: as somebody who is no member, and
// as nobody can read them.
func (e *Evening) RefusedRun(n int) {
	e.t.Helper()
	r := rand.New(rand.NewPCG(e.plan.Seed, e.ids.Add(1)))
	at := e.rooms[1+r.IntN(len(e.rooms)-1)]
	stranger := e.online[r.IntN(len(e.online))]
	partition := chat.Partition(at.id.String(), partitions)
	var wg sync.WaitGroup
	for i := range n {
		rec := &kgo.Record{Topic: "im.inbound", Partition: partition, Key: []byte(at.id.String()), Headers: []kgo.RecordHeader{
			{Key: "content-type", Value: []byte("application/json")}, {Key: "producer", Value: []byte("stranger")},
		}}
		if i%10 == 0 {
			rec.Value = []byte(`{"type":"message","conversation_id":`) // half a command
		} else {
			rec.Value = fmt.Appendf(nil, `{"type":"message","conversation_id":%q,"sender_id":%q,"client_msg_id":"stranger-%d-%s","message":{"type":"text","content":{"text":"let me in"}}}`,
				at.id, stranger.id, e.ids.Add(1), strconv.Itoa(i))
		}
		wg.Add(1)
		e.producer.Produce(e.listen, rec, func(_ *kgo.Record, err error) {
			defer wg.Done()
			if err != nil {
				e.t.Errorf("a stranger's record was not taken: %v", err)
			}
		})
	}
	wg.Wait()
}
