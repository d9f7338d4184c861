package kafka

import (
	"fmt"
	"testing"
)

// FuzzParsePlace: no panic; a place that is read has no negative part, and is printed as a place that is read as the same. What
// is refused is refused in a sentence that stays short however long it was.
func FuzzParsePlace(f *testing.F) {
	for _, s := range []string{"", "0:0", "3:17", "-1:0", "1:-1", "1", ":", "1:", ":1", "2147483648:0", "0:9223372036854775808", "+1:2", "01:2", "1:2:3", "1: 2", "1e1:0", "٣:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		partition, offset, err := ParsePlace(s)
		if err != nil {
			if len(err.Error()) > 400 {
				t.Fatalf("%.50q is refused in %d bytes", s, len(err.Error()))
			}
			return
		}
		if partition < 0 || offset < 0 {
			t.Fatalf("%q is read as %d:%d", s, partition, offset)
		}
		if p, o, err := ParsePlace(fmt.Sprintf("%d:%d", partition, offset)); err != nil || p != partition || o != offset {
			t.Fatalf("%d:%d comes back as %d:%d, %v", partition, offset, p, o, err)
		}
	})
}
