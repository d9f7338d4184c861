package pusher

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"testing"
	"time"

	"tideline/pkg/chat"
)

// FuzzFrames: whatever a payload is, a frame of it is taken apart into the same payload, however it is cut; frames behind one
// another come apart where they were put together; and one that is built in place is the same as one that is appended.
func FuzzFrames(f *testing.F) {
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 70000} {
		f.Add(bytes.Repeat([]byte{'x'}, n), []byte("tail"), n/2)
	}
	f.Fuzz(func(t *testing.T, first, second []byte, cut int) {
		b := appendFrame(appendFrame(nil, opText, first), opPong, second)
		built := newFrame(0)
		built.b = append(built.b, first...)
		if sealed := built.seal(); !bytes.Equal(sealed, b[:len(sealed)]) {
			t.Fatalf("in place %x, appended %x", sealed, b[:len(sealed)])
		}
		r := bufio.NewReader(bytes.NewReader(b))
		for i, want := range [][]byte{first, second} {
			op, payload, err := unframe(r)
			if err != nil || !bytes.Equal(payload, want) || op != []byte{opText, opPong}[i] {
				t.Fatalf("frame %d comes back as %x with %d bytes, %v", i, op, len(payload), err)
			}
		}
		if n := len(b) - len(second); cut >= 0 && cut < n {
			r := bufio.NewReader(bytes.NewReader(b[:cut]))
			if _, payload, err := unframe(r); err == nil && !bytes.Equal(payload, first) {
				t.Fatalf("half a frame is taken for %d bytes", len(payload))
			}
		}
	})
}

// FuzzAnswer: whatever the client's own words are and whatever the refusal says, an answer is one frame of one JSON object
// that gives them back.
func FuzzAnswer(f *testing.F) {
	f.Add("pull", "not_a_member", "a sentence", "field")
	f.Add("\x00\u2028", "", "\xff", "message.content.\"")
	f.Fuzz(func(t *testing.T, op, code, message, field string) {
		_, payload, err := unframe(bufio.NewReader(bytes.NewReader(answer(json.RawMessage(`"1"`), op, nil, &refusal{Code: chat.Code(code), Message: message, Field: field}).bytes)))
		if err != nil {
			t.Fatal(err)
		}
		var back struct {
			ID    string   `json:"id"`
			Op    *string  `json:"op"`
			Error *refusal `json:"error"`
		}
		if err := json.Unmarshal(payload, &back); err != nil || back.ID != "1" || back.Op == nil || back.Error == nil {
			t.Fatalf("%q is answered %q, %v", op, payload, err)
		}
	})
}

// FuzzCloseFrame: what a connection is closed with fits into a control frame (125 bytes), and a client reads code and reason
// back from it.
func FuzzCloseFrame(f *testing.F) {
	f.Add(uint16(CloseSlowConsumer), int64(0))
	f.Add(uint16(CloseDraining), int64(1)<<62)
	f.Add(uint16(4999), int64(-1))
	f.Fuzz(func(t *testing.T, code uint16, after int64) {
		payload := CloseCode(code).payload(time.Duration(after))
		if len(payload) > 125 {
			t.Fatalf("%d bytes: %s", len(payload), payload)
		}
		var reason struct {
			Code string `json:"code"`
		}
		if err := json.Unmarshal(payload[2:], &reason); err != nil || reason.Code != CloseCode(code).String() {
			t.Fatalf("%s, %v", payload[2:], err)
		}
		if back := binary.BigEndian.Uint16(payload); back != code {
			t.Fatalf("%d is read back as %d", code, back)
		}
	})
}
