package handlers

import (
	"context"
	"strings"
	"testing"

	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
)

// roll is a store with one person, to whom something happens right after it was read.
type roll struct {
	nickname  string
	meanwhile func()
}

func (r *roll) Users(_ context.Context, ids []chat.UserID) ([]sqlstore.User, error) {
	list := []sqlstore.User{{ID: ids[0], Nickname: r.nickname}}
	if do := r.meanwhile; do != nil {
		r.meanwhile = nil
		do()
	}
	return list, nil
}

func TestProfiles_DoNotRememberANameThatChangesAsItIsRead(t *testing.T) {
	store := &roll{nickname: "Ada"}
	p := newProfiles(store)
	store.meanwhile = func() {
		store.nickname = "Countess"
		p.forget(7)
	}
	for _, want := range []string{"Ada", "Countess"} {
		people, err := p.of(t.Context(), []chat.UserID{7}, nil)
		if err != nil || len(people) != 1 || !strings.Contains(string(people[0].json), want) {
			t.Fatalf("given %+v, %v; want %s", people, err, want)
		}
	}
	store.nickname = "somebody else"
	if people, _ := p.of(t.Context(), []chat.UserID{7}, nil); !strings.Contains(string(people[0].json), "Countess") {
		t.Errorf("%s: nothing is remembered", people[0].json)
	}
}
