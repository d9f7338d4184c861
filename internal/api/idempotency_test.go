package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"tideline/schemas/openapi/openapitest"
)

// Everything that changes something is tried twice by one name, in the body or in the header, and is done once; and by the
// same name with another body, where that is a conflict. A call that the document has and this table does not fails.
func TestChanges_AreDoneOnceByOneName(t *testing.T) {
	type change struct {
		operation    string
		status       int
		method, path string
		body         m
		// other is another body, which by the same name is a conflict; nil where doing it again is doing it once, whatever it says.
		other m
		as    *person
	}
	for _, where := range []string{"in the body", "in the header"} {
		t.Run(where, func(t *testing.T) {
			ada, bob, eve, zoe := join(t, "ada"), join(t, "bob"), join(t, "eve"), join(t, "zoe")
			var sessions struct {
				Sessions []struct {
					ID string `json:"session_id"`
				} `json:"sessions"`
			}
			eve.get("/sessions").must(200).into(&sessions)
			second := sessions.Sessions[0].ID
			eve.login()
			admin := visitor(t)
			admin.token = adminToken
			nobody := visitor(t)
			cid := ada.group(bob, eve)
			gone := ada.group(bob)
			edited, recalled := ada.say(cid, "x"), ada.say(cid, "y")
			other := ada.say(cid, "z")
			ada.pull(cid, fmt.Sprintf("?limit=1&told=%d", other)) // what is said here counts as written before
			until := time.Now().Add(time.Hour).UnixMilli()
			message := "/conversations/" + cid + "/messages"
			at := func(seq int64) string { return fmt.Sprintf("%s/%d", message, seq) }
			changes := []change{
				{"POST /users", 201, "POST", "/users", m{"username": "once-" + key()[24:], "password": password}, nil, nobody},
				{"POST /sessions", 201, "POST", "/sessions", m{"username": ada.name, "password": password, "platform": "web"}, m{"username": ada.name, "password": password, "platform": "ios"}, nobody},
				{"POST /sessions/refresh", 200, "POST", "/sessions/refresh", m{"refresh_token": zoe.refresh}, nil, nobody},
				{"PUT /users/me/password", 204, "PUT", "/users/me/password", m{"current_password": password, "new_password": "a longer phrase"}, nil, zoe},
				{"DELETE /sessions/{sid}", 204, "DELETE", "/sessions/" + second, m{}, nil, eve},
				{"PATCH /users/me", 200, "PATCH", "/users/me", m{"nickname": "Once"}, nil, ada},
				{"POST /groups", 201, "POST", "/groups", m{"name": "Once", "member_ids": []string{bob.id}}, m{"name": "Once", "member_ids": []string{eve.id}}, ada},
				{"PATCH /groups/{cid}", 200, "PATCH", "/groups/" + cid, m{"name": "Twice?"}, m{"name": "Other"}, ada},
				{"POST /groups/{cid}/members", 200, "POST", "/groups/" + cid + "/members", m{"user_ids": []string{zoe.id}}, m{"user_ids": []string{bob.id}}, ada},
				{"PATCH /groups/{cid}/members/{uid}", 200, "PATCH", "/groups/" + cid + "/members/" + bob.id, m{"role": "admin", "nickname": "B", "muted_until": until}, m{"nickname": "C"}, ada},
				{"POST /conversations/private", 200, "POST", "/conversations/private", m{"user_id": bob.id}, nil, ada},
				{"POST /conversations/{cid}/messages", 200, "POST", message, m{"type": "text", "content": m{"text": "once"}}, m{"type": "text", "content": m{"text": "else"}}, ada},
				{"PATCH /conversations/{cid}/messages/{seq}", 200, "PATCH", at(edited), m{"content": m{"text": "edited"}}, m{"content": m{"text": "else"}}, ada},
				{"DELETE /conversations/{cid}/messages/{seq}", 200, "DELETE", at(recalled), m{}, nil, ada},
				{"PUT /conversations/{cid}/read", 200, "PUT", "/conversations/" + cid + "/read", m{"seq": 2}, nil, bob},
				{"DELETE /groups/{cid}/members/{uid}", 200, "DELETE", "/groups/" + cid + "/members/" + eve.id, m{}, nil, ada},
				{"DELETE /groups/{cid}", 200, "DELETE", "/groups/" + gone, m{}, nil, ada},
				{"POST /admin/users", 200, "POST", "/admin/users", m{"users": []m{{"external_id": key(), "nickname": "E"}}}, nil, admin},
				{"POST /admin/sessions", 201, "POST", "/admin/sessions", m{"user_id": ada.id, "platform": "web"}, m{"user_id": ada.id, "platform": "ios"}, admin},
				{"POST /admin/groups/reserve", 200, "POST", "/admin/groups/reserve", m{"creator_id": ada.id}, nil, admin},
			}
			tested := map[string]bool{"DELETE /sessions/current": true} // ends what would ask again: see TestSessions_EndAtLogout
			for _, c := range changes {
				tested[c.operation] = true
				name := key()
				try := func(method, path string, body m) *answer {
					t.Helper()
					if where == "in the header" {
						return c.as.call(method, path, body, header{"Idempotency-Key", name})
					}
					named := m{"client_msg_id": name}
					for k, v := range body {
						named[k] = v
					}
					return c.as.call(method, path, named)
				}
				before := ada.pull(cid, "?limit=1").MaxSeq
				first := try(c.method, c.path, c.body).must(c.status)
				if c.operation == "POST /conversations/{cid}/messages" { // the one that is answered before it can be read
					ada.pull(cid, fmt.Sprintf("?limit=1&told=%d", first.number("seq")))
				}
				end := ada.pull(cid, "?limit=1").MaxSeq
				again := try(c.method, c.path, c.body).must(c.status)
				for _, field := range []string{"seq", "conversation_id", "user_id", "refresh_token", "message_id", "read_seq", "users"} {
					if c.status == http.StatusNoContent {
						break // nothing is answered
					}
					if field == "refresh_token" && strings.HasSuffix(c.operation, "/sessions") {
						continue // the session is the same, its tokens are new
					}
					if a, b := fmt.Sprint(first.object()[field]), fmt.Sprint(again.object()[field]); a != b {
						t.Errorf("%s: %s was %s and then %s", c.operation, field, a, b)
					}
				}
				if now := ada.pull(cid, "?limit=1").MaxSeq; now != end {
					t.Errorf("%s: the retry wrote up to %d (%d before, %d after the first try)", c.operation, now, before, end)
				}
				if c.other != nil {
					try(c.method, c.path, c.other).refused(409, "client_msg_id_conflict", "client_msg_id")
				}
				if c.operation == "DELETE /conversations/{cid}/messages/{seq}" {
					try("DELETE", at(other), m{}).refused(409, "client_msg_id_conflict", "client_msg_id")
				}
				c.as.call(c.method, c.path, m{"client_msg_id": "one"}, header{"Idempotency-Key", "other"}).refused(400, "invalid_field", "client_msg_id")
				c.as.call(c.method, c.path, m{"client_msg_id": strings.Repeat("n", 65)}).refused(400, "invalid_field", "client_msg_id")
				c.as.call(c.method, c.path, m{"client_msg_id": "a\u0007b"}).refused(400, "invalid_field", "client_msg_id")
			}
			for path, item := range openapitest.Shared(t).Model().Paths.PathItems.FromOldest() {
				for method, op := range item.GetOperations().FromOldest() {
					for _, p := range op.Parameters {
						if name := strings.ToUpper(method) + " " + path; p.Name == "Idempotency-Key" && !tested[name] {
							t.Errorf("%s is not tried here", name)
						}
					}
				}
			}
		})
	}
}

func TestSend_TheSameNameIsFreeInAnotherConversationAndForAnotherPerson(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	one, two := ada.group(bob), ada.group(bob)
	body := words("hi")
	for _, cid := range []string{one, two} {
		for _, p := range []*person{ada, bob} {
			if a := p.call("POST", "/conversations/"+cid+"/messages", body).must(200); a.object()["duplicate"] != nil {
				t.Errorf("%s in %s: %s", p.name, cid, a.body)
			}
			if a := p.call("POST", "/conversations/"+cid+"/messages", body).must(200); a.object()["duplicate"] != true {
				t.Errorf("the retry of %s in %s: %s", p.name, cid, a.body)
			}
		}
	}
}

// What is the same to a reader is the same to a retry: the order of fields, white space and escapes do not matter.
func TestSend_ARetryMayBeWrittenInAnotherWay(t *testing.T) {
	ada := join(t, "ada")
	path := "/conversations/" + ada.group() + "/messages"
	first := ada.call("POST", path, raw(`{"client_msg_id":"w","type":"custom","content":{"a":1,"b":"ü"}}`)).must(200).number("seq")
	for _, same := range []string{
		`{"content":{"b":"ü","a":1},"type":"custom","client_msg_id":"w"}`,
		` { "client_msg_id" : "w" , "type":"custom", "content":{ "a" : 1, "b":"\u00fc" } } `,
		`{"client_msg_id":"w","type":"custom","content":{"a":1,"b":"ü"},"reply_to":0,"receipt":false,"mentions":{},"recipients":[]}`,
	} {
		if a := ada.call("POST", path, raw(same)).must(200); a.number("seq") != first {
			t.Errorf("%s has number %d, the first one %d", same, a.number("seq"), first)
		}
	}
	for _, other := range []string{
		`{"client_msg_id":"w","type":"custom","content":{"a":2,"b":"ü"}}`,
		`{"client_msg_id":"w","type":"custom","content":{"a":1,"b":"ü"},"receipt":true}`,
		`{"client_msg_id":"w","type":"text","content":{"text":"x"}}`,
	} {
		ada.call("POST", path, raw(other)).refused(409, "client_msg_id_conflict", "client_msg_id")
	}
}
