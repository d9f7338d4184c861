package chat

import (
	"crypto/sha256"
	"strings"
)

// Bound cuts a rejection to what can always be written, whatever the record was: a note that the log refuses would be
// refused at every try, and nothing behind its record would ever be numbered. Of a record of more than MaxRejectedBytes
// the beginning stays, with the length and the SHA-256 of the whole, so that its producer can tell which it was; texts
// keep MaxRejectedTextBytes.
func (r *Rejection) Bound() {
	if len(r.Record) > MaxRejectedBytes {
		sum := sha256.Sum256(r.Record)
		r.RecordBytes, r.RecordHash = int64(len(r.Record)), sum[:]
		r.Record = r.Record[:MaxRejectedBytes]
	}
	for _, s := range []*string{&r.Message, &r.Field, &r.ContentType, &r.ClientMsgID, &r.Producer} {
		if len(*s) > MaxRejectedTextBytes {
			*s = strings.ToValidUTF8((*s)[:MaxRejectedTextBytes], "")
		}
	}
}
