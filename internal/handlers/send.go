package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/google/uuid"

	"tideline/internal/sender"
	"tideline/pkg/chat"
)

// SendRequest says something in a conversation.
type SendRequest struct {
	Conversation chat.ConversationID `json:"conversation_id"`
	ClientMsgID  string              `json:"client_msg_id"`
	Type         chat.MessageType    `json:"type"`
	Content      json.RawMessage     `json:"content"`
	Mentions     *chat.Mentions      `json:"mentions,omitempty"`
	Recipients   []chat.UserID       `json:"recipients,omitempty"`
	ReplyTo      int64               `json:"reply_to,omitempty"`
	Receipt      bool                `json:"receipt,omitempty"`
}

// Sent answers a send: the number, or that it is accepted and its number is not known yet.
type Sent struct {
	Conversation chat.ConversationID `json:"conversation_id"`
	Seq          int64               `json:"seq,omitempty"`
	MessageID    string              `json:"message_id,omitempty"`
	SentAt       int64               `json:"sent_at,omitempty"`
	Duplicate    bool                `json:"duplicate,omitempty"`
	Status       string              `json:"status,omitempty"` // accepted, where there is no number yet
	ClientMsgID  string              `json:"client_msg_id,omitempty"`
}

// Accepted tells that the number is not known yet.
func (s *Sent) Accepted() bool { return s.Status != "" }

// Send numbers a message. The sender must be a member; that is judged where numbers are given.
func (s *Service) Send(ctx context.Context, u chat.UserID, r SendRequest) (Sent, error) {
	c := &chat.Command{
		Type: chat.KindMessage, Conversation: r.Conversation, Sender: u, ClientMsgID: r.ClientMsgID,
		Message: &chat.Message{Type: r.Type, Content: r.Content, Mentions: r.Mentions, Recipients: r.Recipients, ReplyTo: r.ReplyTo, Receipt: r.Receipt},
	}
	if err := c.Validate(); err != nil {
		return Sent{}, inRequest(err)
	}
	if ofOthers(u, r.Conversation) {
		return Sent{}, errUnknown()
	}
	o, err := s.sender.Send(ctx, c)
	if err != nil {
		return Sent{}, s.judged(ctx, u, r.Conversation, err)
	}
	if !o.Numbered {
		return Sent{Conversation: r.Conversation, Status: "accepted", ClientMsgID: r.ClientMsgID}, nil
	}
	return Sent{
		Conversation: r.Conversation, Seq: o.First.Seq, MessageID: strconv.FormatInt(o.First.MessageID, 10), SentAt: o.First.SentAt, Duplicate: o.Duplicate,
	}, nil
}

// command sends a command other than a message and waits until it is applied. It returns the number of its event.
func (s *Service) command(ctx context.Context, c *chat.Command) (int64, error) {
	seqs, err := s.commands(ctx, []*chat.Command{c})
	if err != nil {
		return 0, err
	}
	return seqs[0], nil
}

// commands sends commands of one conversation in order, all at once, and waits until all of them are applied.
func (s *Service) commands(ctx context.Context, list []*chat.Command) ([]int64, error) {
	for _, c := range list {
		if c.ClientMsgID == "" {
			c.ClientMsgID = newClientMsgID() // without one, a retry is a new act
		}
		if err := c.Validate(); err != nil {
			return nil, inRequest(err)
		}
	}
	u, id := list[0].Sender, list[0].Conversation
	if ofOthers(u, id) {
		return nil, errUnknown()
	}
	pending := make([]*sender.Pending, 0, len(list))
	var fault error
	for _, c := range list {
		p, err := s.sender.Begin(ctx, c)
		if err != nil {
			fault = err
			break
		}
		pending = append(pending, p)
	}
	seqs := make([]int64, 0, len(pending))
	var last int64
	for _, p := range pending {
		o, err := p.Wait(ctx)
		switch {
		case err != nil:
			if fault == nil {
				fault = err
			}
		case !o.Numbered:
			if fault == nil {
				fault = chat.Refuse(chat.CodeTimeout, "the outcome is not known in time; retry with the same client_msg_id").After(toldWait)
			}
		default:
			last = max(last, o.First.Seq)
			seqs = append(seqs, o.First.Seq)
		}
	}
	if fault != nil {
		return nil, s.judged(ctx, u, id, fault)
	}
	if err := s.applied(ctx, list, last); err != nil {
		return nil, err
	}
	return seqs, nil
}

// appliedTries bounds how often, a toldWait apart, it is looked whether commands are applied.
const appliedTries = 5

// applied returns when the store has commands of one conversation up to a number and everybody was told of it, so that no
// cache gives what they have edited or recalled (P10). Where we were not told, the retry of something old among others, the
// store tells who was: the writer stores a batch only once it has told of those before it. A command that repeats another
// leaves a record behind it in the partition, so that there is a next batch.
func (s *Service) applied(ctx context.Context, list []*chat.Command, last int64) error {
	id := list[0].Conversation
	var fault error
	for range appliedTries {
		wait, cancel := context.WithTimeout(ctx, toldWait)
		err := s.heads.WaitFor(wait, id, last)
		cancel()
		if err == nil {
			return nil
		}
		var told bool
		if told, fault = s.told(ctx, id, last); told {
			// Our own follower may be behind, or have begun later.
			s.blocks.Invalidate(id, targets(list))
			return nil
		}
	}
	return chat.Refuse(chat.CodeTimeout, "numbered %d, but not applied in time; retry with the same client_msg_id", last).After(toldWait).Because(fault)
}

// told tells whether the store has a conversation up to a number, and everybody was told.
func (s *Service) told(ctx context.Context, id chat.ConversationID, last int64) (bool, error) {
	found, err := s.store.Conversations(ctx, []chat.ConversationID{id})
	if err != nil || len(found) == 0 || found[0].MaxSeq < last {
		return false, err
	}
	positions, err := s.store.Positions(ctx, []int32{found[0].Partition})
	if err != nil || len(positions) == 0 {
		return false, err
	}
	return positions[0].BatchFrom > found[0].LastOffset, nil
}

// targets lists the numbers that commands aim at.
func targets(list []*chat.Command) []int64 {
	var seqs []int64
	for _, c := range list {
		switch c.Type {
		case chat.KindEdit:
			seqs = append(seqs, c.Edit.TargetSeq)
		case chat.KindRecall:
			seqs = append(seqs, c.Recall.TargetSeq)
		}
	}
	return seqs
}

func newClientMsgID() string {
	id, err := uuid.NewV7()
	if err != nil {
		id = uuid.New()
	}
	return id.String()
}

// derivedID gives the client id of the n-th of several commands that one request becomes: the same on every retry, and
// with the stamp of the first where that has one.
func derivedID(first string, n int) string {
	if n == 0 {
		return first
	}
	d := uuid.NewSHA1(uuid.NameSpaceOID, []byte("tideline:"+strconv.Itoa(n)+":"+first))
	if chat.Stamp(first) > 0 {
		if f, err := uuid.Parse(first); err == nil {
			copy(d[:6], f[:6])
			d[6] = d[6]&0x0f | 0x70
		}
	}
	return d.String()
}

// ByClientID tells what became of a command of the caller's own.
func (s *Service) ByClientID(ctx context.Context, u chat.UserID, id chat.ConversationID, clientMsgID string) (ClientOutcome, error) {
	if err := chat.ValidateClientMsgID(clientMsgID); err != nil {
		return ClientOutcome{}, err
	}
	if ofOthers(u, id) {
		return ClientOutcome{}, errUnknown()
	}
	numbered, rejection, err := s.store.Outcome(ctx, id, u, clientMsgID)
	switch {
	case err != nil:
		return ClientOutcome{}, err
	case numbered != nil:
		return ClientOutcome{Status: "numbered", Seq: numbered.Seq, MessageID: strconv.FormatInt(numbered.MessageID, 10), SentAt: numbered.SentAt}, nil
	case rejection == nil && id.HasPeer(u): // a private conversation begins with a command of one of its people
		return ClientOutcome{Status: "unknown"}, nil
	case rejection != nil && rejection.Code != chat.CodeNotAMember && rejection.Code != chat.CodeConversationUnknown:
		return ClientOutcome{Status: "rejected", Code: rejection.Code, Message: rejection.Message}, nil
	}
	// What is left depends on the membership, as every call does.
	var refusal *chat.Error
	if outside := s.Outside(ctx, u, id); !errors.As(outside, &refusal) {
		return ClientOutcome{}, outside
	}
	switch {
	case rejection == nil && refusal.Code == chat.CodeConversationUnknown:
		return ClientOutcome{}, refusal
	case rejection == nil:
		return ClientOutcome{Status: "unknown"}, nil
	case refusal.Code == chat.CodeConversationUnknown:
		return ClientOutcome{Status: "rejected", Code: refusal.Code, Message: refusal.Message}, nil
	}
	return ClientOutcome{Status: "rejected", Code: rejection.Code, Message: rejection.Message}, nil
}

// ClientOutcome is what became of a command: numbered, rejected or unknown.
type ClientOutcome struct {
	Status    string    `json:"status"`
	Seq       int64     `json:"seq,omitempty"`
	MessageID string    `json:"message_id,omitempty"`
	SentAt    int64     `json:"sent_at,omitempty"`
	Code      chat.Code `json:"code,omitempty"`
	Message   string    `json:"message,omitempty"`
}

// EditRequest replaces the content of a message; RecallRequest takes it back.
type EditRequest struct {
	ClientMsgID string          `json:"client_msg_id,omitempty"`
	Content     json.RawMessage `json:"content"`
}

// Change answers what changed a conversation: the number of the (last) event.
type Change struct {
	Seq int64 `json:"seq"`
}

// Edit replaces the content of the caller's own message.
func (s *Service) Edit(ctx context.Context, u chat.UserID, id chat.ConversationID, target int64, r EditRequest) (Change, error) {
	seq, err := s.command(ctx, &chat.Command{
		Type: chat.KindEdit, Conversation: id, Sender: u, ClientMsgID: r.ClientMsgID, Edit: &chat.Edit{TargetSeq: target, Content: r.Content},
	})
	return Change{seq}, err
}

// Recall takes a message back.
func (s *Service) Recall(ctx context.Context, u chat.UserID, id chat.ConversationID, target int64, clientMsgID string) (Change, error) {
	seq, err := s.command(ctx, &chat.Command{
		Type: chat.KindRecall, Conversation: id, Sender: u, ClientMsgID: clientMsgID, Recall: &chat.Recall{TargetSeq: target},
	})
	return Change{seq}, err
}
