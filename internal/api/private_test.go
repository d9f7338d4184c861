package api_test

import (
	"fmt"
	"strings"
	"testing"
)

// between gives the id that anyone can build of two people's conversation.
func between(a, b *person) string {
	low, high := a.id, b.id
	if len(low) > len(high) || (len(low) == len(high) && low > high) {
		low, high = high, low
	}
	return "p-" + low + "-" + high
}

func TestPrivate_BeginsWithItsFirstMessage(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	cid := between(ada, bob)
	for _, p := range []*person{ada, bob} {
		peer := map[*person]*person{ada: bob, bob: ada}[p]
		v := p.call("POST", "/conversations/private", m{"user_id": peer.id}).must(200).object()
		if v["conversation_id"] != cid || v["peer_id"] != peer.id || v["max_seq"] != 0.0 || v["unread"] != 0.0 || v["type"] != "private" {
			t.Errorf("before its first message it is %v", v)
		}
		p.get("/conversations/"+cid).refused(404, "conversation_not_found", "")
		p.get("/conversations/"+cid+"/messages").refused(404, "conversation_not_found", "")
	}
	if seq := ada.say(cid, "hi bob"); seq != 1 {
		t.Errorf("its first message has number %d", seq)
	}
	if got := bob.pull(cid, "?after=0&told=1"); len(got.Messages) != 1 || got.Messages[0].text() != "hi bob" {
		t.Errorf("bob sees %+v", got)
	}
	v := bob.call("POST", "/conversations/private", m{"user_id": ada.id}).must(200).object()
	if v["unread"] != 1.0 || v["max_seq"] != 1.0 || v["peer_read_seq"] != 1.0 || v["role"] != nil {
		t.Errorf("bob sees %v", v)
	}
	bob.call("PUT", "/conversations/"+cid+"/read", m{"seq": 1}).must(200)
	eventually(t, "ada is told how far bob has read", func() bool {
		return ada.get("/conversations/" + cid).must(200).object()["peer_read_seq"] == 1.0
	})
}

func TestPrivate_IsForItsTwoPeopleOnly(t *testing.T) {
	ada, bob, eve := join(t, "ada"), join(t, "bob"), join(t, "eve")
	cid := between(ada, bob)
	eve.call("POST", "/conversations/"+cid+"/messages", words("let me in")).refused(404, "conversation_not_found", "")
	ada.say(cid, "psst")
	ada.pull(cid, "?told=1")
	for _, method := range []string{"GET", "POST"} {
		var body any
		if method == "POST" {
			body = words("let me in")
		}
		eve.call(method, "/conversations/"+cid+"/messages", body).refused(404, "conversation_not_found", "")
	}
	eve.get("/conversations/"+cid).refused(404, "conversation_not_found", "")
	eve.get("/conversations/"+cid+"/receipts?seq=1").refused(404, "conversation_not_found", "")
	eve.get("/conversations/"+cid+"/receipts/1/readers").refused(404, "conversation_not_found", "")
	eve.call("PUT", "/conversations/"+cid+"/read", m{"seq": 1}).refused(404, "conversation_not_found", "")
	eve.call("DELETE", "/conversations/"+cid+"/messages/1", nil).refused(404, "conversation_not_found", "")
	eve.call("PATCH", "/conversations/"+cid+"/messages/1", m{"content": m{"text": "x"}}).refused(404, "conversation_not_found", "")
	bob.call("DELETE", "/conversations/"+cid+"/messages/1", nil).refused(403, "forbidden", "")
	if a := eve.call("POST", "/sync", m{}).must(200); strings.Contains(string(a.body), cid) {
		t.Errorf("eve's conversations are %s", a.body)
	}
}

func TestPrivate_WithSomebodyWhoDoesNotExistOrOneself(t *testing.T) {
	ada := join(t, "ada")
	ada.call("POST", "/conversations/private", m{"user_id": "77"}).refused(404, "user_not_found", "user_id")
	ada.call("POST", "/conversations/private", m{"user_id": ada.id}).refused(400, "invalid_field", "user_id")
	ada.call("POST", "/conversations/private", m{}).refused(400, "invalid_field", "user_id")
	ada.call("POST", "/conversations/p-77-"+ada.id+"/messages", words("anybody?")).refused(404, "user_not_found", "")
	ada.call("POST", "/conversations/p-"+ada.id+"-77/messages", words("?")).refused(400, "invalid_field", "conversation_id")
	ada.call("POST", "/conversations/p-"+ada.id+"-"+ada.id+"/messages", words("?")).refused(400, "invalid_field", "conversation_id")
	ada.get("/conversations/p-77-"+ada.id).refused(404, "conversation_not_found", "")
}

func TestPrivate_IsNoGroup(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	cid := between(ada, bob)
	ada.say(cid, "hi")
	ada.get("/groups/"+cid).refused(404, "conversation_not_found", "")
	ada.call("PATCH", "/groups/"+cid, m{"name": "x"}).refused(400, "unsupported", "type")
	ada.call("DELETE", "/groups/"+cid, nil).refused(400, "unsupported", "type")
	ada.call("DELETE", "/groups/"+cid+"/members/me", nil).refused(400, "unsupported", "type")
	ada.call("POST", "/groups/"+cid+"/members", m{"user_ids": []string{bob.id}}).refused(400, "unsupported", "type")
}

func TestSystem_TakesNoCommands(t *testing.T) {
	ada := join(t, "ada")
	for _, cid := range []string{"s-all", "s-" + ada.id} {
		ada.call("POST", "/conversations/"+cid+"/messages", words("I am the system")).refused(400, "unsupported", "conversation_id")
		if a := ada.get("/conversations/" + cid); a.status < 400 {
			t.Errorf("%s: %s", cid, a.body)
		}
	}
}

func TestConversationIDs_HaveOneSpelling(t *testing.T) {
	ada := join(t, "ada")
	for _, bad := range []string{"g-0", "g-05", "g--5", "g-x", "g-", "x-5", "p-9-5", "p-5-5", "p-5", "s-x", "5", "G-5", "g-99999999999999999999", "g-5%20"} {
		ada.get("/conversations/"+bad).refused(400, "invalid_field", "conversation_id")
	}
	ada.get(fmt.Sprintf("/conversations/g-%d", int64(1)<<62)).refused(404, "conversation_not_found", "")
}
