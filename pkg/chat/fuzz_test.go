package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParseConversationID: what is read is written again letter for letter, so that a conversation has one spelling and with
// it one partition; its binary form is read as the same id, and its order among ids of its kind is that of the numbers. What
// is refused is refused as a malformed id, in a sentence that stays short.
func FuzzParseConversationID(f *testing.F) {
	for _, s := range []string{
		"g-1", "p-5-9", "p-9-5", "s-3", "s-all", "g-01", "g-+1", "g--1", "g-9223372036854775807", "g-9223372036854775808", "p-1-2-3", "g-１", "s-all ", "S-ALL", "g-\x00", "",
		"g-" + strings.Repeat("9", 5000),
	} {
		f.Add(s, "g-2")
	}
	f.Fuzz(func(t *testing.T, s, other string) {
		id, err := ParseConversationID(s)
		if err != nil {
			if !errors.Is(err, ErrMalformedID) || len(err.Error()) > 500 {
				t.Fatalf("%.100q is refused with %.600v", s, err)
			}
			return
		}
		if id.String() != s {
			t.Fatalf("%q is read as %s", s, id)
		}
		back, err := ConversationIDFromBytes(id.Bytes())
		if err != nil || back != id {
			t.Fatalf("%s comes back from its bytes as %s, %v", id, back, err)
		}
		if u, err := ParseConversationID(other); err == nil && u.Kind == id.Kind {
			less := id.A < u.A || id.A == u.A && id.B < u.B
			if less != (bytes.Compare(id.Bytes(), u.Bytes()) < 0) {
				t.Fatalf("%s and %s have another order as bytes", id, u)
			}
		}
	})
}

// FuzzParseUserID: what is read is positive and is written again letter for letter; JSON and text agree.
func FuzzParseUserID(f *testing.F) {
	for _, s := range []string{"1", "0", "01", "-1", "+1", "9223372036854775807", "9223372036854775808", "1e3", " 1", "1 ", "", "٣"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseUserID(s)
		if err != nil {
			if !errors.Is(err, ErrMalformedID) || len(err.Error()) > 500 {
				t.Fatalf("%.100q is refused with %.600v", s, err)
			}
			return
		}
		if id <= 0 || id.String() != s {
			t.Fatalf("%q is read as %s", s, id)
		}
		var back UserID
		text, _ := json.Marshal(id)
		if err := json.Unmarshal(text, &back); err != nil || back != id {
			t.Fatalf("%s comes back from JSON as %s, %v", id, back, err)
		}
	})
}

// FuzzStamp: a stamp is what the first twelve digits of a canonical UUIDv7 say, and 0 for everything else; it has 48 bits.
// Of two ids with stamps the one with the higher stamp is the greater text.
func FuzzStamp(f *testing.F) {
	for _, s := range []string{
		"017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "ffffffff-ffff-7fff-bfff-ffffffffffff", "00000000-0000-7000-8000-000000000000", "017F22E2-79B0-7CC3-98C4-DC0C0C07398F",
		"017f22e2-79b0-4cc3-98c4-dc0c0c07398f", "017f22e2-79b0-7cc3-c8c4-dc0c0c07398f", "", "-", "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
	} {
		f.Add(s, "017f22e2-79b1-7cc3-98c4-dc0c0c07398f")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := Stamp(a), Stamp(b)
		if x < 0 || x >= 1<<48 {
			t.Fatalf("%q has the stamp %d", a, x)
		}
		if x > 0 && (len(a) != 36 || strings.ToLower(a) != a || a[14] != '7') {
			t.Fatalf("%q, which is no canonical UUIDv7, has the stamp %d", a, x)
		}
		if x > 0 && y > 0 && x != y && (x < y) != (a < b) {
			t.Fatalf("%s and %s have another order than their stamps", a, b)
		}
	})
}

// FuzzCanonicalObject: what is read is one JSON object, valid UTF-8, at most twice as long as it came, and canonical: made
// canonical again it gives the same bytes. White space, and which of two equal keys is the last, change nothing but by
// what they say. What is refused is refused with a code for clients.
func FuzzCanonicalObject(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`, `[]`, `{"b":1.50,"a":"<é>"}`, `{"a":1,"a":2}`, `{"a":"\ud800"}`, `{"\ud800":1,"\ufffd":2}`, `{"a":1e400,"b":-0,"c":0.10}`, "{\"a\":\"\u2028\"}",
		`{"a":99999999999999999999999999999999}`, `{} {}`, `{"a":"\u0000\u001f"}`, "{\"a\":\"\xff\"}", strings.Repeat(`{"a":`, 500) + "1" + strings.Repeat("}", 500),
		strings.Repeat("[", 12000), `{"a":[` + strings.Repeat("[],", 100) + `[]]}`, "\xef\xbb\xbf{}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := CanonicalObject(raw)
		if err != nil {
			if code := CodeOf(err); code != CodeMalformed && code != CodeInvalidField {
				t.Fatalf("%q is refused with %v", raw, err)
			}
			return
		}
		if !utf8.Valid(c) || !json.Valid(c) || c[0] != '{' || len(c) > 2*len(raw)+2 {
			t.Fatalf("%q becomes %q", raw, c)
		}
		again, err := CanonicalObject(c)
		if err != nil || !bytes.Equal(again, c) {
			t.Fatalf("%q becomes %q, and then %q, %v", raw, c, again, err)
		}
		var spaced bytes.Buffer
		if err := json.Indent(&spaced, raw, " ", "\t"); err != nil {
			t.Fatal(err)
		}
		if again, err = CanonicalObject(spaced.Bytes()); err != nil || !bytes.Equal(again, c) {
			t.Fatalf("%q becomes %q with white space in it, %v", raw, again, err)
		}
	})
}
