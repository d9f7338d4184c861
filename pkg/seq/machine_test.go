package seq_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"tideline/internal/schedules"
	"tideline/pkg/chat"
	"tideline/pkg/seq/seqtest"
)

func TestOwner_KeepsEveryPromiseThroughKills(t *testing.T) {
	groups := []chat.ConversationID{chat.GroupConversation(1), chat.GroupConversation(2), chat.PrivateConversation(11, 12)}
	for _, fenced := range []bool{false, true} {
		t.Run(fmt.Sprintf("fenced=%t", fenced), func(t *testing.T) {
			for seed := range uint64(300) {
				t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
					t.Parallel()
					seqtest.Run(t, seqtest.NewMemory(seed, fenced, 0.15), seqtest.Plan{Seed: seed, Commands: 150, Lives: 12, Groups: groups})
				})
			}
		})
	}
}

// TestOwner_IsOneOfManyWhoThinkThatTheyAre lets owners sleep, wake up replaced, and die, with several alive at every moment: the
// numbers are 1 to n, and each record has one outcome.
func TestOwner_IsOneOfManyWhoThinkThatTheyAre(t *testing.T) { schedules.Run(t, together) }

// In seed 2 an owner sleeps between two batches while its successor numbers and the store takes that in; what it then loads does
// not fit to what it remembers, which is no reason to wake anybody.
func TestOwner_ThatSleptFindsItselfReplacedAndNothingInconsistent(t *testing.T) { together(t, 2) }

func together(t *testing.T, seed uint64) {
	groups := []chat.ConversationID{chat.GroupConversation(1), chat.PrivateConversation(11, 12)}
	synctest.Test(t, func(t *testing.T) {
		tear := 0.05 * float64(seed%3)
		seqtest.RunTogether(t, seqtest.NewMemory(seed, true, tear), seqtest.Plan{Seed: seed, Commands: 30, Lives: 5, Groups: groups})
	})
}
