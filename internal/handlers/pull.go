package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"time"

	"tideline/internal/accounts"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// Limits of a pull.
const (
	defaultPull    = 50
	maxPull        = 200
	maxPullEntries = 1000
	maxPullBytes   = 1 << 20
)

// toldWait is how long a pull waits for the store to have what its client was told of.
const toldWait = time.Second

// PullRequest asks for a part of a conversation. At most one of After, Before, Around, AroundTime is set; with none, the
// newest messages are given.
type PullRequest struct {
	Conversation chat.ConversationID `json:"conversation_id"`
	After        *int64              `json:"after,omitempty"`
	Before       *int64              `json:"before,omitempty"`
	Around       *int64              `json:"around,omitempty"`
	AroundTime   *int64              `json:"around_time,omitempty"` // ms
	Limit        int                 `json:"limit,omitempty"`
	Told         int64               `json:"told,omitempty"` // the number that the client was told of
}

// Answer is an encoded answer. Only that of a pull has a tag.
type Answer struct {
	JSON []byte
	ETag string

	page *page
}

// Free gives the memory of the answer back, which nobody may use from then on. Whoever keeps the answer does not call it.
func (p Answer) Free() {
	if p.page != nil {
		p.page.free()
	}
}

func (r *PullRequest) validate() error {
	if r.Conversation.IsZero() {
		return chat.RefuseField(chat.CodeInvalidField, "conversation_id", "is missing")
	}
	given := 0
	for _, place := range [...]struct {
		name  string
		value *int64
	}{{"after", r.After}, {"before", r.Before}, {"around", r.Around}, {"around_time", r.AroundTime}} {
		if place.value != nil {
			given++
			if *place.value < 0 {
				return chat.RefuseField(chat.CodeInvalidField, place.name, "is negative")
			}
		}
	}
	if given > 1 {
		return chat.RefuseField(chat.CodeInvalidField, "after", "only one of after, before, around, around_time can be given")
	}
	if r.Limit == 0 {
		r.Limit = defaultPull
	}
	if r.Limit < 1 || r.Limit > maxPull {
		return chat.RefuseField(chat.CodeInvalidField, "limit", "is not 1 to %d", maxPull)
	}
	if r.Told < 0 {
		return chat.RefuseField(chat.CodeInvalidField, "told", "is negative")
	}
	return nil
}

// Pull returns messages of a conversation to a member, present or past. For a former member the conversation ends with the leave.
func (s *Service) Pull(ctx context.Context, caller accounts.Caller, r PullRequest) (Answer, error) {
	if err := r.validate(); err != nil {
		return Answer{}, err
	}
	c, m, err := s.seenAt(ctx, caller, r.Conversation, r.Told)
	if err != nil {
		return Answer{}, err
	}
	p := newPage(s, c, caller.User, r.Limit)
	p.first, p.last = m.Visible(&c)
	switch {
	case r.After != nil:
		err = p.forward(ctx, min(*r.After, p.last)+1) // after the end there is nothing, however far
	case r.Around != nil:
		err = p.around(ctx, *r.Around)
	case r.AroundTime != nil:
		var at int64
		if at, err = s.store.SeqAt(ctx, r.Conversation, *r.AroundTime); err == nil {
			if at == 0 {
				at = p.last
			}
			err = p.around(ctx, at)
		}
	case r.Before != nil:
		err = p.backward(ctx, *r.Before-1)
	default:
		err = p.backward(ctx, p.last)
	}
	if err != nil {
		return Answer{}, err
	}
	pulled, err := p.encode(ctx)
	if err != nil {
		p.free()
	}
	return pulled, err
}

// Message is the JSON form of a message.
type Message struct {
	Conversation chat.ConversationID `json:"conversation_id"`
	Seq          int64               `json:"seq"`
	MessageID    string              `json:"message_id"`
	Sender       chat.UserID         `json:"sender_id"`
	ClientMsgID  string              `json:"client_msg_id,omitempty"`
	Type         string              `json:"type"`
	Content      json.RawMessage     `json:"content,omitempty"`
	Mentions     *chat.Mentions      `json:"mentions,omitempty"`
	Recipients   []chat.UserID       `json:"recipients,omitempty"`
	ReplyTo      int64               `json:"reply_to,omitempty"`
	Receipt      bool                `json:"receipt,omitempty"`
	TargetSeq    int64               `json:"target_seq,omitempty"`
	SentAt       int64               `json:"sent_at"`
	EditedAt     int64               `json:"edited_at,omitempty"`
	Recalled     bool                `json:"recalled,omitempty"`
}

func encodeMessage(r *timeline.Row) []byte {
	m := Message{
		Conversation: r.Conversation, Seq: r.Seq, MessageID: strconv.FormatInt(r.MessageID, 10), Sender: r.Sender, ClientMsgID: r.ClientMsgID,
		Type: string(r.Type), Content: r.Content, Mentions: r.Mentions, Recipients: r.Recipients, ReplyTo: r.ReplyTo, Receipt: r.Receipt,
		TargetSeq: r.TargetSeq, SentAt: r.SentAt, EditedAt: r.EditedAt, Recalled: r.RecalledAt > 0,
	}
	if m.Type == "" {
		m.Type = r.Kind.String()
	}
	text, err := marshalPlain(m)
	if err != nil { // content that is no JSON cannot have been stored by us
		m.Content = nil
		text, _ = marshalPlain(m)
	}
	return text
}

// marshalPlain leaves <, > and & as they are: people write them often, and nobody puts our answers into a page unseen.
func marshalPlain(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}
