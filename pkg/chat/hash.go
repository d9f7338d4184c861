package chat

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
)

// BodyHash tells whether two commands say the same. It is keyed, so that nobody who reads a store can test guesses of
// what a recalled message said.
type BodyHash [16]byte

// Hasher computes body hashes. It is safe for concurrent use.
type Hasher struct{ key []byte }

// NewHasher takes the key that all owners of partitions share; a changed key makes retries of older messages conflicts,
// so it is kept for as long as the messages are. It must have at least 16 bytes.
func NewHasher(key []byte) (*Hasher, error) {
	if len(key) < 16 {
		return nil, fmt.Errorf("body hash key has %d bytes, 16 are needed", len(key))
	}
	return &Hasher{key: slices.Clone(key)}, nil
}

// Hash computes the hash of what a valid command asks for: its type and its body in canonical form. Times, producer and
// encoding are left out, so that a retry over another door agrees. A set (recipients, mentions, users) has no order.
func (h *Hasher) Hash(c *Command) BodyHash {
	body := struct {
		Type Kind `json:"type"`
		Body any  `json:"body"`
	}{Type: c.Type}
	switch c.Type {
	case KindMessage:
		m := *c.Message
		m.Recipients = asSet(m.Recipients)
		if m.Mentions != nil {
			if len(m.Mentions.UserIDs) == 0 && !m.Mentions.All {
				m.Mentions = nil
			} else {
				m.Mentions = &Mentions{UserIDs: asSet(m.Mentions.UserIDs), All: m.Mentions.All}
			}
		}
		m.Content = canonicalOrAsIs(m.Content)
		body.Body = m
	case KindCreate:
		b := *c.Create
		b.Members = asSet(b.Members)
		body.Body = b
	case KindJoin:
		body.Body = Join{Users: asSet(c.Join.Users)}
	case KindLeave:
		body.Body = Leave{Users: asSet(c.Leave.Users)}
	case KindRole:
		body.Body = c.Role
	case KindMute:
		body.Body = c.Mute
	case KindNickname:
		body.Body = c.Nickname
	case KindUpdate:
		body.Body = c.Update
	case KindEdit:
		body.Body = Edit{TargetSeq: c.Edit.TargetSeq, Content: canonicalOrAsIs(c.Edit.Content)}
	case KindRecall:
		body.Body = c.Recall
	case KindDissolve:
		body.Body = c.Dissolve
	}
	// Marshalling structs of plain fields cannot fail, and gives the same bytes for the same values.
	text, _ := json.Marshal(body)
	mac := hmac.New(sha256.New, h.key)
	mac.Write(text)
	return BodyHash(mac.Sum(nil)[:16])
}

func canonicalOrAsIs(content json.RawMessage) json.RawMessage {
	if c, err := CanonicalObject(content); err == nil {
		return c
	}
	return content
}

func asSet(ids []UserID) []UserID {
	s := slices.Clone(ids)
	slices.Sort(s)
	return slices.Compact(s)
}
