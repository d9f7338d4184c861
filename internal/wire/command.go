package wire

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/proto"

	"tideline/pkg/chat"
	wirev1 "tideline/schemas/wire/tideline/v1"
)

// Content types of im.inbound. A record without the header is protobuf.
const (
	ContentTypeProtobuf = "application/x-protobuf"
	ContentTypeJSON     = "application/json"
)

// EncodeCommand gives a command's protobuf form.
func EncodeCommand(c *chat.Command) []byte {
	b := bodies{c.Message, c.Create, c.Join, c.Leave, c.Role, c.Mute, c.Nickname, c.Update, c.Edit, c.Recall, c.Dissolve}
	return marshal(&wirev1.Command{
		ConversationId: c.Conversation.String(), SenderId: int64(c.Sender), ClientMsgId: c.ClientMsgID,
		OriginalAt: c.OriginalAt, ExpiresAt: c.ExpiresAt, Body: b.encode(),
	})
}

// DecodeCommand reads the value of an im.inbound record. The error is a *chat.Error; the command is returned with it as
// far as it could be read, so that a rejection can name it, and is nil where nothing could be. It is not validated yet.
func DecodeCommand(contentType string, value []byte) (*chat.Command, error) {
	if len(value) > chat.MaxCommandBytes {
		return nil, chat.Refuse(chat.CodeTooLarge, "the record has %d bytes, %d are allowed", len(value), chat.MaxCommandBytes)
	}
	mediaType, _, _ := strings.Cut(contentType, ";")
	switch strings.ToLower(strings.TrimSpace(mediaType)) {
	case "":
		c, err := decodeProtobuf(value)
		if err != nil && !isInvalidField(err) && beginsAsJSON(value) {
			return readNames(value), chat.Refuse(chat.CodeMalformed,
				"the record begins with { and has no content-type header; set content-type=%s", ContentTypeJSON).Because(err)
		}
		return c, err
	case ContentTypeProtobuf, "application/protobuf":
		return decodeProtobuf(value)
	case ContentTypeJSON:
		return decodeJSON(value)
	}
	return nil, chat.RefuseField(chat.CodeNotAcceptable, "content-type", "is neither %s nor %s", ContentTypeProtobuf, ContentTypeJSON)
}

func decodeProtobuf(value []byte) (*chat.Command, error) {
	var w wirev1.Command
	if err := proto.Unmarshal(value, &w); err != nil {
		return nil, chat.Refuse(chat.CodeMalformed, "the record is not a Command").Because(err)
	}
	c := &chat.Command{
		Sender: chat.UserID(w.GetSenderId()), ClientMsgID: w.GetClientMsgId(), OriginalAt: w.GetOriginalAt(), ExpiresAt: w.GetExpiresAt(),
	}
	var b bodies
	c.Type, b = decodeBody(w.GetBody())
	c.Message, c.Create, c.Join, c.Leave, c.Role, c.Mute = b.message, b.create, b.join, b.leave, b.role, b.mute
	c.Nickname, c.Update, c.Edit, c.Recall, c.Dissolve = b.nickname, b.update, b.edit, b.recall, b.dissolve
	id, err := chat.ParseConversationID(w.GetConversationId())
	if err != nil {
		return c, chat.RefuseField(chat.CodeInvalidField, "conversation_id", "is not the id of a conversation").Because(err)
	}
	c.Conversation = id
	if hasUnknown(&w) {
		return c, chat.Refuse(chat.CodeUnknownField, "the Command has a field that this version does not know")
	}
	if c.Type == 0 {
		return c, chat.RefuseField(chat.CodeInvalidField, "body", "is missing")
	}
	return c, nil
}

// hasUnknown tells whether the command, or its body, has fields of a later version: numbering it without them would
// change what the sender meant.
func hasUnknown(w *wirev1.Command) bool {
	if len(w.ProtoReflect().GetUnknown()) > 0 {
		return true
	}
	body := w.GetBody()
	if body == nil {
		return false
	}
	r := body.ProtoReflect()
	if len(r.GetUnknown()) > 0 {
		return true
	}
	field := r.WhichOneof(r.Descriptor().Oneofs().Get(0))
	return field != nil && len(r.Get(field).Message().GetUnknown()) > 0
}

func decodeJSON(value []byte) (*chat.Command, error) {
	var c chat.Command
	if err := DecodeJSON(value, &c); err != nil {
		// It was read as far as the fault, which may come before the names.
		if names := readNames(value); names != nil {
			return names, err
		}
		return &c, err
	}
	return &c, nil
}

// beginsAsJSON reports whether the first byte that is no white space begins a JSON object.
func beginsAsJSON(value []byte) bool {
	value = bytes.TrimLeft(value, " \t\r\n")
	return len(value) > 0 && value[0] == '{'
}

// isInvalidField reports whether a refusal names a field of a record that was readable.
func isInvalidField(err error) bool {
	var refusal *chat.Error
	return errors.As(err, &refusal) && refusal.Code == chat.CodeInvalidField
}

// readNames returns a command with nothing but what a rejection names it by: its conversation, sender and client_msg_id, each
// where it is readable. It returns nil where the value is not a JSON object with each field once.
func readNames(value []byte) *chat.Command {
	var names struct {
		Conversation jsontext.Value `json:"conversation_id"`
		Sender       jsontext.Value `json:"sender_id"`
		ClientMsgID  jsontext.Value `json:"client_msg_id"`
	}
	if !utf8.Valid(value) || json.Unmarshal(value, &names, lenient) != nil {
		return nil
	}
	var c chat.Command
	read := func(from jsontext.Value, into any) {
		if from != nil {
			_ = json.Unmarshal(from, into, lenient) // what does not fit stays unknown
		}
	}
	read(names.Conversation, &c.Conversation)
	read(names.Sender, &c.Sender)
	read(names.ClientMsgID, &c.ClientMsgID)
	return &c
}
