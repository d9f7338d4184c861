package api_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
)

func TestUsers_RegisterOnceWhateverTheCase(t *testing.T) {
	v := visitor(t)
	name := "Grace." + uuid.NewString()[:8]
	u := v.call("POST", "/users", m{"username": name, "password": password}).must(201).object()
	if u["nickname"] != name || u["username"] != name {
		t.Errorf("without a nickname somebody is called %v", u)
	}
	for _, other := range []string{name, strings.ToUpper(name), strings.ToLower(name)} {
		v.call("POST", "/users", m{"username": other, "password": "another password"}).refused(409, "username_taken", "username")
	}
	v.call("POST", "/sessions", m{"username": strings.ToUpper(name), "password": password, "platform": "web"}).must(201)
	for _, bad := range []m{
		{"username": name, "password": "wrong wrong", "platform": "web"},
		{"username": "nobody-" + name[:8], "password": password, "platform": "web"},
		{"username": strings.Repeat("a", 65), "password": password, "platform": "web"},
	} {
		v.call("POST", "/sessions", bad).refused(401, "invalid_credentials", "")
	}
}

func TestUsers_AreFoundByTheBeginningOfTheirNameAndById(t *testing.T) {
	p := join(t, "searching")
	begin := "q" + uuid.NewString()[:6]
	var made []string
	for _, rest := range []string{"_b", "_a", "%"} {
		r := p.call("POST", "/users", m{"username": begin + rest, "password": password})
		if rest == "%" {
			r.refused(400, "invalid_field", "username")
			continue
		}
		made = append(made, r.must(201).text("user_id"))
	}
	var found struct {
		Users []struct {
			ID       string `json:"user_id"`
			Username string `json:"username"`
		} `json:"users"`
	}
	p.get("/users?query=" + strings.ToUpper(begin)).must(200).into(&found)
	if len(found.Users) != 2 || found.Users[0].ID != made[1] || found.Users[1].ID != made[0] {
		t.Errorf("in order of name there are %+v", found.Users)
	}
	for _, wild := range []string{"%25%25", "__", begin + "%25"} {
		p.get("/users?query=" + wild).must(200).into(&found)
		for _, u := range found.Users {
			t.Errorf("%s finds %s: what stands for anything in the store must not in a query", wild, u.Username)
		}
	}
	p.get("/users?query=a").refused(400, "invalid_field", "query")
	p.get("/users").refused(400, "invalid_field", "query")
	p.get("/users?query="+strings.Repeat("a", 65)).refused(400, "invalid_field", "query")

	if u := p.get("/users/" + made[0]).must(200).object(); u["username"] != begin+"_b" {
		t.Errorf("%s is %v", made[0], u)
	}
	p.get("/users/77").refused(404, "user_not_found", "")
	for _, bad := range []string{"0", "-5", "05", "abc", "99999999999999999999", "1.5"} {
		p.get("/users/"+bad).refused(400, "invalid_field", "user_id")
	}
	p.call("POST", "/users/batch", m{"user_ids": []string{made[0], "77", made[1]}}).must(200).into(&found)
	if len(found.Users) != 2 {
		t.Errorf("a batch with one who does not exist gives %+v", found.Users)
	}
	p.call("POST", "/users/batch", m{"user_ids": make([]int, 3)}).refused(400, "invalid_field", "user_ids.0")
	ids := make([]string, 501)
	for i := range ids {
		ids[i] = "77"
	}
	p.call("POST", "/users/batch", m{"user_ids": ids}).refused(400, "invalid_field", "user_ids")
}

func TestUsers_ChangeTheirNameAndPicture(t *testing.T) {
	p := join(t, "ada")
	p.call("PATCH", "/users/me", m{"nickname": "Ada Ł. 🛥"}).must(200)
	p.call("PATCH", "/users/me", m{"avatar_url": "https://example.org/a.png"}).must(200)
	if u := p.get("/users/me").must(200).object(); u["nickname"] != "Ada Ł. 🛥" || u["avatar_url"] != "https://example.org/a.png" {
		t.Errorf("one change undid the other: %v", u)
	}
	if u := p.get("/users/" + p.id).must(200).object(); u["nickname"] != "Ada Ł. 🛥" {
		t.Errorf("others see %v", u)
	}
	p.call("PATCH", "/users/me", m{"nickname": ""}).refused(400, "invalid_field", "nickname")
	p.call("PATCH", "/users/me", m{"nickname": " a"}).refused(400, "invalid_field", "nickname")
	p.call("PATCH", "/users/me", m{"nickname": "a\nb"}).refused(400, "invalid_field", "nickname")
	p.call("PATCH", "/users/me", m{"nickname": strings.Repeat("a", 101)}).refused(400, "invalid_field", "nickname")
	p.call("PATCH", "/users/me", m{"avatar_url": "javascript:alert(1)"}).refused(400, "invalid_field", "avatar_url")
	p.call("PATCH", "/users/me", m{"avatar_url": "https://e.org/" + strings.Repeat("a", 1024)}).refused(400, "invalid_field", "avatar_url")
	p.call("PATCH", "/users/me", m{"avatar_url": ""}).must(200)
}

func (p *person) renew(token string, headers ...header) *answer {
	p.t.Helper()
	return p.call("POST", "/sessions/refresh", m{"refresh_token": token}, headers...)
}

func TestSessions_RotateTheirRefreshToken(t *testing.T) {
	p := join(t, "ada")
	first := p.refresh
	a := p.renew(first).must(200)
	if a.text("refresh_token") == first {
		t.Fatal("the refresh token did not change")
	}
	p.token = a.text("access_token")
	p.get("/users/me").must(200)
	a = p.renew(a.text("refresh_token")).must(200)
	p.token = a.text("access_token")
	p.get("/users/me").must(200)
}

func TestSessions_EndWhenASpentRefreshTokenIsUsed(t *testing.T) {
	for _, spent := range []int{0, 1, 2} { // how many newer ones there are besides the one that counts
		p := join(t, "ada")
		list := []string{p.refresh}
		for range 3 {
			a := p.renew(list[len(list)-1]).must(200)
			list = append(list, a.text("refresh_token"))
			p.token = a.text("access_token")
		}
		p.get("/users/me").must(200)
		p.renew(list[spent]).refused(401, "session_revoked", "")
		p.get("/users/me").refused(401, "session_revoked", "")
		p.renew(list[3]).refused(401, "session_revoked", "")
	}
}

func TestSessions_AnOldTokenOfOneSessionLeavesTheOthersAlone(t *testing.T) {
	p := join(t, "ada")
	phone, phoneToken := p.refresh, p.token
	p.login()
	a := p.renew(phone).must(200)
	p.renew(phone).refused(401, "session_revoked", "")
	p.renew(a.text("refresh_token")).refused(401, "session_revoked", "")
	p.get("/users/me").must(200)
	p.token = phoneToken
	p.get("/users/me").refused(401, "session_revoked", "")
}

func TestSessions_GiveTheSameTokenToARetryOfTheSameRefresh(t *testing.T) {
	p := join(t, "ada")
	first, name := p.refresh, header{"Idempotency-Key", key()}
	lost := p.renew(first, name).must(200)
	again := p.renew(first, name).must(200)
	if lost.text("refresh_token") != again.text("refresh_token") {
		t.Error("the retry was given another refresh token: the first answer, if it comes late, would be a theft")
	}
	p.token = again.text("access_token")
	p.get("/users/me").must(200)
	next := p.renew(again.text("refresh_token"), header{"Idempotency-Key", key()}).must(200)

	// Once the new one was used, the old one is a theft, also with its name; and without its name it always is.
	p.renew(first, name).refused(401, "session_revoked", "")
	p.renew(next.text("refresh_token")).refused(401, "session_revoked", "")
	p.login()
	p.renew(p.refresh, name).must(200)
	p.renew(p.refresh, header{"Idempotency-Key", key()}).refused(401, "session_revoked", "")
	p.get("/users/me").refused(401, "session_revoked", "")
}

func TestSessions_GiveOneSessionToARetryOfTheSameLogin(t *testing.T) {
	p := join(t, "ada")
	body := m{"username": p.name, "password": password, "platform": "ios", "device_id": "phone", "client_msg_id": key()}
	p.token = ""
	lost := p.call("POST", "/sessions", body).must(201)
	again := p.call("POST", "/sessions", body).must(201)
	p.token = again.text("access_token")
	p.get("/users/me").must(200)
	// They are one session: the first refresh token is spent, and its use ends both.
	p.renew(lost.text("refresh_token")).refused(401, "session_revoked", "")
	p.get("/users/me").refused(401, "session_revoked", "")
	p.token = ""
	p.call("POST", "/sessions", body).refused(401, "session_revoked", "")
	body["client_msg_id"] = key()
	p.call("POST", "/sessions", body).must(201)
	body["platform"] = "android"
	p.call("POST", "/sessions", body).refused(409, "client_msg_id_conflict", "client_msg_id")
}

func TestSessions_EndAtLogout(t *testing.T) {
	p := join(t, "ada")
	refresh := p.refresh
	if a := p.call("DELETE", "/sessions/current", nil).must(204); len(a.body) > 0 {
		t.Errorf("no content is %q", a.body)
	}
	p.get("/users/me").refused(401, "session_revoked", "")
	p.call("DELETE", "/sessions/current", nil).refused(401, "session_revoked", "")
	p.renew(refresh).refused(401, "session_revoked", "")
}

func TestUsers_ChangeTheirPassword(t *testing.T) {
	p := join(t, "ada")
	other := p.token
	p.login()
	socket, _, err := websocket.DefaultDialer.DialContext(t.Context(), strings.Replace(p.base, "http", "ws", 1)+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	if err := socket.WriteJSON(m{"op": "auth", "id": "1", "token": other}); err != nil {
		t.Fatal(err)
	}
	if _, frame, err := socket.ReadMessage(); err != nil || strings.Contains(string(frame), "error") {
		t.Fatalf("%s, %v", frame, err)
	}
	const fresh = "a longer phrase of mine"
	path, name := "/users/me/password", key()
	p.call("PUT", path, m{"current_password": "wrong word", "new_password": fresh}).refused(401, "invalid_credentials", "current_password")
	p.call("PUT", path, m{"current_password": password, "new_password": "password1"}).refused(400, "invalid_field", "new_password")
	p.call("PUT", path, m{"current_password": password, "new_password": p.name}).refused(400, "invalid_field", "new_password")
	for range 2 { // the second is a retry
		p.call("PUT", path, m{"current_password": password, "new_password": fresh, "client_msg_id": name}).must(204)
	}
	_ = socket.SetReadDeadline(time.Now().Add(patience))
	for err = nil; err == nil; {
		_, _, err = socket.ReadMessage()
	}
	if !websocket.IsCloseError(err, 4501) {
		t.Errorf("a socket of another session ended with %v, want 4501", err)
	}
	p.get("/users/me").must(200)
	mine := p.token
	p.token = other
	p.get("/users/me").refused(401, "session_revoked", "")
	p.token = ""
	p.call("POST", "/sessions", m{"username": p.name, "password": password, "platform": "web"}).refused(401, "invalid_credentials", "")
	second := p.call("POST", "/sessions", m{"username": p.name, "password": fresh, "platform": "web", "device_id": "tablet"}).must(201)

	p.token = mine
	var list struct {
		Sessions []struct {
			ID      string `json:"session_id"`
			Device  string `json:"device_id"`
			Current bool   `json:"current"`
		} `json:"sessions"`
	}
	p.get("/sessions").must(200).into(&list)
	if len(list.Sessions) != 2 || list.Sessions[0].Device != "tablet" || list.Sessions[0].Current || !list.Sessions[1].Current {
		t.Fatalf("sessions are %+v", list)
	}
	stranger := join(t, "eve")
	stranger.call("DELETE", "/sessions/"+list.Sessions[0].ID, nil).refused(404, "not_found", "session_id")
	stranger.call("DELETE", "/sessions/77", nil).refused(404, "not_found", "session_id")
	for range 2 {
		p.call("DELETE", "/sessions/"+list.Sessions[0].ID, nil).must(204)
	}
	p.token = second.text("access_token")
	p.get("/users/me").refused(401, "session_revoked", "")
}

func TestUsers_LogInByTheNormalFormOfTheirName(t *testing.T) {
	p := join(t, "ada")
	p.token = ""
	for name, status := range map[string]int{
		p.name: 201, strings.ToUpper(p.name): 201, "ａ" + p.name[1:]: 201, p.name + " ": 401, " " + p.name: 401, p.name + "\u00a0": 401, p.name + "\u200b": 401, p.name + "\u202e": 401, p.name + "\t": 401,
	} {
		p.call("POST", "/sessions", m{"username": name, "password": password, "platform": "web"}).must(status)
	}
	for _, name := range []string{"bad ", " bad", "bad\u200b", "b\u202ead", "ｂａｄ"} {
		p.call("POST", "/users", m{"username": name, "password": password}).refused(400, "invalid_field", "username")
	}
}

func TestNames_WithNothingToSeeOrTurnedAreRefused(t *testing.T) {
	p := join(t, "ada")
	g := p.group()
	for _, name := range []string{"\u200b", "\u2060\ufeff", "\u3164", "ada\u202enimda", "\u2066x\u2069"} {
		p.call("PATCH", "/users/me", m{"nickname": name}).refused(400, "invalid_field", "nickname")
		p.call("POST", "/groups", m{"name": name}).refused(400, "invalid_field", "name")
		p.call("PATCH", "/groups/"+g, m{"name": name}).refused(400, "invalid_field", "name")
		p.call("PATCH", "/groups/"+g+"/members/me", m{"nickname": name}).refused(400, "invalid_field", "nickname")
	}
	p.call("POST", "/conversations/"+g+"/messages", words("\u200b\u200d")).refused(400, "invalid_field", "content.text")
	for _, url := range []string{"http://example.org/a.png", "https://127.0.0.1/", "https://ada:hush@example.org/", "https://localhost/"} {
		p.call("PATCH", "/users/me", m{"avatar_url": url}).refused(400, "invalid_field", "avatar_url")
		p.call("PATCH", "/groups/"+g, m{"avatar_url": url}).refused(400, "invalid_field", "avatar_url")
	}
}

func TestSessions_TakeNoTokenThatIsNotOurs(t *testing.T) {
	p := join(t, "ada")
	good := p.token
	parts := strings.Split(good, ".")
	for name, token := range map[string]string{
		"none": "", "garbage": "garbage", "half": good[:len(good)/2], "of another signature": parts[0] + "." + parts[1] + ".AAAA",
		"unsigned": "eyJhbGciOiJub25lIn0." + parts[1] + ".", "long": strings.Repeat("a", 3000),
	} {
		t.Run(name, func(t *testing.T) {
			p.token = token
			p.get("/users/me").refused(401, "unauthenticated", "")
		})
	}
	p.token = ""
	p.get("/users/me", header{"Authorization", "Basic " + good}).refused(401, "unauthenticated", "")
	for _, refresh := range []string{"", "garbage", p.refresh[:20], p.refresh[:62] + "AA", strings.Repeat("a", 200)} {
		p.renew(refresh).refused(401, "session_revoked", "")
	}
	p.token = good
	p.get("/users/me").must(200)
	p.renew(p.refresh).must(200)
}

func TestAdmin_IsForAdministratorsOnly(t *testing.T) {
	p := join(t, "ada")
	people := m{"users": []m{{"external_id": "crm:" + key(), "nickname": "Old Ada"}, {"external_id": "crm:" + key(), "nickname": "Bo"}}}
	p.call("POST", "/admin/users", people).refused(401, "unauthenticated", "")
	p.token = adminToken
	first := p.call("POST", "/admin/users", people).must(200)
	if again := p.call("POST", "/admin/users", people).must(200); string(again.body) != string(first.body) {
		t.Errorf("the same people are %s and then %s", first.body, again.body)
	}
	// A known person is found without a nickname; where one of several is not, nothing is made.
	known := people["users"].([]m)
	lookup := []m{{"external_id": known[0]["external_id"]}, {"external_id": known[1]["external_id"]}}
	if found := p.call("POST", "/admin/users", m{"users": lookup}).must(200); string(found.body) != string(first.body) {
		t.Errorf("without nicknames the same people are %s, not %s", found.body, first.body)
	}
	fresh := m{"external_id": "crm:" + key(), "nickname": "Cy"}
	unknown := m{"external_id": "crm:" + key()}
	p.call("POST", "/admin/users", m{"users": []m{lookup[0], fresh, unknown}}).refused(400, "invalid_field", "users.nickname")
	p.call("POST", "/admin/users", m{"users": []m{{"external_id": fresh["external_id"]}}}).refused(400, "invalid_field", "users.nickname")
	p.get("/users/me").refused(401, "unauthenticated", "")
	id := first.object()["users"].([]any)[0].(m)["user_id"]
	reserve := m{"creator_id": id, "client_msg_id": key()}
	admission := m{"user_id": id, "platform": "web", "client_msg_id": key()}
	session := p.call("POST", "/admin/sessions", admission).must(201)
	if again := p.call("POST", "/admin/sessions", admission).must(201); again.text("access_token") == "" {
		t.Fatal("the retry was given no token")
	}
	p.call("POST", "/admin/sessions", m{"user_id": "77", "platform": "web"}).refused(404, "user_not_found", "user_id")
	p.call("POST", "/admin/sessions", m{"user_id": id, "platform": "toaster"}).refused(400, "invalid_field", "platform")
	guest := visitor(t)
	guest.token = session.text("access_token")
	if me := guest.get("/users/me").must(200).text("user_id"); me != id {
		t.Fatalf("who was admitted is %s, not %s", me, id)
	}
	guest.call("POST", "/admin/sessions", admission).refused(401, "unauthenticated", "")
	g := p.call("POST", "/admin/groups/reserve", reserve).must(200).text("conversation_id")
	if again := p.call("POST", "/admin/groups/reserve", reserve).must(200).text("conversation_id"); again != g {
		t.Errorf("one name reserved %s and %s", g, again)
	}
	p.call("POST", "/admin/groups/reserve", m{"creator_id": "77", "client_msg_id": "a"}).refused(404, "user_not_found", "creator_id")
	p.call("POST", "/admin/groups/reserve", m{"creator_id": id}).refused(400, "invalid_field", "client_msg_id")
	p.call("POST", "/admin/users", m{"users": []m{}}).refused(400, "invalid_field", "users")
	p.call("POST", "/admin/users", m{"users": []m{{"external_id": "", "nickname": "a"}}}).refused(400, "invalid_field", "users.external_id")
	p.call("POST", "/admin/users", m{"users": []m{{"external_id": "a", "nickname": ""}}}).refused(400, "invalid_field", "users.nickname")
	p.call("POST", "/admin/users", m{"users": []m{{"external_id": "a", "nickname": "a", "user_id": "5"}}}).refused(400, "unknown_field", "users.0.user_id")
}

func TestDocument_IsServedInBothForms(t *testing.T) {
	v := visitor(t)
	var document struct {
		OpenAPI string `json:"openapi"`
	}
	a := v.get("/openapi.json").must(200)
	if err := json.Unmarshal(a.body, &document); err != nil || document.OpenAPI != "3.1.0" {
		t.Errorf("%v: %+v", err, document)
	}
	if a.header.Get("Content-Type") != "application/json" {
		t.Error(a.header)
	}
	v.get("/openapi.json", header{"If-None-Match", a.header.Get("ETag")}).must(304)
	if y := v.get("/openapi.yaml").must(200); !strings.HasPrefix(string(y.body), "openapi: 3.1.0\n") {
		t.Errorf("%.80s", y.body)
	}
}
