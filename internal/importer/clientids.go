package importer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"github.com/google/uuid"

	"tideline/pkg/chat"
)

// messageID names the message of a line: a UUIDv7 whose stamp is when it was said, and whose random bits follow from the
// import's name and the line's number. So another start makes the same one.
func messageID(source string, number int, at int64) string {
	h := sha256.New()
	h.Write([]byte(source))
	var n [9]byte // a zero byte ends the name
	binary.BigEndian.PutUint64(n[1:], uint64(number))
	h.Write(n[:])
	var id uuid.UUID
	copy(id[6:], h.Sum(nil))
	var stamp [8]byte
	binary.BigEndian.PutUint64(stamp[:], uint64(at))
	copy(id[:6], stamp[2:])
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// createID names the group's reservation and its first command.
func createID(source string) string {
	sum := sha256.Sum256([]byte(source))
	return "import-create-" + hex.EncodeToString(sum[:20])
}

// joinID names the command by which these people join. It follows from who they are, so that an export that has grown
// since, where the last ones join in other company, is no conflict.
func joinID(source string, people []chat.UserID) string {
	h := sha256.New()
	h.Write([]byte(source))
	for _, u := range people {
		h.Write(binary.BigEndian.AppendUint64([]byte{0}, uint64(u)))
	}
	return "import-join-" + hex.EncodeToString(h.Sum(nil)[:20])
}
