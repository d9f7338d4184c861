package api_test

import (
	"fmt"
	"testing"
)

func (p *person) read(cid string, seq int64) (read, unread, total int64) {
	p.t.Helper()
	a := p.call("PUT", "/conversations/"+cid+"/read", m{"seq": seq}).must(200)
	return a.number("read_seq"), a.number("unread"), a.number("unread_total")
}

// told waits as a client does that was told of a number.
func (p *person) told(cid string, seq int64) {
	p.t.Helper()
	p.pull(cid, fmt.Sprintf("?limit=1&told=%d", seq))
}

func TestRead_CountsExactlyAndNeverMovesBack(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	one, two := ada.group(bob), ada.group(bob)
	for range 5 {
		bob.told(one, ada.say(one, "x"))
	}
	bob.told(two, ada.say(two, "y"))
	for _, c := range []struct{ seq, read, unread, total int64 }{
		{3, 3, 3, 4}, {2, 3, 3, 4}, {0, 3, 3, 4}, {3, 3, 3, 4}, {5, 5, 1, 2}, {9999, 6, 0, 1}, {1, 6, 0, 1},
	} {
		if read, unread, total := bob.read(one, c.seq); read != c.read || unread != c.unread || total != c.total {
			t.Errorf("having read up to %d: mark %d, unread %d of %d; want %+v", c.seq, read, unread, total, c)
		}
	}
	// One's own words are read.
	bob.say(two, "z")
	eventually(t, "bob's own words are no news", func() bool {
		return bob.get("/conversations/" + two).must(200).object()["unread"] == 0.0
	})
	bob.call("PUT", "/conversations/"+one+"/read", m{"seq": -1}).refused(400, "invalid_field", "seq")
	bob.call("PUT", "/conversations/"+one+"/read", m{}).refused(400, "invalid_field", "seq")
	bob.call("PUT", "/conversations/"+one+"/read", m{"seq": "5"}).refused(400, "invalid_field", "seq")
	bob.call("PUT", "/conversations/"+one+"/read", m{"seq": 1.5}).refused(400, "invalid_field", "seq")
	bob.call("PUT", "/conversations/"+one+"/read", raw(`{"seq":99999999999999999999}`)).refused(400, "invalid_field", "seq")
	bob.call("PUT", "/conversations/g-77/read", m{"seq": 1}).refused(404, "conversation_not_found", "")
}

func TestRead_DoesNotCountNoticesNorWhatWasRecalled(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	cid := ada.group(bob)
	first := ada.say(cid, "one")
	bob.told(cid, ada.say(cid, "two"))
	ada.call("PATCH", "/groups/"+cid, m{"name": "Renamed"}).must(200)
	unread := func(want float64) {
		t.Helper()
		if got := bob.get("/conversations/" + cid).must(200).object()["unread"]; got != want {
			t.Errorf("bob has %v unread, want %v", got, want)
		}
	}
	unread(2)
	ada.edit(cid, first)
	unread(2)
	ada.call("DELETE", fmt.Sprintf("/conversations/%s/messages/%d", cid, first), nil).must(200)
	unread(1)
}

func TestRead_MentionsAreCounted(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	cid := ada.group(bob)
	for _, who := range []m{{"user_ids": []string{bob.id}}, {"all": true}, {"user_ids": []string{ada.id}}} {
		ada.call("POST", "/conversations/"+cid+"/messages", m{"client_msg_id": key(), "type": "text", "content": m{"text": "@"}, "mentions": who}).must(200)
	}
	eventually(t, "two of three mean bob", func() bool {
		v := bob.get("/conversations/" + cid).must(200).object()
		return v["mentions"] == 2.0 && v["unread"] == 3.0
	})
}

func TestReceipts_CountWhoHasRead(t *testing.T) {
	ada, bob, eve, zoe := join(t, "ada"), join(t, "bob"), join(t, "eve"), join(t, "zoe")
	cid := ada.group(bob, eve)
	first := ada.say(cid, "one")
	second := ada.say(cid, "two")
	bob.told(cid, second)
	bob.read(cid, second)
	eve.read(cid, first)
	late := ada.call("POST", "/groups/"+cid+"/members", m{"user_ids": []string{zoe.id}}).must(200).number("seq")
	zoe.read(cid, late)
	type receipt struct {
		Seq    int64 `json:"seq"`
		Read   int64 `json:"read_count"`
		Unread int64 `json:"unread_count"`
	}
	counts := func(query string) []receipt {
		t.Helper()
		var v struct {
			Receipts []receipt `json:"receipts"`
		}
		ada.get("/conversations/" + cid + "/receipts" + query).must(200).into(&v)
		return v.Receipts
	}
	want := map[int64]receipt{first: {first, 2, 0}, second: {second, 1, 1}}
	eventually(t, "the marks count", func() bool {
		for _, r := range counts(fmt.Sprintf("?seq=%d&seq=%d&seq=1&seq=999", first, second)) {
			if w, asked := want[r.Seq]; asked && r != w {
				return false
			}
		}
		return true
	})
	got := counts(fmt.Sprintf("?seq=%d&seq=%d&seq=999", first, second))
	if len(got) != 2 {
		t.Errorf("of two messages and a number that is none there are %+v", got)
	}
	var readers struct {
		Readers []struct {
			ID  string `json:"user_id"`
			Seq int64  `json:"read_seq"`
		} `json:"readers"`
		Next string `json:"next"`
	}
	eventually(t, "the readers are listed", func() bool {
		ada.get(fmt.Sprintf("/conversations/%s/receipts/%d/readers", cid, first)).must(200).into(&readers)
		return len(readers.Readers) == 2
	})
	var all []string
	next := ""
	for range 10 {
		readers.Next, readers.Readers = "", nil
		ada.get(fmt.Sprintf("/conversations/%s/receipts/%d/readers?limit=1%s", cid, first, next)).must(200).into(&readers)
		for _, r := range readers.Readers {
			all = append(all, r.ID)
		}
		if readers.Next == "" {
			break
		}
		next = "&cursor=" + readers.Next
	}
	if len(all) != 2 || all[0] == all[1] {
		t.Errorf("page by page the readers are %v", all)
	}
	for _, query := range []string{"", "?seq=0", "?seq=-1", "?seq=x"} {
		ada.get("/conversations/"+cid+"/receipts"+query).refused(400, "invalid_field", "seq")
	}
	many := "?seq=1"
	for i := range 100 {
		many += fmt.Sprintf("&seq=%d", i+1)
	}
	ada.get("/conversations/"+cid+"/receipts"+many).refused(400, "invalid_field", "seq")
	ada.get("/conversations/"+cid+"/receipts/999/readers").refused(404, "message_not_found", "")
	ada.get("/conversations/"+cid+"/receipts/0/readers").refused(400, "invalid_field", "seq")
	zoe.get(fmt.Sprintf("/conversations/%s/receipts/%d/readers", cid, first)).refused(404, "message_not_found", "")
}

type synced struct {
	Conversations []struct {
		ID      string  `json:"conversation_id"`
		MaxSeq  int64   `json:"max_seq"`
		ReadSeq int64   `json:"read_seq"`
		Unread  int64   `json:"unread"`
		Newest  []entry `json:"newest"`
	} `json:"conversations"`
	Removed []string `json:"removed"`
	Users   map[string]struct {
		Nickname string `json:"nickname"`
	} `json:"users"`
	UnreadTotal int64  `json:"unread_total"`
	Cursor      string `json:"cursor"`
	HasMore     bool   `json:"has_more"`
}

func (p *person) sync(body m) synced {
	p.t.Helper()
	if body == nil {
		body = m{}
	}
	var v synced
	p.call("POST", "/sync", body).must(200).into(&v)
	return v
}

func TestSync_GivesEverythingAndThenWhatMoved(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	var groups []string
	for i := range 5 {
		cid := ada.group(bob)
		last := ada.say(cid, fmt.Sprint(i))
		bob.pull(cid, fmt.Sprintf("?told=%d", last))
		groups = append(groups, cid)
	}
	// In pages, the most recently moved first; each conversation once.
	seen := map[string]bool{}
	v := bob.sync(m{"limit": 2, "newest": 1})
	for pages := 1; ; pages++ {
		for _, c := range v.Conversations {
			if seen[c.ID] || c.Unread != 1 || c.MaxSeq != 2 || len(c.Newest) != 1 || c.Newest[0].Seq != 2 {
				t.Errorf("page %d has %+v", pages, c)
			}
			seen[c.ID] = true
		}
		if v.UnreadTotal != 5 || v.Users[ada.id].Nickname != "Ada" {
			t.Errorf("page %d has %d unread in all and the people %v", pages, v.UnreadTotal, v.Users)
		}
		if !v.HasMore {
			break
		}
		v = bob.sync(m{"limit": 2, "newest": 1, "cursor": v.Cursor})
	}
	if len(seen) != 5 {
		t.Errorf("the pages have %d of 5 conversations", len(seen))
	}
	settle := func() {
		t.Helper()
		eventually(t, "nothing moves", func() bool { v = bob.sync(m{"cursor": v.Cursor}); return len(v.Conversations) == 0 })
	}
	settle()

	moved := func(what, cid string) {
		t.Helper()
		eventually(t, what+" moves the conversation", func() bool {
			v = bob.sync(m{"cursor": v.Cursor})
			for _, c := range v.Conversations {
				if c.ID != cid {
					t.Errorf("%s moved %s as well", what, c.ID)
				}
			}
			return len(v.Conversations) == 1
		})
		settle()
	}
	ada.say(groups[3], "again")
	moved("a message", groups[3])
	bob.read(groups[1], 2)
	moved("a read mark", groups[1])
	ada.call("PATCH", "/groups/"+groups[2], m{"name": "New"}).must(200)
	moved("a new name", groups[2])
	ada.call("DELETE", "/groups/"+groups[4]+"/members/"+bob.id, nil).must(200)
	eventually(t, "what bob was removed from is told", func() bool {
		v = bob.sync(m{"cursor": v.Cursor})
		return len(v.Removed) == 1 && v.Removed[0] == groups[4]
	})
}

func TestSync_RefusesWhatItCannotGive(t *testing.T) {
	p := join(t, "ada")
	if v := p.sync(nil); len(v.Conversations) != 0 || v.Cursor == "" || v.HasMore {
		t.Errorf("somebody without conversations is given %+v", v)
	}
	for field, body := range map[string]m{"limit": {"limit": 501}, "newest": {"newest": 21}, "cursor": {"cursor": "forged"}} {
		p.call("POST", "/sync", body).refused(400, "invalid_field", field)
	}
	p.call("POST", "/sync", m{"limit": -1}).refused(400, "invalid_field", "limit")
	p.call("POST", "/sync", m{"newest": -1}).refused(400, "invalid_field", "newest")
	p.call("POST", "/sync", m{"cursor": 5}).refused(400, "invalid_field", "cursor")
	good := p.sync(nil).Cursor
	for i := range len(good) {
		broken := good[:i] + "A" + good[i+1:]
		if a := p.call("POST", "/sync", m{"cursor": broken}); a.status != 200 && a.status != 400 {
			t.Errorf("a cursor that is broken at %d is answered %d: %s", i, a.status, a.body)
		}
		if a := p.call("POST", "/sync", m{"cursor": good[:i]}); i > 0 && a.status != 400 {
			t.Errorf("a cursor that is cut at %d is answered %d", i, a.status)
		}
	}
}
