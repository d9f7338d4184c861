package handlers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
	"tideline/pkg/seq"
)

// GroupsConfig bounds what clients do with groups over HTTP. Backends and administrators are exempt. Keys begin with
// groups.
type GroupsConfig struct {
	MaxMemberships int `conf:"max-memberships" help:"groups that a person may be a member of, as far as people add them; backends and administrators are exempt"`
	CreatedPerHour int `conf:"created-per-hour" help:"groups that a person may create within an hour; backends and administrators are exempt"`
}

// DefaultGroupsConfig is far above what people do by hand: a list of 500 groups is not read any more, and a person who
// makes 20 groups in an hour is a program.
func DefaultGroupsConfig() GroupsConfig { return GroupsConfig{MaxMemberships: 500, CreatedPerHour: 20} }

// maxGroupSetting bounds both settings: each is how many entries of an index one check may read.
const maxGroupSetting = 1_000_000

// Validate lists every fault.
func (c *GroupsConfig) Validate() error {
	var faults []error
	for key, n := range map[string]int{"max-memberships": c.MaxMemberships, "created-per-hour": c.CreatedPerHour} {
		if n < 1 || n > maxGroupSetting {
			faults = append(faults, fmt.Errorf("groups.%s is %d, 1 to %d are possible", key, n, maxGroupSetting))
		}
	}
	return errors.Join(faults...)
}

// createdWindow is the time in which a person may create GroupsConfig.CreatedPerHour groups.
const createdWindow = time.Hour

// reserveOwn reserves a group that its creator makes, as far as the creator may create one now.
func (s *Service) reserveOwn(ctx context.Context, u chat.UserID, clientMsgID string, hash chat.BodyHash) (chat.ConversationID, error) {
	fresh, err := s.ids.NextID()
	if err != nil {
		return chat.ConversationID{}, err
	}
	group, conflict, full, err := s.store.ReserveCounted(ctx, sqlstore.Reservation{
		Creator: u, ClientMsgID: clientMsgID, Hash: hash, Group: fresh, Most: s.groups.CreatedPerHour, Since: s.now().Add(-createdWindow).UnixMilli(),
	})
	switch {
	case err != nil:
		return chat.ConversationID{}, err
	case full > 0:
		return chat.ConversationID{}, chat.Refuse(chat.CodeRateLimited, "you created %d groups within the last hour, which is the limit", s.groups.CreatedPerHour).
			After(max(time.UnixMilli(full).Add(createdWindow).Sub(s.now()), time.Second))
	case conflict:
		return chat.ConversationID{}, errOtherGroup()
	}
	return chat.GroupConversation(group), nil
}

func errOtherGroup() error {
	return chat.RefuseField(chat.CodeConflict, "client_msg_id", "was used before for another group")
}

// mustHaveRoom refuses to make people members of a group who are members of as many as allowed. Those who are members of
// this group already are left out, and so are those of commands that were numbered before: a retry is answered as the
// first request was. Memberships are counted as they are stored: requests about one person that are under way at the same
// moment do not see each other. The commands are requested only when a user has no room.
func (s *Service) mustHaveRoom(ctx context.Context, caller chat.UserID, field string, users []chat.UserID, commands func() ([]*chat.Command, error)) error {
	most := s.groups.MaxMemberships
	full, err := s.store.InGroups(ctx, users, most)
	if err != nil || len(full) == 0 {
		return err
	}
	list, err := commands()
	if err != nil {
		return err
	}
	if len(list) > 0 {
		if full, err = s.notYet(ctx, full, list); err != nil || len(full) == 0 {
			return err
		}
	}
	if slices.Contains(full, caller) {
		return chat.Refuse(chat.CodeMembershipLimit, "you are a member of %d groups or more, and at most %d are allowed", most, most)
	}
	return chat.RefuseField(chat.CodeMembershipLimit, field, "user %s is a member of %d groups or more, and at most %d are allowed", slices.Min(full), most, most)
}

// notYet returns those of some users who are not members of the conversation of some commands, and whose command was not
// numbered.
func (s *Service) notYet(ctx context.Context, users []chat.UserID, list []*chat.Command) ([]chat.UserID, error) {
	var need seq.Need
	for _, u := range users {
		need.Members = append(need.Members, seq.MemberKey{Conversation: list[0].Conversation, User: u})
	}
	for _, c := range list {
		need.ClientIDs = append(need.ClientIDs, seq.ClientID{Conversation: c.Conversation, Sender: c.Sender, ID: c.ClientMsgID})
	}
	loaded, err := s.store.Load(ctx, need)
	if err != nil {
		return nil, err
	}
	done := map[chat.UserID]bool{}
	for _, m := range loaded.Members {
		done[m.User] = !m.Left
	}
	for _, n := range loaded.ClientIDs {
		for _, c := range list {
			switch {
			case c.ClientMsgID != n.ID:
			case c.Type == chat.KindCreate:
				done[c.Sender] = true
				for _, u := range c.Create.Members {
					done[u] = true
				}
			case c.Type == chat.KindJoin:
				for _, u := range c.Join.Users {
					done[u] = true
				}
			}
		}
	}
	return slices.DeleteFunc(users, func(u chat.UserID) bool { return done[u] }), nil
}

// withReturn adds to a refusal when the people who left may be put back by the caller.
func (s *Service) withReturn(ctx context.Context, u chat.UserID, id chat.ConversationID, users []chat.UserID, refusal error) error {
	var e *chat.Error
	if !errors.As(refusal, &e) || e.Code != chat.CodeLeftRecently {
		return refusal
	}
	var need seq.Need
	for _, member := range users {
		need.Members = append(need.Members, seq.MemberKey{Conversation: id, User: member})
	}
	loaded, err := s.store.Load(ctx, need)
	if err != nil {
		return err
	}
	wait := time.Duration(0)
	for _, m := range loaded.Members {
		if m.Left && m.AddedBy == u && m.LeftBy == m.User {
			wait = max(wait, time.UnixMilli(m.LeftAt).Add(seq.RejoinAfter).Sub(s.now()))
		}
	}
	if wait <= 0 { // the store does not have the leave yet
		wait = seq.RejoinAfter
	}
	return e.After(wait)
}
