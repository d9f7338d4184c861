package history

import (
	"crypto/sha256"
	"encoding/hex"

	"tideline/pkg/chat"
)

// Body is a fingerprint of a message's content: 16 hexadecimal digits, or empty where there is no content. A history says
// whether two contents are the same without holding either.
type Body string

// BodyOf gives the fingerprint of a content, a JSON object; the order of its keys and its white space do not matter, so
// that what was sent, stored, archived and pulled agree. What is no JSON object is taken byte for byte.
func BodyOf(content []byte) Body {
	if len(content) == 0 {
		return ""
	}
	if canonical, err := chat.CanonicalObject(content); err == nil {
		content = canonical
	}
	sum := sha256.Sum256(content)
	return Body(hex.EncodeToString(sum[:8]))
}
