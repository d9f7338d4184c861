package wire

import (
	"encoding/json"
	"reflect"
	"testing"

	"tideline/pkg/chat"
)

func TestOpenEnvelope(t *testing.T) {
	for _, c := range []struct{ text, id, op, body string }{
		{`{"id":1,"op":"pull","after":16,"conversation_id":"g-1"}`, `1`, `"pull"`, `{"after":16,"conversation_id":"g-1"}`},
		{` {"x" : [1, {"id":2}], "op":{"a":1}, "\u0069d":"y" } `, `"y"`, `{"a":1}`, `{"x":[1, {"id":2}]}`},
		{`{"ID":1,"Op":2}`, ``, ``, `{"ID":1,"Op":2}`}, // a field in another case is another field
		{`{"id":null}`, `null`, ``, ``},
		{`{}`, ``, ``, ``},
	} {
		e, err := OpenEnvelope([]byte(c.text))
		if err != nil || string(e.ID) != c.id || string(e.Op) != c.op || !sameJSON(string(e.Body), c.body) {
			t.Errorf("%s: id %s, op %s, body %s, %v", c.text, e.ID, e.Op, e.Body, err)
		}
	}
	for _, text := range []string{``, `null`, `[]`, `1`, `{`, `{}{}`, `{"id":1,"id":2}`, `{"x":1,"x":2}`, `{"x":{"y":1,"y":2}}`, "{\"x\":\"\xff\"}", `{"id":1}x`} {
		if e, err := OpenEnvelope([]byte(text)); chat.CodeOf(err) != chat.CodeMalformed {
			t.Errorf("%q: %+v, %v", text, e, err)
		}
	}
}

func sameJSON(a, b string) bool {
	if a == "" || b == "" {
		return a == b
	}
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}
