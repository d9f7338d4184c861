package chat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// UserID names a person or a bot. It is a sonyflake number (63 bits, positive); 0 is nobody, or the system where an
// actor is meant. Outside the process it is decimal text, also in JSON.
type UserID int64

// ErrMalformedID is wrapped by every parser of this file.
var ErrMalformedID = errors.New("malformed id")

// ParseUserID reads the decimal form. Signs, leading zeros and zero itself are refused, so that an id has one spelling.
func ParseUserID(s string) (UserID, error) {
	n, err := parseNumber(s)
	if err != nil {
		return 0, fmt.Errorf("user id: %w", err)
	}
	return UserID(n), nil
}

// String gives the decimal form.
func (u UserID) String() string { return strconv.FormatInt(int64(u), 10) }

// MarshalText makes the id a JSON string, and a JSON object key.
func (u UserID) MarshalText() ([]byte, error) { return strconv.AppendInt(nil, int64(u), 10), nil }

// UnmarshalText reads what MarshalText wrote; see ParseUserID for what is refused.
func (u *UserID) UnmarshalText(b []byte) error {
	id, err := ParseUserID(string(b))
	if err != nil {
		return err
	}
	*u = id
	return nil
}

func parseNumber(s string) (int64, error) {
	if s == "" || s[0] < '1' || s[0] > '9' {
		return 0, fmt.Errorf("%w: %.40q is not a positive decimal number", ErrMalformedID, s)
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %.40q is not a positive decimal number below 2^63", ErrMalformedID, s)
	}
	return n, nil
}

// ConversationKind is the first byte of a conversation id's binary form. The values are stored; never renumber them.
type ConversationKind byte

// The kinds of conversation.
const (
	KindGroup     ConversationKind = 1 // g-<group id>
	KindPrivate   ConversationKind = 2 // p-<lower user id>-<higher user id>
	KindSystem    ConversationKind = 3 // s-<user id>: notices to one user
	KindBroadcast ConversationKind = 4 // s-all: notices to everyone
)

// Type is the word that clients see: group, private or system.
func (k ConversationKind) Type() string {
	switch k {
	case KindGroup:
		return "group"
	case KindPrivate:
		return "private"
	case KindSystem, KindBroadcast:
		return "system"
	}
	return "unknown"
}

// ConversationID names a conversation. It is comparable, so it serves as a map key. The text form is what clients and
// Kafka keys carry, the binary form (9 or 17 bytes) is what stores carry. The zero value names nothing.
type ConversationID struct {
	Kind ConversationKind
	A, B int64 // the group; or the lower and the higher user; or the user; B is 0 but for private ones
}

// GroupConversation names the group with that id.
func GroupConversation(group int64) ConversationID { return ConversationID{Kind: KindGroup, A: group} }

// PrivateConversation names the conversation of two different people, in either order.
func PrivateConversation(a, b UserID) ConversationID {
	if a > b {
		a, b = b, a
	}
	return ConversationID{Kind: KindPrivate, A: int64(a), B: int64(b)}
}

// ParseConversationID reads the text form. Every conversation has one spelling: p-9-5 is refused, p-5-9 is right.
func ParseConversationID(s string) (ConversationID, error) {
	fail := func(why string) (ConversationID, error) {
		return ConversationID{}, fmt.Errorf("conversation id: %w: %.60q %s", ErrMalformedID, s, why)
	}
	if s == "s-all" {
		return ConversationID{Kind: KindBroadcast}, nil
	}
	prefix, rest, ok := strings.Cut(s, "-")
	if !ok {
		return fail("has no prefix g-, p- or s-")
	}
	switch prefix {
	case "g", "s":
		n, err := parseNumber(rest)
		if err != nil {
			return fail("does not end in a decimal id")
		}
		if prefix == "g" {
			return GroupConversation(n), nil
		}
		return ConversationID{Kind: KindSystem, A: n}, nil
	case "p":
		low, high, ok := strings.Cut(rest, "-")
		if !ok {
			return fail("does not name two users")
		}
		a, errA := parseNumber(low)
		b, errB := parseNumber(high)
		if errA != nil || errB != nil {
			return fail("does not name two decimal ids")
		}
		if a >= b {
			return fail("does not name the lower id first")
		}
		return ConversationID{Kind: KindPrivate, A: a, B: b}, nil
	}
	return fail("has no prefix g-, p- or s-")
}

// String gives the text form; the zero value gives "".
func (c ConversationID) String() string {
	switch c.Kind {
	case KindGroup:
		return "g-" + strconv.FormatInt(c.A, 10)
	case KindPrivate:
		return "p-" + strconv.FormatInt(c.A, 10) + "-" + strconv.FormatInt(c.B, 10)
	case KindSystem:
		return "s-" + strconv.FormatInt(c.A, 10)
	case KindBroadcast:
		return "s-all"
	}
	return ""
}

// Bytes gives the binary form: the kind, then one or two big-endian 64-bit ids (17 bytes for private ones, else 9).
func (c ConversationID) Bytes() []byte {
	b := make([]byte, 1, 17)
	b[0] = byte(c.Kind)
	b = binary.BigEndian.AppendUint64(b, uint64(c.A))
	if c.Kind == KindPrivate {
		b = binary.BigEndian.AppendUint64(b, uint64(c.B))
	}
	return b
}

// ConversationIDFromBytes reads the binary form.
func ConversationIDFromBytes(b []byte) (ConversationID, error) {
	var c ConversationID
	switch {
	case len(b) == 17 && ConversationKind(b[0]) == KindPrivate:
		c = ConversationID{Kind: KindPrivate, A: int64(binary.BigEndian.Uint64(b[1:])), B: int64(binary.BigEndian.Uint64(b[9:]))}
		if c.A <= 0 || c.A >= c.B {
			return ConversationID{}, fmt.Errorf("conversation id: %w: users out of order in %x", ErrMalformedID, b)
		}
		return c, nil
	case len(b) == 9:
		c = ConversationID{Kind: ConversationKind(b[0]), A: int64(binary.BigEndian.Uint64(b[1:]))}
		switch {
		case c.Kind == KindBroadcast && c.A == 0, (c.Kind == KindGroup || c.Kind == KindSystem) && c.A > 0:
			return c, nil
		}
	}
	return ConversationID{}, fmt.Errorf("conversation id: %w: %d bytes %.34x", ErrMalformedID, len(b), b)
}

// IsZero tells whether the id names nothing.
func (c ConversationID) IsZero() bool { return c.Kind == 0 }

// Peers gives the two people of a private conversation.
func (c ConversationID) Peers() (lower, higher UserID, private bool) {
	return UserID(c.A), UserID(c.B), c.Kind == KindPrivate
}

// HasPeer tells whether the conversation is private and u is one of its two people.
func (c ConversationID) HasPeer(u UserID) bool {
	return c.Kind == KindPrivate && u > 0 && (int64(u) == c.A || int64(u) == c.B)
}

// MarshalText gives the text form.
func (c ConversationID) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads the text form; see ParseConversationID.
func (c *ConversationID) UnmarshalText(b []byte) error {
	id, err := ParseConversationID(string(b))
	if err != nil {
		return err
	}
	*c = id
	return nil
}
