package accounts

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"tideline/pkg/chat"
)

// A refresh token is the session's id, 24 bytes that nobody can guess, and a mark that it is ours. The mark lets a token that
// was spent long ago be known for what it is, without a memory of all of them: whoever uses it ends the session.
const (
	refreshSecret = 24
	refreshMark   = 16
	refreshBytes  = 8 + refreshSecret + refreshMark
)

func (a *Accounts) newRefresh(session int64) (string, [32]byte) {
	secret := make([]byte, refreshSecret)
	rand.Read(secret)
	return a.refreshOf(session, secret)
}

// nextRefresh gives the token that follows one. With a key it is the same whenever it is asked for, and nobody can make it
// without our own key.
func (a *Accounts) nextRefresh(session int64, before, key string) (string, [32]byte) {
	if key == "" {
		return a.newRefresh(session)
	}
	return a.refreshOf(session, keyed(a.cfg.TokenKey.Reveal(), "refresh", before, key)[:refreshSecret])
}

func (a *Accounts) refreshOf(session int64, secret []byte) (string, [32]byte) {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, refreshBytes), uint64(session))
	b = append(b, secret...)
	b = append(b, keyed(a.cfg.TokenKey.Reveal(), "mark", string(b))[:refreshMark]...)
	text := base64.RawURLEncoding.EncodeToString(b)
	return text, sha256.Sum256([]byte(text))
}

// sessionOf gives the session of a refresh token that we made, whether it was spent or not.
func (a *Accounts) sessionOf(refresh string) (int64, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(refresh)
	if err != nil || len(b) != refreshBytes {
		return 0, false
	}
	body, mark := b[:refreshBytes-refreshMark], b[refreshBytes-refreshMark:]
	for _, key := range []string{a.cfg.TokenKey.Reveal(), a.cfg.OldTokenKey.Reveal()} {
		if key != "" && hmac.Equal(mark, keyed(key, "mark", string(body))[:refreshMark]) {
			return int64(binary.BigEndian.Uint64(body)), true
		}
	}
	return 0, false
}

// sessionID gives the id of a new session: any, or, where the login has a name, the one that this name always gives, so
// that a retry finds the session that the first try began.
func (a *Accounts) sessionID(u chat.UserID, key string) (int64, error) {
	if key == "" {
		return a.ids.NextID()
	}
	id := int64(binary.BigEndian.Uint64(keyed(a.cfg.TokenKey.Reveal(), "session", u.String(), key)) >> 1)
	return max(id, 1), nil
}

// keyed gives what only the holder of a key can make of some texts. Their lengths stand before them, so that no two lists
// of texts are the same to it.
func keyed(key string, texts ...string) []byte {
	h := hmac.New(sha256.New, []byte(key))
	for _, t := range texts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(t), t)
	}
	return h.Sum(nil)
}
