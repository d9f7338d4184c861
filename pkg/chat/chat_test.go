package chat

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestConversationID_HasOneSpelling(t *testing.T) {
	for _, s := range []string{"g-1", "g-9223372036854775807", "p-5-9", "s-3", "s-all"} {
		id, err := ParseConversationID(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if id.String() != s {
			t.Errorf("%s is spelled %s", s, id)
		}
		back, err := ConversationIDFromBytes(id.Bytes())
		if err != nil || back != id {
			t.Errorf("%s comes back from bytes as %s: %v", s, back, err)
		}
	}
	for _, s := range []string{"", "g", "g-", "g-0", "g-01", "g-+1", "g--1", "g-9223372036854775808", "p-9-5", "p-5-5", "p-5", "p-5-9-1", "s-", "S-all", "x-1", "g-1 "} {
		if id, err := ParseConversationID(s); err == nil {
			t.Errorf("%q is read as %s", s, id)
		}
	}
}

// FuzzConversationIDFromBytes: what is read is written again byte for byte, and its text is read as the same id.
func FuzzConversationIDFromBytes(f *testing.F) {
	f.Add(GroupConversation(5).Bytes())
	f.Add(PrivateConversation(9, 5).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := ConversationIDFromBytes(b)
		if err != nil {
			return
		}
		if string(id.Bytes()) != string(b) {
			t.Fatalf("%x was read, %x is written", b, id.Bytes())
		}
		if back, err := ParseConversationID(id.String()); err != nil || back != id {
			t.Fatalf("%s is read as %s: %v", id, back, err)
		}
	})
}

// TestPartition_AgreesWithKafka holds the hash to values of Kafka's own test of Utils.murmur2.
func TestPartition_AgreesWithKafka(t *testing.T) {
	for key, want := range map[string]int32{"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971} {
		if got := int32(murmur2(key)); got != want {
			t.Errorf("murmur2(%q) is %d, want %d", key, got, want)
		}
	}
}

func TestStamp_IsOnlyThatOfAUUIDv7(t *testing.T) {
	for id, want := range map[string]int64{
		"017f22e2-79b0-7cc3-98c4-dc0c0c07398f":   0x017f22e279b0, // the example of RFC 9562
		"017f22e2-79b0-4cc3-98c4-dc0c0c07398f":   0,
		"017F22E2-79B0-7CC3-98C4-DC0C0C07398F":   0,
		"017f22e2-79b0-7cc3-c8c4-dc0c0c07398f":   0,
		"017f22e2-79b0-7cc3-98c4-dc0c0c07398":    0,
		"017f22e2-79b0-7cc3-98c4-dc0c0c07398g":   0,
		"{17f22e2-79b0-7cc3-98c4-dc0c0c07398f}x": 0,
	} {
		if got := Stamp(id); got != want {
			t.Errorf("the stamp of %s is %d, want %d", id, got, want)
		}
	}
}

func TestCanonicalObject_IsOneFormForAll(t *testing.T) {
	for _, s := range []string{`{"b":1.50,"a":"<é>"}`, "{ \"a\" : \"\\u003c\\u00e9>\",\n\"b\":1.50 }", `{"a":"x","b":1.50,"a":"<é>"}`} {
		got, err := CanonicalObject([]byte(s))
		if err != nil || string(got) != `{"a":"<é>","b":1.50}` {
			t.Errorf("%s becomes %s (%v)", s, got, err)
		}
	}
	for _, s := range []string{"", "null", "[]", "1", "{}{}", "{", "{\"a\":\xff}"} {
		if got, err := CanonicalObject([]byte(s)); err == nil {
			t.Errorf("%q becomes %s", s, got)
		}
	}
}

func TestHash_KnowsABodyByWhatItSays(t *testing.T) {
	h, err := NewHasher([]byte("sixteen bytes at least"))
	if err != nil {
		t.Fatal(err)
	}
	say := func(content string, change func(*Command)) BodyHash {
		c := &Command{Type: KindMessage, Conversation: GroupConversation(1), Sender: 2, ClientMsgID: "x", Message: &Message{Type: TypeText, Content: json.RawMessage(content)}}
		change(c)
		return h.Hash(c)
	}
	plain := say(`{"text":"a"}`, func(*Command) {})
	if say(` { "text" : "a" } `, func(c *Command) { c.OriginalAt, c.ExpiresAt = 5, 6; c.Message.Mentions = &Mentions{} }) != plain {
		t.Error("white space, times or empty mentions change the hash")
	}
	for name, other := range map[string]BodyHash{
		"content":   say(`{"text":"b"}`, func(*Command) {}),
		"type":      say(`{"text":"a"}`, func(c *Command) { c.Message.Type = TypeCustom }),
		"reply":     say(`{"text":"a"}`, func(c *Command) { c.Message.ReplyTo = 1 }),
		"recipient": say(`{"text":"a"}`, func(c *Command) { c.Message.Recipients = []UserID{9} }),
	} {
		if other == plain {
			t.Errorf("another %s does not change the hash", name)
		}
	}
	if say(`{"text":"a"}`, func(c *Command) { c.Message.Recipients = []UserID{9, 8, 9} }) != say(`{"text":"a"}`, func(c *Command) { c.Message.Recipients = []UserID{8, 9} }) {
		t.Error("the order of recipients changes the hash")
	}
	if _, err := NewHasher([]byte("short")); err == nil {
		t.Error("a short key is taken")
	}
}

func TestValidate_NamesTheFieldAtFault(t *testing.T) {
	good := func() Command {
		return Command{Type: KindMessage, Conversation: GroupConversation(1), Sender: 2, ClientMsgID: "x", Message: &Message{Type: TypeText, Content: json.RawMessage(`{"text":"a"}`)}}
	}
	c := good()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]struct {
		change func(*Command)
		code   Code
		field  string
	}{
		"no conversation":  {func(c *Command) { c.Conversation = ConversationID{} }, CodeInvalidField, "conversation_id"},
		"a system one":     {func(c *Command) { c.Conversation = ConversationID{Kind: KindBroadcast} }, CodeUnsupported, "conversation_id"},
		"no sender":        {func(c *Command) { c.Sender = 0 }, CodeInvalidField, "sender_id"},
		"no client id":     {func(c *Command) { c.ClientMsgID = "" }, CodeInvalidField, "client_msg_id"},
		"a long client id": {func(c *Command) { c.ClientMsgID = strings.Repeat("x", 65) }, CodeInvalidField, "client_msg_id"},
		"a control byte":   {func(c *Command) { c.ClientMsgID = "a\n" }, CodeInvalidField, "client_msg_id"},
		"two bodies":       {func(c *Command) { c.Recall = &Recall{TargetSeq: 1} }, CodeInvalidField, "recall"},
		"no body":          {func(c *Command) { c.Message = nil }, CodeInvalidField, "message"},
		"an empty text":    {func(c *Command) { c.Message.Content = json.RawMessage(`{"text":" "}`) }, CodeInvalidField, "message.content.text"},
		"a field too many": {func(c *Command) { c.Message.Content = json.RawMessage(`{"text":"a","x":1}`) }, CodeUnknownField, "message.content.x"},
		"too large": {func(c *Command) {
			c.Message.Content = json.RawMessage(`{"text":"` + strings.Repeat("a", MaxContentBytes) + `"}`)
		}, CodeTooLarge, "message.content"},
		"a notice":           {func(c *Command) { c.Message.Type = TypeNotice }, CodeForbidden, "message.type"},
		"too many mentioned": {func(c *Command) { c.Message.Mentions = &Mentions{UserIDs: many(MaxMentions + 1)} }, CodeInvalidField, "message.mentions.user_ids"},
		"a join in private": {func(c *Command) {
			c.Conversation, c.Type, c.Message, c.Join = PrivateConversation(2, 3), KindJoin, nil, &Join{Users: []UserID{3}}
		}, CodeUnsupported, "type"},
	} {
		c := good()
		f.change(&c)
		err := c.Validate()
		var refusal *Error
		if !errors.As(err, &refusal) || refusal.Code != f.code || refusal.Field != f.field {
			t.Errorf("%s: got %v, want %s (%s)", name, err, f.code, f.field)
		}
	}
}

func many(n int) []UserID {
	var ids []UserID
	for i := range n {
		ids = append(ids, UserID(i+1))
	}
	return ids
}

func TestReasons_AreEachToldOnceAndHaveAStatus(t *testing.T) {
	seen := map[Code]bool{}
	for _, r := range Reasons() {
		if seen[r.Code] || r.Meaning == "" || (r.Status != 0 && (r.Status < 400 || r.Status > 599)) {
			t.Errorf("the row of %s: %+v", r.Code, r)
		}
		seen[r.Code] = true
	}
}
