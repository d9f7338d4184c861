package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// Every call with a body is sent what clients send by mistake.
func TestInput_IsRefusedByNameOnEveryCallWithABody(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	admin := visitor(t)
	admin.token = adminToken
	cid := ada.group(bob)
	seq := ada.say(cid, "x")
	for _, c := range []struct {
		who          *person
		method, path string
	}{
		{visitor(t), "POST", "/users"}, {visitor(t), "POST", "/sessions"}, {visitor(t), "POST", "/sessions/refresh"},
		{ada, "PATCH", "/users/me"}, {ada, "POST", "/users/batch"}, {ada, "POST", "/groups"}, {ada, "PATCH", "/groups/" + cid}, {ada, "DELETE", "/groups/" + cid},
		{ada, "POST", "/groups/" + cid + "/members"}, {ada, "DELETE", "/groups/" + cid + "/members/" + bob.id}, {ada, "PATCH", "/groups/" + cid + "/members/" + bob.id},
		{ada, "POST", "/conversations/private"}, {ada, "POST", "/conversations/" + cid + "/messages"},
		{ada, "PATCH", fmt.Sprintf("/conversations/%s/messages/%d", cid, seq)}, {ada, "DELETE", fmt.Sprintf("/conversations/%s/messages/%d", cid, seq)},
		{ada, "PUT", "/conversations/" + cid + "/read"}, {ada, "POST", "/sync"}, {admin, "POST", "/admin/users"}, {admin, "POST", "/admin/groups/reserve"},
	} {
		call := func(body any, headers ...header) *answer {
			t.Helper()
			return c.who.call(c.method, c.path, body, headers...)
		}
		call(raw(`{"colour":"red"}`)).refused(400, "unknown_field", "colour")
		call(raw(`{"Client_Msg_ID`)).refused(400, "malformed", "")
		call(raw(`{} {}`)).refused(400, "malformed", "")
		call(raw(`null`)).refused(400, "malformed", "")
		call(raw("{\"client_msg_id\":\"\xff\"}")).refused(400, "malformed", "")
		call(raw(`[1,2]`)).refused(400, "malformed", "")
		call(raw(`"text"`)).refused(400, "malformed", "")
		call(raw(`{"Client_Msg_ID":"a"}`)).refused(400, "unknown_field", "Client_Msg_ID")
		if c.path != "/users/batch" && c.path != "/sync" {
			call(raw(`{"client_msg_id":7}`)).refused(400, "invalid_field", "client_msg_id")
			call(raw(`{"client_msg_id":"a","client_msg_id":"b"}`)).refused(400, "malformed", "client_msg_id")
		}
		call(raw(`{"client_msg_id":"a"}`), header{"Content-Type", "text/xml"}).refused(415, "unsupported_media_type", "")
		call(raw(strings.Repeat(" ", 600<<10))).refused(413, "too_large", "")
		call(raw(strings.Repeat("[", 100_000))).refused(400, "malformed", "")
	}
	if got := ada.pull(cid, "?after=0"); got.MaxSeq != seq {
		t.Errorf("mistakes were numbered: the conversation is at %d, want %d", got.MaxSeq, seq)
	}
}

func TestInput_OfASend(t *testing.T) {
	ada := join(t, "ada")
	cid := ada.group()
	message := func(change string) raw {
		return raw(`{"client_msg_id":"x","type":"text","content":{"text":"a"}` + change + `}`)
	}
	many := func(n int) string {
		ids := make([]string, n)
		for i := range ids {
			ids[i] = fmt.Sprintf(`"%d"`, i+1)
		}
		return "[" + strings.Join(ids, ",") + "]"
	}
	for _, c := range []struct {
		body   raw
		status int
		code   string
		field  string
	}{
		{`{"type":"text","content":{"text":"a"}}`, 400, "invalid_field", "client_msg_id"},
		{`{"client_msg_id":"","type":"text","content":{"text":"a"}}`, 400, "invalid_field", "client_msg_id"},
		{`{"client_msg_id":"x","content":{"text":"a"}}`, 400, "invalid_field", "type"},
		{`{"client_msg_id":"x","type":"shout","content":{"text":"a"}}`, 400, "invalid_field", "type"},
		{`{"client_msg_id":"x","type":"image","content":{}}`, 400, "unsupported", "type"},
		{`{"client_msg_id":"x","type":"notice","content":{}}`, 403, "forbidden", "type"},
		{`{"client_msg_id":"x","type":"text"}`, 400, "invalid_field", "content"},
		{`{"client_msg_id":"x","type":"text","content":null}`, 400, "invalid_field", "content"},
		{`{"client_msg_id":"x","type":"text","content":"a"}`, 400, "invalid_field", "content"},
		{`{"client_msg_id":"x","type":"text","content":[]}`, 400, "invalid_field", "content"},
		{`{"client_msg_id":"x","type":"text","content":{}}`, 400, "invalid_field", "content.text"},
		{`{"client_msg_id":"x","type":"text","content":{"text":"  "}}`, 400, "invalid_field", "content.text"},
		{`{"client_msg_id":"x","type":"text","content":{"text":5}}`, 400, "invalid_field", "content.text"},
		{`{"client_msg_id":"x","type":"text","content":{"text":"a","size":5}}`, 400, "unknown_field", "content.size"},
		{raw(`{"client_msg_id":"x","type":"text","content":{"text":"` + strings.Repeat("a", 70_000) + `"}}`), 413, "too_large", "content"},
		{raw(`{"client_msg_id":"x","type":"custom","content":{"a":"` + strings.Repeat("a", 200_000) + `"}}`), 413, "too_large", "content"},
		{message(`,"reply_to":-1`), 400, "invalid_field", "reply_to"},
		{message(`,"reply_to":99`), 400, "invalid_field", "reply_to"},
		{message(`,"reply_to":1.5`), 400, "invalid_field", "reply_to"},
		{message(`,"reply_to":"1"`), 400, "invalid_field", "reply_to"},
		{message(`,"receipt":"yes"`), 400, "invalid_field", "receipt"},
		{message(`,"mentions":[]`), 400, "invalid_field", "mentions"},
		{message(`,"mentions":{"everybody":true}`), 400, "unknown_field", "mentions.everybody"},
		{message(`,"mentions":{"user_ids":` + many(51) + `}`), 400, "invalid_field", "mentions.user_ids"},
		{message(`,"recipients":` + many(101)), 400, "invalid_field", "recipients"},
		{message(`,"recipients":[5]`), 400, "invalid_field", "recipients.0"},
		{message(`,"mentions":{"all":true,"all":false}`), 400, "malformed", "mentions.all"},
		{`{"client_msg_id":"x","type":"custom","content":{"a":{"b":1,"b":2}}}`, 400, "malformed", "content.a.b"},
		{message(`,"sender_id":"5"`), 400, "unknown_field", "sender_id"},
	} {
		ada.call("POST", "/conversations/"+cid+"/messages", c.body).refused(c.status, c.code, c.field)
	}
	ada.call("POST", "/conversations/g-77/messages", message("")).refused(404, "conversation_not_found", "")
	if seq := ada.say(cid, strings.Repeat("é", 32_000)); seq != 2 {
		t.Errorf("the first message has number %d", seq)
	}
}

func TestAddresses_ThatAreNoneAnswerInTheContractsForm(t *testing.T) {
	ada := join(t, "ada")
	for _, path := range []string{"/nothing", "/users/me/", "/users/me/shoes", "//users/me", "/conversations/g-5/messages/1/2", "/groups/"} {
		ada.get(path).refused(404, "not_found", "")
	}
	for path, method := range map[string]string{"/sync": "GET", "/users": "DELETE", "/sessions/current": "GET", "/groups": "PUT"} {
		ada.call(method, path, nil).refused(405, "method_not_allowed", "")
	}
	ada.call("GET", "/ws", nil).refused(400, "malformed", "")
}

func TestAnswers_CarryARequestIdOfTheClientWhereItIsGood(t *testing.T) {
	ada := join(t, "ada")
	if got := ada.get("/users/me", header{"X-Request-Id", "Mine.1_2-3"}).header.Get("X-Request-Id"); got != "Mine.1_2-3" {
		t.Errorf("a good one became %q", got)
	}
	for _, bad := range []string{"with space", strings.Repeat("a", 65), `"quoted"`, "<b>", "é"} {
		if got := ada.get("/users/me", header{"X-Request-Id", bad}).header.Get("X-Request-Id"); got == bad || got == "" {
			t.Errorf("%q became %q", bad, got)
		}
	}
	seen := map[string]bool{}
	for range 100 {
		id := ada.get("/users/me").header.Get("X-Request-Id")
		if seen[id] {
			t.Fatalf("%s is given twice", id)
		}
		seen[id] = true
	}
}

func TestCurl_IsUnderstoodAsItComes(t *testing.T) {
	ada := join(t, "ada")
	r, err := http.NewRequest("PATCH", ada.base+"/users/me", strings.NewReader(`{"nickname":"Curly"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+ada.token)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded") // what curl -d says of any body
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = a.Body.Close()
	if a.StatusCode != 200 {
		t.Errorf("answered %d", a.StatusCode)
	}
}
