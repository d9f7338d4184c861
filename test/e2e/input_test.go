package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"tideline/test/platform"
)

// TestStandalone_RefusesBadInputClearly sends what clients send by mistake, and expects the contract's form of a refusal
// each time, and that nothing else noticed.
func TestStandalone_RefusesBadInputClearly(t *testing.T) {
	pf := platform.Standalone(t)
	ada, eve := pf.Join(t, "ada"), pf.Join(t, "eve")
	var g struct {
		ID string `json:"conversation_id"`
	}
	ada.Eventually(201, "POST", "/groups", map[string]any{"name": "Dock"}, &g)
	messages := "/conversations/" + g.ID + "/messages"
	message := func(change string) string {
		return `{"client_msg_id":"x","type":"text","content":{"text":"a"}` + change + `}`
	}
	for _, c := range []struct {
		who          *platform.Person
		method, path string
		body         string
		status       int
		code, field  string
	}{
		{ada, "POST", messages, `{"client_msg_id":`, 400, "malformed", ""},
		{ada, "POST", messages, message(`,"colour":1`), 400, "unknown_field", "colour"},
		{ada, "POST", messages, message(`,"reply_to":"one"`), 400, "invalid_field", "reply_to"},
		{ada, "POST", messages, message(`,"reply_to":99`), 400, "invalid_field", "reply_to"},
		{ada, "POST", messages, "{\"client_msg_id\":\"x\",\"type\":\"text\",\"content\":{\"text\":\"\xff\"}}", 400, "malformed", ""},
		{ada, "POST", messages, `{"type":"text","content":{"text":"a"}}`, 400, "invalid_field", "client_msg_id"},
		{ada, "POST", messages, `{"client_msg_id":"x","type":"text","content":{"text":"` + strings.Repeat("a", 70_000) + `"}}`, 413, "too_large", "content"},
		{ada, "POST", messages, strings.Repeat(" ", 2<<20), 413, "too_large", ""},
		{ada, "POST", "/conversations/g-0/messages", message(""), 400, "invalid_field", "conversation_id"},
		{ada, "POST", "/conversations/g-77/messages", message(""), 404, "conversation_not_found", ""},
		{eve, "POST", messages, message(""), 404, "conversation_not_found", ""},
		{eve, "GET", messages, "", 404, "conversation_not_found", ""},
		{ada, "GET", messages + "?limit=1000", "", 400, "invalid_field", "limit"},
		{ada, "GET", messages + "?after=1&before=2", "", 400, "invalid_field", "after"},
		{ada, "GET", messages + "?after=-1", "", 400, "invalid_field", "after"},
		{ada, "GET", messages + "?told=999", "", 503, "unavailable", ""},
		{ada, "PUT", "/conversations/" + g.ID + "/read", `{}`, 400, "invalid_field", "seq"},
		{ada, "POST", "/sync", `{"cursor":"forged"}`, 400, "invalid_field", "cursor"},
		{ada, "POST", "/groups", `{"name":"x","member_ids":["5"]}`, 404, "user_not_found", "member_ids"},
		{ada, "DELETE", "/groups/" + g.ID + "/members/me", "", 403, "forbidden", ""},
		{ada, "DELETE", messages + "/99", "", 404, "message_not_found", ""},
		{ada, "GET", "/nothing", "", 404, "not_found", ""},
		{ada, "PATCH", "/sync", "", 405, "method_not_allowed", ""},
		{ada, "POST", "/sessions", `{"username":"ada","password":"wrong wrong","platform":"web"}`, 401, "invalid_credentials", ""},
		{ada, "POST", "/users", `{"username":"ADA","password":"another one"}`, 409, "username_taken", "username"},
		{ada, "POST", "/admin/users", `{"users":[]}`, 401, "unauthenticated", ""},
	} {
		name := fmt.Sprintf("%s %s %.60s", c.method, c.path, c.body)
		r, err := http.NewRequest(c.method, c.who.Base+"/v1"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+c.who.Token)
		r.Header.Set("Content-Type", "application/json")
		res, err := c.who.HTTP.Do(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var a struct {
			Error struct {
				Code, Message, Field string
				RequestID            string `json:"request_id"`
			}
		}
		err = json.NewDecoder(res.Body).Decode(&a)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != c.status || a.Error.Code != c.code || a.Error.Field != c.field {
			t.Errorf("%s\n answered %d %+v (%v), want %d %s (%s)", name, res.StatusCode, a.Error, err, c.status, c.code, c.field)
		}
		if a.Error.RequestID == "" || a.Error.RequestID != res.Header.Get("X-Request-Id") || a.Error.Message == "" {
			t.Errorf("%s: the refusal is %+v, and X-Request-Id %q", name, a.Error, res.Header.Get("X-Request-Id"))
		}
	}
	if s := ada.Send(g.ID, "fine", "nobody else noticed"); s.Seq != 2 {
		t.Errorf("the first message has number %d", s.Seq)
	}
}
