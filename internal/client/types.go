package client

import (
	"encoding/json"
	"fmt"
	"time"
)

// User is a person.
type User struct {
	ID        string `json:"user_id"`
	Username  string `json:"username"`
	Nickname  string `json:"nickname"`
	AvatarURL string `json:"avatar_url"`
}

// Group is a group as it was created.
type Group struct {
	Conversation string `json:"conversation_id"`
	Seq          int64  `json:"seq"`
	Name         string `json:"name"`
	MemberCount  int    `json:"member_count"`
}

// Message is an entry of a conversation: a message, a notice, an event that aims at another, or a run of numbers (Seq to
// ToSeq, Type "void") that this reader may not see.
type Message struct {
	Conversation string          `json:"conversation_id,omitempty"`
	Seq          int64           `json:"seq"`
	ToSeq        int64           `json:"to_seq,omitempty"`
	MessageID    string          `json:"message_id,omitempty"`
	Sender       string          `json:"sender_id,omitempty"`
	ClientMsgID  string          `json:"client_msg_id,omitempty"`
	Type         string          `json:"type"`
	Content      json.RawMessage `json:"content,omitempty"`
	ReplyTo      int64           `json:"reply_to,omitempty"`
	TargetSeq    int64           `json:"target_seq,omitempty"`
	SentAt       int64           `json:"sent_at,omitempty"`
	EditedAt     int64           `json:"edited_at,omitempty"`
	Recalled     bool            `json:"recalled,omitempty"`
}

// Last gives the last number that the entry accounts for.
func (m *Message) Last() int64 { return max(m.Seq, m.ToSeq) }

// SendRequest says something. Without a ClientMsgID one is made; keep it to try again.
type SendRequest struct {
	ClientMsgID string          `json:"client_msg_id"`
	Type        string          `json:"type"`
	Content     json.RawMessage `json:"content"`
	Mentions    *Mentions       `json:"mentions,omitempty"`
	Recipients  []string        `json:"recipients,omitempty"`
	ReplyTo     int64           `json:"reply_to,omitempty"`
	Receipt     bool            `json:"receipt,omitempty"`
}

// Mentions names who is meant by a message.
type Mentions struct {
	UserIDs []string `json:"user_ids,omitempty"`
	All     bool     `json:"all,omitempty"`
}

// Text gives a message of text.
func Text(text string) SendRequest {
	content, _ := json.Marshal(map[string]string{"text": text})
	return SendRequest{Type: "text", Content: content}
}

// Sent answers a send. Where Status is "accepted" the number is not known yet: send the same again, or ask.
type Sent struct {
	Conversation string `json:"conversation_id"`
	Seq          int64  `json:"seq"`
	MessageID    string `json:"message_id"`
	SentAt       int64  `json:"sent_at"`
	Duplicate    bool   `json:"duplicate"`
	Status       string `json:"status"`
	ClientMsgID  string `json:"client_msg_id"`
}

// PullRequest asks for a part of a conversation: at most one of After, Before and Around; none gives the newest.
type PullRequest struct {
	Conversation string `json:"conversation_id"`
	After        *int64 `json:"after,omitempty"`
	Before       *int64 `json:"before,omitempty"`
	Around       *int64 `json:"around,omitempty"`
	Limit        int    `json:"limit,omitempty"`
	Told         int64  `json:"told,omitempty"` // the number that a hint or the answer to an own send gave
}

// Page is a part of a conversation, in order of seq and without holes.
type Page struct {
	Messages []Message                  `json:"messages"`
	Users    map[string]json.RawMessage `json:"users"`
	MinSeq   int64                      `json:"min_seq"`
	MaxSeq   int64                      `json:"max_seq"`
	HasMore  bool                       `json:"has_more"`
}

// SyncRequest asks for conversations: all of mine without a Cursor, what moved since with one.
type SyncRequest struct {
	Cursor string `json:"cursor,omitempty"`
	Limit  int    `json:"limit,omitempty"`
	Newest int    `json:"newest,omitempty"`
}

// Sync answers a SyncRequest.
type Sync struct {
	Conversations []Conversation             `json:"conversations"`
	Removed       []string                   `json:"removed"`
	Users         map[string]json.RawMessage `json:"users"`
	UnreadTotal   int64                      `json:"unread_total"`
	Cursor        string                     `json:"cursor"`
	HasMore       bool                       `json:"has_more"`
}

// Conversation is a conversation as the user sees it.
type Conversation struct {
	ID          string    `json:"conversation_id"`
	Type        string    `json:"type"`
	Name        string    `json:"name"`
	MaxSeq      int64     `json:"max_seq"`
	MinSeq      int64     `json:"min_seq"`
	ReadSeq     int64     `json:"read_seq"`
	PeerReadSeq int64     `json:"peer_read_seq"`
	Unread      int64     `json:"unread"`
	Mentions    int64     `json:"mentions"`
	Newest      []Message `json:"newest"`
}

// Read answers a read mark.
type Read struct {
	ReadSeq     int64 `json:"read_seq"`
	Unread      int64 `json:"unread"`
	UnreadTotal int64 `json:"unread_total"`
}

// Receipt is how many have read a message.
type Receipt struct {
	Seq         int64 `json:"seq"`
	ReadCount   int64 `json:"read_count"`
	UnreadCount int64 `json:"unread_count"`
}

// Error is a refusal in the contract's form. Status is the HTTP status, or 0 on the socket.
type Error struct {
	Status       int    `json:"-"`
	Code         string `json:"code"`
	Message      string `json:"message"`
	Field        string `json:"field"`
	Retryable    bool   `json:"retryable"`
	RetryAfterMS int64  `json:"retry_after_ms"`
	RequestID    string `json:"request_id"`
}

// Error gives the code and what it says.
func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s (request %s)", e.Code, e.Message, e.RequestID)
}

// RetryAfter tells when to come back, or 0.
func (e *Error) RetryAfter() time.Duration { return time.Duration(e.RetryAfterMS) * time.Millisecond }
