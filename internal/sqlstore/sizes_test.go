package sqlstore

import (
	"testing"

	"tideline/pkg/chat"
)

func TestSizes_CountWhatIsThere(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		before, err := s.Sizes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if before.Bytes <= 0 {
			t.Errorf("the store has %d bytes", before.Bytes)
		}
		for i := range 3 {
			id := chat.UserID(900_001 + i)
			if err := s.CreateUser(t.Context(), User{ID: id, Username: "size" + id.String(), Nickname: "S"}); err != nil {
				t.Fatal(err)
			}
		}
		after, err := s.Sizes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.dialect.name == "sqlite" && after.Users != before.Users+3 { // MySQL estimates
			t.Errorf("%d users became %d with three more", before.Users, after.Users)
		}
	})
}
