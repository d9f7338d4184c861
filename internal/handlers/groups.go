package handlers

import (
	"context"
	"encoding/base64"
	"slices"
	"strconv"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// maxMembersPerRequest bounds the people that one request adds; they become events of at most chat.MaxMembersPerCommand.
const maxMembersPerRequest = 10_000

// CreateGroupRequest makes a group with the caller as its owner.
type CreateGroupRequest struct {
	ClientMsgID    string        `json:"client_msg_id,omitempty"`
	Name           string        `json:"name"`
	AvatarURL      string        `json:"avatar_url,omitempty"`
	HistoryVisible bool          `json:"history_visible,omitempty"`
	MemberIDs      []chat.UserID `json:"member_ids,omitempty"`
}

// Group is what a group is.
type Group struct {
	Conversation   chat.ConversationID `json:"conversation_id"`
	Seq            int64               `json:"seq"`
	Name           string              `json:"name"`
	AvatarURL      string              `json:"avatar_url,omitempty"`
	Owner          chat.UserID         `json:"owner_id"`
	HistoryVisible bool                `json:"history_visible"`
	MemberCount    int                 `json:"member_count"`
	Dissolved      bool                `json:"dissolved,omitempty"`
	CreatedAt      int64               `json:"created_at"`
}

func groupOf(c *timeline.Conversation) Group {
	return Group{
		Conversation: c.ID, Seq: c.MaxSeq, Name: c.Name, AvatarURL: c.AvatarURL, Owner: c.Owner, HistoryVisible: c.HistoryVisible,
		MemberCount: c.MemberCount, Dissolved: c.DissolvedSeq > 0, CreatedAt: c.CreatedAt,
	}
}

// CreateGroup makes a group: its first event with the first members, and one more for every further 500.
func (s *Service) CreateGroup(ctx context.Context, u chat.UserID, r CreateGroupRequest) (Group, error) {
	members, err := distinct("member_ids", r.MemberIDs, u)
	if err != nil {
		return Group{}, err
	}
	if r.ClientMsgID == "" {
		r.ClientMsgID = newClientMsgID()
	}
	if err := s.mustExist(ctx, "member_ids", members); err != nil {
		return Group{}, err
	}
	first, rest := cut(members)
	create := &chat.Command{
		Type: chat.KindCreate, Sender: u, ClientMsgID: r.ClientMsgID,
		Create: &chat.Create{Name: r.Name, AvatarURL: r.AvatarURL, HistoryVisible: r.HistoryVisible, Members: first},
	}
	create.Conversation = chat.GroupConversation(1) // any, until it is reserved: the shape is judged first
	if err := create.Validate(); err != nil {
		return Group{}, inRequest(err)
	}
	commands := func(id chat.ConversationID) []*chat.Command {
		create.Conversation = id
		return append([]*chat.Command{create}, joins(id, u, r.ClientMsgID, 1, rest)...)
	}
	err = s.mustHaveRoom(ctx, u, "member_ids", append(slices.Clone(members), u), func() ([]*chat.Command, error) {
		group, err := s.store.ReservedGroup(ctx, u, r.ClientMsgID)
		if err != nil || group == 0 {
			return nil, err
		}
		return commands(chat.GroupConversation(group)), nil
	})
	if err != nil {
		return Group{}, err
	}
	hash := s.hasher.Hash(&chat.Command{Type: chat.KindCreate, Create: &chat.Create{Name: r.Name, AvatarURL: r.AvatarURL, HistoryVisible: r.HistoryVisible, Members: members}})
	id, err := s.reserveOwn(ctx, u, r.ClientMsgID, hash)
	if err != nil {
		return Group{}, err
	}
	seqs, err := s.commands(ctx, commands(id))
	if err != nil {
		return Group{}, err
	}
	return Group{
		Conversation: id, Seq: slices.Max(seqs), Name: r.Name, AvatarURL: r.AvatarURL, Owner: u, HistoryVisible: r.HistoryVisible,
		MemberCount: 1 + len(members), CreatedAt: s.now().UnixMilli(),
	}, nil
}

func (s *Service) reserve(ctx context.Context, u chat.UserID, clientMsgID string, hash chat.BodyHash) (chat.ConversationID, error) {
	fresh, err := s.ids.NextID()
	if err != nil {
		return chat.ConversationID{}, err
	}
	group, conflict, err := s.store.ReserveGroup(ctx, u, clientMsgID, hash, fresh)
	if err != nil {
		return chat.ConversationID{}, err
	}
	if conflict {
		return chat.ConversationID{}, errOtherGroup()
	}
	return chat.GroupConversation(group), nil
}

// cut gives the members that go with the first event, and the others.
func cut(members []chat.UserID) (first, rest []chat.UserID) {
	n := min(len(members), chat.MaxMembersPerCommand)
	return members[:n], members[n:]
}

func joins(id chat.ConversationID, u chat.UserID, clientMsgID string, from int, users []chat.UserID) []*chat.Command {
	var list []*chat.Command
	for part := range slices.Chunk(users, chat.MaxMembersPerCommand) {
		list = append(list, &chat.Command{
			Type: chat.KindJoin, Conversation: id, Sender: u, ClientMsgID: derivedID(clientMsgID, from+len(list)), Join: &chat.Join{Users: part},
		})
	}
	return list
}

// distinct gives a list of users as a set without one of them.
func distinct(field string, ids []chat.UserID, but chat.UserID) ([]chat.UserID, error) {
	set := slices.Clone(ids)
	slices.Sort(set)
	set = slices.DeleteFunc(slices.Compact(set), func(u chat.UserID) bool { return u == but })
	if len(set) > maxMembersPerRequest {
		return nil, chat.RefuseField(chat.CodeInvalidField, field, "names %d users, %d are allowed", len(set), maxMembersPerRequest)
	}
	if len(set) > 0 && set[0] <= 0 {
		return nil, chat.RefuseField(chat.CodeInvalidField, field, "has an id that is not positive")
	}
	return set, nil
}

func (s *Service) mustExist(ctx context.Context, field string, users []chat.UserID) error {
	found, err := s.store.UsersExist(ctx, users)
	if err != nil || len(found) == len(users) {
		return err
	}
	slices.Sort(found)
	for _, u := range users {
		if _, there := slices.BinarySearch(found, u); !there {
			return chat.RefuseField(chat.CodeUserUnknown, field, "there is no user %s", u)
		}
	}
	return nil
}

// Group gives a group as it is now to a member.
func (s *Service) Group(ctx context.Context, u chat.UserID, id chat.ConversationID) (Group, error) {
	c, m, err := s.seenBy(ctx, u, id)
	if err != nil {
		return Group{}, err
	}
	if id.Kind != chat.KindGroup {
		return Group{}, chat.Refuse(chat.CodeConversationUnknown, "this is no group")
	}
	if !m.Present() {
		return Group{}, errLeft()
	}
	return groupOf(&c), nil
}

// UpdateGroupRequest changes what a group is; what is absent stays.
type UpdateGroupRequest struct {
	ClientMsgID    string  `json:"client_msg_id,omitempty"`
	Name           *string `json:"name,omitempty"`
	AvatarURL      *string `json:"avatar_url,omitempty"`
	HistoryVisible *bool   `json:"history_visible,omitempty"`
}

// UpdateGroup changes what a group is.
func (s *Service) UpdateGroup(ctx context.Context, u chat.UserID, id chat.ConversationID, r UpdateGroupRequest) (Change, error) {
	seq, err := s.command(ctx, &chat.Command{
		Type: chat.KindUpdate, Conversation: id, Sender: u, ClientMsgID: r.ClientMsgID,
		Update: &chat.Update{Name: r.Name, AvatarURL: r.AvatarURL, HistoryVisible: r.HistoryVisible},
	})
	return Change{seq}, err
}

// Dissolve ends a group.
func (s *Service) Dissolve(ctx context.Context, u chat.UserID, id chat.ConversationID, clientMsgID string) (Change, error) {
	seq, err := s.command(ctx, &chat.Command{Type: chat.KindDissolve, Conversation: id, Sender: u, ClientMsgID: clientMsgID, Dissolve: &chat.Dissolve{}})
	return Change{seq}, err
}

// AddMembersRequest makes people members.
type AddMembersRequest struct {
	ClientMsgID string        `json:"client_msg_id,omitempty"`
	UserIDs     []chat.UserID `json:"user_ids"`
}

// AddMembers makes people members, at most 10,000 at once. Where one of them has no room for another group, nothing is
// changed; what is judged where numbers are given is judged for each 500 of them.
func (s *Service) AddMembers(ctx context.Context, u chat.UserID, id chat.ConversationID, r AddMembersRequest) (Change, error) {
	users, err := distinct("user_ids", r.UserIDs, 0)
	if err != nil {
		return Change{}, err
	}
	if len(users) == 0 {
		return Change{}, chat.RefuseField(chat.CodeInvalidField, "user_ids", "must name at least one user")
	}
	if r.ClientMsgID == "" {
		r.ClientMsgID = newClientMsgID()
	}
	list := joins(id, u, r.ClientMsgID, 0, users)
	if err := s.mayBeAdded(ctx, u, id, users, list); err != nil {
		return Change{}, err
	}
	seqs, err := s.commands(ctx, list)
	if err != nil {
		return Change{}, s.withReturn(ctx, u, id, users, err)
	}
	return Change{slices.Max(seqs)}, nil
}

// mayBeAdded refuses users who do not exist or have no room for another group. It checks nothing for a caller that is not
// a member: a refusal would show whether the group exists and who is in it. The commands of such a caller are refused where
// numbers are assigned, and a retry of a former member gets its number.
func (s *Service) mayBeAdded(ctx context.Context, u chat.UserID, id chat.ConversationID, users []chat.UserID, list []*chat.Command) error {
	m, found, err := s.storedMember(ctx, u, id)
	if err != nil || !found || !m.Present() {
		return err
	}
	if err := s.mustExist(ctx, "user_ids", users); err != nil {
		return err
	}
	return s.mustHaveRoom(ctx, u, "user_ids", users, func() ([]*chat.Command, error) { return list, nil })
}

// RemoveMember ends a membership: the caller's own, or another's.
func (s *Service) RemoveMember(ctx context.Context, u chat.UserID, id chat.ConversationID, who chat.UserID, clientMsgID string) (Change, error) {
	seq, err := s.command(ctx, &chat.Command{Type: chat.KindLeave, Conversation: id, Sender: u, ClientMsgID: clientMsgID, Leave: &chat.Leave{Users: []chat.UserID{who}}})
	return Change{seq}, err
}

// UpdateMemberRequest changes a membership; what is absent stays.
type UpdateMemberRequest struct {
	ClientMsgID string     `json:"client_msg_id,omitempty"`
	Role        *chat.Role `json:"role,omitempty"`
	MutedUntil  *int64     `json:"muted_until,omitempty"` // ms; 0 ends it
	Nickname    *string    `json:"nickname,omitempty"`
}

// UpdateMember changes a membership.
func (s *Service) UpdateMember(ctx context.Context, u chat.UserID, id chat.ConversationID, who chat.UserID, r UpdateMemberRequest) (Change, error) {
	if r.ClientMsgID == "" {
		r.ClientMsgID = newClientMsgID()
	}
	var list []*chat.Command
	add := func(c chat.Command) {
		c.Conversation, c.Sender, c.ClientMsgID = id, u, derivedID(r.ClientMsgID, len(list))
		list = append(list, &c)
	}
	if r.Nickname != nil {
		add(chat.Command{Type: chat.KindNickname, Nickname: &chat.Nickname{User: who, Nickname: *r.Nickname}})
	}
	if r.MutedUntil != nil {
		add(chat.Command{Type: chat.KindMute, Mute: &chat.Mute{User: who, Until: *r.MutedUntil}})
	}
	if r.Role != nil {
		add(chat.Command{Type: chat.KindRole, Role: &chat.SetRole{User: who, Role: *r.Role}})
	}
	if len(list) == 0 {
		return Change{}, chat.RefuseField(chat.CodeInvalidField, "role", "one of role, muted_until, nickname is needed")
	}
	seqs, err := s.commands(ctx, list)
	if err != nil {
		return Change{}, err
	}
	return Change{slices.Max(seqs)}, nil
}

// MemberView is a member as other members see it.
type MemberView struct {
	User       chat.UserID `json:"user_id"`
	Role       chat.Role   `json:"role"`
	Nickname   string      `json:"nickname,omitempty"` // in this group
	JoinSeq    int64       `json:"join_seq"`
	MutedUntil int64       `json:"muted_until,omitempty"`
}

// MembersPage is a page of members, by user id.
type MembersPage struct {
	Members []MemberView       `json:"members"`
	Users   map[string]rawJSON `json:"users"`
	Next    string             `json:"next,omitempty"`
}

// Members lists the members of a conversation to one of them.
func (s *Service) Members(ctx context.Context, u chat.UserID, id chat.ConversationID, cursor string, limit int) (MembersPage, error) {
	after, limit, err := pageOf(cursor, limit, 100, 1000)
	if err != nil {
		return MembersPage{}, err
	}
	_, m, err := s.seenBy(ctx, u, id)
	if err != nil {
		return MembersPage{}, err
	}
	if !m.Present() {
		return MembersPage{}, errLeft()
	}
	list, err := s.store.MembersPage(ctx, id, chat.UserID(after), limit)
	if err != nil {
		return MembersPage{}, err
	}
	page := MembersPage{Members: []MemberView{}}
	ids := map[chat.UserID]bool{}
	for _, m := range list {
		ids[m.User] = true
		page.Members = append(page.Members, MemberView{User: m.User, Role: m.Role, Nickname: m.Nickname, JoinSeq: m.JoinSeq, MutedUntil: m.MutedUntil})
	}
	if len(list) == limit {
		page.Next = cursorOf(int64(list[len(list)-1].User))
	}
	page.Users, err = s.users(ctx, ids)
	return page, err
}

// pageOf reads a cursor that is a user id, and a limit.
func pageOf(cursor string, limit, usual, most int) (int64, int, error) {
	if limit == 0 {
		limit = usual
	}
	if limit < 1 || limit > most {
		return 0, 0, chat.RefuseField(chat.CodeInvalidField, "limit", "is not 1 to %d", most)
	}
	if cursor == "" {
		return 0, limit, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil {
		var after int64
		if after, err = strconv.ParseInt(string(raw), 36, 64); err == nil && after >= 0 {
			return after, limit, nil
		}
	}
	return 0, 0, chat.RefuseField(chat.CodeInvalidField, "cursor", "is not one of ours")
}

func cursorOf(after int64) string {
	return base64.RawURLEncoding.EncodeToString(strconv.AppendInt(nil, after, 36))
}
