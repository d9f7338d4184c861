package marks

import (
	"math/rand/v2"
	"strconv"

	"tideline/pkg/chat"
)

const (
	epochKey  = "tl:epoch"
	serverKey = "tl:server"
	lockTail  = ":lock"
	fillTail  = ":fill"

	ready   = "ready"
	filling = "filling"

	ordinalPrefix = "o:"
	joinPrefix    = "j:"
)

// firstToken is above every seq and ordinal; floats count exactly up to twice as far.
const firstToken = 1 << 52

// nobody is the epoch of a set that is being filled: no epoch is so low.
const nobody = firstToken

// aboveSeqs ends the range of a ZCOUNT before the epochs.
const aboveSeqs = "(4503599627370496"

// newToken names an epoch or a fill.
func newToken() float64 { return float64(firstToken + 1 + rand.Int64N(firstToken/2)) }

// subject is what a set is of: a user, or else a conversation.
type subject struct {
	user         chat.UserID
	conversation chat.ConversationID
}

func (s subject) key() string {
	if s.user != 0 {
		return userKey(s.user)
	}
	return conversationKey(s.conversation)
}

func userKey(u chat.UserID) string                 { return "tl:{u:" + u.String() + "}" }
func conversationKey(c chat.ConversationID) string { return "tl:{c:" + c.String() + "}" }
func joinMember(u chat.UserID) string              { return joinPrefix + u.String() }
func ordinalMember(c chat.ConversationID) string   { return ordinalPrefix + c.String() }
func joinScore(seq int64) float64                  { return float64(-seq - 1) }
func joinedAfter(seq int64) string                 { return strconv.FormatInt(-seq-2, 10) }
