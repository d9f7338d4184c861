package sqlstore

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/pkg/chat"
)

// Each of a crowd gets its own session and not another's, and nobody one that is not there.
func TestSessionByID_OfACrowd(t *testing.T) {
	onBoth(t, func(t *testing.T, plain *Store) {
		s := plain.Guarded(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		const many = 300
		for id := range int64(many) {
			v := Session{ID: id + 1, User: chat.UserID(1000 + id), DeviceID: fmt.Sprint("device ", id), RefreshHash: [32]byte{byte(id), byte(id >> 8)}, ExpiresAt: 1 << 40}
			if err := s.CreateSession(t.Context(), v); err != nil {
				t.Fatal(err)
			}
		}
		// What the guard's own limits would refuse is not the question here.
		seats := make(chan struct{}, 64)
		var wg sync.WaitGroup
		for n := range int64(4 * many) {
			wg.Go(func() {
				seats <- struct{}{}
				defer func() { <-seats }()
				id := n%(many+10) + 1
				v, found, err := s.SessionByID(context.WithoutCancel(t.Context()), id)
				if err != nil || found != (id <= many) {
					t.Errorf("the session %d was found: %v, %v", id, found, err)
				} else if found && (v.ID != id || v.User != chat.UserID(999+id) || v.DeviceID != fmt.Sprint("device ", id-1) || v.RefreshHash[0] != byte(id-1)) {
					t.Errorf("for the session %d there is %+v", id, v)
				}
			})
		}
		wg.Wait()
	})
}
