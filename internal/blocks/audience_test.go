package blocks

import (
	"testing"

	"tideline/pkg/chat"
)

// A recall of a message that is addressed to a few is seen by those, by the message's sender and by its own sender, wherever the message
// stands: in the same block, in one before, and where the block is read in two parts.
func TestGet_ShowsEditsAndRecallsToThoseWhoSeeTheirTarget(t *testing.T) {
	s, c := newShelf(70)
	s.few[3] = []chat.UserID{1, 2}
	for seq, target := range map[int64]int64{10: 3, 11: 4, 66: 3, 67: 5, 68: 90, 69: 6} {
		s.aims[seq] = target
	}
	s.parked[6] = true // the message that 69 aims at
	few := map[chat.UserID]bool{1: true, 2: true, 7: true, 9: true, 4: false}
	all := map[chat.UserID]bool{1: true, 2: true, 7: true, 9: true, 4: true}
	none := map[chat.UserID]bool{1: false, 7: false, 9: false}
	want := map[int64]map[chat.UserID]bool{3: {1: true, 2: true, 7: true, 9: false, 4: false}, 10: few, 11: all, 66: few, 67: all, 68: none, 69: none}
	look := func(block, to int64, trust bool) {
		t.Helper()
		b, err := c.Get(t.Context(), group, block, to, trust)
		if err != nil {
			t.Fatal(err)
		}
		for seq, readers := range want {
			if seq < b.First || seq > b.Last() {
				continue
			}
			for u, sees := range readers {
				if e := &b.Entries[seq-b.First]; e.VisibleTo(u) != sees {
					t.Errorf("number %d is visible to user %d: %t, want %t", seq, u, e.VisibleTo(u), sees)
				}
			}
		}
	}
	look(0, 5, true)
	look(0, 64, true) // 10 comes to what is remembered
	look(1, 66, true)
	look(1, 70, true)
	look(0, 64, false)
	look(1, 70, false)
}
