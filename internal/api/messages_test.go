package api_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSend_NumbersAndGivesBack(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	cid := ada.group(bob)
	before := time.Now().UnixMilli()
	body := m{
		"client_msg_id": key(), "type": "text", "content": m{"text": "hello, \u2028 <b> & 🛥"}, "mentions": m{"user_ids": []string{bob.id}},
		"reply_to": 1, "receipt": true, "conversation_id": cid,
	}
	a := ada.call("POST", "/conversations/"+cid+"/messages", body).must(200)
	seq := a.number("seq")
	if seq != 2 || a.number("sent_at") < before || a.object()["duplicate"] != nil {
		t.Errorf("the first message is %s", a.body)
	}
	got := bob.pull(cid, fmt.Sprintf("?after=1&told=%d", seq))
	if len(got.Messages) != 1 || got.Messages[0].text() != "hello, \u2028 <b> & 🛥" || got.Users[ada.id].Nickname != "Ada" {
		t.Errorf("bob sees %+v", got)
	}
	m1 := bob.get("/conversations/" + cid + "/messages?after=1").object()["messages"].([]any)[0].(m)
	if m1["reply_to"] != 1.0 || m1["receipt"] != true || m1["mentions"].(m)["user_ids"].([]any)[0] != bob.id || m1["client_msg_id"] != body["client_msg_id"] {
		t.Errorf("bob sees %v", m1)
	}
	body["conversation_id"] = "g-5"
	ada.call("POST", "/conversations/"+cid+"/messages", body).refused(400, "invalid_field", "conversation_id")
}

func TestSend_KeepsOrderAndNumbersUnderConcurrency(t *testing.T) {
	ada := join(t, "ada")
	cid := ada.group()
	const writers, each = 8, 25
	var wg sync.WaitGroup
	seqs := make([][]int64, writers)
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				a := ada.call("POST", "/conversations/"+cid+"/messages", words(fmt.Sprintf("%d-%d", w, i)))
				if a.status != 200 {
					t.Errorf("%d: %s", a.status, a.body)
					return
				}
				seqs[w] = append(seqs[w], a.number("seq"))
			}
		})
	}
	wg.Wait()
	seen := map[int64]bool{}
	for w, list := range seqs {
		for i, s := range list {
			if seen[s] || s < 2 || s > writers*each+1 || (i > 0 && s <= list[i-1]) {
				t.Fatalf("writer %d has %v", w, list)
			}
			seen[s] = true
		}
	}
	if got := ada.pull(cid, fmt.Sprintf("?after=0&limit=200&told=%d", writers*each+1)); got.MaxSeq != writers*each+1 {
		t.Errorf("the conversation ends at %d", got.MaxSeq)
	}
}

func TestPull_GivesRangesAndAccountsForEveryNumber(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	cid := ada.group(bob)
	const last = 150 // more than two blocks
	for i := 2; i <= last; i++ {
		ada.say(cid, fmt.Sprint(i))
	}
	bob.pull(cid, fmt.Sprintf("?limit=1&told=%d", last))
	for _, c := range []struct {
		query       string
		first, last int64
		more        bool
	}{
		{"", last - 49, last, true},
		{"?limit=200", 1, last, false},
		{"?after=0", 1, 50, true},
		{"?after=0&limit=150", 1, last, false},
		{"?after=60&limit=10", 61, 70, true},
		{"?after=149", last, last, false},
		{"?before=61&limit=10", 51, 60, true},
		{"?before=11&limit=10", 1, 10, false},
		{"?before=5", 1, 4, false},
		{"?before=9999&limit=3", last - 2, last, true},
		{"?around=70&limit=10", 65, 74, true},
		{"?around=1&limit=10", 1, 10, true},
		{"?around=150&limit=10", 145, last, true},
		{"?around_time=0&limit=4", 1, 4, true},
		{"?after=0&limit=1", 1, 1, true},
	} {
		got := bob.pull(cid, c.query)
		if len(got.Messages) == 0 || got.Messages[0].Seq != c.first || got.Messages[len(got.Messages)-1].Seq != c.last || got.HasMore != c.more || got.MaxSeq != last || got.MinSeq != 1 {
			t.Errorf("%s gives %d entries %+v … of %d..%d, more: %t; want %d..%d, more: %t", c.query, len(got.Messages), got.Messages[:min(1, len(got.Messages))], got.MinSeq, got.MaxSeq, got.HasMore, c.first, c.last, c.more)
		}
	}
	for _, query := range []string{"?after=150", "?after=9999", "?before=1", "?before=0"} {
		if got := bob.pull(cid, query); len(got.Messages) != 0 || got.HasMore {
			t.Errorf("%s gives %+v", query, got)
		}
	}
	late := bob.pull(cid, fmt.Sprintf("?around_time=%d&limit=4", time.Now().Add(time.Hour).UnixMilli()))
	if n := len(late.Messages); n == 0 || late.Messages[n-1].Seq != last {
		t.Errorf("around a time to come there is %+v", late)
	}
	for field, query := range map[string]string{
		"limit": "?limit=201", "after": "?after=1&before=5", "before": "?before=-1", "around": "?around=x", "around_time": "?around_time=1e3", "told": "?told=-4",
	} {
		bob.get("/conversations/"+cid+"/messages"+query).refused(400, "invalid_field", field)
	}
	bob.get("/conversations/"+cid+"/messages?limit=5&limit=6").refused(400, "invalid_field", "limit")
	bob.get("/conversations/"+cid+"/messages?limt=5").refused(400, "unknown_field", "limt")
	bob.get("/conversations/"+cid+"/messages?after=%zz").refused(400, "malformed", "")
	bob.get("/conversations/"+cid+"/messages?%ff=1").refused(400, "malformed", "")
}

func TestPull_ToldOfANumberHasItOrSaysThatItIsNotThere(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	cid := ada.group(bob)
	for range 50 {
		seq := ada.say(cid, "quick")
		if got := bob.pull(cid, fmt.Sprintf("?after=%d&told=%d", seq-1, seq)); got.MaxSeq < seq || len(got.Messages) != 1 {
			t.Fatalf("told of %d, bob pulls %+v", seq, got)
		}
	}
	asked := time.Now()
	bob.get("/conversations/"+cid+"/messages?told=9999").refused(503, "unavailable", "")
	if took := time.Since(asked); took < 900*time.Millisecond || took > 10*time.Second {
		t.Errorf("a number that is not there is waited for %s", took)
	}
}

func TestPull_AnswersNothingNewWithoutABody(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	cid := ada.group(bob)
	said := ada.say(cid, "one")
	pull := func(p *person, tag string) *answer {
		t.Helper()
		return p.get(fmt.Sprintf("/conversations/%s/messages?after=0&told=%d", cid, said), header{"If-None-Match", tag})
	}
	tag := pull(bob, "").must(200).header.Get("ETag")
	for _, h := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
		pull(bob, h).must(304)
	}
	pull(bob, `"other"`).must(200)
	if other := pull(ada, "").must(200).header.Get("ETag"); other == tag {
		t.Error("two readers have one ETag, and may see different things")
	}
	// Whatever changes the answer changes the tag.
	changed := func(what string) {
		t.Helper()
		before := tag
		eventually(t, what+" changes the ETag", func() bool { tag = pull(bob, before).header.Get("ETag"); return tag != before })
		pull(bob, before).must(200)
		pull(bob, tag).must(304)
	}
	ada.call("PATCH", fmt.Sprintf("/conversations/%s/messages/%d", cid, said), m{"content": m{"text": "two"}}).must(200)
	changed("an edit")
	ada.call("DELETE", fmt.Sprintf("/conversations/%s/messages/%d", cid, said), nil).must(200)
	changed("a recall")
	said = ada.say(cid, "three")
	changed("a new message")
	ada.call("POST", "/conversations/"+cid+"/messages", m{"client_msg_id": key(), "type": "text", "content": m{"text": "to ada"}, "recipients": []string{ada.id}}).must(200)
	changed("a number that bob may not see")
}

func TestPull_BoundsAPageInEntriesAndBytes(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	cid := ada.group(bob)
	target := ada.say(cid, "edited very often")
	// Edits are not shown to people, and do not count towards the limit. Each is answered once it is applied, so that many
	// are under way at once.
	const last, editors = 1102, 50
	var wg sync.WaitGroup
	for range editors {
		wg.Go(func() {
			for range (last - 2) / editors {
				ada.edit(cid, target)
			}
		})
	}
	wg.Wait()
	first := ada.pull(cid, fmt.Sprintf("?after=0&limit=200&told=%d", last))
	if len(first.Messages) != 1000 || !first.HasMore {
		t.Errorf("a page has %d entries, more: %t", len(first.Messages), first.HasMore)
	}
	rest := ada.pull(cid, "?after=1000&limit=200")
	if n := len(rest.Messages); n != last-1000 || rest.HasMore {
		t.Errorf("the rest has %d entries, more: %t", n, rest.HasMore)
	}
	big := m{"blob": strings.Repeat("b", 60_000)}
	for range 20 {
		ada.call("POST", "/conversations/"+cid+"/messages", m{"client_msg_id": key(), "type": "custom", "content": big}).must(200)
	}
	a := ada.get(fmt.Sprintf("/conversations/%s/messages?after=%d&limit=200&told=%d", cid, last, last+20)).must(200)
	if len(a.body) < 1<<20 || len(a.body) > 1<<20+80_000 || a.object()["has_more"] != true {
		t.Errorf("twenty messages of 60 KB are a page of %d bytes, more: %v", len(a.body), a.object()["has_more"])
	}
}

func (p *person) edit(cid string, seq int64) int64 {
	p.t.Helper()
	return p.surely("PATCH", fmt.Sprintf("/conversations/%s/messages/%d", cid, seq), m{"content": m{"text": "again"}, "client_msg_id": key()}).must(200).number("seq")
}

func TestPull_ShowsAddressedMessagesToTheAddressedOnly(t *testing.T) {
	ada, bob, eve := join(t, "ada"), join(t, "bob"), join(t, "eve")
	cid := ada.group(bob, eve)
	to := func(ids ...string) int64 {
		return ada.call("POST", "/conversations/"+cid+"/messages", m{"client_msg_id": key(), "type": "text", "content": m{"text": "psst"}, "recipients": ids}).must(200).number("seq")
	}
	to(bob.id)
	second := to(bob.id)
	open := ada.say(cid, "everybody")
	third := to(eve.id)
	query := fmt.Sprintf("?after=0&told=%d", third)
	got := eve.pull(cid, query).Messages
	if len(got) != 4 || got[1].Type != "void" || got[1].Seq != 2 || got[1].ToSeq != second || got[2].Seq != open || got[3].Type != "text" {
		t.Errorf("eve sees %+v", got)
	}
	got = bob.pull(cid, query).Messages
	if len(got) != 5 || got[1].Type != "text" || got[2].Type != "text" || got[4].Type != "void" || got[4].ToSeq != third {
		t.Errorf("bob sees %+v", got)
	}
	if got = ada.pull(cid, query).Messages; len(got) != 5 || got[4].Type != "text" {
		t.Errorf("their sender sees %+v", got)
	}
	for p, want := range map[*person]float64{bob: 3, eve: 2} {
		if v := p.get("/conversations/" + cid).must(200).object(); v["unread"] != want {
			t.Errorf("%s has %v unread, want %v", p.name, v["unread"], want)
		}
	}
	eve.get(fmt.Sprintf("/conversations/%s/receipts/%d/readers", cid, second)).refused(404, "message_not_found", "")
}

func TestEdit_ReplacesOnesOwnWords(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	cid := ada.group(bob)
	said := ada.say(cid, "helo")
	path := fmt.Sprintf("/conversations/%s/messages/%d", cid, said)
	edit := ada.call("PATCH", path, m{"content": m{"text": "hello"}}).must(200).number("seq")
	got := bob.pull(cid, fmt.Sprintf("?after=1&told=%d", edit)).Messages
	if len(got) != 2 || string(got[0].Content) != `{"text":"hello"}` || got[0].EditedAt == 0 || got[1].Type != "edit" || got[1].TargetSeq != said || got[1].Content != nil {
		t.Errorf("bob sees %+v", got)
	}
	bob.call("PATCH", path, m{"content": m{"text": "mine"}}).refused(403, "forbidden", "")
	ada.call("PATCH", path, m{"content": m{"words": "x"}}).refused(400, "unknown_field", "content.words")
	ada.call("PATCH", path, m{"content": m{"text": ""}}).refused(400, "invalid_field", "content.text")
	ada.call("PATCH", path, m{}).refused(400, "invalid_field", "content")
	ada.call("PATCH", fmt.Sprintf("/conversations/%s/messages/%d", cid, edit), m{"content": m{"text": "x"}}).refused(404, "message_not_found", "")
	ada.call("PATCH", "/conversations/"+cid+"/messages/1", m{"content": m{"text": "x"}}).refused(404, "message_not_found", "")
	ada.call("PATCH", "/conversations/"+cid+"/messages/99", m{"content": m{"text": "x"}}).refused(404, "message_not_found", "")
	for _, bad := range []string{"0", "-1", "x", "1.0", "99999999999999999999"} {
		ada.call("PATCH", "/conversations/"+cid+"/messages/"+bad, m{"content": m{"text": "x"}}).refused(400, "invalid_field", "seq")
	}
}

func TestRecall_LeavesNothingToRead(t *testing.T) {
	ada, bob, eve := join(t, "ada"), join(t, "bob"), join(t, "eve")
	cid := ada.group(bob, eve)
	const secret = "the password is swordfish"
	said := bob.say(cid, secret)
	path := fmt.Sprintf("/conversations/%s/messages/%d", cid, said)
	eve.pull(cid, fmt.Sprintf("?told=%d", said)) // it is in the cache now
	eve.call("DELETE", path, nil).refused(403, "forbidden", "")
	recall := ada.call("DELETE", path, nil).must(200).number("seq") // the owner may
	for _, query := range []string{"", "?after=0", "?before=99", fmt.Sprintf("?around=%d", said), fmt.Sprintf("?told=%d", recall)} {
		a := eve.get("/conversations/" + cid + "/messages" + query).must(200)
		if strings.Contains(string(a.body), "swordfish") {
			t.Errorf("%q still shows it: %s", query, a.body)
		}
	}
	if a := eve.call("POST", "/sync", m{"newest": 20}).must(200); strings.Contains(string(a.body), "swordfish") {
		t.Errorf("sync still shows it: %s", a.body)
	}
	got := eve.pull(cid, "?after=1").Messages
	if !got[0].Recalled || got[0].Content != nil || got[1].Type != "recall" || got[1].TargetSeq != said {
		t.Errorf("eve sees %+v", got)
	}
	bob.call("PATCH", path, m{"content": m{"text": "x"}}).refused(409, "recalled", "")
	bob.call("DELETE", path, m{"client_msg_id": key()}).refused(409, "recalled", "")
	if v := eve.get("/conversations/" + cid).must(200).object(); v["unread"] != 0.0 {
		t.Errorf("what was recalled is unread: %v", v)
	}
}

func TestOutcome_TellsWhatBecameOfASend(t *testing.T) {
	ada, eve := join(t, "ada"), join(t, "eve")
	cid := ada.group()
	odd := "a/b ?#%+ü🛥"
	body := words("x")
	body["client_msg_id"] = odd
	seq := ada.call("POST", "/conversations/"+cid+"/messages", body).must(200).number("seq")
	const escaped = "a%2Fb%20%3F%23%25%2B%C3%BC%F0%9F%9B%A5"
	path := "/conversations/" + cid + "/messages/by-client-id/"
	eventually(t, "the store has it", func() bool { return ada.get(path+escaped).must(200).text("status") == "numbered" })
	if a := ada.get(path + escaped); a.number("seq") != seq {
		t.Errorf("it stands at %d, and the outcome is %s", seq, a.body)
	}
	eve.get(path+escaped).refused(404, "conversation_not_found", "")
	if s := ada.get(path + "never-sent").must(200).text("status"); s != "unknown" {
		t.Errorf("what was never sent is %s", s)
	}
	rejected := words("x")
	eve.call("POST", "/conversations/"+cid+"/messages", rejected).refused(404, "conversation_not_found", "")
	eventually(t, "the rejection is recorded", func() bool {
		a := eve.get(path + rejected["client_msg_id"].(string))
		return a.status == 200 && a.text("status") == "rejected" && a.text("code") == "conversation_not_found" && a.text("message") == "there is no such conversation"
	})
	ada.get(path+strings.Repeat("a", 65)).refused(400, "invalid_field", "client_msg_id")
	ada.get(path+"%00").refused(400, "invalid_field", "client_msg_id")
	ada.get(path+"%ff").refused(400, "malformed", "client_msg_id")
}
