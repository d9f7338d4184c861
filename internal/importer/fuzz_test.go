package importer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"tideline/pkg/chat"
)

// FuzzParseLine: a line is read or refused, without a panic. One that is read was said at a time that a stamp can hold and that
// is never 0, which would mean now; its message, where there is one, is one that the platform takes, and its client id is a
// UUIDv7 with that time; its sender gives a nickname that the platform takes. Nothing that is read has a field twice or one
// that is not known.
func FuzzParseLine(f *testing.F) {
	for _, s := range []string{
		`{"day":"2004-12-25","minute":61,"kind":"message","sender":"ada","text":"hi"}`, `{"day":"1970-01-01","minute":0,"kind":"message","sender":"a","text":""}`,
		`{"day":"9999-12-31","minute":527040,"kind":"action","sender":"\u0000","text":"\ud800"}`, `{"day":"2004-12-25","minute":1,"kind":"renamed"}`,
		`{"DAY":"2004-12-25","minute":1,"kind":"renamed"}`, `{"day":"2004-12-25","day":"2004-12-26","minute":1,"kind":"renamed"}`, `{"day":"1969-12-31","minute":1,"kind":"message"}`,
		`{"day":"2004-12-25","minute":-1}`, `{"day":"2004-12-25","minute":1e9}`, `{"day":null,"minute":null}`, `{}`, `[]`, `null`, `{} {}`, "{\"day\":\"\xff\"}", `{"colour":1}`,
		`{"day":"2004-12-25","minute":1,"kind":"message","sender":"` + strings.Repeat("é", 200) + `","text":" \u2003 "}`, strings.Repeat(`[`, 20000),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := parseLine(raw)
		if err != nil {
			return
		}
		if l.at <= 0 || l.at >= 1<<48 {
			t.Fatalf("%q was said at %d", raw, l.at)
		}
		var fields map[string]any
		if err := json.Unmarshal(raw, &fields); err != nil {
			t.Fatalf("%q was read, and is no object: %v", raw, err)
		}
		for name := range fields {
			if !slices.Contains([]string{"day", "minute", "kind", "sender", "text", "to"}, name) {
				t.Fatalf("%q was read, and has a field %q", raw, name)
			}
		}
		if l.kind == kindRenamed {
			return
		}
		if err := chat.ValidateName("nickname", nickname(l.sender)); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		id := messageID("source", 7, l.at)
		if chat.Stamp(id) != l.at || chat.ValidateClientMsgID(id) != nil {
			t.Fatalf("%q, said at %d, is named %s", raw, l.at, id)
		}
		m, err := l.message()
		if err != nil {
			if chat.CodeOf(err) != chat.CodeTooLarge {
				t.Fatalf("%q: %v", raw, err)
			}
			return
		}
		again, err := chat.ValidateContent(m.Type, m.Content)
		if err != nil || string(again) != string(m.Content) || !utf8.Valid(again) {
			t.Fatalf("%q becomes %s, and then %s, %v", raw, m.Content, again, err)
		}
	})
}

// FuzzLoadCheckpoint: a checkpoint is read or refused with the file's name, without a panic. One that is read has this version
// and source and counts nothing below nothing; it is saved as one that is read as the same, and then as the same bytes.
func FuzzLoadCheckpoint(f *testing.F) {
	for _, s := range []string{
		"", "null", "{}", `{"version":1,"source":"s","conversation_id":"g-7","line":3,"sum":"x","last":-1}`, `{"version":1,"source":"s","line":-1}`, `{"version":1,"source":"s","joined":-5}`,
		`{"version":1,"source":"s","colour":1}`, `{"version":1,"source":"s","line":1,"line":2}`, `{"version":2,"source":"s"}`, `{"version":1,"source":"other"}`, `{"version":1,"source":"s"}{`,
		`{"version":1,"source":"s","conversation_id":"g-07"}`, `{"VERSION":1,"source":"s"}`, `{"version":1,"source":"s","last":-2,"partition":-1}`,
	} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, raw []byte) {
		path, other := filepath.Join(dir, "checkpoint"), filepath.Join(dir, "other")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := loadCheckpoint(path, "s")
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Fatalf("%q is refused with %v", raw, err)
			}
			return
		}
		if c == nil || c.Version != checkpointVersion || c.Source != "s" || c.Joined < 0 || c.Line < 0 || c.Last < -1 || c.Partition < 0 || c.MessagesFrom < 0 || c.RejectedFrom < 0 || c.Counts.least() < 0 {
			t.Fatalf("%q is read as %+v", raw, c)
		}
		if err := c.save(other); err != nil {
			t.Fatal(err)
		}
		back, err := loadCheckpoint(other, "s")
		if err != nil || !reflect.DeepEqual(back, c) {
			t.Fatalf("%+v comes back as %+v, %v", c, back, err)
		}
	})
}
