package handlers

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"testing"

	"tideline/pkg/chat"
)

// FuzzDecode: whatever the body of a call is, it is read, or refused with a code for clients and, where one field is at
// fault, its name; nothing at all and white space are an object without fields, and null is none. What was read has no field
// that the call does not know, and is written as something that is read as the same.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"", " \n", "null", "{}", "[]", `{"user_id":"7"}`, `{"User_ID":"7"}`, `{"user_id":7}`, `{"user_id":"7","user_id":"8"}`, `{"seq":1e3}`, `{"seq":9223372036854775808}`,
		`{"cursor":"\ud800"}`, `{"cursor":null}`, `{"colour":1}`, `{"":1}`, "{\"cursor\":\"\xff\"}", `{} {}`, `{"seq":-0}`, `{"seq":1.0}`,
	} {
		f.Add([]byte(s))
	}
	type request struct {
		User   chat.UserID `json:"user_id,omitempty"`
		Seq    int64       `json:"seq"`
		Cursor string      `json:"cursor,omitempty"`
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var r request
		if err := Decode(body, &r); err != nil {
			var refusal *chat.Error
			if !errors.As(err, &refusal) {
				t.Fatalf("%q: %v cannot be shown", body, err)
			}
			switch refusal.Code {
			case chat.CodeMalformed:
			case chat.CodeUnknownField, chat.CodeInvalidField:
				if refusal.Field == "" && !bytes.Contains(body, []byte(`""`)) { // a field's name may be nothing
					t.Fatalf("%q: %v names no field", body, err)
				}
			default:
				t.Fatalf("%q: %v", body, err)
			}
			if len(refusal.Field) > 128 || len(refusal.Message) > 512 {
				t.Fatalf("%q is refused in %d bytes", body, len(err.Error()))
			}
			return
		}
		if len(bytes.TrimSpace(body)) > 0 {
			var fields map[string]json.RawMessage
			if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
				t.Fatalf("%q was read, and is no object: %v", body, err)
			}
			for name := range fields {
				if name != "user_id" && name != "seq" && name != "cursor" {
					t.Fatalf("%q was read, and has a field %q", body, name)
				}
			}
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back request
		if err := Decode(text, &back); err != nil || back != r {
			t.Fatalf("%+v comes back as %+v, %v", r, back, err)
		}
	})
}

// FuzzParseSyncCursor: no panic; a cursor that is read has a place for each partition, none of them negative, is somewhere (a
// place, or a page on the way to one), and is written as one that is read as the same. Nothing is left over behind it, and
// half of one is none, except that a page's key goes to the end.
func FuzzParseSyncCursor(f *testing.F) {
	const partitions = 3
	since, until := &clock{messages: []int64{1, 0, 1 << 40}, marks: 7}, &clock{messages: []int64{5, 6, math.MaxInt64}, marks: 9}
	for _, c := range []syncCursor{
		{since: since}, {since: since, until: until}, {until: until, paging: true, key: pageKey{-1 << 62, "g"}},
		{since: since, until: until, paging: true, key: pageKey{id: string(chat.GroupConversation(7).Bytes())}}, {},
	} {
		f.Add(c.encode(), 0)
		f.Add(c.encode(), len(c.encode())/2)
	}
	for _, s := range []string{"", "AQ", "AQE", "AQcD", "AQGAgICAgICAgIABAAA", "forged!", "AQEDAAAAAA\n"} {
		f.Add(s, 0)
	}
	f.Fuzz(func(t *testing.T, text string, cut int) {
		c, err := parseSyncCursor(text, partitions)
		if err != nil {
			return
		}
		for _, k := range []*clock{c.since, c.until} {
			if k == nil {
				continue
			}
			if len(k.messages) != partitions || k.marks < 0 {
				t.Fatalf("%q is read as %+v", text, *k)
			}
			for p := range int32(partitions) {
				if k.at(p) < 0 {
					t.Fatalf("%q is read as %+v", text, *k)
				}
			}
		}
		if c.since == nil && !c.paging || c.paging && c.until == nil {
			t.Fatalf("%q is read as a cursor that is nowhere", text)
		}
		written := c.encode()
		back, err := parseSyncCursor(written, partitions)
		if err != nil || !reflect.DeepEqual(back, c) {
			t.Fatalf("%q is written as %q, which is read as %+v, %v", text, written, back, err)
		}
		if again := back.encode(); again != written {
			t.Fatalf("%q becomes %q", written, again)
		}
		if _, err := parseSyncCursor(written, partitions+1); err == nil {
			t.Fatalf("%q is read where there is a partition more", written)
		}
		if !c.paging && cut > 0 && cut < len(written) {
			if _, err := parseSyncCursor(written[:cut], partitions); err == nil {
				t.Fatalf("%d of %d letters of %q are read", cut, len(written), written)
			}
		}
	})
}

// FuzzPageOf: a page's cursor and limit are read, or refused with the field's name; the limit is within its bounds, the place
// is not negative, and is written as a cursor that is read as the same.
func FuzzPageOf(f *testing.F) {
	for _, s := range []string{"", cursorOf(1), cursorOf(math.MaxInt64), "forged!", "LTE", "KzE", "AAAAAAAAAAAAAAAAAAAAAAAA", cursorOf(5) + "\n"} {
		f.Add(s, 0)
		f.Add(s, 1000)
	}
	f.Add("", -1)
	f.Add("", 1001)
	f.Fuzz(func(t *testing.T, cursor string, limit int) {
		after, most, err := pageOf(cursor, limit, 100, 1000)
		if err != nil {
			var refusal *chat.Error
			if !errors.As(err, &refusal) || refusal.Code != chat.CodeInvalidField || refusal.Field != "cursor" && refusal.Field != "limit" {
				t.Fatalf("%q: %v", cursor, err)
			}
			return
		}
		if after < 0 || most < 1 || most > 1000 || limit != 0 && most != limit {
			t.Fatalf("%q with %d is read as %d, %d", cursor, limit, after, most)
		}
		if back, _, err := pageOf(cursorOf(after), limit, 100, 1000); err != nil || back != after {
			t.Fatalf("%d comes back as %d, %v", after, back, err)
		}
	})
}
