package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func (p *person) members(cid, query string) (ids []string, next string) {
	p.t.Helper()
	var v struct {
		Members []struct {
			ID string `json:"user_id"`
		} `json:"members"`
		Users map[string]any `json:"users"`
		Next  string         `json:"next"`
	}
	p.get("/groups/" + cid + "/members" + query).must(200).into(&v)
	for _, member := range v.Members {
		ids = append(ids, member.ID)
		if v.Users[member.ID] == nil {
			p.t.Errorf("%s stands in the page without a name", member.ID)
		}
	}
	return ids, v.Next
}

func TestGroups_HaveTheirMembersFromTheBeginning(t *testing.T) {
	ada, bob, eve := join(t, "ada"), join(t, "bob"), join(t, "eve")
	a := ada.call("POST", "/groups", m{"name": "Harbour", "member_ids": []string{bob.id, bob.id, ada.id}, "avatar_url": "https://e.org/h.png"}).must(201)
	cid := a.text("conversation_id")
	for _, p := range []*person{ada, bob} {
		g := p.get("/groups/" + cid).must(200).object()
		if g["name"] != "Harbour" || g["owner_id"] != ada.id || g["member_count"] != 2.0 || g["seq"] != 1.0 || g["avatar_url"] != "https://e.org/h.png" {
			t.Errorf("%s sees %v", p.name, g)
		}
		if v := p.get("/conversations/" + cid).must(200).object(); v["type"] != "group" || v["unread"] != 0.0 {
			t.Errorf("%s sees %v", p.name, v)
		}
	}
	for _, path := range []string{"/groups/" + cid, "/groups/" + cid + "/members", "/conversations/" + cid, "/conversations/" + cid + "/messages"} {
		eve.get(path).refused(404, "conversation_not_found", "")
	}
	ada.get("/groups/g-77").refused(404, "conversation_not_found", "")
	ada.get("/groups/"+bob.id).refused(400, "invalid_field", "conversation_id")
}

func TestGroups_ListMembersInPages(t *testing.T) {
	ada := join(t, "ada")
	var others []*person
	want := []string{ada.id}
	for range 6 {
		p := join(t, "member")
		others = append(others, p)
		want = append(want, p.id)
	}
	cid := ada.group(others...)
	slices.SortFunc(want, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		if a < b {
			return -1
		}
		return 1
	})
	for _, limit := range []int{1, 2, 3, 7, 1000} {
		var all []string
		next := ""
		for pages := 0; ; pages++ {
			query := fmt.Sprintf("?limit=%d", limit)
			if next != "" {
				query += "&cursor=" + next
			}
			var ids []string
			ids, next = ada.members(cid, query)
			if len(ids) > limit || pages > 10 {
				t.Fatalf("page %d of %d has %v", pages, limit, ids)
			}
			all = append(all, ids...)
			if next == "" {
				break
			}
		}
		if !slices.Equal(all, want) {
			t.Errorf("in pages of %d: %v, want %v", limit, all, want)
		}
	}
	for _, query := range []string{"?limit=-1", "?limit=1001", "?limit=x", "?limit=1.5", "?limit=99999999999999999999"} {
		ada.get("/groups/"+cid+"/members"+query).refused(400, "invalid_field", "limit")
	}
	for _, query := range []string{"?cursor=forged!", "?cursor=LTE", "?cursor=" + "AAAAAAAAAAAAAAAAAAAAAAAA"} {
		ada.get("/groups/"+cid+"/members"+query).refused(400, "invalid_field", "cursor")
	}
}

func TestGroups_ChangeForTheOwnerAndAdmins(t *testing.T) {
	ada, bob, eve := join(t, "ada"), join(t, "bob"), join(t, "eve")
	cid := ada.group(bob, eve)
	path := "/groups/" + cid
	bob.call("PATCH", path, m{"name": "Bob's"}).refused(403, "forbidden", "")
	if seq := ada.call("PATCH", path, m{"name": "Quay"}).must(200).number("seq"); seq != 2 {
		t.Errorf("the renaming has number %d", seq)
	}
	if g := bob.get(path).must(200).object(); g["name"] != "Quay" || g["seq"] != 2.0 {
		t.Errorf("at once, bob sees %v", g)
	}
	ada.call("PATCH", path+"/members/"+bob.id, m{"role": "admin"}).must(200)
	bob.call("PATCH", path, m{"name": "Pier", "history_visible": true}).refused(403, "forbidden", "history_visible")
	ada.call("PATCH", path, m{"history_visible": true}).must(200)
	bob.call("PATCH", path+"/members/"+eve.id, m{"role": "admin"}).refused(403, "forbidden", "")
	ada.call("PATCH", path+"/members/"+bob.id, m{"role": "admin"}).refused(409, "nothing_to_do", "")
	ada.call("PATCH", path+"/members/"+bob.id, m{"role": "king"}).refused(400, "invalid_field", "role")
	ada.call("PATCH", path+"/members/"+bob.id, m{}).refused(400, "invalid_field", "role")
	ada.call("PATCH", path+"/members/77", m{"role": "admin"}).refused(404, "user_not_found", "user_id")
	ada.call("PATCH", path+"/members/me", m{"role": "member"}).refused(403, "forbidden", "")
	ada.call("PATCH", path, m{}).refused(400, "invalid_field", "")
	ada.call("PATCH", path, m{"name": "  "}).refused(400, "invalid_field", "name")
	ada.call("PATCH", path, m{"avatar_url": "ftp://a"}).refused(400, "invalid_field", "avatar_url")

	// The group is handed over; there is one owner at any time.
	ada.call("DELETE", path+"/members/me", nil).refused(403, "forbidden", "")
	ada.call("PATCH", path+"/members/"+eve.id, m{"role": "owner"}).must(200)
	if g := ada.get(path).must(200).object(); g["owner_id"] != eve.id {
		t.Errorf("the owner is %v", g["owner_id"])
	}
	ada.call("DELETE", path, nil).refused(403, "forbidden", "")
	if v := ada.get("/conversations/" + cid).must(200).object(); v["role"] != "admin" {
		t.Errorf("who handed over is %v", v["role"])
	}
	eve.call("DELETE", path, nil).must(200)
	if g := ada.get(path).must(200).object(); g["dissolved"] != true {
		t.Errorf("after it was dissolved: %v", g)
	}
	ada.call("POST", "/conversations/"+cid+"/messages", words("still?")).refused(403, "dissolved", "")
	eve.call("PATCH", path, m{"name": "x"}).refused(403, "dissolved", "")
	if all := bob.pull(cid, "?after=0"); all.MaxSeq != 6 {
		t.Errorf("it can be read up to %d", all.MaxSeq)
	}
}

func TestGroups_MuteMembersAndLetThemSpeakAgain(t *testing.T) {
	ada, bob, eve := join(t, "ada"), join(t, "bob"), join(t, "eve")
	cid := ada.group(bob, eve)
	member := "/groups/" + cid + "/members/"
	mine := bob.say(cid, "before")
	until := time.Now().Add(time.Hour).UnixMilli()
	bob.call("PATCH", member+eve.id, m{"muted_until": until}).refused(403, "forbidden", "")
	bob.call("PATCH", member+ada.id, m{"muted_until": until}).refused(403, "forbidden", "")
	ada.call("PATCH", member+bob.id, m{"muted_until": -5}).refused(400, "invalid_field", "muted_until")
	ada.call("PATCH", member+bob.id, m{"muted_until": until}).must(200)
	bob.call("POST", "/conversations/"+cid+"/messages", words("hush")).refused(403, "muted", "")
	bob.call("PATCH", fmt.Sprintf("/conversations/%s/messages/%d", cid, mine), m{"content": m{"text": "hush"}}).refused(403, "muted", "")
	bob.call("DELETE", fmt.Sprintf("/conversations/%s/messages/%d", cid, mine), nil).must(200)
	if v := bob.get("/conversations/" + cid).must(200).object(); v["muted_until"] != float64(until) {
		t.Errorf("bob is told %v", v)
	}
	ada.call("PATCH", member+bob.id, m{"muted_until": until}).refused(409, "nothing_to_do", "")
	ada.call("PATCH", member+bob.id, m{"muted_until": 0}).must(200)
	bob.say(cid, "after")
}

func TestGroups_NameMembersInTheGroup(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	cid := ada.group(bob)
	member := "/groups/" + cid + "/members/"
	bob.call("PATCH", member+"me", m{"nickname": "Captain"}).must(200)
	bob.call("PATCH", member+ada.id, m{"nickname": "Landlubber"}).refused(403, "forbidden", "")
	bob.call("PATCH", member+"me", m{"nickname": " "}).refused(400, "invalid_field", "nickname")
	// Three changes of one member are three events, and the answer is the last one's number.
	if seq := ada.call("PATCH", member+bob.id, m{"nickname": "Mate", "role": "admin", "muted_until": time.Now().UnixMilli() + 1_000_000, "client_msg_id": key()}).must(200).number("seq"); seq != 5 {
		t.Errorf("nickname, silence and role end at number %d", seq)
	}
	var notices []string
	for _, e := range ada.pull(cid, "?after=2").Messages {
		notices = append(notices, string(e.Content))
	}
	if len(notices) != 3 {
		t.Errorf("the log has %v", notices)
	}
}

func TestGroups_AddAndRemove(t *testing.T) {
	ada, bob, eve, zoe := join(t, "ada"), join(t, "bob"), join(t, "eve"), join(t, "zoe")
	cid := ada.group(bob)
	path := "/groups/" + cid + "/members"
	ada.say(cid, "before eve")
	bob.call("POST", path, m{"user_ids": []string{eve.id}}).refused(403, "forbidden", "")
	ada.call("POST", path, m{"user_ids": []string{}}).refused(400, "invalid_field", "user_ids")
	ada.call("POST", path, m{"user_ids": []string{"77"}}).refused(404, "user_not_found", "user_ids")
	ada.call("POST", path, m{"user_ids": []string{bob.id}}).refused(409, "nothing_to_do", "")
	joined := ada.call("POST", path, m{"user_ids": []string{bob.id, eve.id}}).must(200).number("seq")

	// Eve reads from her join on; before that there is one void.
	got := eve.pull(cid, "?after=0")
	if len(got.Messages) != 2 || got.Messages[0].Type != "void" || got.Messages[0].Seq != 1 || got.Messages[0].ToSeq != joined-1 || got.MinSeq != joined {
		t.Errorf("eve sees %+v", got)
	}
	bob.call("DELETE", path+"/"+eve.id, nil).refused(403, "forbidden", "")
	bob.call("DELETE", path+"/"+ada.id, nil).refused(403, "forbidden", "")
	ada.call("DELETE", path+"/"+zoe.id, nil).refused(409, "nothing_to_do", "")
	bobs := bob.say(cid, "while eve is here")
	left := eve.call("DELETE", path+"/me", nil).must(200).number("seq")
	after := ada.say(cid, "after eve")

	// Who left reads up to the leave, and nothing of what follows, through any door.
	got = eve.pull(cid, "?after=0")
	if got.MaxSeq != left || got.Messages[len(got.Messages)-1].Seq != left {
		t.Errorf("after the leave at %d eve sees %+v", left, got)
	}
	if got := eve.pull(cid, fmt.Sprintf("?after=%d", left)); len(got.Messages) != 0 {
		t.Errorf("behind the leave eve sees %+v", got)
	}
	if v := eve.get("/conversations/" + cid).must(200).object(); v["max_seq"] != float64(left) {
		t.Errorf("eve is told of %v", v["max_seq"])
	}
	eve.get(path).refused(403, "not_a_member", "")
	// What became of the group since is not hers to know either, nor how far others have read since.
	ada.call("PATCH", "/groups/"+cid, m{"name": "Without Eve"}).must(200)
	eve.get("/groups/"+cid).refused(403, "not_a_member", "")
	leave := ada.pull(cid, fmt.Sprintf("?after=%d&limit=1", left-1)).Messages[0]
	if v := eve.get("/conversations/" + cid).must(200).object(); v["name"] != "" || v["member_count"] != 0.0 || v["last_at"] != float64(leave.SentAt) || v["role"] != nil {
		t.Errorf("eve is told of %v", v)
	}
	eventually(t, "ada's own mark is durable", func() bool {
		return strings.Contains(string(bob.get(fmt.Sprintf("/conversations/%s/receipts/%d/readers", cid, bobs)).must(200).body), fmt.Sprintf(`"read_seq":%d`, after))
	})
	eve.get(fmt.Sprintf("/conversations/%s/receipts/%d/readers", cid, bobs)).refused(403, "not_a_member", "")
	eve.get(fmt.Sprintf("/conversations/%s/receipts?seq=%d", cid, bobs)).refused(403, "not_a_member", "")
	eve.call("POST", "/conversations/"+cid+"/messages", words("hello?")).refused(403, "not_a_member", "")
	eve.call("PUT", "/conversations/"+cid+"/read", m{"seq": after}).refused(403, "not_a_member", "")

	// Who comes back reads from the new join on, and does not get what was said meanwhile.
	ada.call("PATCH", path+"/"+bob.id, m{"role": "admin"}).must(200)
	back := bob.call("POST", path, m{"user_ids": []string{eve.id}}).must(200).number("seq")
	if got := eve.pull(cid, "?after=0"); got.MinSeq != back || got.Messages[0].ToSeq != back-1 {
		t.Errorf("after coming back eve sees %+v", got)
	}
}

func TestGroups_ShowTheirHistoryWhereTheySaySo(t *testing.T) {
	ada, eve := join(t, "ada"), join(t, "eve")
	cid := ada.call("POST", "/groups", m{"name": "Open", "history_visible": true}).must(201).text("conversation_id")
	ada.say(cid, "long ago")
	ada.call("POST", "/groups/"+cid+"/members", m{"user_ids": []string{eve.id}}).must(200)
	if got := eve.pull(cid, "?after=0"); got.MinSeq != 1 || len(got.Messages) != 3 {
		t.Errorf("eve sees %+v", got)
	}
	if v := eve.get("/conversations/" + cid).must(200).object(); v["unread"] != 0.0 {
		t.Errorf("what was said before the join is unread: %v", v)
	}
	ada.call("PATCH", "/groups/"+cid, m{"history_visible": false}).must(200)
	if got := eve.pull(cid, "?after=0"); got.MinSeq != 3 {
		t.Errorf("once the history is closed, eve sees %+v", got)
	}
}

func TestGroups_RefuseWhatCannotBeMade(t *testing.T) {
	ada := join(t, "ada")
	ada.call("POST", "/groups", m{}).refused(400, "invalid_field", "name")
	ada.call("POST", "/groups", m{"name": "a\u0000b"}).refused(400, "invalid_field", "name")
	ada.call("POST", "/groups", m{"name": "x", "member_ids": []string{"5", "0"}}).refused(400, "invalid_field", "member_ids.1")
	ada.call("POST", "/groups", m{"name": "x", "member_ids": []int{5}}).refused(400, "invalid_field", "member_ids.0")
	ada.call("POST", "/groups", m{"name": "x", "member_ids": []string{"77"}}).refused(404, "user_not_found", "member_ids")
	many := make([]string, 10_001)
	for i := range many {
		many[i] = fmt.Sprint(1_000_000_000_000_000_000 + i)
	}
	ada.call("POST", "/groups", m{"name": "x", "member_ids": many}).refused(400, "invalid_field", "member_ids")
}
