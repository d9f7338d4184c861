package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"tideline/pkg/chat"
)

// nasty are texts that readers of JSON like to disagree about.
var nasty = []string{
	``, `null`, `{}`, `[]`, `{"type":"message"`, `{"type":"message","type":"recall"}`, `{"Type":"message"}`, `{"sender_id":18446744073709551616}`,
	`{"sender_id":"9223372036854775808"}`, `{"original_at":1e400}`, `{"original_at":-0.0}`, `{"original_at":99999999999999999999999999}`,
	`{"type":"message","conversation_id":"g-1","sender_id":"7","client_msg_id":"c","message":{"type":"custom","content":{"a":"\ud800"}}}`,
	`{"type":"message","conversation_id":"g-1","sender_id":"7","client_msg_id":"c","message":{"type":"custom","content":{"a":1E+400,"b":-0,"\u2028":"<&>"}}}`,
	`{"type":"message","conversation_id":"g-1","sender_id":"7","client_msg_id":"c","message":{"type":"text","content":{"text":"\u0000\u007f"}}}`,
	`{"type":"message","conversation_id":"g-1","sender_id":"7","client_msg_id":"c","message":{"type":"custom","content":` + strings.Repeat(`{"a":`, 300) + `1` + strings.Repeat(`}`, 300) + `}}`,
	`{"` + strings.Repeat("x", 2000) + `":1}`, `{"message":{"` + strings.Repeat("é", 2000) + `":1}}`, strings.Repeat("[", 20000),
	`{"message":{"content":` + strings.Repeat(`{"abcdefghij":`, 200) + `{"a":1,"a":2}` + strings.Repeat("}", 200) + `}}`, "{\"type\":\"\xff\"}", "\xef\xbb\xbf{}",
}

// broken are bytes that readers of protobuf like to disagree about: half a varint, one that is too long, a length that goes
// past the end, a group that does not end, a field twice, a field of a later version.
var broken = []string{
	"\x80", "\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x0a\xff\xff\xff\xff\x0f", "\x0b", "\x0a\x03g-1\x0a\x03g-2", "\x0a\x03g-1\xfa\x3f\x01x", "\x0a\x01\xff",
}

// checkRefusal holds what every refusal of a decoder promises: it can be shown, its code stands in the table of reasons, and
// it is small and valid text however large or broken the thing was that it refuses.
func checkRefusal(t *testing.T, err error) *chat.Error {
	t.Helper()
	var refusal *chat.Error
	if !errors.As(err, &refusal) {
		t.Fatalf("%v cannot be shown", err)
	}
	if chat.ReasonFor(refusal.Code).Code != refusal.Code || refusal.Code == chat.CodeInternal {
		t.Fatalf("the code %q is none for clients", refusal.Code)
	}
	if len(refusal.Field) > maxFieldBytes || len(refusal.Message) > 512 || !utf8.ValidString(refusal.Field) {
		t.Fatalf("the refusal has a field of %d and a message of %d bytes: %.80q", len(refusal.Field), len(refusal.Message), refusal.Field)
	}
	return refusal
}

// FuzzDecodeCommand: whatever comes, there is no panic; the error is one that can be shown, and can be written as a
// rejection that is read as the same; and what is valid
//   - survives a way through protobuf, and one through JSON, with the same hash;
//   - is in canonical form then: encoded again, it gives the same bytes, and validating it again changes nothing.
func FuzzDecodeCommand(f *testing.F) {
	for _, c := range commands() {
		f.Add(true, EncodeCommand(&c))
		text, _ := json.Marshal(c)
		f.Add(false, text)
	}
	for _, s := range nasty {
		f.Add(false, []byte(s))
	}
	for _, s := range broken {
		f.Add(true, []byte(s))
	}
	hasher, _ := chat.NewHasher([]byte("a key for the tests"))
	f.Fuzz(func(t *testing.T, protobuf bool, value []byte) {
		contentType := ContentTypeJSON
		if protobuf {
			contentType = ContentTypeProtobuf
		}
		c, err := DecodeCommand(contentType, value)
		if err == nil {
			err = c.Validate()
		}
		if err != nil {
			refusal := checkRefusal(t, err)
			r := chat.Rejection{Code: refusal.Code, Message: refusal.Message, Field: refusal.Field, ContentType: contentType, Record: value}
			if c != nil {
				r.Conversation, r.Sender, r.ClientMsgID = c.Conversation, c.Sender, c.ClientMsgID
			}
			back, err := DecodeRejection(EncodeRejection(&r))
			if err != nil || back.Code != r.Code || !bytes.Equal(back.Record, value) || back.Conversation != r.Conversation {
				t.Fatalf("the rejection %+v comes back as %+v, %v", r, back, err)
			}
			return
		}
		hash, canonical := hasher.Hash(c), EncodeCommand(c)
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range []struct {
			contentType string
			value       []byte
		}{{ContentTypeProtobuf, canonical}, {ContentTypeJSON, text}} {
			if len(form.value) > chat.MaxCommandBytes {
				continue // the other form may be longer than the one that came
			}
			back, err := DecodeCommand(form.contentType, form.value)
			if err != nil {
				t.Fatalf("as %s: %v", form.contentType, err)
			}
			if err := back.Validate(); err != nil {
				t.Fatalf("as %s: %v", form.contentType, err)
			}
			if hasher.Hash(back) != hash {
				t.Fatalf("the hash changed on the way through %s", form.contentType)
			}
			if again := EncodeCommand(back); !bytes.Equal(again, canonical) {
				t.Fatalf("%x becomes %x on the way through %s", canonical, again, form.contentType)
			}
		}
	})
}

// FuzzDecodeJSON: whatever comes, there is no panic, and the refusal is small, can be shown, and names the field where a
// field is at fault. What is read into a list of raw values has each of its names once, exactly as it was written.
func FuzzDecodeJSON(f *testing.F) {
	for _, s := range nasty {
		f.Add([]byte(s))
	}
	f.Add([]byte(`{"known":"g-1","list":["1","x"]}`))
	f.Add([]byte(`{"KNOWN":"g-1"}`))
	f.Add([]byte(`{"list":[1]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var known struct {
			Known chat.ConversationID `json:"known"`
			List  []chat.UserID       `json:"list"`
		}
		var raw map[string]json.RawMessage
		if err := DecodeJSON(text, &raw); err != nil {
			_ = checkRefusal(t, err)
			if DecodeJSON(text, &known) == nil {
				t.Fatalf("%q is no JSON object, and is read as one", text)
			}
			return
		}
		err := DecodeJSON(text, &known)
		if err != nil {
			if refusal := checkRefusal(t, err); refusal.Field == "" {
				if _, nameless := raw[""]; !nameless || refusal.Code != chat.CodeUnknownField {
					t.Fatalf("%q is refused with %v, which names no field", text, err)
				}
			}
			return
		}
		for name := range raw {
			if name != "known" && name != "list" {
				t.Fatalf("%q has the field %q, and was read", text, name)
			}
		}
	})
}

// events has one event of every kind, and a note of progress.
func events() []chat.Event {
	list := []chat.Event{{Kind: chat.KindProgress, InboundOffset: 9, RejectedNext: 3, SentAt: 1}}
	for _, c := range commands() {
		list = append(list, chat.Event{
			Conversation: group, Seq: 3, Ordinal: 2, Kind: c.Type, MessageID: 11, Sender: 7, ClientMsgID: "c", BodyHash: chat.BodyHash{1, 2}, SentAt: 5,
			Producer: "crm", InboundOffset: 6, MovedFrom: &chat.Position{Partition: 1, Offset: 2}, RejectedNext: 7,
			Message: c.Message, Create: c.Create, Join: c.Join, Leave: c.Leave, Role: c.Role, Mute: c.Mute, Nickname: c.Nickname, Update: c.Update,
			Edit: c.Edit, Recall: c.Recall, Dissolve: c.Dissolve,
		})
	}
	return list
}

// fixpoint holds a decoder and its encoder to one another: what is read is written in a form that is read as the same, and is
// written as the same bytes again.
func fixpoint[T any](t *testing.T, value []byte, decode func([]byte) (T, error), encode func(*T) []byte) (T, bool) {
	t.Helper()
	v, err := decode(value)
	if err != nil {
		return v, false
	}
	written := encode(&v)
	back, err := decode(written)
	if err != nil {
		t.Fatalf("%x is read, and written as %x, which is not: %v", value, written, err)
	}
	if !reflect.DeepEqual(back, v) {
		t.Fatalf("%+v comes back as %+v", v, back)
	}
	if again := encode(&back); !bytes.Equal(again, written) {
		t.Fatalf("%x becomes %x", written, again)
	}
	return v, true
}

// FuzzDecodeEvent: no panic; what is read comes back as the same; an event of a kind that can be commanded has the body of its
// kind and no other, so that nobody who reads the log has to look; one of a kind that is not known here has none.
func FuzzDecodeEvent(f *testing.F) {
	for _, e := range events() {
		f.Add(EncodeEvent(&e))
	}
	for _, s := range broken {
		f.Add([]byte(s))
	}
	f.Add([]byte("\x0a\x03g-1\x20\x81\x02"))
	f.Fuzz(func(t *testing.T, value []byte) {
		e, ok := fixpoint(t, value, DecodeEvent, EncodeEvent)
		if !ok || e.Kind == chat.KindProgress {
			return
		}
		bodies := map[chat.Kind]bool{
			chat.KindMessage: e.Message != nil, chat.KindCreate: e.Create != nil, chat.KindJoin: e.Join != nil, chat.KindLeave: e.Leave != nil,
			chat.KindRole: e.Role != nil, chat.KindMute: e.Mute != nil, chat.KindNickname: e.Nickname != nil, chat.KindUpdate: e.Update != nil,
			chat.KindEdit: e.Edit != nil, chat.KindRecall: e.Recall != nil, chat.KindDissolve: e.Dissolve != nil,
		}
		for kind, there := range bodies {
			if there != (kind == e.Kind) {
				t.Fatalf("an event of kind %d was read; it has the body of %s: %t", e.Kind, kind, there)
			}
		}
		if e.Conversation.IsZero() {
			t.Fatal("an event of no conversation was read")
		}
	})
}

// FuzzDecodeRejection: no panic; what is read comes back as the same, with the record byte for byte.
func FuzzDecodeRejection(f *testing.F) {
	for _, r := range []chat.Rejection{
		{},
		{Code: chat.CodeMoved, MovedTo: 3, Inbound: chat.Position{Partition: 1, Offset: 2}, Record: []byte("\xff")},
		{Code: chat.CodeDuplicate, First: &chat.FirstEvent{Seq: 1, MessageID: 2, SentAt: 3}, Conversation: group, Sender: 7, ClientMsgID: "\xff", Message: "\xc3", Field: "f"},
	} {
		f.Add(EncodeRejection(&r))
	}
	for _, s := range broken {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		fixpoint(t, value, func(b []byte) (chat.Rejection, error) {
			r, err := DecodeRejection(b)
			if len(r.Record) == 0 {
				r.Record = nil // a record of no bytes
			}
			return r, err
		}, EncodeRejection)
	})
}

// FuzzDecodeReadMark: no panic; what is read names a conversation, and comes back as the same.
func FuzzDecodeReadMark(f *testing.F) {
	f.Add(EncodeReadMark(&chat.ReadMark{User: 7, Conversation: group, Seq: 5, Ordinal: 4, PreviousSeq: 3, At: 9, Session: "11"}))
	f.Add(EncodeReadMark(&chat.ReadMark{Conversation: chat.PrivateConversation(5, 9), Seq: -1}))
	for _, s := range broken {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		if m, ok := fixpoint(t, value, DecodeReadMark, EncodeReadMark); ok && m.Conversation.IsZero() {
			t.Fatal("a mark in no conversation was read")
		}
	})
}

// FuzzDecodeNotify: no panic; what is read names a conversation, and comes back as the same.
func FuzzDecodeNotify(f *testing.F) {
	f.Add(EncodeNotify(&chat.Notify{
		Conversation: group, MaxSeq: 9, Ordinal: 5, ChangedSeqs: []int64{1, 2}, Members: []chat.MemberChange{{User: 7, Seq: 8, Joined: true}, {User: 8, Seq: 9, Left: true}},
		Asked: []chat.Asked{{Seq: 9, Sender: 7}}, Meta: true, Repeat: true, At: 1,
	}))
	for _, s := range broken {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		decode := func(b []byte) (chat.Notify, error) {
			n, err := DecodeNotify(b)
			if len(n.ChangedSeqs) == 0 {
				n.ChangedSeqs = nil // a packed list of nothing
			}
			return n, err
		}
		if n, ok := fixpoint(t, value, decode, EncodeNotify); ok && n.Conversation.IsZero() {
			t.Fatal("a notification of no conversation was read")
		}
	})
}

// FuzzDecodeOutcomes: no panic; not more is made of the bytes than they have; what is read comes back as the same.
func FuzzDecodeOutcomes(f *testing.F) {
	f.Add(EncodeOutcomes(nil))
	f.Add(EncodeOutcomes([]Outcome{{Request: 1, First: chat.FirstEvent{Seq: 2, MessageID: 3, SentAt: 4}}, {Request: 2, Refused: chat.CodeMuted, Message: "m", Field: "f"}, {Duplicate: true}}))
	for _, s := range broken {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		list, ok := fixpoint(t, payload, DecodeOutcomes, func(v *[]Outcome) []byte { return EncodeOutcomes(*v) })
		if ok && 2*len(list) > len(payload) {
			t.Fatalf("%d outcomes were read from %d bytes", len(list), len(payload))
		}
	})
}
