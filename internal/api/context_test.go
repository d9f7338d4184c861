package api_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"

	"tideline/internal/accounts"
	"tideline/internal/api"
	"tideline/internal/handlers"
	"tideline/internal/heads"
	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/internal/tracing"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

const tokenKey = "a token key of the tests, long enough"

// slowStore answers questions about members only when it is let go, as a store in trouble does.
type slowStore struct {
	handlers.Store
	asked chan context.Context
	let   chan struct{}
}

func (s *slowStore) SessionByID(_ context.Context, id int64) (sqlstore.Session, bool, error) {
	return sqlstore.Session{ID: id, User: chat.UserID(id)}, true, nil
}

func (s *slowStore) Conversations(_ context.Context, ids []chat.ConversationID) ([]timeline.Conversation, error) {
	return []timeline.Conversation{{ID: ids[0], MaxSeq: 1}}, nil
}

func (s *slowStore) Members(ctx context.Context, _ []timeline.MemberKey) ([]timeline.Member, error) {
	s.asked <- ctx
	<-s.let
	type anything struct{}
	for range 50 { // a driver looks into its context at any time
		_ = ctx.Value(anything{})
		_ = ctx.Value("caller")
	}
	return nil, nil
}

func token(t testing.TB, user int64) string {
	t.Helper()
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": fmt.Sprint(user), "sid": fmt.Sprint(user), "exp": time.Now().Add(time.Hour).Unix(),
	}).SignedString([]byte(tokenKey))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Loads that several requests share outlive the first of them. What they carry must not be gin's context: gin gives that to
// another request as soon as the first is answered, and whoever still reads it reads somebody else's.
func TestServer_WhatOutlivesARequestDoesNotHoldGinsContext(t *testing.T) {
	store := &slowStore{asked: make(chan context.Context), let: make(chan struct{})}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	auth := accounts.DefaultConfig()
	auth.TokenKey = tokenKey
	registry := prometheus.NewRegistry()
	acc := accounts.New(auth, store, nil, nil, log, accounts.NewMetrics(registry))
	service := handlers.New(handlers.Parts{
		Config: handlers.DefaultConfig(), Kafka: kafka.DefaultConfig(), Store: store, Accounts: acc, Heads: heads.New(kafka.DefaultConfig(), log, "test"), Log: log, Registry: registry,
	})
	door := api.New(api.DefaultConfig(), service, acc, "", nil, tracing.None(), log, registry).Handler()
	ask := func(ctx context.Context, user int64, path string) int {
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
		r.Header.Set("Authorization", "Bearer "+token(t, user))
		w := httptest.NewRecorder()
		door.ServeHTTP(w, r)
		return w.Code
	}
	for round := range int64(20) {
		ctx, hangUp := context.WithCancel(t.Context())
		answered := make(chan int)
		go func() { answered <- ask(ctx, 7, fmt.Sprintf("/v1/conversations/g-%d/messages", round+1)) }()
		loading := <-store.asked
		hangUp()
		if status := <-answered; status != http.StatusServiceUnavailable {
			t.Fatalf("a request whose client hung up ended with %d", status)
		}
		if loading.Value(gin.ContextKey) != nil {
			t.Fatal("a load that outlives its request reads gin's context")
		}
		// Others come and get the context that gin recycled, while the load still reads its own.
		var others sync.WaitGroup
		for u := range int64(4) {
			others.Go(func() { ask(t.Context(), 100+u, "/v1/users?query=") })
		}
		store.let <- struct{}{}
		others.Wait()
	}
}
