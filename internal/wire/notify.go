package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	"tideline/pkg/chat"
	wirev1 "tideline/schemas/wire/tideline/v1"
)

// EncodeReadMark gives the value of im.receipts.
func EncodeReadMark(m *chat.ReadMark) []byte {
	return marshal(&wirev1.ReadMark{
		UserId: int64(m.User), ConversationId: m.Conversation.String(), Seq: m.Seq, Ordinal: m.Ordinal, PreviousSeq: m.PreviousSeq, At: m.At, SessionId: m.Session,
	})
}

// DecodeReadMark reads the value of im.receipts.
func DecodeReadMark(value []byte) (chat.ReadMark, error) {
	var w wirev1.ReadMark
	if err := proto.Unmarshal(value, &w); err != nil {
		return chat.ReadMark{}, fmt.Errorf("decoding a read mark: %w", err)
	}
	id, err := chat.ParseConversationID(w.GetConversationId())
	if err != nil {
		return chat.ReadMark{}, fmt.Errorf("decoding a read mark: %w", err)
	}
	return chat.ReadMark{
		User: chat.UserID(w.GetUserId()), Conversation: id, Seq: w.GetSeq(), Ordinal: w.GetOrdinal(), PreviousSeq: w.GetPreviousSeq(),
		At: w.GetAt(), Session: w.GetSessionId(),
	}, nil
}

// EncodeNotify gives the value of im.notify.
func EncodeNotify(n *chat.Notify) []byte {
	w := &wirev1.Notify{
		ConversationId: n.Conversation.String(), MaxSeq: n.MaxSeq, Ordinal: n.Ordinal, ChangedSeqs: n.ChangedSeqs, Meta: n.Meta, Repeat: n.Repeat, At: n.At,
	}
	for _, m := range n.Members {
		w.Members = append(w.Members, &wirev1.MemberChange{UserId: int64(m.User), Seq: m.Seq, Joined: m.Joined, Left: m.Left})
	}
	for _, a := range n.Asked {
		w.Asked = append(w.Asked, &wirev1.Asked{Seq: a.Seq, SenderId: int64(a.Sender)})
	}
	return marshal(w)
}

// DecodeNotify reads the value of im.notify.
func DecodeNotify(value []byte) (chat.Notify, error) {
	var w wirev1.Notify
	if err := proto.Unmarshal(value, &w); err != nil {
		return chat.Notify{}, fmt.Errorf("decoding a notification: %w", err)
	}
	id, err := chat.ParseConversationID(w.GetConversationId())
	if err != nil {
		return chat.Notify{}, fmt.Errorf("decoding a notification: %w", err)
	}
	n := chat.Notify{
		Conversation: id, MaxSeq: w.GetMaxSeq(), Ordinal: w.GetOrdinal(), ChangedSeqs: w.GetChangedSeqs(), Meta: w.GetMeta(), Repeat: w.GetRepeat(), At: w.GetAt(),
	}
	for _, m := range w.GetMembers() {
		n.Members = append(n.Members, chat.MemberChange{User: chat.UserID(m.GetUserId()), Seq: m.GetSeq(), Joined: m.GetJoined(), Left: m.GetLeft()})
	}
	for _, a := range w.GetAsked() {
		n.Asked = append(n.Asked, chat.Asked{Seq: a.GetSeq(), Sender: chat.UserID(a.GetSenderId())})
	}
	return n, nil
}

// Outcome tells an api instance what became of a command that it produced.
type Outcome struct {
	Request   uint64          // the instance's own number for it
	Command   uint64          // its CommandKey; 0 where ingest is of a release that did not tell
	Refused   chat.Code       // "" where it was numbered
	Message   string          // of a refusal
	Field     string          // of a refusal
	First     chat.FirstEvent // the event; of a duplicate or a conflict, the first one
	Duplicate bool
}

// CommandKey names a command by the bytes of its record: whoever waits for the outcome of one is not told that of another
// that carries the same request. It is not 0.
func CommandKey(value []byte) uint64 {
	sum := sha256.Sum256(value)
	return max(binary.BigEndian.Uint64(sum[:]), 1)
}

// EncodeOutcomes gives the payload of the api instances' channels.
func EncodeOutcomes(outcomes []Outcome) []byte {
	w := &wirev1.Outcomes{Outcomes: make([]*wirev1.Outcome, len(outcomes))}
	for i, o := range outcomes {
		w.Outcomes[i] = &wirev1.Outcome{
			Request: o.Request, Code: string(o.Refused), Message: o.Message, Field: o.Field,
			Seq: o.First.Seq, MessageId: o.First.MessageID, SentAt: o.First.SentAt, Duplicate: o.Duplicate, Command: o.Command,
		}
	}
	return marshal(w)
}

// DecodeOutcomes reads what EncodeOutcomes wrote.
func DecodeOutcomes(payload []byte) ([]Outcome, error) {
	var w wirev1.Outcomes
	if err := proto.Unmarshal(payload, &w); err != nil {
		return nil, fmt.Errorf("decoding outcomes: %w", err)
	}
	out := make([]Outcome, len(w.GetOutcomes()))
	for i, o := range w.GetOutcomes() {
		out[i] = Outcome{
			Request: o.GetRequest(), Command: o.GetCommand(), Refused: chat.Code(o.GetCode()), Message: o.GetMessage(), Field: o.GetField(),
			First: chat.FirstEvent{Seq: o.GetSeq(), MessageID: o.GetMessageId(), SentAt: o.GetSentAt()}, Duplicate: o.GetDuplicate(),
		}
	}
	return out, nil
}

// marshal cannot fail for messages of valid UTF-8; strings from the outside are checked before they get here, and a fault
// in that is worth a crash rather than a lost record.
func marshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic("wire: " + err.Error())
	}
	return b
}
