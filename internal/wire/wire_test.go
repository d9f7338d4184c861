package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"tideline/pkg/chat"
)

var (
	group   = chat.GroupConversation(42)
	pointer = func(s string) *string { return &s }
	yes     = true
)

// commands has one command of every kind, with every field set.
func commands() map[string]chat.Command {
	c := func(kind chat.Kind, set func(*chat.Command)) chat.Command {
		v := chat.Command{Type: kind, Conversation: group, Sender: 7, ClientMsgID: "0190163d-8694-739b-aea5-966c26f8ad91", OriginalAt: 1, ExpiresAt: 2}
		set(&v)
		return v
	}
	return map[string]chat.Command{
		"message": c(chat.KindMessage, func(v *chat.Command) {
			v.Message = &chat.Message{
				Type: chat.TypeText, Content: json.RawMessage(`{"text":"hé"}`), Mentions: &chat.Mentions{UserIDs: []chat.UserID{8}, All: true},
				Recipients: []chat.UserID{8, 9}, ReplyTo: 3, Receipt: true,
			}
		}),
		"create": c(chat.KindCreate, func(v *chat.Command) {
			v.Create = &chat.Create{Name: "n", AvatarURL: "https://example.org/a", HistoryVisible: true, Members: []chat.UserID{8}}
		}),
		"join":  c(chat.KindJoin, func(v *chat.Command) { v.Join = &chat.Join{Users: []chat.UserID{8, 9}} }),
		"leave": c(chat.KindLeave, func(v *chat.Command) { v.Leave = &chat.Leave{Users: []chat.UserID{8}} }),
		"role":  c(chat.KindRole, func(v *chat.Command) { v.Role = &chat.SetRole{User: 8, Role: chat.RoleAdmin} }),
		"mute":  c(chat.KindMute, func(v *chat.Command) { v.Mute = &chat.Mute{User: 8, Until: 99} }),
		"nickname": c(chat.KindNickname, func(v *chat.Command) {
			v.Nickname = &chat.Nickname{User: 8, Nickname: "x"}
		}),
		"update": c(chat.KindUpdate, func(v *chat.Command) {
			v.Update = &chat.Update{Name: pointer("m"), AvatarURL: pointer(""), HistoryVisible: &yes}
		}),
		"edit":     c(chat.KindEdit, func(v *chat.Command) { v.Edit = &chat.Edit{TargetSeq: 5, Content: json.RawMessage(`{"text":"y"}`)} }),
		"recall":   c(chat.KindRecall, func(v *chat.Command) { v.Recall = &chat.Recall{TargetSeq: 5} }),
		"dissolve": c(chat.KindDissolve, func(v *chat.Command) { v.Dissolve = &chat.Dissolve{} }),
	}
}

// TestCommand_KeepsItsPublishedBytes holds what is written today to the samples of version 1: every version must read
// what every other has written. UPDATE_GOLDEN=1 writes samples of kinds that have none yet, and changes no other.
func TestCommand_KeepsItsPublishedBytes(t *testing.T) {
	for name, c := range commands() {
		got := hex.EncodeToString(EncodeCommand(&c))
		path := filepath.Join("testdata", "v1", "command-"+name+".hex")
		raw, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) && os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(path, []byte(got+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		want := strings.TrimSpace(string(raw))
		if got != want {
			t.Errorf("%s is written as\n%s, was\n%s", name, got, want)
		}
		sample, err := hex.DecodeString(want)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeCommand("", sample)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(*back, c) {
			t.Errorf("%s is read as %+v, was %+v", name, *back, c)
		}
	}
}

// rejections has one rejection with every field set, and one of a record that was too long to be kept whole.
func rejections() map[string]chat.Rejection {
	whole := chat.Rejection{
		Code: chat.CodeConflict, Message: "was used before", Field: "client_msg_id", First: &chat.FirstEvent{Seq: 3, MessageID: 4, SentAt: 5}, MovedTo: 6,
		Inbound: chat.Position{Partition: 7, Offset: 8}, RejectedAt: 9, Producer: "crm", ContentType: ContentTypeJSON, Record: []byte("{}"),
		Conversation: group, Sender: 10, ClientMsgID: "c",
	}
	cut := chat.Rejection{Code: chat.CodeTooLarge, Record: []byte("the beginning"), RecordBytes: 2_000_000, RecordHash: bytes.Repeat([]byte{0xab}, 32)}
	return map[string]chat.Rejection{"rejection": whole, "rejection-cut": cut}
}

// TestRejection_KeepsItsPublishedBytes is as TestCommand_KeepsItsPublishedBytes.
func TestRejection_KeepsItsPublishedBytes(t *testing.T) {
	for name, r := range rejections() {
		got := hex.EncodeToString(EncodeRejection(&r))
		path := filepath.Join("testdata", "v1", name+".hex")
		raw, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) && os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(path, []byte(got+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		want := strings.TrimSpace(string(raw))
		if got != want {
			t.Errorf("%s is written as\n%s, was\n%s", name, got, want)
		}
		sample, err := hex.DecodeString(want)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := DecodeRejection(sample); err != nil || !reflect.DeepEqual(back, r) {
			t.Errorf("%s is read as %+v, was %+v: %v", name, back, r, err)
		}
	}
}

func TestCommand_SaysTheSameInJSONAndProtobuf(t *testing.T) {
	hasher, err := chat.NewHasher([]byte("a key for the tests"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range commands() {
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		fromJSON, err := DecodeCommand("application/json; charset=utf-8", text)
		if err != nil {
			t.Fatalf("%s: %v in %s", name, err, text)
		}
		fromProtobuf, err := DecodeCommand(ContentTypeProtobuf, EncodeCommand(&c))
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []*chat.Command{fromJSON, fromProtobuf} {
			if err := v.Validate(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if hasher.Hash(fromJSON) != hasher.Hash(fromProtobuf) {
			t.Errorf("%s has another hash in JSON than in protobuf", name)
		}
	}
}

func TestEvent_ComesBackAsItWas(t *testing.T) {
	for name, c := range commands() {
		e := chat.Event{
			Conversation: group, Seq: 3, Ordinal: 2, Kind: c.Type, MessageID: 11, Sender: 7, ClientMsgID: "c", BodyHash: chat.BodyHash{1, 2}, SentAt: 5,
			Producer: "crm", InboundOffset: 6, MovedFrom: &chat.Position{Partition: 1, Offset: 2}, RejectedNext: 7, NumberedAt: 8,
			Message: c.Message, Create: c.Create, Join: c.Join, Leave: c.Leave, Role: c.Role, Mute: c.Mute, Nickname: c.Nickname, Update: c.Update,
			Edit: c.Edit, Recall: c.Recall, Dissolve: c.Dissolve,
		}
		back, err := DecodeEvent(EncodeEvent(&e))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(back, e) {
			t.Errorf("%s came back as %+v, was %+v", name, back, e)
		}
	}
}

func TestDecodeCommand_SaysWhatIsWrong(t *testing.T) {
	ok := `{"type":"message","conversation_id":"g-42","sender_id":"7","client_msg_id":"c","message":{"type":"text","content":{"text":"x"}}}`
	for _, c := range []struct {
		name, contentType, value string
		code                     chat.Code
		field                    string
	}{
		{"half a protobuf", "", "\x0a\x05g-", chat.CodeMalformed, ""},
		{"half a JSON", "application/json", ok[:40], chat.CodeMalformed, ""},
		{"two of them", "application/json", ok + ok, chat.CodeMalformed, ""},
		{"broken UTF-8", "application/json", strings.Replace(ok, `"x"`, "\"\xff\"", 1), chat.CodeMalformed, ""},
		{"an unknown field", "application/json", strings.Replace(ok, `"sender_id"`, `"colour":1,"sender_id"`, 1), chat.CodeUnknownField, "colour"},
		{"a number for an id", "application/json", strings.Replace(ok, `"7"`, `7`, 1), chat.CodeInvalidField, "sender_id"},
		{"a field in another case", "application/json", strings.Replace(ok, `"sender_id"`, `"Sender_ID"`, 1), chat.CodeUnknownField, "Sender_ID"},
		{"two senders", "application/json", strings.Replace(ok, `"sender_id"`, `"sender_id":"8","sender_id"`, 1), chat.CodeMalformed, "sender_id"},
		{"two texts", "application/json", strings.Replace(ok, `"text":"x"`, `"text":"x","text":"y"`, 1), chat.CodeMalformed, "message.content.text"},
		{"an unknown field inside", "application/json", strings.Replace(ok, `"content"`, `"size":1,"content"`, 1), chat.CodeUnknownField, "message.size"},
		{"an id that is none", "application/json", strings.Replace(ok, `"7"`, `"-7"`, 1), chat.CodeInvalidField, "sender_id"},
		{"a list", "application/json", "[" + ok + "]", chat.CodeMalformed, ""},
		{"a type that is none", "application/json", strings.Replace(ok, `"type":"message"`, `"type":"shout"`, 1), chat.CodeInvalidField, "type"},
		{"another content type", "text/plain", ok, chat.CodeNotAcceptable, "content-type"},
		{"a megabyte", "application/json", strings.Repeat(" ", 1<<20), chat.CodeTooLarge, ""},
	} {
		_, err := DecodeCommand(c.contentType, []byte(c.value))
		var refusal *chat.Error
		if !errors.As(err, &refusal) || refusal.Code != c.code || refusal.Field != c.field {
			t.Errorf("%s: got %v, want %s (%s)", c.name, err, c.code, c.field)
		}
	}
}

func TestDecodeCommand_SaysThatJSONNeedsItsHeader(t *testing.T) {
	ok := `{"type":"message","conversation_id":"g-42","sender_id":"7","client_msg_id":"c","message":{"type":"text","content":{"text":"x"}}}`
	for name, value := range map[string]string{
		"JSON": ok, "JSON behind white space": " \r\n\t" + ok, "an empty object": "{}", "half of it": ok[:40], "a wrong type": strings.Replace(ok, `"7"`, `7`, 1),
	} {
		c, err := DecodeCommand("", []byte(value))
		var refusal *chat.Error
		if !errors.As(err, &refusal) || refusal.Code != chat.CodeMalformed || refusal.Field != "" ||
			refusal.Message != "the record begins with { and has no content-type header; set content-type=application/json" {
			t.Errorf("%s: %v", name, err)
		}
		if whole := strings.HasSuffix(value, "}}}"); whole && (c == nil || c.ClientMsgID != "c" || c.Conversation.String() != "g-42") {
			t.Errorf("%s: the names are lost: %+v", name, c)
		}
	}
	for name, c := range map[string]struct{ contentType, value string }{
		"what is no JSON": {"", "\x0a\x05g-"}, "nothing": {"", ""}, "JSON that is called protobuf": {ContentTypeProtobuf, ok},
	} {
		if _, err := DecodeCommand(c.contentType, []byte(c.value)); err == nil || strings.Contains(err.Error(), "header") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Each field comes first once, with each type that is wrong there: what is behind it is not read any more.
func TestDecodeCommand_KeepsTheNamesOfWhatItRefuses(t *testing.T) {
	fields := []string{"colour"}
	for i := range reflect.TypeFor[chat.Command]().NumField() {
		name, _, _ := strings.Cut(reflect.TypeFor[chat.Command]().Field(i).Tag.Get("json"), ",")
		fields = append(fields, name)
	}
	for _, field := range fields {
		for _, wrong := range []string{"true", "[]", `{"a":1}`} {
			names := map[string]string{"conversation_id": `"g-42"`, "sender_id": `"7"`, "client_msg_id": `"c"`}
			delete(names, field)
			value := `{"` + field + `":` + wrong
			for name, is := range names {
				value += `,"` + name + `":` + is
			}
			c, err := DecodeCommand(ContentTypeJSON, []byte(value+"}"))
			var refusal *chat.Error
			if !errors.As(err, &refusal) || c == nil {
				t.Errorf("%s: %+v, %v", value, c, err)
				continue
			}
			want := chat.Command{}
			for name := range names {
				switch name {
				case "conversation_id":
					want.Conversation = chat.GroupConversation(42)
				case "sender_id":
					want.Sender = 7
				case "client_msg_id":
					want.ClientMsgID = "c"
				}
			}
			if c.Conversation != want.Conversation || c.Sender != want.Sender || c.ClientMsgID != want.ClientMsgID {
				t.Errorf("%s: the names are %+v", value, c)
			}
		}
	}
}

// What strictness costs on the road of a send: encoding/json, which is not as strict, is the floor beside it.
func BenchmarkDecodeJSON(b *testing.B) {
	text := []byte(`{"type":"message","conversation_id":"g-42","sender_id":"7","client_msg_id":"c-1","message":{"type":"text","content":{"text":"` + strings.Repeat("hello ", 20) + `"}}}`)
	b.Run("strict", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var c chat.Command
			if err := DecodeJSON(text, &c); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("floor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var c chat.Command
			dec := json.NewDecoder(bytes.NewReader(text))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&c); err != nil {
				b.Fatal(err)
			}
		}
	})
}
