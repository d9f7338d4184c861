package handlers

import (
	"bytes"

	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// Decode reads a JSON request strictly: one object, valid UTF-8, no field that the call does not know. The error is a
// *chat.Error.
func Decode(body []byte, into any) error {
	switch trimmed := bytes.TrimSpace(body); {
	case len(trimmed) == 0:
		body = []byte("{}")
	case string(trimmed) == "null": // which would pass for an object without fields
		return chat.Refuse(chat.CodeMalformed, "the body is null, not an object")
	}
	return wire.DecodeJSON(body, into)
}
