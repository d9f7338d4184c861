package wire

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tideline/pkg/chat"
)

// strict is how JSON is read that others wrote: encoding/json would take a field in any case and, of a field that stands
// there twice, the last, so that two readers of one text could see two commands in it.
var strict = json.JoinOptions(json.RejectUnknownMembers(true), lenient)

// DecodeJSON reads a text that is one JSON value, as far as it goes. The error is a *chat.Error that names the field at
// fault where there is one: malformed, unknown_field or invalid_field.
func DecodeJSON(text []byte, into any) error {
	if !utf8.Valid(text) {
		return chat.Refuse(chat.CodeMalformed, "the text is not valid UTF-8")
	}
	if err := json.Unmarshal(text, into, strict); err != nil {
		return refuseJSON(err)
	}
	return nil
}

// lenient reads what is looked at again by somebody who knows the fields.
var lenient = json.JoinOptions(json.MatchCaseInsensitiveNames(false), jsontext.AllowDuplicateNames(false))

// Envelope is the outside of a request: what is read before anybody knows which fields it may have.
type Envelope struct {
	// ID and Op are as they were written, or nil.
	ID jsontext.Value `json:"id"`
	Op jsontext.Value `json:"op"`
	// Body is the object without them, or nil where it has nothing else.
	Body jsontext.Value `json:",embed"`
}

// OpenEnvelope takes a text apart that must be one JSON object, with each field once.
func OpenEnvelope(text []byte) (e Envelope, err error) {
	if jsontext.Value(text).Kind() != '{' {
		return Envelope{}, chat.Refuse(chat.CodeMalformed, "the text is not a JSON object")
	}
	if err := json.Unmarshal(text, &e, lenient); err != nil {
		return e, refuseJSON(err)
	}
	return e, nil
}

func refuseJSON(err error) *chat.Error {
	var refused *chat.Error
	if errors.As(err, &refused) {
		return refused
	}
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return chat.RefuseField(chat.CodeMalformed, path(syntactic.JSONPointer), "stands there twice").Because(err)
		}
		return chat.Refuse(chat.CodeMalformed, "the text is not one JSON value: see byte %d", syntactic.ByteOffset).Because(err)
	}
	var semantic *json.SemanticError
	if !errors.As(err, &semantic) {
		return chat.Refuse(chat.CodeMalformed, "the text is not the JSON that belongs here").Because(err)
	}
	field := path(semantic.JSONPointer)
	switch {
	case errors.Is(err, json.ErrUnknownName) && field == "": // {"": …} has a field, whose name is nothing
		return chat.Refuse(chat.CodeUnknownField, "a field without a name is not known here").Because(err)
	case field == "":
		return chat.Refuse(chat.CodeMalformed, "the text is %s, which does not belong here", kinds[semantic.JSONKind]).Because(err)
	case errors.Is(err, json.ErrUnknownName):
		return chat.RefuseField(chat.CodeUnknownField, field, "is not known here")
	case errors.Is(err, chat.ErrMalformedID):
		return chat.RefuseField(chat.CodeInvalidField, field, "%s", semantic.Err.Error()).Because(err)
	}
	return chat.RefuseField(chat.CodeInvalidField, field, "is %s, which does not fit here", kinds[semantic.JSONKind]).Because(err)
}

// maxFieldBytes bounds what a refusal gives back as the name of a field: the sender may have made up one of any length, and
// refusals are kept.
const maxFieldBytes = 128

// path writes a pointer in the way that fields are named to clients: message.recipients.3.
func path(p jsontext.Pointer) string {
	var b strings.Builder
	for name := range p.Tokens() {
		if b.WriteString("." + name); b.Len() > maxFieldBytes+1 {
			return strings.ToValidUTF8(b.String()[1:maxFieldBytes+1], "")
		}
	}
	return strings.TrimPrefix(b.String(), ".")
}

var kinds = map[jsontext.Kind]string{
	0: "something", 'n': "null", 't': "true", 'f': "false", '"': "a string", '0': "a number", '{': "an object", '[': "an array",
}
