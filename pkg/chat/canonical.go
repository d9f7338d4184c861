package chat

import (
	"bytes"
	"encoding/json"
	"io"
	"unicode/utf8"
)

// CanonicalObject gives a JSON object in the one form that is stored and hashed: keys sorted, the last of equal keys kept,
// no white space, numbers as they were written. It refuses what is not one JSON object in valid UTF-8.
func CanonicalObject(raw []byte) (json.RawMessage, error) {
	if !utf8.Valid(raw) {
		return nil, Refuse(CodeMalformed, "content is not valid UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v map[string]any
	if err := dec.Decode(&v); err != nil {
		return nil, RefuseField(CodeInvalidField, "content", "is not a JSON object").Because(err)
	}
	if v == nil {
		return nil, RefuseField(CodeInvalidField, "content", "is not a JSON object")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, RefuseField(CodeInvalidField, "content", "is more than one JSON value")
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, RefuseField(CodeInvalidField, "content", "is not a JSON object").Because(err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}
