package pusher

import (
	"encoding/json"
	"slices"
	"strconv"

	"tideline/pkg/chat"
)

// place is a number in a conversation.
type place struct {
	conversation chat.ConversationID
	seq          int64
}

// outbox holds what is to be written to one connection. It knows neither time nor sockets; whoever owns it locks it.
//
// What the server says unasked is coalesced: of each thing only the newest is kept, so that its size is bounded by what the
// connection has (conversations, watched people), never by what happens. Answers are bounded by the requests in flight.
type outbox struct {
	answers []reply
	hints   []*membership
	rare    *rare // nil for nearly every connection at nearly every time
}

// rare is what is seldom pending.
type rare struct {
	pong     []byte // frame
	reads    []place
	receipts []place
	presence []person
	typing   []typing
}

type person struct {
	user   chat.UserID
	online bool
}

type typing struct {
	conversation chat.ConversationID
	user         chat.UserID
}

// Bounds of what is seldom pending. Beyond them the oldest is dropped: a client that is so far behind learns the same from
// its next sync, or it did not matter any more.
const (
	maxReads    = 256
	maxReceipts = 256
	maxTyping   = 64
)

// hint notes that a conversation is at seq. It does nothing where the connection was told as much. It tells whether
// something was pending already.
func (o *outbox) hint(m *membership, seq int64) (coalesced bool) {
	if seq <= m.told || seq <= m.pending {
		return false
	}
	coalesced = m.pending > 0
	if !coalesced {
		o.hints = append(o.hints, m)
	}
	m.pending = seq
	return coalesced
}

// takeHints gives one frame of at most limit hints, oldest first, or nil. A frame of a single hint is the same for all
// members of the conversation and made once.
func (o *outbox) takeHints(limit int) []byte {
	n := min(len(o.hints), limit)
	if n == 0 {
		return nil
	}
	var out []byte
	if n == 1 {
		m := o.hints[0]
		out = m.conversation.hintFrame(m.pending)
		m.told, m.pending = m.pending, 0
	} else {
		f := newFrame(24 + 48*n)
		f.b = append(f.b, `{"op":"hint","items":[`...)
		for i, m := range o.hints[:n] {
			if i > 0 {
				f.b = append(f.b, ',')
			}
			f.b = appendItem(f.b, m.conversation.id, m.pending)
			m.told, m.pending = m.pending, 0
		}
		f.b = append(f.b, "]}"...)
		out = f.seal()
	}
	if n == len(o.hints) && cap(o.hints) > 8 {
		o.hints = nil // an idle connection keeps nothing
	} else {
		o.hints = slices.Delete(o.hints, 0, n)
	}
	return out
}

func (o *outbox) rarely() *rare {
	if o.rare == nil {
		o.rare = &rare{}
	}
	return o.rare
}

// newest keeps the highest number for each conversation.
func newest(list []place, p place, limit int) []place {
	for i := range list {
		if list[i].conversation == p.conversation {
			list[i].seq = max(list[i].seq, p.seq)
			return list
		}
	}
	if len(list) >= limit {
		list = slices.Delete(list, 0, 1)
	}
	return append(list, p)
}

// read notes that another device of the user has read up to a place.
func (o *outbox) read(p place) { r := o.rarely(); r.reads = newest(r.reads, p, maxReads) }

// receipt notes that somebody has read a message of the user. In a private conversation it stands for all before it; in a
// group each number is kept.
func (o *outbox) receipt(p place) {
	r := o.rarely()
	if p.conversation.Kind == chat.KindPrivate {
		r.receipts = newest(r.receipts, p, maxReceipts)
		return
	}
	if slices.Contains(r.receipts, p) {
		return
	}
	if len(r.receipts) >= maxReceipts {
		r.receipts = slices.Delete(r.receipts, 0, 1)
	}
	r.receipts = append(r.receipts, p)
}

// online notes that somebody came or went.
func (o *outbox) online(p person) {
	r := o.rarely()
	for i := range r.presence {
		if r.presence[i].user == p.user {
			r.presence[i] = p
			return
		}
	}
	r.presence = append(r.presence, p) // bounded by the people that the connection watches
}

// types notes that somebody types.
func (o *outbox) types(t typing) {
	r := o.rarely()
	if slices.Contains(r.typing, t) || len(r.typing) >= maxTyping {
		return
	}
	r.typing = append(r.typing, t)
}

// pong notes what a ping is answered with; of many pings only the last counts.
func (o *outbox) pong(data string) { o.rarely().pong = appendFrame(nil, opPong, []byte(data)) }

// unasked tells whether something waits for the window.
func (o *outbox) unasked() bool {
	return len(o.hints) > 0 || o.rare != nil && (len(o.rare.reads) > 0 || len(o.rare.receipts) > 0 || len(o.rare.presence) > 0 || len(o.rare.typing) > 0)
}

// takePong gives the frame that answers a ping, or nil. It does not wait for the window.
func (o *outbox) takePong() []byte {
	if o.rare == nil {
		return nil
	}
	b := o.rare.pong
	o.rare.pong = nil
	return b
}

// takeUnasked gives everything that waits for the window as frames in one piece, with at most limit hints, and how many
// frames these are; nil where there is nothing.
func (o *outbox) takeUnasked(limit int) (frames []byte, n int) {
	frames = o.takeHints(limit)
	if frames != nil {
		n = 1
	}
	r := o.rare
	if r == nil {
		return frames, n
	}
	o.rare = nil
	if r.pong != nil {
		o.rare = &rare{pong: r.pong}
	}
	if len(r.reads) == 0 && len(r.receipts) == 0 && len(r.presence) == 0 && len(r.typing) == 0 {
		return frames, n
	}
	out := slices.Clone(frames) // a frame of hints may be shared
	add := func(payload []byte) { out = appendFrame(out, opText, payload); n++ }
	for _, p := range r.reads {
		b := appendConversation([]byte(`{"op":"read","conversation_id":"`), p.conversation)
		b = strconv.AppendInt(append(b, `","read_seq":`...), p.seq, 10)
		add(append(b, '}'))
	}
	if len(r.receipts) > 0 {
		add(appendItems(nil, "receipt", r.receipts))
	}
	if len(r.presence) > 0 {
		b := []byte(`{"op":"presence","items":[`)
		for i, p := range r.presence {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendPerson(b, p), '}')
		}
		add(append(b, "]}"...))
	}
	if len(r.typing) > 0 {
		text, _ := json.Marshal(struct {
			Op    string       `json:"op"`
			Items []typingJSON `json:"items"`
		}{"typing", typingItems(r.typing)})
		add(text)
	}
	return out, n
}

type typingJSON struct {
	Conversation chat.ConversationID `json:"conversation_id"`
	User         chat.UserID         `json:"user_id"`
}

func typingItems(list []typing) []typingJSON {
	out := make([]typingJSON, len(list))
	for i, t := range list {
		out[i] = typingJSON{t.conversation, t.user}
	}
	return out
}

func appendPerson(b []byte, p person) []byte {
	b = strconv.AppendInt(append(b, `{"user_id":"`...), int64(p.user), 10)
	return strconv.AppendBool(append(b, `","online":`...), p.online)
}
