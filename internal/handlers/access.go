package handlers

import (
	"context"
	"sync"

	"tideline/internal/accounts"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// A caller that never was a member of a conversation is answered as if it did not exist: the status, the bytes, the
// statements and the time of a refusal say nothing about it. A membership is therefore looked up before its
// conversation is, and before anything else that a request names. Former members know that the conversation exists, and
// are refused as such.

// errUnknown refuses a conversation that does not exist, or that the caller was never a member of. All such refusals
// are the same.
func errUnknown() error {
	return chat.Refuse(chat.CodeConversationUnknown, "there is no such conversation")
}

// errLeft refuses a former member what only members may know: what became of a conversation after they left.
func errLeft() error {
	return chat.Refuse(chat.CodeNotAMember, "you are not a member of this conversation any more")
}

// ofOthers reports whether a conversation is a private one between two other people: its id says so, and nothing is
// looked up.
func ofOthers(u chat.UserID, id chat.ConversationID) bool {
	return id.Kind == chat.KindPrivate && !id.HasPeer(u)
}

// Outside returns the refusal of a call by a user who was found not to be a member of a conversation:
// conversation_not_found where it never was one, not_a_member where it has left. It asks the store, whatever is
// remembered; where the membership has begun meanwhile, the refusal says to try again.
func (s *Service) Outside(ctx context.Context, u chat.UserID, id chat.ConversationID) error {
	m, found, err := s.storedMember(ctx, u, id)
	switch {
	case err != nil:
		return err
	case !found:
		return errUnknown()
	case !m.Present():
		return errLeft()
	}
	return chat.Refuse(chat.CodeUnavailable, "the membership has just begun, retry").After(toldWait / 2)
}

// judged returns a refusal by ingest as a caller may see it. In im.rejected it says whether the conversation exists.
func (s *Service) judged(ctx context.Context, u chat.UserID, id chat.ConversationID, err error) error {
	switch chat.CodeOf(err) {
	case chat.CodeNotAMember, chat.CodeConversationUnknown:
		return s.Outside(ctx, u, id)
	}
	return inRequest(err)
}

// storedMember returns a membership, present or past, as the store has it now.
func (s *Service) storedMember(
	ctx context.Context, u chat.UserID, id chat.ConversationID,
) (timeline.Member, bool, error) {
	if ofOthers(u, id) {
		return timeline.Member{}, false, nil
	}
	list, err := s.store.Members(ctx, []timeline.MemberKey{{Conversation: id, User: u}})
	if err != nil || len(list) == 0 {
		return timeline.Member{}, false, err
	}
	return list[0], true, nil
}

// member returns a membership, present or past.
func (s *Service) member(ctx context.Context, u chat.UserID, id chat.ConversationID) (timeline.Member, bool, error) {
	if ofOthers(u, id) {
		return timeline.Member{}, false, nil
	}
	return s.views.member(ctx, timeline.MemberKey{Conversation: id, User: u})
}

// seenBy returns a conversation and the membership of its reader, present or past.
func (s *Service) seenBy(
	ctx context.Context, u chat.UserID, id chat.ConversationID,
) (timeline.Conversation, timeline.Member, error) {
	var none timeline.Conversation
	m, found, err := s.member(ctx, u, id)
	if err != nil {
		return none, m, err
	}
	if !found {
		return none, m, errUnknown()
	}
	c, found, err := s.views.conversation(ctx, id)
	if err != nil {
		return none, m, err
	}
	if !found {
		return none, m, errUnknown()
	}
	return c, m, nil
}

// seenAt is seenBy as of at least the number that the reader was told.
func (s *Service) seenAt(
	ctx context.Context, caller accounts.Caller, id chat.ConversationID, told int64,
) (timeline.Conversation, timeline.Member, error) {
	var none timeline.Conversation
	if told == 0 {
		return s.seenBy(ctx, caller.User, id)
	}
	m, found, err := s.member(ctx, caller.User, id)
	if err == nil && (!found || !m.Present() && told > m.LeftSeq) {
		m, found, err = s.awaitMember(ctx, caller, id, told)
	}
	if err != nil {
		return none, m, err
	}
	if !found {
		return none, m, errUnknown()
	}
	c, found, err := s.views.conversation(ctx, id)
	switch {
	case err != nil:
		return none, m, err
	case !found:
		return none, m, errUnknown()
	case told <= c.MaxSeq:
		return c, m, nil
	}
	var waited error
	if m.Present() { // the store has the number at which a former member left: there is nothing to wait for
		wait, cancel := context.WithTimeout(ctx, toldWait)
		waited = s.heads.WaitFor(wait, id, told)
		cancel()
	}
	// Whether a notification came or not, the store is what answers.
	head, found, err := s.views.head(ctx, id)
	if err != nil {
		return none, m, err
	}
	if found {
		c = head
	}
	if m.Present() {
		// The wait may have outlasted the membership. Without a notification what is remembered of it is not trusted.
		if waited == nil {
			m, found, err = s.member(ctx, caller.User, id)
		} else {
			m, found, err = s.storedMember(ctx, caller.User, id)
		}
		if err != nil {
			return none, m, err
		}
		if !found {
			return none, m, errUnknown()
		}
	}
	if m.Present() && told > c.MaxSeq {
		late := chat.Refuse(chat.CodeUnavailable, "number %d is not stored yet", told)
		return none, m, late.After(toldWait / 2).Because(waited)
	}
	return c, m, nil
}

// awaitMember waits until a user is a member of a conversation, for at most toldWait, and returns its membership as it
// is then. A client that was told a number is a member by then, or will be in a moment. For any other client, status,
// body and time are the same whatever number it claims to have been told, so that they do not say where the
// conversation stands.
func (s *Service) awaitMember(
	ctx context.Context, caller accounts.Caller, id chat.ConversationID, told int64,
) (timeline.Member, bool, error) {
	var none timeline.Member
	if ofOthers(caller.User, id) {
		return none, false, nil // never, however long
	}
	if !s.outsiders.enter(caller.Address) {
		many := chat.Refuse(chat.CodeRateLimited, "too many pulls from this address wait for a membership")
		return none, false, many.After(toldWait)
	}
	defer s.outsiders.leave(caller.Address)
	wait, cancel := context.WithTimeout(ctx, toldWait)
	defer cancel()
	for {
		changed, forget := s.views.watch(timeline.MemberKey{Conversation: id, User: caller.User})
		m, found, err := s.storedMember(ctx, caller.User, id)
		if err != nil || found && (m.Present() || told <= m.LeftSeq) {
			forget()
			return m, found, err
		}
		select {
		case <-changed:
			forget()
		case <-wait.Done():
			forget()
			if err := ctx.Err(); err != nil {
				return none, false, err
			}
			// Notifications may be late: the store answers.
			return s.storedMember(ctx, caller.User, id)
		}
	}
}

// Bounds of pulls by callers who are no members. A client that was told a number waits for milliseconds, so that even a
// campus behind one address has few at a time; each of the others keeps a request for a second.
const (
	maxOutsidersPerAddress = 16
	maxOutsiders           = 1024
)

// outsiders counts the pulls that wait for a membership, by address.
type outsiders struct {
	mu        sync.Mutex // guards what follows
	addresses map[string]int
	total     int
}

func newOutsiders() *outsiders { return &outsiders{addresses: map[string]int{}} }

// enter reports whether one more may wait; if so, leave must follow.
func (o *outsiders) enter(address string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.total >= maxOutsiders || o.addresses[address] >= maxOutsidersPerAddress {
		return false
	}
	o.total++
	o.addresses[address]++
	return true
}

func (o *outsiders) leave(address string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.total--
	if o.addresses[address]--; o.addresses[address] == 0 {
		delete(o.addresses, address)
	}
}

// maxTypedMembers is the largest conversation in which typing is passed on: in a larger one it concerns too few of
// those it would reach.
const maxTypedMembers = 200

// MayType reports whether others hear that a member types: in a conversation of at most 200 members, and unless the
// member is muted. The error refuses those who are no members.
func (s *Service) MayType(ctx context.Context, u chat.UserID, id chat.ConversationID) (bool, error) {
	if id.Kind == chat.KindPrivate && id.HasPeer(u) {
		return true, nil // it need not have a message yet
	}
	c, m, err := s.seenBy(ctx, u, id)
	if err != nil {
		return false, err
	}
	if !m.Present() {
		return false, errLeft()
	}
	return c.MemberCount <= maxTypedMembers && m.MutedUntil <= s.now().UnixMilli() && c.DissolvedSeq == 0, nil
}

// BothSaid returns those of some private conversations in which both people have said something. In these each has
// shown itself to the other, and may know whether the other is online.
func (s *Service) BothSaid(ctx context.Context, ids []chat.ConversationID) ([]chat.ConversationID, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	return s.store.BothSaid(ctx, ids)
}
