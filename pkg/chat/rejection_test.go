package chat

import (
	"bytes"
	"crypto/sha256"
	"reflect"
	"strings"
	"testing"
)

func TestRejection_KeepsWhatFitsAndSaysWhatTheWholeWas(t *testing.T) {
	small := Rejection{Code: CodeMalformed, Message: "m", Field: "f", ContentType: "c", ClientMsgID: "i", Producer: "p", Record: make([]byte, MaxRejectedBytes)}
	bounded := small
	if bounded.Bound(); !reflect.DeepEqual(small, bounded) {
		t.Error("what fits was changed")
	}
	record := bytes.Repeat([]byte("x"), MaxRejectedBytes+1)
	long := strings.Repeat("é", MaxRejectedTextBytes) // an odd cut would be half a letter
	r := Rejection{Message: "a" + long, Field: long, ContentType: long, ClientMsgID: long, Producer: long, Record: record}
	r.Bound()
	if sum := sha256.Sum256(record); r.RecordBytes != int64(len(record)) || !bytes.Equal(r.RecordHash, sum[:]) || !bytes.Equal(r.Record, record[:MaxRejectedBytes]) {
		t.Errorf("%d bytes are kept of %d, with hash %x", len(r.Record), r.RecordBytes, r.RecordHash)
	}
	if want := "a" + long[:MaxRejectedTextBytes-2]; r.Message != want {
		t.Errorf("the message has %d bytes, want %d", len(r.Message), len(want))
	}
	for _, s := range []string{r.Field, r.ContentType, r.ClientMsgID, r.Producer} {
		if s != long[:MaxRejectedTextBytes] {
			t.Errorf("a text has %d bytes", len(s))
		}
	}
}
