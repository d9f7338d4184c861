package handlers

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// mixed fills a conversation with everything that a number can be: messages to all and to a few, recalled ones, tombstones, joins,
// and numbers without a row, whole blocks of them too. The end always has a row.
func (s *shelf) mixed(id chat.ConversationID, random *rand.Rand, n int64) {
	s.change(func() {
		c := timeline.Conversation{ID: id, MaxSeq: n}
		for seq := int64(1); seq <= n; seq++ {
			r := timeline.Row{Conversation: id, Seq: seq, Kind: chat.KindMessage, Sender: chat.UserID(1 + random.IntN(5)), Type: chat.TypeText, Content: []byte(`{"text":"x"}`)}
			switch random.IntN(8) {
			case 0:
				r.Recipients = []chat.UserID{3, 4}
			case 1:
				r.RecalledAt, r.Content = 1, nil
				c.Ordinal++
			case 2:
				r.Tombstone, r.TargetSeq, r.Content = true, 1, nil
				c.Ordinal++ // it was counted when it was numbered
			case 3:
				r.Kind, r.Type, r.Content = chat.KindJoin, chat.TypeNotice, []byte(`{"user_ids":["2"]}`)
			default:
				c.Ordinal++
			}
			r.Ordinal = c.Ordinal
			if parked := random.IntN(6) == 0 || seq > 130 && seq < 260; parked && seq < n {
				c.Ordinal = 0
				if len(s.rows[id]) > 0 {
					c.Ordinal = s.rows[id][len(s.rows[id])-1].Ordinal
				}
				continue
			}
			s.rows[id] = append(s.rows[id], r)
		}
		s.heads[id] = c
	})
}

// What remembered blocks say about messages is what the store says: of whichever numbers, in however many blocks.
func TestQuestions_AreTheSameFromBlocksAndFromTheStore(t *testing.T) {
	r := newRig(t)
	r.follow()
	random := rand.New(rand.NewPCG(1, 2))
	c := chat.GroupConversation(7)
	const end = 12*timeline.BlockSize + 5
	r.shelf.mixed(c, random, end)
	fromBlocks := 0
	for range 300 {
		blocks := 1 + random.IntN(screenBlocks+2)
		var seqs []int64
		for _, b := range random.Perm(12)[:blocks] {
			for range 1 + random.IntN(4) {
				seqs = append(seqs, int64(b)*timeline.BlockSize+1+random.Int64N(timeline.BlockSize))
			}
		}
		seqs = append(seqs, seqs[0]) // twice
		want, err := r.shelf.Receipt(t.Context(), c, seqs)
		if err != nil {
			t.Fatal(err)
		}
		before := r.shelf.count("receipt")
		got, err := r.questions(t.Context(), c, slices.Clone(seqs), end)
		if err != nil || len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("about %v blocks say %+v, %v; the store %+v", seqs, got, err, want)
		}
		if asked := r.shelf.count("receipt") > before; asked != (blocks > screenBlocks) {
			t.Fatalf("for numbers in %d blocks the store was asked: %v", blocks, asked)
		} else if !asked {
			fromBlocks++
		}
	}
	if fromBlocks == 0 || fromBlocks == 300 {
		t.Fatalf("%d of 300 were answered from blocks", fromBlocks)
	}
}

// A mark may stand at any number, one without a row too: it has the ordinal of what is countable up to there.
func TestOrdinalAt_OfEveryNumber(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3} {
		r := newRig(t)
		if seed != 3 { // the third without remembered blocks
			r.follow()
		}
		c := chat.GroupConversation(7)
		const end = 6*timeline.BlockSize + 11
		r.shelf.mixed(c, rand.New(rand.NewPCG(seed, 3)), end)
		head := r.shelf.heads[c]
		want, next := int64(0), 0
		for seq := int64(1); seq <= end; seq++ {
			if rows := r.shelf.rows[c]; rows[next].Seq == seq {
				want = rows[next].Ordinal
				next++
			}
			got, err := r.ordinalAt(t.Context(), &head, seq)
			if err != nil || got != want {
				t.Fatalf("seed %d: at %d are %d countable messages, %v; %d are right", seed, seq, got, err, want)
			}
		}
	}
}
