package wire

import (
	"reflect"
	"testing"

	"tideline/pkg/chat"
)

func TestOutcomes_ComeBackAsTheyWereTold(t *testing.T) {
	command := &chat.Command{Type: chat.KindRecall, Conversation: chat.GroupConversation(7), Sender: 5, ClientMsgID: "a", Recall: &chat.Recall{TargetSeq: 1}}
	key := CommandKey(EncodeCommand(command))
	command.Recall.TargetSeq = 2
	if other := CommandKey(EncodeCommand(command)); key == 0 || other == key {
		t.Errorf("two commands have the keys %d and %d", key, other)
	}
	told := []Outcome{
		{Request: 1, Command: key, First: chat.FirstEvent{Seq: 4, MessageID: 5, SentAt: 6}, Duplicate: true},
		{Request: 2, Refused: chat.CodeMuted, Message: "is muted", Field: "sender_id"},
	}
	if got, err := DecodeOutcomes(EncodeOutcomes(told)); err != nil || !reflect.DeepEqual(got, told) {
		t.Errorf("%+v came back, %v", got, err)
	}
}
