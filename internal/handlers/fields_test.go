package handlers

import (
	"errors"
	"fmt"
	"testing"

	"tideline/pkg/chat"
)

func TestInRequest_NamesFieldsAsRequestsHaveThem(t *testing.T) {
	for field, want := range map[string]string{
		"message.reply_to": "reply_to", "message.content.text": "content.text", "message.mentions.user_ids": "mentions.user_ids",
		"create.name": "name", "create.members": "member_ids", "join.users": "user_ids", "leave.users": "user_id", "update.avatar_url": "avatar_url",
		"role.role": "role", "role.user": "user_id", "mute.until": "muted_until", "nickname.nickname": "nickname",
		"edit.target_seq": "seq", "edit.content": "content", "client_msg_id": "client_msg_id", "content": "content", "": "",
	} {
		given := chat.RefuseField(chat.CodeInvalidField, field, "is not right")
		var got *chat.Error
		if !errors.As(inRequest(given), &got) || got.Field != want || got.Code != given.Code || got.Message != given.Message {
			t.Errorf("%q of a command is %q in a request, want %q", field, got.Field, want)
		}
		if given.Field != field {
			t.Errorf("the refusal of %q was changed, and others hold it", field)
		}
	}
	if other := fmt.Errorf("not a refusal"); !errors.Is(inRequest(other), other) {
		t.Error("an error of another kind is changed")
	}
}
