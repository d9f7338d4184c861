package handlers

import (
	"errors"
	"strings"

	"tideline/pkg/chat"
)

// requestFields are the fields of commands whose name in a request is another one than their last part.
var requestFields = map[string]string{
	"create.members": "member_ids", "join.users": "user_ids", "leave.users": "user_id",
	"role.user": "user_id", "mute.user": "user_id", "nickname.user": "user_id", "mute.until": "muted_until",
	"edit.target_seq": "seq", "recall.target_seq": "seq", "sender_id": "", "update": "",
}

// inRequest names the field at fault as the request has it. A command, which backends produce themselves, has a body for each
// of its types (message.reply_to); a request is about one type and has no such level (reply_to).
func inRequest(err error) error {
	var e *chat.Error
	if !errors.As(err, &e) || e.Field == "" {
		return err
	}
	field, renamed := requestFields[e.Field]
	if !renamed {
		field = e.Field
		for _, body := range []string{"message.", "create.", "update.", "edit.", "role.", "mute.", "nickname."} {
			if rest, ok := strings.CutPrefix(e.Field, body); ok {
				field = rest
				break
			}
		}
	}
	c := *e
	c.Field = field
	return &c
}
