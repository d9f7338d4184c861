package handlers

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
)

// profiles remembers how people are called, encoded, for as long as profileTTL.
type profiles struct {
	store interface {
		Users(ctx context.Context, ids []chat.UserID) ([]sqlstore.User, error)
	}
	now func() time.Time

	mu      sync.Mutex // guards what follows
	seen    map[chat.UserID]profile
	forgets uint64 // how many times somebody was forgotten
}

type profile struct {
	json    json.RawMessage
	version uint64
	until   time.Time
}

const (
	profileTTL  = time.Minute // a new nickname may take this long to be seen beside messages
	maxProfiles = 100_000
)

func newProfiles(store interface {
	Users(ctx context.Context, ids []chat.UserID) ([]sqlstore.User, error)
}) *profiles {
	return &profiles{store: store, now: time.Now, seen: map[chat.UserID]profile{}}
}

// person is the profile of somebody.
type person struct {
	id chat.UserID
	profile
}

// of appends the encoded profiles of different people, in order of their ids; those who do not exist are left out.
func (p *profiles) of(ctx context.Context, ids []chat.UserID, out []person) ([]person, error) {
	now := p.now()
	begin := len(out)
	var missing []chat.UserID
	p.mu.Lock()
	for _, id := range ids {
		if v, there := p.seen[id]; there && now.Before(v.until) {
			out = append(out, person{id, v})
		} else if id > 0 {
			missing = append(missing, id)
		}
	}
	forgets := p.forgets
	p.mu.Unlock()
	if len(missing) == 0 {
		return out, nil
	}
	users, err := p.store.Users(ctx, missing)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen)+len(users) > maxProfiles {
		clear(p.seen)
	}
	for _, u := range users {
		text, _ := json.Marshal(struct {
			Nickname  string `json:"nickname"`
			AvatarURL string `json:"avatar_url"`
		}{u.Nickname, u.AvatarURL})
		v := profile{json: text, version: uint64(u.UpdatedAt), until: now.Add(profileTTL)}
		if p.forgets == forgets { // otherwise it may have been read before it changed
			p.seen[u.ID] = v
		}
		out = append(out, person{u.ID, v})
	}
	slices.SortFunc(out[begin:], func(a, b person) int { return cmp.Compare(a.id, b.id) })
	return out, nil
}

func (p *profiles) forget(id chat.UserID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgets++
	delete(p.seen, id)
}
