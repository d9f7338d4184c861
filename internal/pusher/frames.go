package pusher

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"strconv"
	"sync"

	"tideline/pkg/chat"
)

// What the server writes is framed here and not by the library that reads, so that the bytes of a hint can be made once for
// ten thousand connections and be written without waiting. Frames of a server are not masked: a header of two to ten
// bytes, then the payload.
const (
	opText  = 0x81 // with FIN
	opClose = 0x88
	opPong  = 0x8a

	maxHeader = 10
)

// appendFrame appends a whole frame.
func appendFrame(dst []byte, op byte, payload []byte) []byte {
	return append(appendHeader(dst, op, len(payload)), payload...)
}

func appendHeader(dst []byte, op byte, n int) []byte {
	switch {
	case n < 126:
		return append(dst, op, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, op, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, op, 127), uint64(n))
	}
}

// frame builds one text frame in place: the payload is appended to b, and seal puts the header before it.
type frame struct{ b []byte }

func newFrame(room int) frame { return frame{make([]byte, maxHeader, maxHeader+room)} }

// reply is the whole frame of an answer. Its memory is used for other answers once it was written: a crowd that pulls makes
// little garbage.
type reply struct {
	bytes []byte
	room  *[]byte // nil where it is nobody else's business
}

var rooms = sync.Pool{New: func() any { return new([]byte) }}

// keptRoom is the size of an answer whose memory is kept: that of most, not that of the largest.
const keptRoom = 64 << 10

// free gives the memory back. Nobody may look at the bytes any more.
func (r *reply) free() {
	if r.room != nil && cap(*r.room) <= keptRoom {
		rooms.Put(r.room)
	}
	*r = reply{}
}

func (f frame) seal() []byte {
	var header [maxHeader]byte
	h := appendHeader(header[:0], opText, len(f.b)-maxHeader)
	start := maxHeader - len(h)
	copy(f.b[start:], h)
	return f.b[start:]
}

// Payloads of what the server says unasked. Ids need no escaping.

func appendItem(b []byte, c chat.ConversationID, seq int64) []byte {
	b = append(b, `{"c":"`...)
	b = appendConversation(b, c)
	b = append(b, `","s":`...)
	b = strconv.AppendInt(b, seq, 10)
	return append(b, '}')
}

func appendConversation(b []byte, c chat.ConversationID) []byte {
	switch c.Kind {
	case chat.KindGroup:
		return strconv.AppendInt(append(b, "g-"...), c.A, 10)
	case chat.KindPrivate:
		b = strconv.AppendInt(append(b, "p-"...), c.A, 10)
		return strconv.AppendInt(append(b, '-'), c.B, 10)
	}
	return append(b, c.String()...)
}

func appendItems(b []byte, op string, items []place) []byte {
	b = append(b, `{"op":"`...)
	b = append(b, op...)
	b = append(b, `","items":[`...)
	for i, it := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendItem(b, it.conversation, it.seq)
	}
	return append(b, "]}"...)
}

// answer frames the answer to a request.
func answer(id json.RawMessage, op string, result []byte, refusal *refusal) reply {
	room := rooms.Get().(*[]byte)
	f := frame{slices.Grow((*room)[:0], maxHeader+len(result)+160)[:maxHeader]}
	f.b = append(f.b, '{')
	if len(id) > 0 {
		f.b = append(append(append(f.b, `"id":`...), id...), ',')
	}
	word, _ := json.Marshal(op) // the client's own word may be anything
	f.b = append(append(f.b, `"op":`...), word...)
	if refusal != nil {
		text, _ := json.Marshal(refusal)
		f.b = append(append(f.b, `,"error":`...), text...)
	} else {
		f.b = append(append(f.b, `,"result":`...), result...)
	}
	f.b = append(f.b, '}')
	*room = f.b[:0]
	return reply{f.seal(), room}
}

// refusal is the contract's form of an error.
type refusal struct {
	Code       chat.Code `json:"code"`
	Message    string    `json:"message"`
	Field      string    `json:"field,omitempty"`
	Retryable  bool      `json:"retryable"`
	RetryAfter int64     `json:"retry_after_ms,omitempty"`
	RequestID  string    `json:"request_id"`
}
