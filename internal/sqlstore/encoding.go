package sqlstore

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"tideline/pkg/chat"
)

// A client id is stored behind a tag: most are UUIDs, whose 36 letters are 16 bytes.
const (
	tagText byte = 0
	tagUUID byte = 1
)

// packClientID gives the stored form of a client id: 17 bytes for the canonical lower-case text of a UUID, else a tag and
// the text.
func packClientID(id string) []byte {
	if b, ok := uuidBytes(id); ok {
		return append([]byte{tagUUID}, b[:]...)
	}
	return append([]byte{tagText}, id...)
}

func uuidBytes(s string) (b [16]byte, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return b, false
	}
	var digits [32]byte
	n := 0
	for i := range len(s) {
		switch c := s[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f':
			digits[n] = c
			n++
		default:
			return b, false
		}
	}
	_, err := hex.Decode(b[:], digits[:])
	return b, err == nil
}

func unpackClientID(b []byte) (string, error) {
	switch {
	case len(b) == 0:
		return "", nil
	case b[0] == tagText:
		return string(b[1:]), nil
	case b[0] == tagUUID && len(b) == 17:
		h := hex.EncodeToString(b[1:])
		return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:], nil
	}
	return "", fmt.Errorf("a stored client id of %d bytes with tag %d is not readable", len(b), b[0])
}

// lists: version 1 is a byte of flags (1: everybody is mentioned), then the mentioned and then the recipients, each a
// count and the ids as unsigned varints.
const listsVersion byte = 1

func packLists(m *chat.Mentions, recipients []chat.UserID) []byte {
	if m == nil && len(recipients) == 0 {
		return nil
	}
	b := []byte{listsVersion, 0}
	var mentioned []chat.UserID
	if m != nil {
		mentioned = m.UserIDs
		if m.All {
			b[1] = 1
		}
	}
	for _, ids := range [][]chat.UserID{mentioned, recipients} {
		b = binary.AppendUvarint(b, uint64(len(ids)))
		for _, id := range ids {
			b = binary.AppendUvarint(b, uint64(id))
		}
	}
	return b
}

var errLists = errors.New("stored lists of mentions and recipients are not readable")

func unpackLists(b []byte) (*chat.Mentions, []chat.UserID, error) {
	if len(b) == 0 {
		return nil, nil, nil
	}
	if len(b) < 2 || b[0] != listsVersion {
		return nil, nil, errLists
	}
	all := b[1]&1 != 0
	b = b[2:]
	take := func() ([]chat.UserID, error) {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)) {
			return nil, errLists
		}
		b = b[size:]
		var ids []chat.UserID
		for range n {
			id, size := binary.Uvarint(b)
			if size <= 0 {
				return nil, errLists
			}
			b = b[size:]
			ids = append(ids, chat.UserID(id))
		}
		return ids, nil
	}
	mentioned, err := take()
	if err != nil {
		return nil, nil, err
	}
	recipients, err := take()
	if err != nil {
		return nil, nil, err
	}
	var m *chat.Mentions
	if all || len(mentioned) > 0 {
		m = &chat.Mentions{UserIDs: mentioned, All: all}
	}
	return m, recipients, nil
}

var (
	typeNumbers = map[chat.MessageType]int{"": 0, chat.TypeText: 1, chat.TypeCustom: 2, chat.TypeNotice: 3}
	typeWords   = map[int]chat.MessageType{0: "", 1: chat.TypeText, 2: chat.TypeCustom, 3: chat.TypeNotice}
	roleNumbers = map[chat.Role]int{chat.RoleMember: 1, chat.RoleAdmin: 2, chat.RoleOwner: 3}
	roleWords   = map[int]chat.Role{1: chat.RoleMember, 2: chat.RoleAdmin, 3: chat.RoleOwner}
)

// The bits of timeline.flags.
const (
	flagReceipt   = 1
	flagTombstone = 2
)
