package embedded

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestRedis_AnswersOnlyWithItsPassword(t *testing.T) {
	one, err := StartRedis()
	if err != nil {
		t.Fatal(err)
	}
	two, err := StartRedis()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for _, r := range []*Redis{one, two} {
		go func() { ended <- r.Run(ctx) }()
	}
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Error(err)
		}
	})
	ask := func(password string) error {
		client := redis.NewClient(&redis.Options{Addr: one.Addr(), Password: password, MaxRetries: -1})
		defer func() { _ = client.Close() }()
		return client.Set(t.Context(), "a", "b", 0).Err()
	}
	if err := ask(one.Password().Reveal()); err != nil {
		t.Error(err)
	}
	for _, wrong := range []string{"", "password", two.Password().Reveal()} {
		if err := ask(wrong); err == nil || !strings.Contains(err.Error(), "AUTH") && !strings.Contains(err.Error(), "WRONGPASS") {
			t.Errorf("with another password: %v", err)
		}
	}
	if n := len(one.Password().Reveal()); n < 26 {
		t.Errorf("the password has %d characters", n)
	}
}
