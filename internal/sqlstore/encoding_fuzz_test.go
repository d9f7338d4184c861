package sqlstore

import (
	"bytes"
	"reflect"
	"testing"

	"tideline/pkg/chat"
)

// FuzzUnpackLists: no panic; what is read is no more than the bytes could hold, and is packed into bytes that are read as
// the same and packed as the same again. What packLists makes is always read.
func FuzzUnpackLists(f *testing.F) {
	f.Add(packLists(&chat.Mentions{All: true, UserIDs: []chat.UserID{1, 1 << 62}}, []chat.UserID{300}))
	f.Add(packLists(&chat.Mentions{}, nil))
	f.Add(packLists(nil, []chat.UserID{5, 9}))
	for _, s := range []string{"", "\x01", "\x02\x00\x00\x00", "\x01\x00\x80", "\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x01\x01\x03\x01", "\x01\x00\x00\x00trailing"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		mentions, recipients, err := unpackLists(b)
		if err != nil {
			return
		}
		n := len(recipients)
		if mentions != nil {
			n += len(mentions.UserIDs)
		}
		if n > len(b) {
			t.Fatalf("%d ids were read from %d bytes", n, len(b))
		}
		packed := packLists(mentions, recipients)
		m, r, err := unpackLists(packed)
		if err != nil || !reflect.DeepEqual(m, mentions) || !reflect.DeepEqual(r, recipients) {
			t.Fatalf("%x is packed as %x, which is read as %+v %v, %v", b, packed, m, r, err)
		}
		if again := packLists(m, r); !bytes.Equal(again, packed) {
			t.Fatalf("%x becomes %x", packed, again)
		}
	})
}

// FuzzUnpackClientID: no panic; every client id comes back from its stored form as it was, in at most one byte more, and two
// ids never share a form. Stored bytes that are read give an id whose own stored form is read as the same id.
func FuzzUnpackClientID(f *testing.F) {
	for _, s := range []string{
		"", "c-1", "017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "017F22E2-79B0-7CC3-98C4-DC0C0C07398F", "017f22e2-79b0-7cc3-98c4-dc0c0c07398", "\x01", "\x0117f22e2", "\xff",
	} {
		f.Add(s, packClientID(s))
		f.Add(s, []byte(s))
	}
	f.Fuzz(func(t *testing.T, id string, stored []byte) {
		packed := packClientID(id)
		if back, err := unpackClientID(packed); err != nil || back != id || len(packed) > len(id)+1 {
			t.Fatalf("%q is stored as %x, which is read as %q, %v", id, packed, back, err)
		}
		text, err := unpackClientID(stored)
		if err != nil {
			return
		}
		if back, err := unpackClientID(packClientID(text)); err != nil || back != text {
			t.Fatalf("%x is read as %q, which comes back as %q, %v", stored, text, back, err)
		}
		if (text == id) != bytes.Equal(packClientID(text), packed) {
			t.Fatalf("%q and %q share the form %x", text, id, packed)
		}
	})
}
