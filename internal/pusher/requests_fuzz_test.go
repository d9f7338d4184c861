package pusher

import (
	"bytes"
	"encoding/json"
	"testing"

	"tideline/pkg/chat"
)

// FuzzRequest_Parse holds for any frame: it is refused with a reason that clients may see, or taken apart into an id that
// can be echoed, an op, and a body that is a JSON object without them. Either way its answer is one JSON object.
func FuzzRequest_Parse(f *testing.F) {
	for _, s := range []string{
		`{"id":1,"op":"pull","conversation_id":"g-1","after":16}`, `{"id":"x","op":"ping"}`, `{"op":"ping"}`, `[]`, `{`, `{"id":1e400,"op":"a"}`,
		`{"id":1,"id":2,"op":"a","op":"b"}`, "\xff", `{"id":"` + "\u2028" + `","op":"\u0000"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		r := request{frame: frame}
		err := r.parse()
		if err != nil && chat.CodeOf(err) == chat.CodeInternal {
			t.Fatalf("%q: %v", frame, err)
		}
		if err == nil {
			var fields map[string]json.RawMessage
			if json.Unmarshal(r.body, &fields) != nil || fields["id"] != nil || fields["op"] != nil || r.op == "" || len(r.id) == 0 {
				t.Fatalf("%q was taken apart into %s %q %s", frame, r.id, r.op, r.body)
			}
		}
		_, payload, unframed := unframe(bytes.NewReader(answer(r.id, r.op, nil, &refusal{Code: chat.CodeMalformed}).bytes))
		if unframed != nil || !json.Valid(payload) {
			t.Fatalf("%q would be answered %q", frame, payload)
		}
	})
}
