package handlers

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"unicode/utf8"

	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
)

type rawJSON = json.RawMessage

// User is a person as others see it.
type User struct {
	ID        chat.UserID `json:"user_id"`
	Username  string      `json:"username,omitempty"`
	Nickname  string      `json:"nickname"`
	AvatarURL string      `json:"avatar_url,omitempty"`
}

// UserOf gives the view of a person.
func UserOf(u sqlstore.User) User {
	return User{ID: u.ID, Username: u.Username, Nickname: u.Nickname, AvatarURL: u.AvatarURL}
}

// Users is a page of people.
type Users struct {
	Users []User `json:"users"`
}

// maxUserBatch bounds the people of one request.
const maxUserBatch = 500

// UsersByID gives people; who does not exist is left out.
func (s *Service) UsersByID(ctx context.Context, ids []chat.UserID) (Users, error) {
	if len(ids) > maxUserBatch {
		return Users{}, chat.RefuseField(chat.CodeInvalidField, "user_ids", "names %d users, %d are allowed", len(ids), maxUserBatch)
	}
	if slices.ContainsFunc(ids, func(id chat.UserID) bool { return id <= 0 }) { // null, in a list
		return Users{}, chat.RefuseField(chat.CodeInvalidField, "user_ids", "must be ids of users")
	}
	list, err := s.store.Users(ctx, ids)
	return usersOf(list), err
}

// User gives one person.
func (s *Service) User(ctx context.Context, id chat.UserID) (User, error) {
	list, err := s.store.Users(ctx, []chat.UserID{id})
	if err != nil {
		return User{}, err
	}
	if len(list) == 0 {
		return User{}, chat.Refuse(chat.CodeUserUnknown, "there is no such user")
	}
	return UserOf(list[0]), nil
}

// SearchUsers gives people whose username begins with a text of at least two characters.
func (s *Service) SearchUsers(ctx context.Context, begins string) (Users, error) {
	if n := utf8.RuneCountInString(begins); n < 2 || n > 64 {
		return Users{}, chat.RefuseField(chat.CodeInvalidField, "query", "must be 2 to 64 characters")
	}
	list, err := s.store.SearchUsers(ctx, begins, 20)
	return usersOf(list), err
}

func usersOf(list []sqlstore.User) Users {
	out := Users{Users: []User{}}
	for _, u := range list {
		out.Users = append(out.Users, UserOf(u))
	}
	return out
}

// UpdateUserRequest changes what the caller is called and looks like. Doing it twice is doing it once, so that its name
// (ClientMsgID) needs no memory.
type UpdateUserRequest struct {
	ClientMsgID string  `json:"client_msg_id,omitempty"`
	Nickname    *string `json:"nickname,omitempty"`
	AvatarURL   *string `json:"avatar_url,omitempty"`
}

// UpdateUser changes the caller.
func (s *Service) UpdateUser(ctx context.Context, u chat.UserID, r UpdateUserRequest) (User, error) {
	if r.Nickname == nil && r.AvatarURL == nil {
		return User{}, chat.RefuseField(chat.CodeInvalidField, "nickname", "one of nickname, avatar_url is required")
	}
	if r.Nickname != nil {
		if err := chat.ValidateName("nickname", *r.Nickname); err != nil {
			return User{}, err
		}
	}
	if r.AvatarURL != nil {
		if err := chat.ValidateURL("avatar_url", *r.AvatarURL); err != nil {
			return User{}, err
		}
	}
	if _, err := s.store.UpdateUser(ctx, u, r.Nickname, r.AvatarURL, s.now().UnixMilli()); err != nil {
		return User{}, err
	}
	s.profiles.forget(u)
	return s.User(ctx, u)
}

// users gives the encoded profiles that go with an answer.
func (s *Service) users(ctx context.Context, ids map[chat.UserID]bool) (map[string]rawJSON, error) {
	found, err := s.profiles.of(ctx, slices.Collect(maps.Keys(ids)), nil)
	if err != nil {
		return nil, err
	}
	out := make(map[string]rawJSON, len(found))
	for _, p := range found {
		out[p.id.String()] = p.json
	}
	return out, nil
}

// ExternalUser is a person whose identity comes from elsewhere.
type ExternalUser struct {
	ExternalID string  `json:"external_id"`
	Nickname   *string `json:"nickname,omitempty"` // nil looks the person up
}

// ImportUsersRequest is a batch of them. Doing it twice is doing it once: external ids name people.
type ImportUsersRequest struct {
	ClientMsgID string         `json:"client_msg_id,omitempty"`
	Users       []ExternalUser `json:"users"`
}

// ImportedUser is who an external id is.
type ImportedUser struct {
	ExternalID string      `json:"external_id"`
	User       chat.UserID `json:"user_id"`
}

// ImportedUsers are they, in the order of the request.
type ImportedUsers struct {
	Users []ImportedUser `json:"users"`
}

// ImportUsers gives people by external id, and creates those who are missing. For administrators.
func (s *Service) ImportUsers(ctx context.Context, r ImportUsersRequest) (ImportedUsers, error) {
	if len(r.Users) == 0 || len(r.Users) > maxUserBatch {
		return ImportedUsers{}, chat.RefuseField(chat.CodeInvalidField, "users", "has not 1 to %d entries", maxUserBatch)
	}
	people := make([]sqlstore.ExternalUser, len(r.Users))
	for i, u := range r.Users {
		if u.ExternalID == "" || len(u.ExternalID) > 255 {
			return ImportedUsers{}, chat.RefuseField(chat.CodeInvalidField, "users.external_id", "has not 1 to 255 bytes")
		}
		nickname := ""
		if u.Nickname != nil {
			nickname = *u.Nickname
			if err := chat.ValidateName("users.nickname", nickname); err != nil {
				return ImportedUsers{}, err
			}
		}
		id, err := s.ids.NextID()
		if err != nil {
			return ImportedUsers{}, err
		}
		people[i] = sqlstore.ExternalUser{ExternalID: u.ExternalID, Nickname: nickname, ID: chat.UserID(id)}
	}
	ids, err := s.store.UpsertExternal(ctx, people, s.now().UnixMilli())
	if err != nil {
		return ImportedUsers{}, err
	}
	out := ImportedUsers{}
	for _, u := range r.Users {
		if ids[u.ExternalID] == 0 {
			return ImportedUsers{}, chat.RefuseField(chat.CodeInvalidField, "users.nickname", "is required for a person who is not there yet: %q", u.ExternalID)
		}
		out.Users = append(out.Users, ImportedUser{ExternalID: u.ExternalID, User: ids[u.ExternalID]})
	}
	return out, nil
}

// ReserveGroupRequest names a group before its first event, for backends that produce that themselves.
type ReserveGroupRequest struct {
	Creator     chat.UserID `json:"creator_id"`
	ClientMsgID string      `json:"client_msg_id"`
}

// ReservedGroup is its id.
type ReservedGroup struct {
	Conversation chat.ConversationID `json:"conversation_id"`
}

// ReserveGroup gives the id of a group to be created; the same for the same creator and client id. For administrators.
func (s *Service) ReserveGroup(ctx context.Context, r ReserveGroupRequest) (ReservedGroup, error) {
	if err := chat.ValidateClientMsgID(r.ClientMsgID); err != nil {
		return ReservedGroup{}, err
	}
	if err := s.mustExist(ctx, "creator_id", []chat.UserID{r.Creator}); err != nil {
		return ReservedGroup{}, err
	}
	id, err := s.reserve(ctx, r.Creator, r.ClientMsgID, chat.BodyHash{})
	return ReservedGroup{id}, err
}
