package sqlstore

import (
	"context"

	"tideline/internal/crowd"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// crowds are the questions that thousands ask at once when they come back together: whether a session stands, and what
// somebody is a member of. A few statements are under way at a time; who comes meanwhile goes with the next one.
type crowds struct {
	sessions    *crowd.Loader[int64, Session]
	memberships map[bool]*crowd.Loader[chat.UserID, []timeline.Membership] // with past ones, or without
}

// Bounds of a crowd's statements. More of them at once would be smaller ones; more users in one could be more rows than
// anybody should wait for.
const (
	crowdStatements = 4
	crowdSessions   = 200
	crowdUsers      = 32
)

func newCrowds(s Store) *crowds {
	c := &crowds{
		sessions:    crowd.New(crowdStatements, crowdSessions, s.sessions),
		memberships: map[bool]*crowd.Loader[chat.UserID, []timeline.Membership]{},
	}
	for _, past := range []bool{false, true} {
		c.memberships[past] = crowd.New(crowdStatements, crowdUsers, func(ctx context.Context, users []chat.UserID) (map[chat.UserID][]timeline.Membership, error) {
			return s.membershipsOf(ctx, users, past)
		})
	}
	return c
}
