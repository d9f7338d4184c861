package openapitest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"tideline/pkg/chat"
	"tideline/schemas/openapi"
)

func TestDocument_IsValidOpenAPI31(t *testing.T) {
	for _, fault := range Shared(t).Validate() {
		t.Error(fault)
	}
}

// every calls each with all places of a tree, and their JSON pointers.
func every(node any, pointer string, each func(node map[string]any, pointer string)) {
	switch n := node.(type) {
	case map[string]any:
		each(n, pointer)
		for k, v := range n {
			every(v, pointer+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(k), each)
		}
	case []any:
		for i, v := range n {
			every(v, fmt.Sprintf("%s/%d", pointer, i), each)
		}
	}
}

func TestDocument_ExamplesFitTheirSchemas(t *testing.T) {
	tree, err := Tree(openapi.Document)
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	every(tree, "", func(n map[string]any, pointer string) {
		_, hasSchema := n["schema"]
		if n["example"] == nil || !hasSchema {
			return
		}
		checked++
		s, err := Compile(tree, pointer+"/schema")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(n["example"]); err != nil {
			t.Errorf("the example at %s: %v", pointer, err)
		}
	})
	if checked < 20 {
		t.Errorf("only %d examples were found", checked)
	}
}

// An object that allows what it does not name would let undocumented fields pass unnoticed.
func TestDocument_SchemasOfObjectsAreClosed(t *testing.T) {
	tree, err := Tree(openapi.Document)
	if err != nil {
		t.Fatal(err)
	}
	schemas := tree.(map[string]any)["components"].(map[string]any)["schemas"]
	every(schemas, "", func(n map[string]any, pointer string) {
		if _, has := n["properties"].(map[string]any); !has || n["type"] != "object" {
			return
		}
		if n["additionalProperties"] != false {
			t.Errorf("%s allows fields that it does not name", pointer)
		}
	})
}

// The description says that a field which is null is as good as absent.
func TestDocument_OptionalFieldsOfRequestsMayBeNull(t *testing.T) {
	tree, err := Tree(openapi.Document)
	if err != nil {
		t.Fatal(err)
	}
	schemas := tree.(map[string]any)["components"].(map[string]any)["schemas"].(map[string]any)
	checked := 0
	every(tree.(map[string]any)["paths"], "", func(n map[string]any, pointer string) {
		if !strings.HasSuffix(pointer, "/requestBody/content/application~1json") {
			return
		}
		name := strings.TrimPrefix(n["schema"].(map[string]any)["$ref"].(string), "#/components/schemas/")
		schema := schemas[name].(map[string]any)
		required := fmt.Sprint(schema["required"])
		for field := range schema["properties"].(map[string]any) {
			if slices.Contains(strings.Fields(strings.Trim(required, "[]")), field) {
				continue
			}
			checked++
			s, err := Compile(tree, "/components/schemas/"+name+"/properties/"+field)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Validate(nil); err != nil {
				t.Errorf("%s.%s may not be null: %v", name, field, err)
			}
		}
	})
	if checked < 20 {
		t.Errorf("only %d fields were found", checked)
	}
}

func TestDocument_KnowsTheReasonsOfRefusalsAndNoOthers(t *testing.T) {
	tree, err := Tree(openapi.Document)
	if err != nil {
		t.Fatal(err)
	}
	components := tree.(map[string]any)["components"].(map[string]any)
	codes := func(node any) string {
		var list []string
		for _, v := range node.([]any) {
			list = append(list, v.(string))
		}
		return strings.Join(list, " ")
	}
	var all []string
	byStatus := map[int][]string{}
	table := ""
	for _, r := range chat.Reasons() {
		status, retry := "–", "no"
		if r.Status != 0 {
			status = fmt.Sprint(r.Status)
			all = append(all, string(r.Code))
			byStatus[r.Status] = append(byStatus[r.Status], string(r.Code))
		}
		if r.Retryable {
			retry = "yes"
		}
		table += fmt.Sprintf("| `%s` | %s | %s | %s |\n", r.Code, status, retry, r.Meaning)
	}
	if text := tree.(map[string]any)["info"].(map[string]any)["description"].(string); !strings.Contains(text, table) {
		t.Errorf("the table of the description is not this one:\n%s", table)
	}
	schema := components["schemas"].(map[string]any)["Error"].(map[string]any)["properties"].(map[string]any)["code"].(map[string]any)
	if got, want := codes(schema["enum"]), strings.Join(all, " "); got != want {
		t.Errorf("the schema of errors has the codes\n%s\nand the table of reasons\n%s", got, want)
	}
	named := map[int]string{
		400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed", 408: "BodyTimeout", 409: "Conflict", 413: "TooLarge",
		415: "UnsupportedMediaType", 429: "RateLimited", 500: "Internal", 503: "Unavailable", 504: "Timeout",
	}
	for status, want := range byStatus {
		body := components["responses"].(map[string]any)[named[status]].(map[string]any)["content"].(map[string]any)["application/json"].(map[string]any)
		part := body["schema"].(map[string]any)["allOf"].([]any)[1].(map[string]any)["properties"].(map[string]any)["error"].(map[string]any)
		got := codes(part["properties"].(map[string]any)["code"].(map[string]any)["enum"])
		if got != strings.Join(want, " ") {
			t.Errorf("%d has the codes %s in the document, and %v in the table of reasons", status, got, want)
		}
	}
	if len(byStatus) != len(named) {
		t.Errorf("the reasons have %d statuses, the document %d", len(byStatus), len(named))
	}
}

// A check that lets everything pass proves nothing: each of these exchanges breaks the contract in one way.
func TestExchange_RefusesWhatTheDocumentDoesNotHave(t *testing.T) {
	const page = `{"messages":[],"users":{},"min_seq":1,"max_seq":1,"has_more":false}`
	const refused = `{"error":{"code":"muted","message":"no","retryable":false,"request_id":"r1"}}`
	type exchange struct {
		what, method, path, asked string
		status                    int
		answered, header          string
		good                      bool
	}
	for _, x := range []exchange{
		{"a page", "GET", "/conversations/g-5/messages?after=0", "", 200, page, "ETag: \"a1\"\nCache-Control: private, no-cache", true},
		{"a 304", "GET", "/conversations/g-5/messages", "", 304, "", "ETag: \"a1\"\nCache-Control: private, no-cache", true},
		{"a user", "PATCH", "/users/me", `{"nickname":"A"}`, 200, `{"user_id":"5","nickname":"A"}`, "", true},
		{"a refusal", "POST", "/conversations/g-5/messages", `{`, 403, refused, "", true},
		{"nothing", "GET", "/nothing", "", 404, strings.Replace(refused, "muted", "not_found", 1), "", true},

		{"a field that is not documented", "PATCH", "/users/me", `{"nickname":"A"}`, 200, `{"user_id":"5","nickname":"A","age":7}`, "", false},
		{"a field that is missing", "PATCH", "/users/me", `{"nickname":"A"}`, 200, `{"user_id":"5"}`, "", false},
		{"a number for an id", "PATCH", "/users/me", `{"nickname":"A"}`, 200, `{"user_id":5,"nickname":"A"}`, "", false},
		{"a status that is not documented", "PATCH", "/users/me", `{"nickname":"A"}`, 202, `{"user_id":"5","nickname":"A"}`, "", false},
		{"a request that is not documented", "PATCH", "/users/me", `{"age":7}`, 200, `{"user_id":"5","nickname":"A"}`, "", false},
		{"a query that is not documented in its range", "GET", "/conversations/g-5/messages?limit=900", "", 200, page, "ETag: \"a1\"\nCache-Control: private, no-cache", false},
		{"an id of the wrong form", "GET", "/conversations/x-5/messages", "", 200, page, "ETag: \"a1\"\nCache-Control: private, no-cache", false},
		{"a header that is missing", "GET", "/conversations/g-5/messages", "", 200, page, "", false},
		{"a 304 with a body", "GET", "/conversations/g-5/messages", "", 304, page, "ETag: \"a1\"\nCache-Control: private, no-cache", false},
		{"a code that is of another status", "POST", "/conversations/g-5/messages", `{}`, 404, refused, "", false},
		{"a refusal without its request id", "POST", "/conversations/g-5/messages", `{}`, 403, strings.Replace(refused, "r1", "r2", 1), "", false},
		{"being sent away without a time", "POST", "/conversations/g-5/messages", `{}`, 503, strings.Replace(refused, "muted", "unavailable", 1), "", false},
		{"a void without its end", "GET", "/conversations/g-5/messages", "", 200, strings.Replace(page, "[]", `[{"seq":1,"type":"void"}]`, 1), "ETag: \"a1\"\nCache-Control: private, no-cache", false},
		{"a recalled message with its content", "GET", "/conversations/g-5/messages", "", 200,
			strings.Replace(page, "[]", `[{"conversation_id":"g-5","seq":1,"message_id":"9","sender_id":"5","type":"text","content":{},"recalled":true,"sent_at":1}]`, 1),
			"ETag: \"a1\"\nCache-Control: private, no-cache", false},
		{"nothing, in words of its own", "GET", "/nothing", "", 404, `404 page not found`, "", false},
		{"something that is not documented", "GET", "/nothing", "", 200, `{}`, "", false},
	} {
		t.Run(x.what, func(t *testing.T) {
			r, err := http.NewRequest(x.method, "http://127.0.0.1:8080/v1"+x.path, strings.NewReader(x.asked))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			a := &http.Response{StatusCode: x.status, Header: http.Header{"X-Request-Id": {"r1"}, "Content-Type": {"application/json"}}}
			for line := range strings.SplitSeq(x.header, "\n") {
				if name, value, ok := strings.Cut(line, ": "); ok {
					a.Header.Set(name, value)
				}
			}
			faults := Shared(t).Exchange(r, []byte(x.asked), a, []byte(x.answered))
			if x.good != (len(faults) == 0) {
				t.Errorf("good: %t; faults: %v", x.good, faults)
			}
		})
	}
}

func TestDocument_JSONAndYAMLAreOne(t *testing.T) {
	tree, err := Tree(openapi.Document)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(text); err != nil {
		t.Fatal(err)
	}
}
