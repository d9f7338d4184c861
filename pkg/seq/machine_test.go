package seq_test

import (
	"fmt"
	"testing"

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
