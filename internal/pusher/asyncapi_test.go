package pusher

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"tideline/pkg/chat"
	"tideline/schemas/asyncapi"
)

// contract gives the schemas of the AsyncAPI document, compiled.
func contract(t *testing.T) (schema func(name string) *jsonschema.Schema, document map[string]any) {
	t.Helper()
	var tree any
	if err := yaml.Unmarshal(asyncapi.Document, &tree); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft7) // what AsyncAPI 3.0 builds on
	if err := compiler.AddResource("asyncapi.json", loaded); err != nil {
		t.Fatal(err)
	}
	return func(name string) *jsonschema.Schema {
		s, err := compiler.Compile("asyncapi.json#/components/schemas/" + name)
		if err != nil {
			t.Fatalf("the schema %s: %v", name, err)
		}
		return s
	}, loaded.(map[string]any)
}

func TestAsyncAPI_ExamplesFitTheirSchemas(t *testing.T) {
	schema, document := contract(t)
	messages := document["components"].(map[string]any)["messages"].(map[string]any)
	for name, m := range messages {
		examples := m.(map[string]any)["examples"].([]any)
		for i, e := range examples {
			if err := schema(name).Validate(e.(map[string]any)["payload"]); err != nil {
				t.Errorf("example %d of %s: %v", i, name, err)
			}
		}
	}
}

// TestAsyncAPI_HoldsForEveryFrameThatTheServerSends lets a server say everything that it can say.
func TestAsyncAPI_HoldsForEveryFrameThatTheServerSends(t *testing.T) {
	schema, document := contract(t)
	r := newRig(t, nil)
	private := chat.PrivateConversation(7, 8)
	for _, u := range []chat.UserID{7, 8} {
		r.store.join(u, group(1), 1, 0)
		r.store.join(u, private, 0, 0)
	}
	c, eight := r.login("7.1"), r.login("8.2")
	for _, text := range []string{
		`{"id":1,"op":"auth","token":"7.1"}`, `{"id":"a","op":"ping"}`, `{"id":2,"op":"pull"}`, `{"id":3,"op":"dance"}`, `{`, `{"op":"ping"}`,
		fmt.Sprintf(`{"id":4,"op":"watch","conversation_ids":["g-1","%s"]}`, private), `{"id":5,"op":"unwatch","conversation_ids":["g-9"]}`, `{"id":6,"op":"typing","conversation_id":"g-1"}`,
	} {
		c.send(text)
	}
	// The rest is said once the watching stands.
	seen := map[string]bool{}
	told := false
	for deadline := time.Now().Add(patience); !seen["kick"]; {
		_ = c.ws.SetReadDeadline(deadline)
		kind, text, err := c.ws.ReadMessage()
		if err != nil || kind != websocket.TextMessage {
			t.Fatalf("%v; seen so far: %v", err, seen)
		}
		frame, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		m := frame.(map[string]any)
		op := m["op"].(string)
		name := op
		if m["result"] != nil || m["error"] != nil {
			name = "answer"
		}
		if err := schema(name).Validate(frame); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		seen[name] = true
		if op == "watch" && !told {
			told = true
			r.p.TakeNotify(notify(group(1), 5))
			r.p.TakeMark(chat.ReadMark{User: 7, Conversation: group(1), Seq: 5, Session: "9"})
			r.p.TakeMark(chat.ReadMark{User: 8, Conversation: private, Seq: 5, Session: "2"})
			eight.ask("typing", map[string]any{"conversation_id": "g-1"})
			_ = eight.ws.Close()
		}
		if told && seen["hint"] && seen["read"] && seen["receipt"] && seen["typing"] && seen["presence"] {
			r.p.takeRevoked("1")
		}
	}
	c.mustClose(CloseSessionRevoked)
	for name := range document["components"].(map[string]any)["messages"].(map[string]any) {
		if name != "request" && !seen[name] {
			t.Errorf("%s was never sent", name)
		}
	}
}
