package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Client is one session of one person. It is safe for concurrent use.
type Client struct {
	base string
	http *http.Client

	mu     sync.Mutex // guards tokens
	tokens Tokens
	fresh  sync.Mutex // held while tokens are changed for new ones: a refresh token can be used once
}

// Tokens are what a client keeps of a session, also over a restart.
type Tokens struct {
	Access    string `json:"access_token"`
	Refresh   string `json:"refresh_token"`
	ExpiresIn int64  `json:"expires_in"` // seconds
	SocketURL string `json:"socket_url"`
	User      User   `json:"user"`

	ExpiresAt time.Time `json:"-"`
}

// maxAnswer bounds what is read of an answer: the largest is a sync of 500 conversations with their newest messages.
const maxAnswer = 64 << 20

// New makes a client of the server at an address such as http://127.0.0.1:8080.
func New(base string) *Client {
	return &Client{base: strings.TrimSuffix(base, "/"), http: &http.Client{Timeout: 30 * time.Second}}
}

// Resume makes a client that goes on with a session.
func Resume(base string, t Tokens) *Client {
	c := New(base)
	c.tokens = t
	return c
}

// Tokens gives the session's tokens as they are now.
func (c *Client) Tokens() Tokens {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tokens
}

// Register creates a person.
func (c *Client) Register(ctx context.Context, username, password, nickname string) (User, error) {
	var u User
	err := c.once(ctx, "", http.MethodPost, "/users", map[string]string{"username": username, "password": password, "nickname": nickname}, &u)
	return u, err
}

// Login begins a session. The platform is one of web, desktop, ios, android, miniapp, bot.
func (c *Client) Login(ctx context.Context, username, password, platform string) error {
	return c.takeTokens(ctx, "/sessions", map[string]string{"username": username, "password": password, "platform": platform})
}

// Logout ends the session.
func (c *Client) Logout(ctx context.Context) error {
	return c.Call(ctx, http.MethodDelete, "/sessions/current", nil, nil)
}

// Refresh changes the tokens for new ones, unless somebody else has done so meanwhile.
func (c *Client) Refresh(ctx context.Context) error {
	before := c.Tokens()
	c.fresh.Lock()
	defer c.fresh.Unlock()
	if now := c.Tokens(); now.Access != before.Access {
		return nil
	}
	return c.takeTokens(ctx, "/sessions/refresh", map[string]string{"refresh_token": before.Refresh})
}

func (c *Client) takeTokens(ctx context.Context, path string, body any) error {
	var t Tokens
	if err := c.once(ctx, "", http.MethodPost, path, body, &t); err != nil {
		return err
	}
	t.ExpiresAt = time.Now().Add(time.Duration(t.ExpiresIn) * time.Second)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens = t
	return nil
}

// Call makes a request under /v1 with the session's token; a token that has expired is refreshed once. A refusal is an
// *Error. In and out may be nil.
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	err := c.once(ctx, c.Tokens().Access, method, path, in, out)
	var refused *Error
	if errors.As(err, &refused) && refused.Code == "token_expired" {
		if err := c.Refresh(ctx); err != nil {
			return fmt.Errorf("refreshing the session: %w", err)
		}
		err = c.once(ctx, c.Tokens().Access, method, path, in, out)
	}
	return err
}

func (c *Client) once(ctx context.Context, token, method, path string, in, out any) error {
	var text []byte
	if in != nil {
		var err error
		if text, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encoding a request: %w", err)
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+"/v1"+path, bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("making a request: %w", err)
	}
	if method != http.MethodGet {
		r.Header["Idempotency-Key"] = nameOf(text)
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return err // it names method and address
	}
	defer func() { _ = answer.Body.Close() }()
	text, err = io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the answer to %s %s: %w", method, path, err)
	}
	if answer.StatusCode >= 300 {
		var refused struct{ Error Error }
		if err := json.Unmarshal(text, &refused); err != nil || refused.Error.Code == "" {
			return fmt.Errorf("%s %s was answered %s, and not by the server itself", method, path, answer.Status)
		}
		refused.Error.Status = answer.StatusCode
		return &refused.Error
	}
	if out == nil || len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("reading the answer to %s %s: %w", method, path, err)
	}
	return nil
}

// nameOf gives the Idempotency-Key of a request: none where its body has a name, but net/http has to know that there is one. It sends
// such a request again, on another connection, when the one that it had kept ends before an answer begins: a door that stops
// closes the connections that were quiet, and may do so as the request leaves.
func nameOf(body []byte) []string {
	var named struct {
		ClientMsgID string `json:"client_msg_id"`
	}
	if err := json.Unmarshal(body, &named); err == nil && named.ClientMsgID != "" {
		return []string{}
	}
	return []string{NewClientMsgID()}
}

// NewClientMsgID makes a name for a message: make it when the person presses send, and keep it for retries.
func NewClientMsgID() string { return uuid.Must(uuid.NewV7()).String() }

// CreateGroup makes a group.
func (c *Client) CreateGroup(ctx context.Context, name string, members ...string) (Group, error) {
	var g Group
	in := map[string]any{"name": name, "client_msg_id": NewClientMsgID()}
	if len(members) > 0 {
		in["member_ids"] = members
	}
	err := c.Call(ctx, http.MethodPost, "/groups", in, &g)
	return g, err
}

// AddMembers adds people to a group and gives the number of the last event that did so.
func (c *Client) AddMembers(ctx context.Context, conversation string, members ...string) (int64, error) {
	var changed struct {
		Seq int64 `json:"seq"`
	}
	in := map[string]any{"user_ids": members, "client_msg_id": NewClientMsgID()}
	err := c.Call(ctx, http.MethodPost, "/groups/"+conversation+"/members", in, &changed)
	return changed.Seq, err
}

// RemoveMember removes somebody from a group; "me" leaves.
func (c *Client) RemoveMember(ctx context.Context, conversation, member string) error {
	return c.Call(ctx, http.MethodDelete, "/groups/"+conversation+"/members/"+member, nil, nil)
}

// OpenPrivate gives the private conversation with somebody.
func (c *Client) OpenPrivate(ctx context.Context, user string) (Conversation, error) {
	var v Conversation
	err := c.Call(ctx, http.MethodPost, "/conversations/private", map[string]string{"user_id": user}, &v)
	return v, err
}

// Send says something.
func (c *Client) Send(ctx context.Context, conversation string, r SendRequest) (Sent, error) {
	if r.ClientMsgID == "" {
		r.ClientMsgID = NewClientMsgID()
	}
	var sent Sent
	err := c.Call(ctx, http.MethodPost, "/conversations/"+conversation+"/messages", r, &sent)
	return sent, err
}

// SendSurely says something and repeats, with the same id, for as long as a repetition can help and the context lasts.
func (c *Client) SendSurely(ctx context.Context, conversation string, r SendRequest) (Sent, error) {
	if r.ClientMsgID == "" {
		r.ClientMsgID = NewClientMsgID()
	}
	for b := (backoff{}); ; {
		sent, err := c.Send(ctx, conversation, r)
		if err == nil && sent.Status == "" {
			return sent, nil
		}
		var refused *Error
		wait := time.Duration(0)
		if errors.As(err, &refused) {
			if !refused.Retryable {
				return sent, err
			}
			wait = refused.RetryAfter()
		}
		if stop := b.wait(ctx, wait); stop != nil {
			if err == nil {
				err = stop
			}
			return sent, fmt.Errorf("the outcome of %s is not known: %w", r.ClientMsgID, err)
		}
	}
}

// Pull gives a part of a conversation.
func (c *Client) Pull(ctx context.Context, r PullRequest) (Page, error) {
	q := url.Values{}
	for name, v := range map[string]*int64{"after": r.After, "before": r.Before, "around": r.Around} {
		if v != nil {
			q.Set(name, strconv.FormatInt(*v, 10))
		}
	}
	if r.Limit > 0 {
		q.Set("limit", strconv.Itoa(r.Limit))
	}
	if r.Told > 0 {
		q.Set("told", strconv.FormatInt(r.Told, 10))
	}
	var p Page
	err := c.Call(ctx, http.MethodGet, "/conversations/"+r.Conversation+"/messages?"+q.Encode(), nil, &p)
	return p, err
}

// Sync gives what moved.
func (c *Client) Sync(ctx context.Context, r SyncRequest) (Sync, error) {
	var s Sync
	err := c.Call(ctx, http.MethodPost, "/sync", r, &s)
	return s, err
}

// Read moves the user's read mark.
func (c *Client) Read(ctx context.Context, conversation string, seq int64) (Read, error) {
	var v Read
	err := c.Call(ctx, http.MethodPut, "/conversations/"+conversation+"/read", map[string]int64{"seq": seq}, &v)
	return v, err
}

// Receipts tells how many have read messages.
func (c *Client) Receipts(ctx context.Context, conversation string, seqs ...int64) ([]Receipt, error) {
	q := url.Values{}
	for _, s := range seqs {
		q.Add("seq", strconv.FormatInt(s, 10))
	}
	var v struct{ Receipts []Receipt }
	err := c.Call(ctx, http.MethodGet, "/conversations/"+conversation+"/receipts?"+q.Encode(), nil, &v)
	return v.Receipts, err
}
