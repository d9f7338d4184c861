package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.yaml.in/yaml/v4"

	"tideline/pkg/chat"
	"tideline/schemas/asyncapi"
	"tideline/schemas/openapi/openapitest"
)

// byConversation is a good request for every call whose address names a conversation. left is what a former member is answered.
var byConversation = map[string]struct {
	query string
	body  func(other string) any
	left  int
}{
	"GET /groups/{cid}":                                              {"", nil, 403},
	"PATCH /groups/{cid}":                                            {"", func(string) any { return m{"name": "Mine"} }, 403},
	"DELETE /groups/{cid}":                                           {"", nil, 403},
	"GET /groups/{cid}/members":                                      {"?limit=5", nil, 403},
	"POST /groups/{cid}/members":                                     {"", func(other string) any { return m{"user_ids": []string{other}} }, 403},
	"PATCH /groups/{cid}/members/{uid}":                              {"", func(string) any { return m{"role": "admin"} }, 403},
	"DELETE /groups/{cid}/members/{uid}":                             {"", nil, 403},
	"GET /conversations/{cid}":                                       {"", nil, 200},
	"POST /conversations/{cid}/messages":                             {"", func(string) any { return words("let me in") }, 403},
	"GET /conversations/{cid}/messages":                              {"?after=0", nil, 200},
	"GET /conversations/{cid}/messages/by-client-id/{client_msg_id}": {"", nil, 200},
	"PATCH /conversations/{cid}/messages/{seq}":                      {"", func(string) any { return m{"content": m{"text": "mine"}} }, 403},
	"DELETE /conversations/{cid}/messages/{seq}":                     {"", nil, 403},
	"PUT /conversations/{cid}/read":                                  {"", func(string) any { return m{"seq": 1} }, 403},
	"GET /conversations/{cid}/receipts":                              {"?seq=2", nil, 403},
	"GET /conversations/{cid}/receipts/{seq}/readers":                {"", nil, 403},
}

// conversationCalls lists the calls of the OpenAPI document, which are those of the server, whose address names a conversation.
func conversationCalls(t *testing.T) []string {
	t.Helper()
	var calls []string
	for path, item := range openapitest.Shared(t).Model().Paths.PathItems.FromOldest() {
		for method := range item.GetOperations().FromOldest() {
			call := strings.ToUpper(method) + " " + path
			if !strings.Contains(path, "{cid}") {
				continue
			}
			if _, there := byConversation[call]; !there {
				t.Fatalf("%s names a conversation, and this test does not know how to ask it", call)
			}
			calls = append(calls, call)
		}
	}
	slices.Sort(calls)
	if len(calls) != len(byConversation) {
		t.Fatalf("the document has %v", calls)
	}
	return calls
}

// askAs makes a call about a conversation; other is a user that exists, where the call names one.
func askAs(p *person, call, cid, other string) *answer {
	p.t.Helper()
	how := byConversation[call]
	method, path, _ := strings.Cut(call, " ")
	path = strings.NewReplacer("{cid}", cid, "{uid}", other, "{seq}", "2", "{client_msg_id}", "never-sent").Replace(path)
	var body any
	if how.body != nil {
		body = how.body(other)
	}
	return p.call(method, path+how.query, body)
}

var anyRequestID = regexp.MustCompile(`"request_id":"[^"]*"`)

// seen is all of an answer that a client sees, but for the name of its request.
func (a *answer) seen() string {
	h := a.header.Clone()
	h.Del("X-Request-Id")
	h.Del("Date")
	return fmt.Sprint(a.status, " ", h, " ", anyRequestID.ReplaceAllString(string(a.body), `"request_id":""`))
}

// about is the body of an answer about a number, without it.
func (a *answer) about(seq int64) string {
	return strings.Replace(anyRequestID.ReplaceAllString(string(a.body), ""), fmt.Sprint("number ", seq, " "), "number ", 1)
}

// besides are statements that other parts of the process make at any time, and those of a sender whose outcome is late.
var besides = []string{"reading the timeline's positions", "reading positions", "looking for client ids", "looking for a rejection", "reading sessions"}

// statements collects what the store is asked while a call is answered.
func statements(t *testing.T, call func() *answer) (*answer, []string) {
	t.Helper()
	store := theRig(t).parts.Store
	var mu sync.Mutex
	var list []string
	store.OnQuery(func(what string) {
		mu.Lock()
		defer mu.Unlock()
		if !slices.Contains(besides, what) {
			list = append(list, what)
		}
	})
	a := call()
	store.OnQuery(nil)
	mu.Lock()
	defer mu.Unlock()
	return a, list
}

// alikeTries is how often calls are compared. What the process asks for beside them, as a fill of read marks, is not there every time.
const alikeTries = 5

// alike fails where calls are not answered the same, or take other statements, and returns the answer of the first.
func alike(t *testing.T, what string, calls ...func() *answer) *answer {
	t.Helper()
	var first *answer
	var faults []string
	for range alikeTries {
		faults = nil
		var want []string
		for i, call := range calls {
			a, got := statements(t, call)
			switch {
			case i == 0:
				first, want = a, got
			case a.seen() != first.seen():
				t.Fatalf("%s was answered\n%s, and where there is nothing\n%s", what, a.seen(), first.seen())
			case !slices.Equal(got, want):
				faults = append(faults, fmt.Sprintf("%s asked the store %q, and where there is nothing %q", what, got, want))
			}
		}
		if len(faults) == 0 {
			return first
		}
	}
	t.Errorf("in each of %d tries: %s", alikeTries, faults)
	return first
}

// Whether a conversation exists is not to be learned from any call: a stranger is answered the same bytes, for the same statements, where
// there is a group that is in use, one that is not, two people who talk, and nothing.
func TestAccess_StrangersLearnNothingFromAnyCall(t *testing.T) {
	ada, bob, eve := join(t, "ada"), join(t, "bob"), join(t, "eve")
	used, quiet, private := ada.group(bob), ada.group(bob), between(ada, bob)
	ada.say(quiet, "once")
	ada.say(private, "psst")
	nobodys := between(ada, join(t, "zoe"))
	for round := range 3 {
		ada.say(used, fmt.Sprint("round ", round)) // what is aimed at is in the tail, and in the caches
		ada.pull(used, "")
		for _, call := range conversationCalls(t) {
			ask := func(cid string) func() *answer { return func() *answer { return askAs(eve, call, cid, ada.id) } }
			none := alike(t, call, ask(fmt.Sprint("g-", 77+round)), ask(used), ask(quiet))
			none.refused(404, "conversation_not_found", "")
			if talked := alike(t, call, ask(nobodys), ask(private)); strings.Contains(call, "/conversations/") {
				talked.refused(404, "conversation_not_found", "")
			} else if talked.status < 400 {
				t.Errorf("%s in a private conversation of others was answered %d", call, talked.status)
			}
		}
	}
	// Nor from what became of the commands that were refused.
	rejected := func(cid string) string {
		body := words("let me in")
		eve.call("POST", "/conversations/"+cid+"/messages", body).refused(404, "conversation_not_found", "")
		var last *answer
		eventually(t, "the rejection is recorded", func() bool {
			last = eve.get("/conversations/" + cid + "/messages/by-client-id/" + body["client_msg_id"].(string))
			return last.status == 200
		})
		return last.seen()
	}
	if a, b := rejected(used), rejected("g-77"); a != b || !strings.Contains(a, "conversation_not_found") {
		t.Errorf("what became of a command in a group: %s, and in none: %s", a, b)
	}
	// A fault of the request is answered as such, whatever is there.
	for _, cid := range []string{used, "g-77", private, nobodys} {
		eve.get("/conversations/"+cid+"/messages?limit=201").refused(400, "invalid_field", "limit")
		eve.get("/conversations/"+cid+"/receipts").refused(400, "invalid_field", "seq")
		eve.get("/conversations/"+cid+"/receipts/1/readers?cursor=x").refused(400, "invalid_field", "cursor")
		eve.get("/groups/"+cid+"/members?limit=1001").refused(400, "invalid_field", "limit")
		eve.call("PUT", "/conversations/"+cid+"/read", m{"seq": -1}).refused(400, "invalid_field", "seq")
		eve.call("POST", "/conversations/"+cid+"/messages", m{"type": "text"}).refused(400, "invalid_field", "client_msg_id")
	}
}

func TestAccess_FormerMembersAreRefusedAsSuch(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	cid := ada.group(bob)
	ada.say(cid, "two")
	bob.call("DELETE", "/groups/"+cid+"/members/me", nil).must(200)
	for _, call := range conversationCalls(t) {
		if a := askAs(bob, call, cid, ada.id); byConversation[call].left == 403 {
			a.refused(403, "not_a_member", "")
		} else {
			a.must(200)
		}
	}
}

// socketOps is a good request for every operation of the socket that names conversations; nil for those that name none.
var socketOps = map[string]func(cid string) m{
	"auth": nil, "ping": nil, "sync": nil,
	"send":    func(cid string) m { return merge(words("let me in"), m{"conversation_id": cid}) },
	"pull":    func(cid string) m { return m{"conversation_id": cid, "after": 0} },
	"read":    func(cid string) m { return m{"conversation_id": cid, "seq": 1} },
	"watch":   func(cid string) m { return m{"conversation_ids": []string{cid}} },
	"unwatch": func(cid string) m { return m{"conversation_ids": []string{cid}} },
	"typing":  func(cid string) m { return m{"conversation_id": cid} },
}

func merge(a, b m) m {
	for k, v := range b {
		a[k] = v
	}
	return a
}

// documentedOps lists the operations of the AsyncAPI document.
func documentedOps(t *testing.T) []string {
	t.Helper()
	var doc struct {
		Components struct {
			Schemas struct {
				Request struct {
					Properties struct {
						Op struct{ Enum []string }
					}
				}
			}
		}
	}
	if err := yaml.Unmarshal(asyncapi.Document, &doc); err != nil {
		t.Fatal(err)
	}
	ops := doc.Components.Schemas.Request.Properties.Op.Enum
	for _, op := range ops {
		if _, there := socketOps[op]; !there {
			t.Fatalf("this test does not know how to ask for %q", op)
		}
	}
	if len(ops) != len(socketOps) {
		t.Fatalf("the document has %q", ops)
	}
	return ops
}

// line is a socket of a person.
type line struct {
	t  *testing.T
	ws *websocket.Conn
	n  int
}

func (p *person) socket(t *testing.T) *line {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(p.base, "http")+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.Close() })
	l := &line{t: t, ws: ws}
	if a := l.ask("auth", m{"token": p.token}); a.code() != "" {
		t.Fatalf("auth was answered %s", a.body)
	}
	return l
}

// next reads a frame.
func (l *line) next() (op, id string, frame []byte) {
	l.t.Helper()
	_ = l.ws.SetReadDeadline(time.Now().Add(patience))
	_, frame, err := l.ws.ReadMessage()
	if err != nil {
		l.t.Fatal(err)
	}
	var head struct {
		Op string          `json:"op"`
		ID json.RawMessage `json:"id"`
	}
	if err := json.Unmarshal(frame, &head); err != nil {
		l.t.Fatal(err)
	}
	return head.Op, string(head.ID), frame
}

// ask makes a request and waits for its answer; what else comes is dropped. The answer has no status.
func (l *line) ask(op string, fields m) *answer {
	l.t.Helper()
	l.n++
	text, err := json.Marshal(merge(m{"id": l.n, "op": op}, fields))
	if err != nil {
		l.t.Fatal(err)
	}
	if err := l.ws.WriteMessage(websocket.TextMessage, text); err != nil {
		l.t.Fatal(err)
	}
	for {
		if _, id, frame := l.next(); id == fmt.Sprint(l.n) {
			body := strings.Replace(string(frame), `"id":`+id, `"id":0`, 1)
			return &answer{t: l.t, call: op, header: http.Header{}, body: []byte(body)}
		}
	}
}

func TestAccess_StrangersLearnNothingFromTheSocket(t *testing.T) {
	ada, bob, eve := join(t, "ada"), join(t, "bob"), join(t, "eve")
	used, quiet, private := ada.group(bob), ada.group(bob), between(ada, bob)
	ada.say(private, "psst")
	nobodys := between(ada, join(t, "zoe"))
	left := ada.group(eve)
	eve.call("DELETE", "/groups/"+left+"/members/me", nil).must(200)
	l := eve.socket(t)
	for round := range 2 {
		ada.say(used, "again")
		for _, op := range documentedOps(t) {
			make := socketOps[op]
			if make == nil {
				continue
			}
			ask := func(cid string) func() *answer { return func() *answer { return l.ask(op, make(cid)) } }
			none := alike(t, op, ask(fmt.Sprint("g-", 77+round)), ask(used), ask(quiet))
			refused := op != "unwatch" // which asks for nothing
			if code := none.code(); refused && code != "conversation_not_found" || !refused && code != "" {
				t.Errorf("%s in no conversation was answered %s", op, none.body)
			}
			if talked := alike(t, op, ask(nobodys), ask(private)); talked.seen() != none.seen() {
				t.Errorf("%s in a private conversation of others was answered %s", op, talked.body)
			}
			if code := l.ask(op, make(left)).code(); refused && op != "pull" && code != "not_a_member" || (op == "pull" || !refused) && code != "" {
				t.Errorf("%s of a former member was answered %q", op, code)
			}
		}
	}
}

// What a caller that is no member claims to have been told decides nothing: a pull takes its second and is refused, whatever the
// conversation's last number is. A former member gets the page that ends with the leave, after the same second.
func TestAccess_ToldIsNoOracle(t *testing.T) {
	ada, bob, cyd, eve := join(t, "ada"), join(t, "bob"), join(t, "cyd"), join(t, "eve")
	cid := ada.group(bob, cyd)
	ada.call("PATCH", "/groups/"+cid+"/members/"+cyd.id, m{"role": "admin"}).must(200)
	left := bob.call("DELETE", "/groups/"+cid+"/members/me", nil).must(200).number("seq")
	ada.say(cid, "after bob")
	head := ada.say(cid, "the head")
	sockets := map[*person]func(told int64) *answer{}
	for _, p := range []*person{bob, eve} {
		lines := map[int64]*line{}
		for _, told := range []int64{1, head, head + 1, head + 1_000_000} {
			lines[told] = p.socket(t) // one each: they wait side by side
		}
		sockets[p] = func(told int64) *answer {
			return lines[told].ask("pull", m{"conversation_id": cid, "after": 0, "told": told})
		}
	}
	entrances := map[string]func(p *person, told int64) *answer{
		"HTTP": func(p *person, told int64) *answer {
			return p.get(fmt.Sprintf("/conversations/%s/messages?after=0&told=%d", cid, told))
		},
		"socket": func(p *person, told int64) *answer { return sockets[p](told) },
	}
	type result struct {
		entrance, who string
		told          int64
		seen          string
		took          time.Duration
	}
	var mu sync.Mutex
	var results []result
	var wg sync.WaitGroup
	for entrance, ask := range entrances {
		for who, p := range map[string]*person{"former member": bob, "stranger": eve} {
			for _, told := range []int64{1, head, head + 1, head + 1_000_000} {
				if told == 1 && p == bob {
					continue // what he may see
				}
				wg.Go(func() {
					began := time.Now()
					a := ask(p, told)
					took := time.Since(began)
					mu.Lock()
					defer mu.Unlock()
					results = append(results, result{entrance, who, told, a.seen(), took})
				})
			}
		}
	}
	wg.Wait()
	first := map[string]string{}
	for _, r := range results {
		want, there := first[r.entrance+r.who]
		if !there {
			first[r.entrance+r.who] = r.seen
		} else if r.seen != want {
			t.Errorf("%s: a %s who claims %d is answered %s, and for another number %s", r.entrance, r.who, r.told, r.seen, want)
		}
		if r.took < time.Second {
			t.Errorf("%s: a %s who claims %d is answered after %s", r.entrance, r.who, r.told, r.took)
		}
		if r.who == "stranger" && !strings.Contains(r.seen, "conversation_not_found") {
			t.Errorf("%s: a stranger is answered %s", r.entrance, r.seen)
		}
		if r.who == "former member" && !strings.Contains(r.seen, fmt.Sprintf(`"max_seq":%d`, left)) {
			t.Errorf("%s: a former member is answered %s", r.entrance, r.seen)
		}
	}
	// The tag of the page says nothing of what comes after the leave either.
	tag := bob.get("/conversations/" + cid + "/messages?after=0").must(200).header.Get("ETag")
	ada.say(cid, "more")
	ada.pull(cid, "")
	if now := bob.get("/conversations/" + cid + "/messages?after=0").must(200).header.Get("ETag"); now != tag {
		t.Errorf("the tag of a former member's page moved from %s to %s", tag, now)
	}
	// A person who is added hears it with the number, and has the page. Another admin adds bob: ada, who had added bob before, waits a day.
	back := cyd.call("POST", "/groups/"+cid+"/members", m{"user_ids": []string{eve.id, bob.id}}).must(200).number("seq")
	for entrance, ask := range map[string]func(p *person) *answer{
		"HTTP": func(p *person) *answer {
			return p.get(fmt.Sprintf("/conversations/%s/messages?after=0&told=%d", cid, back))
		},
		"socket": func(p *person) *answer {
			return p.socket(t).ask("pull", m{"conversation_id": cid, "after": 0, "told": back})
		},
	} {
		for _, p := range []*person{bob, eve} {
			if a := ask(p); !strings.Contains(string(a.body), fmt.Sprintf(`"min_seq":%d,"max_seq":%d`, back, back)) {
				t.Errorf("%s: a member from %d on is answered %s", entrance, back, a.body)
			}
		}
	}
}

// An edit or a recall of a message that is addressed to a few says who spoke to whom about what: others see a void.
func TestAccess_EditsAndRecallsOfAddressedMessagesAreForThoseWhoSeeThem(t *testing.T) {
	ada, bob, eve := join(t, "ada"), join(t, "bob"), join(t, "eve")
	cid := ada.group(bob, eve)
	ada.call("PATCH", "/groups/"+cid+"/members/"+bob.id, m{"role": "admin"}).must(200)
	messages := "/conversations/" + cid + "/messages"
	whisper := func() int64 {
		return ada.surely("POST", messages, merge(words("for bob"), m{"recipients": []string{bob.id}})).must(200).number("seq")
	}
	address := func(seq int64) string { return fmt.Sprint(messages, "/", seq) }
	one, two := whisper(), whisper()
	edit := ada.call("PATCH", address(one), m{"content": m{"text": "still for bob"}}).must(200).number("seq")
	recall := bob.call("DELETE", address(two), nil).must(200).number("seq")
	tags := map[*person]string{}
	for p, sees := range map[*person]bool{ada: true, bob: true, eve: false} {
		var kinds []string
		for _, e := range p.pull(cid, fmt.Sprintf("?after=%d", one-1)).Messages {
			kinds = append(kinds, e.Type)
		}
		want := []string{"void"}
		if sees {
			want = []string{"text", "text", "edit", "recall"}
		}
		if !slices.Equal(kinds, want) {
			t.Errorf("%s sees %v behind %d, want %v", p.name, kinds, one, want)
		}
		l := p.socket(t).ask("pull", m{"conversation_id": cid, "after": one - 1, "told": recall})
		if got := strings.Contains(string(l.body), `"target_seq"`); got != sees {
			t.Errorf("over the socket %s is answered %s", p.name, l.body)
		}
		newest := p.call("POST", "/sync", m{"newest": 4}).must(200)
		if got := strings.Contains(string(newest.body), `"target_seq"`); got != sees {
			t.Errorf("in a sync %s is answered %s", p.name, newest.body)
		}
		tags[p] = p.get(messages + "?after=0&limit=200").must(200).header.Get("ETag")
	}
	if edit >= recall {
		t.Fatalf("the edit is %d, the recall %d", edit, recall)
	}

	// What one may not see is no message, whatever it is: addressed to others, recalled, a notice, from before the join, or nothing.
	zoe := join(t, "zoe")
	ada.call("POST", "/groups/"+cid+"/members", m{"user_ids": []string{zoe.id}}).must(200)
	ada.call("PATCH", "/groups/"+cid+"/members/"+zoe.id, m{"role": "admin"}).must(200)
	own := ada.say(cid, "for all")
	for _, p := range []*person{eve, zoe} {
		for _, seq := range []int64{1, one, two, edit, recall, own + 1000} {
			for method, body := range map[string]any{"DELETE": nil, "PATCH": m{"content": m{"text": "x"}}} {
				a := p.call(method, address(seq), body)
				a.refused(404, "message_not_found", "")
				if want := p.call(method, address(own+2000), body); a.about(seq) != want.about(own+2000) {
					t.Errorf("%s of %d by %s was answered %s, of nothing %s", method, seq, p.name, a.body, want.body)
				}
			}
		}
	}
	eve.call("PATCH", address(own), m{"content": m{"text": "x"}}).refused(403, "forbidden", "")
	ada.call("PATCH", "/groups/"+cid, m{"history_visible": true}).must(200)
	zoe.call("PATCH", address(1), m{"content": m{"text": "x"}}).refused(404, "message_not_found", "") // a notice
	early := ada.group()
	said := ada.say(early, "early")
	ada.call("POST", "/groups/"+early+"/members", m{"user_ids": []string{zoe.id}}).must(200)
	there := fmt.Sprintf("/conversations/%s/messages/%d", early, said)
	zoe.call("DELETE", there, nil).refused(404, "message_not_found", "")
	ada.call("PATCH", "/groups/"+early, m{"history_visible": true}).must(200)
	zoe.call("DELETE", there, nil).refused(403, "forbidden", "")
}

// Presence is for two people who have both said something; typing is for small conversations and for members without a mute.
func TestAccess_PresenceAndTypingAreForThoseWhoTalk(t *testing.T) {
	ada, bob, eve := join(t, "ada"), join(t, "bob"), join(t, "eve")
	al, bl, el := ada.socket(t), bob.socket(t), eve.socket(t)
	watch := func(l *line, cid string) []any {
		t.Helper()
		var v struct{ Result struct{ Presence []any } }
		a := l.ask("watch", m{"conversation_ids": []string{cid}})
		if a.into(&v); a.code() != "" {
			t.Fatalf("watch was answered %s", a.body)
		}
		return v.Result.Presence
	}
	for _, private := range []string{between(eve, ada), between(eve, bob)} {
		if p := watch(el, private); len(p) != 0 {
			t.Errorf("a person who has said nothing hears of %v", p)
		}
	}
	private := between(ada, bob)
	ada.say(private, "hello?")
	ada.pull(private, "?told=1")
	for who, l := range map[string]*line{"ada": al, "bob": bl} {
		if p := watch(l, private); len(p) != 0 {
			t.Errorf("before the answer %s is told of %v", who, p)
		}
	}
	bob.say(private, "hello")
	bob.pull(private, "?told=2")
	eventually(t, "both are told once both have spoken", func() bool { return len(watch(al, private)) == 1 && len(watch(bl, private)) == 1 })

	small := ada.group(bob, eve)
	watch(al, small)
	typed := func(l *line, cid string) {
		t.Helper()
		if a := l.ask("typing", m{"conversation_id": cid}); a.code() != "" {
			t.Fatalf("typing was answered %s", a.body)
		}
	}
	// Eve is muted: what ada hears first is bob.
	ada.call("PATCH", "/groups/"+small+"/members/"+eve.id, m{"muted_until": time.Now().Add(time.Hour).UnixMilli()}).must(200)
	typed(el, small)
	typed(bl, small)
	for {
		op, _, frame := al.next()
		if op != "typing" {
			continue
		}
		if text := string(frame); strings.Contains(text, eve.id) || !strings.Contains(text, bob.id) {
			t.Errorf("ada hears %s", text)
		}
		break
	}

	// Cyd types in a group of 201, then dan in one of 200: what ada hears first is dan.
	cyd, dan := join(t, "cyd"), join(t, "dan")
	large, small200 := ada.group(crowd(t, 199, cyd)...), ada.group(crowd(t, 198, dan)...)
	for cid, members := range map[string]float64{large: 201, small200: 200} {
		if g := ada.get("/groups/" + cid).must(200).object(); g["member_count"] != members {
			t.Fatalf("%s has %v members, want %v", cid, g["member_count"], members)
		}
	}
	watch(al, large)
	watch(al, small200)
	typed(cyd.socket(t), large)
	typed(dan.socket(t), small200)
	for {
		op, _, frame := al.next()
		if op != "typing" {
			continue
		}
		if text := string(frame); strings.Contains(text, cyd.id) || !strings.Contains(text, dan.id) {
			t.Errorf("ada hears %s", text)
		}
		break
	}
}

// crowd returns some people without sessions, and one more.
func crowd(t *testing.T, n int, one *person) []*person {
	t.Helper()
	admin := visitor(t)
	admin.token = adminToken
	var users []m
	for range n {
		users = append(users, m{"external_id": key(), "nickname": "One of many"})
	}
	var made struct {
		Users []struct {
			ID string `json:"user_id"`
		} `json:"users"`
	}
	admin.call("POST", "/admin/users", m{"users": users}).must(200).into(&made)
	people := []*person{one}
	for _, u := range made.Users {
		people = append(people, &person{t: t, id: u.ID})
	}
	return people
}

// An admin who joined late would otherwise read what was said before: only the owner changes history_visible, also where a backend
// produces the command.
func TestAccess_HistoryIsMadeVisibleByTheOwnerOnly(t *testing.T) {
	ada, bob, eve := join(t, "ada"), join(t, "bob"), join(t, "eve")
	cid := ada.group(bob, eve)
	ada.call("PATCH", "/groups/"+cid+"/members/"+bob.id, m{"role": "admin"}).must(200)
	command := func(p *person, update string) *kgo.Record {
		return jsonRecord(fmt.Sprintf(`{"type":"update","conversation_id":%q,"sender_id":%q,"client_msg_id":%q,"update":%s}`, cid, p.id, key(), update))
	}
	for _, update := range []string{`{"history_visible":true}`, `{"history_visible":false}`, `{"name":"Pier","history_visible":true}`} {
		for _, p := range []*person{bob, eve} {
			field := "update.history_visible"
			if p == eve { // a member without a role changes nothing at all
				field = ""
			}
			if r := produceAndReject(t, cid, command(p, update)); r.Code != chat.CodeForbidden || r.Field != field {
				t.Errorf("%s of %s was rejected with %s (field %q): %s", update, p.name, r.Code, r.Field, r.Message)
			}
		}
	}
	if g := ada.get("/groups/" + cid).must(200).object(); g["history_visible"] != false || g["name"] != "Harbour" {
		t.Errorf("after the rejections the group is %v", g)
	}
	visible := true
	produce(t, &chat.Command{
		Type: chat.KindUpdate, Conversation: conversationID(t, cid), Sender: userID(t, ada.id), ClientMsgID: key(), Update: &chat.Update{HistoryVisible: &visible},
	})
	eventually(t, "the owner's command is applied", func() bool { return ada.get("/groups/" + cid).must(200).object()["history_visible"] == true })
}

// BenchmarkAccess_Refusals measures what a refusal takes where there is a group in use, one that is quiet and none, interleaved.
func BenchmarkAccess_Refusals(b *testing.B) {
	ada, eve := join(b, "ada"), join(b, "eve")
	used, quiet := ada.group(), ada.group()
	ada.say(used, "hello")
	last, err := strconv.ParseInt(strings.TrimPrefix(quiet, "g-"), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	for call, path := range map[string]string{"pull": "/messages", "read": "/read", "send": "/messages", "receipts": "/receipts?seq=1"} {
		b.Run(call, func(b *testing.B) {
			took := map[string][]time.Duration{}
			for i := range b.N {
				for what, cid := range map[string]string{"used": used, "quiet": quiet, "unknown": fmt.Sprint("g-", last+1+int64(i%7))} { // as long as the others
					method, body := "GET", any(nil)
					switch call {
					case "read":
						method, body = "PUT", m{"seq": 1}
					case "send":
						method, body = "POST", words("let me in")
					}
					began := time.Now()
					eve.call(method, "/conversations/"+cid+path, body).must(404)
					took[what] = append(took[what], time.Since(began))
				}
			}
			for what, list := range took {
				slices.Sort(list)
				b.ReportMetric(float64(list[len(list)/2].Microseconds()), what+"-µs/median")
			}
		})
	}
}
