package wire

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"tideline/pkg/chat"
	wirev1 "tideline/schemas/wire/tideline/v1"
)

// EncodeEvent gives the value of im.messages.
func EncodeEvent(e *chat.Event) []byte {
	b := bodies{e.Message, e.Create, e.Join, e.Leave, e.Role, e.Mute, e.Nickname, e.Update, e.Edit, e.Recall, e.Dissolve}
	return marshal(&wirev1.Event{
		ConversationId: e.Conversation.String(), Seq: e.Seq, Ordinal: e.Ordinal, Kind: wirev1.Kind(e.Kind), MessageId: e.MessageID,
		SenderId: int64(e.Sender), ClientMsgId: e.ClientMsgID, BodyHash: hashBytes(e), SentAt: e.SentAt, Producer: e.Producer,
		InboundOffset: e.InboundOffset, MovedFrom: encodePosition(e.MovedFrom), RejectedNext: e.RejectedNext, NumberedAt: e.NumberedAt, Body: b.encode(),
	})
}

func hashBytes(e *chat.Event) []byte {
	if e.Kind == chat.KindProgress {
		return nil
	}
	return e.BodyHash[:]
}

// DecodeEvent reads the value of im.messages. A kind that this version does not know is returned as it is, without a body;
// one that it knows has the body that belongs to it.
func DecodeEvent(value []byte) (chat.Event, error) {
	var w wirev1.Event
	if err := proto.Unmarshal(value, &w); err != nil {
		return chat.Event{}, fmt.Errorf("decoding an event: %w", err)
	}
	if w.GetKind() != wirev1.Kind(chat.Kind(w.GetKind())) {
		return chat.Event{}, fmt.Errorf("decoding an event: its kind, %d, is not one byte: it would pass for another", w.GetKind())
	}
	e := chat.Event{
		Seq: w.GetSeq(), Ordinal: w.GetOrdinal(), Kind: chat.Kind(w.GetKind()), MessageID: w.GetMessageId(), Sender: chat.UserID(w.GetSenderId()),
		ClientMsgID: w.GetClientMsgId(), SentAt: w.GetSentAt(), Producer: w.GetProducer(), InboundOffset: w.GetInboundOffset(),
		MovedFrom: decodePosition(w.GetMovedFrom()), RejectedNext: w.GetRejectedNext(), NumberedAt: w.GetNumberedAt(),
	}
	copy(e.BodyHash[:], w.GetBodyHash())
	if e.Kind == chat.KindProgress {
		return e, nil
	}
	id, err := chat.ParseConversationID(w.GetConversationId())
	if err != nil {
		return chat.Event{}, fmt.Errorf("decoding an event: %w", err)
	}
	e.Conversation = id
	kind, b := decodeBody(w.GetBody())
	if kind != 0 && kind != e.Kind {
		return chat.Event{}, fmt.Errorf("decoding an event: kind %s with the body of %s", e.Kind, kind)
	}
	if kind == 0 && e.Kind.HasBody() {
		return chat.Event{}, fmt.Errorf("decoding an event: kind %s without its body", e.Kind)
	}
	e.Message, e.Create, e.Join, e.Leave, e.Role, e.Mute = b.message, b.create, b.join, b.leave, b.role, b.mute
	e.Nickname, e.Update, e.Edit, e.Recall, e.Dissolve = b.nickname, b.update, b.edit, b.recall, b.dissolve
	return e, nil
}

func encodePosition(p *chat.Position) *wirev1.Position {
	if p == nil {
		return nil
	}
	return &wirev1.Position{Partition: p.Partition, Offset: p.Offset}
}

func decodePosition(w *wirev1.Position) *chat.Position {
	if w == nil {
		return nil
	}
	return &chat.Position{Partition: w.GetPartition(), Offset: w.GetOffset()}
}

// EncodeRejection gives the value of im.rejected.
func EncodeRejection(r *chat.Rejection) []byte {
	// What was refused may be refused for its broken text; the record itself is kept byte for byte.
	w := &wirev1.Rejection{
		Code: string(r.Code), Message: text(r.Message), Field: text(r.Field), MovedTo: r.MovedTo, Inbound: encodePosition(&r.Inbound), RejectedAt: r.RejectedAt,
		Producer: text(r.Producer), ContentType: text(r.ContentType), Record: r.Record,
		ConversationId: r.Conversation.String(), SenderId: int64(r.Sender), ClientMsgId: text(r.ClientMsgID),
		RecordBytes: r.RecordBytes, RecordSha256: r.RecordHash, InboundLast: r.InboundLast,
	}
	if r.First != nil {
		w.First = &wirev1.FirstEvent{Seq: r.First.Seq, MessageId: r.First.MessageID, SentAt: r.First.SentAt}
	}
	return marshal(w)
}

func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// DecodeRejection reads the value of im.rejected.
func DecodeRejection(value []byte) (chat.Rejection, error) {
	var w wirev1.Rejection
	if err := proto.Unmarshal(value, &w); err != nil {
		return chat.Rejection{}, fmt.Errorf("decoding a rejection: %w", err)
	}
	if w.GetCode() == "" || w.GetInbound() == nil { // an empty value would pass for the outcome of the first inbound record
		return chat.Rejection{}, errors.New("decoding a rejection: it has no code or no place")
	}
	r := chat.Rejection{
		Code: chat.Code(w.GetCode()), Message: w.GetMessage(), Field: w.GetField(), MovedTo: w.GetMovedTo(), RejectedAt: w.GetRejectedAt(),
		Producer: w.GetProducer(), ContentType: w.GetContentType(), Record: w.GetRecord(), Sender: chat.UserID(w.GetSenderId()), ClientMsgID: w.GetClientMsgId(),
		RecordBytes: w.GetRecordBytes(), RecordHash: w.GetRecordSha256(), InboundLast: w.GetInboundLast(),
	}
	if p := w.GetInbound(); p != nil {
		r.Inbound = *decodePosition(p)
	}
	if f := w.GetFirst(); f != nil {
		r.First = &chat.FirstEvent{Seq: f.GetSeq(), MessageID: f.GetMessageId(), SentAt: f.GetSentAt()}
	}
	if s := w.GetConversationId(); s != "" {
		id, err := chat.ParseConversationID(s)
		if err != nil {
			return chat.Rejection{}, fmt.Errorf("decoding a rejection: %w", err)
		}
		r.Conversation = id
	}
	return r, nil
}
