package chat

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Validate judges the shape of a command: everything that can be judged without knowing the conversation. It brings the
// content into canonical form and makes lists of users sets. The error is an *Error.
func (c *Command) Validate() error {
	if c.Conversation.IsZero() {
		return RefuseField(CodeInvalidField, "conversation_id", "is missing")
	}
	if k := c.Conversation.Kind; k == KindSystem || k == KindBroadcast {
		return RefuseField(CodeUnsupported, "conversation_id", "system conversations take no commands")
	}
	if c.Sender <= 0 {
		return RefuseField(CodeInvalidField, "sender_id", "is missing")
	}
	if err := ValidateClientMsgID(c.ClientMsgID); err != nil {
		return err
	}
	if c.OriginalAt < 0 || c.ExpiresAt < 0 {
		return RefuseField(CodeInvalidField, "original_at", "times are milliseconds since 1970")
	}
	if err := c.exactlyOneBody(); err != nil {
		return err
	}
	if c.Conversation.Kind == KindPrivate {
		switch c.Type {
		case KindMessage, KindEdit, KindRecall:
		default:
			return RefuseField(CodeUnsupported, "type", "a private conversation knows no %s", c.Type)
		}
	}
	return c.validateBody()
}

func (c *Command) exactlyOneBody() error {
	bodies := map[Kind]bool{
		KindMessage: c.Message != nil, KindCreate: c.Create != nil, KindJoin: c.Join != nil, KindLeave: c.Leave != nil,
		KindRole: c.Role != nil, KindMute: c.Mute != nil, KindNickname: c.Nickname != nil, KindUpdate: c.Update != nil,
		KindEdit: c.Edit != nil, KindRecall: c.Recall != nil, KindDissolve: c.Dissolve != nil,
	}
	present, known := bodies[c.Type]
	if !known {
		return RefuseField(CodeInvalidField, "type", "is missing")
	}
	if !present {
		return RefuseField(CodeInvalidField, c.Type.String(), "is missing: the type says %s", c.Type)
	}
	for kind, there := range bodies {
		if there && kind != c.Type {
			return RefuseField(CodeInvalidField, kind.String(), "does not belong to a command of type %s", c.Type)
		}
	}
	return nil
}

func (c *Command) validateBody() error {
	switch c.Type {
	case KindMessage:
		return c.Message.validate(c.Sender)
	case KindCreate:
		b := c.Create
		if err := validateName("create.name", b.Name, false); err != nil {
			return err
		}
		if err := ValidateURL("create.avatar_url", b.AvatarURL); err != nil {
			return err
		}
		return validateUsers("create.members", &b.Members, 0, MaxMembersPerCommand)
	case KindJoin:
		return validateUsers("join.users", &c.Join.Users, 1, MaxMembersPerCommand)
	case KindLeave:
		return validateUsers("leave.users", &c.Leave.Users, 1, MaxMembersPerCommand)
	case KindRole:
		if c.Role.User <= 0 {
			return RefuseField(CodeInvalidField, "role.user", "is missing")
		}
		switch c.Role.Role {
		case RoleOwner, RoleAdmin, RoleMember:
			return nil
		}
		return RefuseField(CodeInvalidField, "role.role", "is none of owner, admin, member")
	case KindMute:
		if c.Mute.User <= 0 {
			return RefuseField(CodeInvalidField, "mute.user", "is missing")
		}
		if c.Mute.Until < 0 {
			return RefuseField(CodeInvalidField, "mute.until", "times are milliseconds since 1970")
		}
	case KindNickname:
		if c.Nickname.User <= 0 {
			return RefuseField(CodeInvalidField, "nickname.user", "is missing")
		}
		return validateName("nickname.nickname", c.Nickname.Nickname, true)
	case KindUpdate:
		return c.Update.validate()
	case KindEdit:
		if c.Edit.TargetSeq <= 0 {
			return RefuseField(CodeInvalidField, "edit.target_seq", "is not a number of a message")
		}
		content, err := validateSize("edit.content", c.Edit.Content)
		if err != nil {
			return err
		}
		c.Edit.Content = content
	case KindRecall:
		if c.Recall.TargetSeq <= 0 {
			return RefuseField(CodeInvalidField, "recall.target_seq", "is not a number of a message")
		}
	}
	return nil
}

func (m *Message) validate(sender UserID) error {
	content, err := ValidateContent(m.Type, m.Content)
	if err != nil {
		return err
	}
	m.Content = content
	if m.Mentions != nil {
		if err := validateUsers("message.mentions.user_ids", &m.Mentions.UserIDs, 0, MaxMentions); err != nil {
			return err
		}
		if len(m.Mentions.UserIDs) == 0 && !m.Mentions.All {
			m.Mentions = nil
		}
	}
	if err := validateUsers("message.recipients", &m.Recipients, 0, MaxRecipients); err != nil {
		return err
	}
	if i, found := slices.BinarySearch(m.Recipients, sender); found && len(m.Recipients) > 1 {
		m.Recipients = slices.Delete(m.Recipients, i, i+1) // the sender sees it anyway
	}
	if m.ReplyTo < 0 {
		return RefuseField(CodeInvalidField, "message.reply_to", "is not a number of a message")
	}
	return nil
}

// ValidateContent judges a message's content for its type and gives its canonical form.
func ValidateContent(t MessageType, raw json.RawMessage) (json.RawMessage, error) {
	content, err := validateSize("message.content", raw)
	if err != nil {
		return nil, err
	}
	switch t {
	case TypeCustom:
		return content, nil
	case TypeText:
		var body map[string]json.RawMessage
		if err := json.Unmarshal(content, &body); err != nil {
			return nil, RefuseField(CodeInvalidField, "message.content", "is not a JSON object").Because(err)
		}
		for key := range body {
			if key != "text" {
				return nil, RefuseField(CodeUnknownField, "message.content."+clip(key), "a text has the field text only")
			}
		}
		var text string
		if err := json.Unmarshal(body["text"], &text); err != nil || IsBlank(text) {
			return nil, RefuseField(CodeInvalidField, "message.content.text", "is not a text of at least one visible character")
		}
		return content, nil
	case TypeNotice:
		return nil, RefuseField(CodeForbidden, "message.type", "notices are made by the system")
	case "image", "voice", "video", "file", "call":
		return nil, RefuseField(CodeUnsupported, "message.type", "%s is not offered by this version", t)
	}
	return nil, RefuseField(CodeInvalidField, "message.type", "is none of text, custom")
}

func validateSize(field string, raw json.RawMessage) (json.RawMessage, error) {
	if len(raw) == 0 {
		return nil, RefuseField(CodeInvalidField, field, "is missing")
	}
	if len(raw) > MaxRawContentBytes {
		return nil, RefuseField(CodeTooLarge, field, "is over %d bytes with its white space", MaxRawContentBytes)
	}
	content, err := CanonicalObject(raw)
	if err != nil {
		return nil, err
	}
	if len(content) > MaxContentBytes {
		return nil, RefuseField(CodeTooLarge, field, "is over %d bytes", MaxContentBytes)
	}
	return content, nil
}

func (u *Update) validate() error {
	if u.Name == nil && u.AvatarURL == nil && u.HistoryVisible == nil {
		return RefuseField(CodeInvalidField, "update", "changes nothing")
	}
	if u.Name != nil {
		if err := validateName("update.name", *u.Name, false); err != nil {
			return err
		}
	}
	if u.AvatarURL != nil {
		return ValidateURL("update.avatar_url", *u.AvatarURL)
	}
	return nil
}

// ValidateClientMsgID judges a client id: 1 to 64 bytes of UTF-8 without control characters.
func ValidateClientMsgID(id string) error {
	const field = "client_msg_id"
	switch {
	case id == "":
		return RefuseField(CodeInvalidField, field, "is missing")
	case len(id) > MaxClientMsgIDBytes:
		return RefuseField(CodeInvalidField, field, "is over %d bytes", MaxClientMsgIDBytes)
	case !utf8.ValidString(id):
		return RefuseField(CodeMalformed, field, "is not valid UTF-8")
	case strings.ContainsFunc(id, unicode.IsControl):
		return RefuseField(CodeInvalidField, field, "has a control character")
	}
	return nil
}

func validateUsers(field string, ids *[]UserID, least, most int) error {
	set := asSet(*ids)
	switch {
	case len(set) < least:
		return RefuseField(CodeInvalidField, field, "names nobody")
	case len(set) > most:
		return RefuseField(CodeInvalidField, field, "names %d users, %d are allowed", len(set), most)
	case len(set) > 0 && set[0] <= 0:
		return RefuseField(CodeInvalidField, field, "has an id that is not positive")
	}
	if len(set) == 0 {
		set = nil
	}
	*ids = set
	return nil
}

func clip(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "")
	}
	return s
}
