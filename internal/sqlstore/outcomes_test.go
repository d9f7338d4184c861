package sqlstore

import (
	"testing"

	"tideline/pkg/chat"
)

func TestOutcome_TellsWhichRecordWasRejected(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		c := chat.GroupConversation(7)
		for n, offset := range []int64{70, 90} { // the newest counts
			r := chat.Rejection{
				Code: chat.CodeMuted, Message: "is muted", Conversation: c, Sender: 5, ClientMsgID: "a", Inbound: chat.Position{Partition: 3, Offset: offset}, RejectedAt: 1000,
			}
			if err := s.RecordRejections(t.Context(), 3, int64(n), int64(n)+1, []chat.Rejection{r}); err != nil {
				t.Fatal(err)
			}
			numbered, got, err := s.Outcome(t.Context(), c, 5, "a")
			if err != nil || numbered != nil || got == nil || got.Inbound != r.Inbound || got.Code != r.Code || got.RejectedAt != r.RejectedAt {
				t.Fatalf("%+v, %+v, %v", numbered, got, err)
			}
		}
	})
}
