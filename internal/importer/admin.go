package importer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"tideline/internal/config"
	"tideline/pkg/chat"
)

// peoplePerCall is what the api takes at most.
const peoplePerCall = 500

// adminClient speaks with the administrators' calls of the api.
type adminClient struct {
	address  string
	token    config.Secret
	patience time.Duration
	http     *http.Client
}

func newAdminClient(cfg Config) *adminClient {
	return &adminClient{
		address: strings.TrimRight(cfg.API, "/"), token: cfg.AdminToken, patience: cfg.Patience,
		http: &http.Client{Timeout: 30 * time.Second}, // twice what the api gives a request
	}
}

type externalUser struct {
	ExternalID string      `json:"external_id"`
	Nickname   string      `json:"nickname,omitempty"`
	User       chat.UserID `json:"user_id,omitempty"`
}

type externalUsers struct {
	Users []externalUser `json:"users"`
}

// people gives the ids of people, in order, and makes those who are missing.
func (a *adminClient) people(ctx context.Context, people []externalUser, each func(done int)) ([]chat.UserID, error) {
	ids := make([]chat.UserID, 0, len(people))
	for begin := 0; begin < len(people); begin += peoplePerCall {
		part := people[begin:min(begin+peoplePerCall, len(people))]
		var answer externalUsers
		if err := a.call(ctx, "/v1/admin/users", externalUsers{part}, &answer); err != nil {
			return nil, fmt.Errorf("making people: %w", err)
		}
		known := map[string]chat.UserID{}
		for _, u := range answer.Users {
			known[u.ExternalID] = u.User
		}
		for _, p := range part {
			id := known[p.ExternalID]
			if id <= 0 {
				return nil, fmt.Errorf("making people: the api gave no id for %q", p.ExternalID)
			}
			ids = append(ids, id)
		}
		each(len(ids))
	}
	return ids, nil
}

// reserve gives the id of the group; the same for the same creator and client id.
func (a *adminClient) reserve(ctx context.Context, creator chat.UserID, clientMsgID string) (chat.ConversationID, error) {
	var answer struct {
		Conversation chat.ConversationID `json:"conversation_id"`
	}
	request := struct {
		Creator     chat.UserID `json:"creator_id"`
		ClientMsgID string      `json:"client_msg_id"`
	}{creator, clientMsgID}
	if err := a.call(ctx, "/v1/admin/groups/reserve", request, &answer); err != nil {
		return answer.Conversation, fmt.Errorf("reserving the group: %w", err)
	}
	if answer.Conversation.Kind != chat.KindGroup {
		return answer.Conversation, fmt.Errorf("reserving the group: the api answered with %q", answer.Conversation)
	}
	return answer.Conversation, nil
}

// account returns the id of the account with a username. Only people can look for accounts: the import's own user does, with
// a session that ends with it.
func (a *adminClient) account(ctx context.Context, asker chat.UserID, username string) (_ chat.UserID, err error) {
	var session struct {
		Token config.Secret `json:"access_token"`
	}
	request := struct {
		User     chat.UserID `json:"user_id"`
		Platform string      `json:"platform"`
	}{asker, "web"}
	if err := a.call(ctx, "/v1/admin/sessions", request, &session); err != nil {
		return 0, fmt.Errorf("looking for the owner: %w", err)
	}
	defer func() {
		if ended := a.once(ctx, http.MethodDelete, "/v1/sessions/current", session.Token, nil, nil); ended != nil && err == nil {
			err = fmt.Errorf("ending the session that looked for the owner: %w", ended)
		}
	}()
	var answer struct {
		Users []struct {
			User     chat.UserID `json:"user_id"`
			Username string      `json:"username"`
		} `json:"users"`
	}
	if err := a.repeat(ctx, http.MethodGet, "/v1/users?query="+url.QueryEscape(username), session.Token, nil, &answer); err != nil {
		return 0, fmt.Errorf("looking for the owner: %w", err)
	}
	for _, u := range answer.Users {
		if strings.EqualFold(u.Username, username) {
			return u.User, nil
		}
	}
	return 0, fmt.Errorf("import.owner: there is no account with the username %q", username)
}

// refusal is an error of the api's.
type refusal struct {
	status int
	retry  bool
	after  time.Duration
	text   string
}

func (r *refusal) Error() string { return r.text }

// call asks until there is an answer that asking again would not change. The calls are safe to repeat.
func (a *adminClient) call(ctx context.Context, path string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encoding the request: %w", err)
	}
	return a.repeat(ctx, http.MethodPost, path, a.token, body, answer)
}

func (a *adminClient) repeat(ctx context.Context, method, path string, token config.Secret, body []byte, answer any) error {
	giveUp := time.Now().Add(a.patience)
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := a.once(ctx, method, path, token, body, answer)
		var refused *refusal
		if err == nil || ctx.Err() != nil || (errors.As(err, &refused) && !refused.retry) || time.Now().After(giveUp) {
			return err
		}
		wait := pause
		if refused != nil && refused.after > 0 {
			wait = min(refused.after, time.Minute)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(wait):
		}
	}
}

func (a *adminClient) once(ctx context.Context, method, path string, token config.Secret, body []byte, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, a.address+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("asking the api: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	resp, err := a.http.Do(req)
	if err != nil {
		return fmt.Errorf("asking the api: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return fmt.Errorf("reading the api's answer: %w", err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return readRefusal(resp.StatusCode, raw)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		return fmt.Errorf("reading the api's answer: %w", err)
	}
	return nil
}

func readRefusal(status int, raw []byte) error {
	var w struct {
		Error struct {
			Code         string `json:"code"`
			Message      string `json:"message"`
			Retryable    bool   `json:"retryable"`
			RetryAfterMS int64  `json:"retry_after_ms"`
			RequestID    string `json:"request_id"`
		} `json:"error"`
	}
	if err := json.Unmarshal(raw, &w); err != nil || w.Error.Code == "" {
		// Something in between answered.
		return &refusal{status: status, retry: status >= 500, text: fmt.Sprintf("the api answered %d: %.200q", status, raw)}
	}
	return &refusal{
		status: status, retry: w.Error.Retryable, after: time.Duration(w.Error.RetryAfterMS) * time.Millisecond,
		text: fmt.Sprintf("the api answered %d %s: %s (request %s)", status, w.Error.Code, w.Error.Message, w.Error.RequestID),
	}
}
