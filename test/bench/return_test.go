package bench

import (
	"encoding/json"
	"fmt"
	"time"
)

// comeBack is cell 8: all connections of a group end, somebody says something meanwhile, and all come back at once. A
// connection is current when it has said who it is and its sync tells what was said.
func (b *bench) comeBack() {
	s, floor := b.site("cluster"), b.theFloor()
	members := b.people(s, b.size.back)
	speaker := b.people(s, 1)
	g := b.target(s, append(speaker, members...), 1)
	g.tokens = g.tokens[:1]
	pusher := s.cluster.Pusher
	b.restart(pusher)
	ears, bare := startChild(b.t, "crowd"), startChild(b.t, "crowd")
	defer ears.end()
	defer bare.end()
	tokens := tokensOf(members)
	b.connect(ears, crowdConnect{Addr: s.ws, Tokens: tokens})
	tab := b.table(fmt.Sprintf("8. %d connections come back at once", b.size.back), "what", "all current after s", "p50 s", "pusher CPU µs each", "÷ floor", "CPU-s of a run", "verdict")
	for _, with := range []string{"welcomed", "welcomed and synced"} {
		var took, medians, cost, floors, floorTook []float64
		var void []string
		all := used{}
		for range b.size.runs {
			var now struct {
				Cursor string `json:"cursor"`
			}
			b.must(s, "POST", "/v1/sync", members[0].token, object{"limit": 1}, &now)
			ears.call(b.t, crowdAsk{Leave: true}, nil)
			await(b.t, "all are gone", time.Minute, func() bool { return b.metric(pusher, "tideline_pusher_connections") == 0 })
			l := g.fire(1, 0, 200*time.Millisecond)
			void = append(void, l.void...)
			b.settle(s)
			ask := crowdConnect{Addr: s.ws, Tokens: tokens, AtOnce: len(tokens)}
			bareAsk := crowdConnect{Addr: floor.addr, Tokens: tokens, AtOnce: len(tokens)}
			if with != "welcomed" {
				body := object{"id": 2, "op": "sync", "limit": 20, "newest": 1, "cursor": now.Cursor}
				text, err := json.Marshal(body)
				if err != nil {
					b.t.Fatal(err)
				}
				delete(body, "id")
				delete(body, "op")
				answer, err := s.try("POST", "/v1/sync", members[0].token, body)
				if err != nil {
					b.t.Fatal(err)
				}
				ask.Then, ask.Want = string(text), fmt.Sprintf(`"max_seq":%d,`, g.last[0])
				floor.call(b.t, floorAsk{Bytes: map[string]string{"sync": string(answer)}}, nil)
				bareAsk.Then, bareAsk.Want = `{"id":2,"floor":"sync"}`, ask.Want
			}
			bare.call(b.t, crowdAsk{Leave: true}, nil)
			floor.call(b.t, floorAsk{Leave: true}, nil)
			before := cpu()
			f := b.tryConnect(bare, bareAsk)
			floors = append(floors, cpu().since(before).of("floor")/float64(len(tokens))*1e6)
			floorTook = append(floorTook, f.Took.Seconds())
			done := b.profile(s, "return-"+with, b.size.cell)
			before = cpu()
			saw := b.tryConnect(ears, ask)
			done()
			use := cpu().since(before)
			void = append(append(void, saw.Void...), f.Void...)
			took, medians, cost = append(took, saw.Took.Seconds()), append(medians, saw.P50.Seconds()), append(cost, use.of("pusher")/float64(len(tokens))*1e6)
			all.add(use)
		}
		for name := range all {
			all[name] /= time.Duration(b.size.runs)
		}
		t, c, f := spreadOf(took), spreadOf(cost), spreadOf(floors)
		tab.row(nil, "floor: bare library, "+with, spreadOf(floorTook), "", f, "1", "", "")
		tab.row(void, with, t, spreadOf(medians), c, short(c.median/f.median), all.text(), "CPU: "+atMost(c.median, 250, " µs")+"; time: "+atMost(t.median, 10, " s"))
	}
	tab.print()
	b.restart(pusher)
}

// tryConnect is connect where a refusal is a result.
func (b *bench) tryConnect(c *child, ask crowdConnect) crowdSaw {
	b.t.Helper()
	var saw crowdSaw
	c.call(b.t, crowdAsk{Connect: &ask}, &saw)
	return saw
}
