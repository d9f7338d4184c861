package handlers

import (
	"bytes"
	"encoding/json"
	"io"
	"unicode/utf8"

	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// Decode reads a JSON request strictly: one object, valid UTF-8, no field that the call does not know. The error is a
// *chat.Error.
func Decode(body []byte, into any) error {
	if !utf8.Valid(body) {
		return chat.Refuse(chat.CodeMalformed, "the body is not valid UTF-8")
	}
	switch trimmed := bytes.TrimSpace(body); {
	case len(trimmed) == 0:
		body = []byte("{}")
	case string(trimmed) == "null": // which would pass for an object without fields
		return chat.Refuse(chat.CodeMalformed, "the body is null, not an object")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return wire.RefuseJSON(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return chat.Refuse(chat.CodeMalformed, "the body is more than one JSON value")
	}
	return nil
}
