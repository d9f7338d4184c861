package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tideline/schemas/openapi/openapitest"
)

// plain asks without holding the answer against the document, and may repeat headers.
func (p *person) plain(method, path, body string, headers ...header) *answer {
	p.t.Helper()
	r, err := http.NewRequest(method, p.base+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if p.token != "" {
		r.Header.Set("Authorization", "Bearer "+p.token)
	}
	for _, h := range headers {
		r.Header[h.name] = append(r.Header[h.name], h.value)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return &answer{p.t, method + " " + path, res.StatusCode, res.Header, text}
}

// addresses fills the templates of the document with what is there.
type addresses struct{ cid, uid, seq string }

var templateField = regexp.MustCompile(`\{[a-z_]+\}`)

func (a addresses) of(path string) string {
	return templateField.ReplaceAllStringFunc(path, func(field string) string {
		switch field {
		case "{cid}":
			return a.cid
		case "{uid}":
			return a.uid
		case "{seq}":
			return a.seq
		}
		return "1"
	})
}

// Every call that takes a name for a change refuses a name that is none. The table ranges over the document.
func TestChanges_ANameMustBeOne(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	admin := visitor(t)
	admin.token = adminToken
	cid := ada.group(bob)
	at := addresses{cid, bob.id, fmt.Sprint(ada.say(cid, "x"))}
	json := header{"Content-Type", "application/json"}
	tried := 0
	for path, item := range openapitest.Shared(t).Model().Paths.PathItems.FromOldest() {
		for method, op := range item.GetOperations().FromOldest() {
			takes := false
			for _, p := range op.Parameters {
				takes = takes || p.Name == "Idempotency-Key"
			}
			if !takes {
				continue
			}
			tried++
			p, method := ada, strings.ToUpper(method)
			if strings.HasPrefix(path, "/admin/") {
				p = admin
			}
			address := at.of(path)
			const key = "Idempotency-Key"
			for name, a := range map[string]*answer{
				"empty header":                  p.plain(method, address, "", header{key, ""}),
				"header of white space":         p.plain(method, address, "", header{key, "  "}),
				"two headers":                   p.plain(method, address, "", header{key, "a"}, header{key, "b"}),
				"two equal headers":             p.plain(method, address, "", header{key, "a"}, header{key, "a"}),
				"two headers, one in body":      p.plain(method, address, `{"client_msg_id":"a"}`, json, header{key, "a"}, header{key, "a"}),
				"header of 65 bytes":            p.plain(method, address, "", header{key, strings.Repeat("n", 65)}),
				"empty in the body":             p.plain(method, address, `{"client_msg_id":""}`, json),
				"empty in the body, header":     p.plain(method, address, `{"client_msg_id":""}`, json, header{key, "a"}),
				"empty header, one in the body": p.plain(method, address, `{"client_msg_id":"a"}`, json, header{key, ""}),
				"65 bytes in the body":          p.plain(method, address, `{"client_msg_id":"`+strings.Repeat("n", 65)+`"}`, json),
				"body and header differ":        p.plain(method, address, `{"client_msg_id":"a"}`, json, header{key, "b"}),
				"control character":             p.plain(method, address, `{"client_msg_id":"a\u0001"}`, json),
			} {
				a.call += " with " + name
				a.refused(400, "invalid_field", "client_msg_id")
			}
		}
	}
	if tried < 15 {
		t.Errorf("only %d calls were tried", tried)
	}
	ada.get("/users/me").must(200) // the session did not end
	if got := ada.pull(cid, "?limit=1"); fmt.Sprint(got.MaxSeq) != at.seq {
		t.Errorf("refused changes were numbered: %d, want %s", got.MaxSeq, at.seq)
	}
}

// What the document requires is required, and a page of nothing is no page.
func TestInput_MissingAndZeroAreRefused(t *testing.T) {
	ada := join(t, "ada")
	cid := ada.group()
	seq := ada.say(cid, "x")
	for _, c := range []struct{ name, method, path, body, field string }{
		{"batch without ids", "POST", "/users/batch", `{}`, "user_ids"},
		{"batch of null", "POST", "/users/batch", `{"user_ids":null}`, "user_ids"},
		{"batch of a null", "POST", "/users/batch", `{"user_ids":[null]}`, "user_ids"},
		{"batch without a body", "POST", "/users/batch", ``, "user_ids"},
		{"password without the current one", "PUT", "/users/me/password", `{"client_msg_id":"a","new_password":"` + password + `"}`, "current_password"},
		{"profile without a body", "PATCH", "/users/me", ``, "nickname"},
		{"profile without a change", "PATCH", "/users/me", `{}`, "nickname"},
		{"profile with a name of the change alone", "PATCH", "/users/me", `{"client_msg_id":"a"}`, "nickname"},
		{"profile of nulls", "PATCH", "/users/me", `{"nickname":null,"avatar_url":null}`, "nickname"},
		{"group without a change", "PATCH", "/groups/" + cid, `{}`, ""},
		{"member without a change", "PATCH", "/groups/" + cid + "/members/" + ada.id, ``, "role"},
		{"members of limit 0", "GET", "/groups/" + cid + "/members?limit=0", ``, "limit"},
		{"messages of limit 0", "GET", "/conversations/" + cid + "/messages?limit=0", ``, "limit"},
		{"readers of limit 0", "GET", fmt.Sprintf("/conversations/%s/receipts/%d/readers?limit=0", cid, seq), ``, "limit"},
		{"messages of limit -0", "GET", "/conversations/" + cid + "/messages?limit=-0", ``, "limit"},
		{"messages of an empty limit", "GET", "/conversations/" + cid + "/messages?limit=", ``, "limit"},
	} {
		a := ada.plain(c.method, c.path, c.body, header{"Content-Type", "application/json"})
		a.call = c.name
		a.refused(400, "invalid_field", c.field)
	}
	ada.call("POST", "/users/batch", m{"user_ids": []string{}}).must(200)
}

// Lengths are in characters, of whatever size in bytes.
func TestInput_LengthsAreInCharacters(t *testing.T) {
	ada, admin := join(t, "ada"), visitor(t)
	admin.token = adminToken
	login := func(device string) *answer {
		return visitor(t).call("POST", "/sessions", m{"username": ada.name, "password": password, "platform": "web", "device_id": device})
	}
	for _, letter := range []string{"a", "é", "漢", "🙂"} {
		login(strings.Repeat(letter, 128)).must(201)
		login(strings.Repeat(letter, 129)).refused(400, "invalid_field", "device_id")
		admin.call("POST", "/admin/sessions", m{"user_id": ada.id, "platform": "web", "device_id": strings.Repeat(letter, 128)}).must(201)
		admin.call("POST", "/admin/sessions", m{"user_id": ada.id, "platform": "web", "device_id": strings.Repeat(letter, 129)}).refused(400, "invalid_field", "device_id")
		ada.get("/users?query="+letter).refused(400, "invalid_field", "query")
		ada.get("/users?query=" + strings.Repeat(letter, 2)).must(200)
		ada.get("/users?query=" + strings.Repeat(letter, 64)).must(200)
		ada.get("/users?query="+strings.Repeat(letter, 65)).refused(400, "invalid_field", "query")
		ada.call("PATCH", "/users/me", m{"nickname": strings.Repeat(letter, 100)}).must(200)
		ada.call("PATCH", "/users/me", m{"nickname": strings.Repeat(letter, 101)}).refused(400, "invalid_field", "nickname")
		register := func(password string) *answer {
			return visitor(t).call("POST", "/users", m{"username": "p" + key()[24:], "password": password})
		}
		register(strings.Repeat(letter, 7)).refused(400, "invalid_field", "password")
		register(strings.Repeat(letter, 257)).refused(400, "invalid_field", "password")
	}
	long := strings.Repeat("漢", 256)
	p := visitor(t)
	name := "p" + key()[24:]
	p.call("POST", "/users", m{"username": name, "password": long}).must(201)
	p.call("POST", "/sessions", m{"username": name, "password": long, "platform": "web"}).must(201)
}

func TestInput_JSONIsNamedInAnyCase(t *testing.T) {
	ada := join(t, "ada")
	for _, kind := range []string{"application/json", "APPLICATION/JSON", "Application/Json; charset=UTF-8", "application/json;charset=utf-8"} {
		ada.plain("PATCH", "/users/me", `{"nickname":"Ada"}`, header{"Content-Type", kind}, header{"Sec-Fetch-Site", "cross-site"}).must(200)
	}
}

// The size of content is what is left without white space.
func TestSend_WhiteSpaceIsNotContent(t *testing.T) {
	ada := join(t, "ada")
	cid := ada.group()
	rows := make([]any, 1800)
	for i := range rows {
		rows[i] = []any{i, i, []any{i}}
	}
	compact, err := json.Marshal(m{"rows": rows})
	if err != nil {
		t.Fatal(err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, compact, "", "       "); err != nil {
		t.Fatal(err)
	}
	if len(compact) > 40<<10 || indented.Len() < 290_000 || indented.Len() > 500_000 {
		t.Fatalf("%d bytes are indented to %d", len(compact), indented.Len())
	}
	body := raw(`{"client_msg_id":"i","type":"custom","content":` + indented.String() + `}`)
	seq := ada.call("POST", "/conversations/"+cid+"/messages", body).must(200).number("seq")
	again := raw(`{"client_msg_id":"i","type":"custom","content":` + string(compact) + `}`)
	if got := ada.call("POST", "/conversations/"+cid+"/messages", again).must(200).number("seq"); got != seq {
		t.Errorf("the same without white space has number %d, want %d", got, seq)
	}
}

// Every path of the document refuses every other method, and says which it takes.
func TestMethods_OthersAreRefusedWithAllow(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	cid := ada.group(bob)
	at := addresses{cid, bob.id, fmt.Sprint(ada.say(cid, "x"))}
	for path, item := range openapitest.Shared(t).Model().Paths.PathItems.FromOldest() {
		var takes []string
		for method := range maps.Collect(item.GetOperations().FromOldest()) {
			takes = append(takes, strings.ToUpper(method))
		}
		if slices.Contains(takes, "GET") && path != "/ws" {
			takes = append(takes, "HEAD")
		}
		slices.Sort(takes)
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} {
			if slices.Contains(takes, method) {
				continue
			}
			for _, p := range []*person{ada, visitor(t)} { // with a token and without
				a := p.plain(method, at.of(path), "")
				if a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != strings.Join(takes, ", ") {
					t.Errorf("%s %s is answered %d with Allow %q, want 405 with %q", method, path, a.status, a.header.Get("Allow"), strings.Join(takes, ", "))
				}
			}
		}
	}
	ada.plain("POST", "/nothing", "").refused(404, "not_found", "")
}

// HEAD has the status and the headers of GET, and no body.
func TestMethods_HeadAnswersAsGetWithoutABody(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	cid := ada.group(bob)
	at := addresses{cid, bob.id, fmt.Sprint(ada.say(cid, "x"))}
	for path, item := range openapitest.Shared(t).Model().Paths.PathItems.FromOldest() {
		if item.Get == nil || path == "/ws" {
			continue
		}
		for _, p := range []*person{ada, visitor(t)} {
			get, head := p.plain("GET", at.of(path), ""), p.plain("HEAD", at.of(path), "")
			if head.status != get.status || len(head.body) != 0 {
				t.Errorf("HEAD %s is answered %d with %d bytes, GET %d", path, head.status, len(head.body), get.status)
			}
			for _, name := range []string{"Content-Type", "Cache-Control", "ETag", "X-Content-Type-Options", "Content-Length"} {
				if g, h := get.header.Get(name), head.header.Get(name); g != h {
					t.Errorf("HEAD %s has %s %q, GET %q", path, name, h, g)
				}
			}
		}
	}
}

// Metrics have the template of a route, and one value for what has none, whatever clients make up.
func TestMetrics_HaveTheRouteAndNotThePath(t *testing.T) {
	ada := join(t, "ada")
	cid := ada.group()
	ada.get("/groups/" + cid).must(200)
	for i := range 50 {
		ada.plain("GET", fmt.Sprintf("/made-up/%d", i), "").must(404)
		ada.plain("GET", fmt.Sprintf("/users/%d", i+1), "")
		ada.plain(fmt.Sprintf("MADEUP%d", i), "/users/me", "").must(405)
		ada.plain(fmt.Sprintf("MADEUP%d", i), "/users/5", "").must(405)
	}
	families, err := theRig(t).parts.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"unknown unknown": true}
	for path, item := range openapitest.Shared(t).Model().Paths.PathItems.FromOldest() {
		for method := range item.GetOperations().FromOldest() {
			known[strings.ToUpper(method)+" /v1"+templateField.ReplaceAllStringFunc(path, func(f string) string { return ":" + strings.Trim(f, "{}") })] = true
		}
	}
	seen := map[string]bool{}
	for _, f := range families {
		if f.GetName() != "tideline_http_requests_total" && f.GetName() != "tideline_http_seconds" {
			continue
		}
		for _, metric := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range metric.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			route := labels["method"] + " " + labels["route"]
			seen[f.GetName()+" "+route] = true
			if !known[route] {
				t.Errorf("%s has the route %q", f.GetName(), route)
			}
		}
	}
	for _, want := range []string{"tideline_http_requests_total GET /v1/groups/:cid", "tideline_http_seconds GET /v1/groups/:cid", "tideline_http_requests_total unknown unknown"} {
		if !seen[want] {
			t.Errorf("there is no %s", want)
		}
	}
}

// A message of one's own says that what is before it was read.
func TestSend_AReplyClearsTheUnreadOfItsSender(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	cid := ada.group(bob)
	said := ada.say(cid, "one")
	view := func() (unread, read float64) {
		bob.pull(cid, fmt.Sprintf("?limit=1&told=%d", said))
		v := bob.get("/conversations/" + cid).must(200).object()
		unread, _ = v["unread"].(float64)
		read, _ = v["read_seq"].(float64)
		return unread, read
	}
	if unread, _ := view(); unread != 1 {
		t.Fatalf("before the reply %v are unread, want 1", unread)
	}
	said = bob.say(cid, "two")
	eventually(t, "nothing is unread after the reply", func() bool {
		unread, _ := view()
		return unread == 0
	})
}
