// Package accounts knows who people are and which sessions they have: passwords, access tokens, refresh tokens, and the
// limits on guessing any of them.
package accounts

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/redis/go-redis/v9"

	"tideline/internal/config"
	"tideline/internal/limits"
	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
)

// Config says how sessions are. Keys begin with auth.
type Config struct {
	TokenKey     config.Secret `conf:"token-key" help:"key of access tokens, the same for all processes; at least 32 bytes"`
	OldTokenKey  config.Secret `conf:"old-token-key" help:"the key before, whose tokens are still taken while they last"`
	AccessTTL    time.Duration `conf:"access-ttl" help:"life of an access token"`
	RefreshTTL   time.Duration `conf:"refresh-ttl" help:"life of a session that is not refreshed"`
	Registration bool          `conf:"registration" help:"let anybody register"`
	Logins       int           `conf:"logins-per-minute" help:"login tries of one address, and for one username, a minute"`
	AdminToken   config.Secret `conf:"admin-token" help:"bearer token of the administration calls; empty turns them off"`
}

// DefaultConfig is for everybody.
func DefaultConfig() Config {
	return Config{AccessTTL: 15 * time.Minute, RefreshTTL: 30 * 24 * time.Hour, Registration: true, Logins: 30}
}

// Validate lists every fault.
func (c *Config) Validate() error {
	var faults []error
	if len(c.TokenKey.Reveal()) < 32 {
		faults = append(faults, errors.New("auth.token-key needs at least 32 bytes"))
	}
	if n := len(c.AdminToken.Reveal()); n > 0 && n < 16 {
		faults = append(faults, errors.New("auth.admin-token needs at least 16 bytes"))
	}
	if c.AccessTTL < time.Second || c.RefreshTTL < c.AccessTTL {
		faults = append(faults, fmt.Errorf("auth.access-ttl is %s and auth.refresh-ttl %s", c.AccessTTL, c.RefreshTTL))
	}
	if c.Logins < 1 {
		faults = append(faults, fmt.Errorf("auth.logins-per-minute is %d", c.Logins))
	}
	return errors.Join(faults...)
}

// Caller is who asks: a person in a session.
type Caller struct {
	User    chat.UserID
	Session int64
	// ExpiresAt is when the access token ends.
	ExpiresAt time.Time
	// Address is where the request comes from, as the server that took it counts addresses; "" where there is none.
	Address string
}

// Store keeps people and sessions.
type Store interface {
	CreateUser(ctx context.Context, u sqlstore.User) error
	UserByName(ctx context.Context, name string) (sqlstore.User, bool, error)
	Users(ctx context.Context, ids []chat.UserID) ([]sqlstore.User, error)
	CreateSession(ctx context.Context, v sqlstore.Session) error // sqlstore.ErrTaken where there is one with this id
	SessionByID(ctx context.Context, id int64) (sqlstore.Session, bool, error)
	RotateRefresh(ctx context.Context, id int64, old, fresh [32]byte, at, expiresAt int64) error
	RevokeSession(ctx context.Context, id, at int64) error
}

// IDs makes ids of users and sessions.
type IDs interface{ NextID() (int64, error) }

// RevokedChannel names the Redis channel on which ended sessions are told, as decimal text.
const RevokedChannel = "tl:revoked"

// sessionTTL bounds how long a session that was ended elsewhere can go on where nobody was told.
const sessionTTL = 5 * time.Second

// Accounts is safe for concurrent use.
type Accounts struct {
	cfg       Config
	store     Store
	ids       IDs
	redis     redis.UniversalClient
	log       *slog.Logger
	passwords *Passwords
	limits    *limits.Keyed[string]
	now       func() time.Time
	// audienceFrom is when tokens without aud end. Versions before aud issued them, and go on to do so during a rolling
	// upgrade: they are valid for two lives of a token after the start of this process, and are then answered as
	// expired, so that clients refresh and do not log in again. See ADR 24.
	audienceFrom time.Time

	mu       sync.Mutex // guards what follows
	tokens   map[string]Caller
	sessions map[int64]time.Time // until when a session is known to stand
	forgets  uint64              // how many times something was forgotten
}

// maxLimited bounds the addresses and usernames whose tries are counted: 20 MB.
const maxLimited = 100_000

// New makes the accounts.
func New(cfg Config, store Store, ids IDs, client redis.UniversalClient, log *slog.Logger) *Accounts {
	return &Accounts{
		cfg: cfg, store: store, ids: ids, redis: client, log: log, passwords: NewPasswords(2), now: time.Now,
		audienceFrom: time.Now().Add(2 * cfg.AccessTTL),
		limits:       limits.New[string](float64(cfg.Logins)/60, cfg.Logins, maxLimited, time.Now),
		tokens:       map[string]Caller{}, sessions: map[int64]time.Time{},
	}
}

var usernameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{1,31}$`)

// Registration is what a person gives to register. The address is where it comes from, as it is counted. Key, where not
// empty, is the name that the client made up for this act, the same on a retry.
type Registration struct {
	Address, Key                 string
	Username, Password, Nickname string
}

// Register creates a person. A retry by its name is answered with the person that the first try created.
func (a *Accounts) Register(ctx context.Context, r Registration) (sqlstore.User, error) {
	if !a.cfg.Registration {
		return sqlstore.User{}, chat.Refuse(chat.CodeForbidden, "nobody registers here by themselves")
	}
	if !usernameForm.MatchString(r.Username) {
		return sqlstore.User{}, chat.RefuseField(chat.CodeInvalidField, "username", "is not 2 to 32 letters, digits, dots, dashes and underscores, beginning with a letter or digit")
	}
	if len(r.Password) < minPassword || len(r.Password) > maxPassword {
		return sqlstore.User{}, chat.RefuseField(chat.CodeInvalidField, "password", "has not %d to %d bytes", minPassword, maxPassword)
	}
	if r.Nickname == "" {
		r.Nickname = r.Username
	}
	if err := chat.ValidateName("nickname", r.Nickname); err != nil {
		return sqlstore.User{}, err
	}
	if wait := a.limits.Take("r:" + r.Address); wait > 0 {
		return sqlstore.User{}, chat.Refuse(chat.CodeRateLimited, "too many registrations from this address").After(wait)
	}
	hash, err := a.passwords.Hash(ctx, r.Password)
	if err != nil {
		return sqlstore.User{}, err
	}
	id, err := a.ids.NextID()
	if err != nil {
		return sqlstore.User{}, err
	}
	now := a.now().UnixMilli()
	u := sqlstore.User{ID: chat.UserID(id), Username: r.Username, Nickname: r.Nickname, PasswordHash: hash, CreatedAt: now, UpdatedAt: now}
	err = a.store.CreateUser(ctx, u)
	if errors.Is(err, sqlstore.ErrTaken) {
		return a.registered(ctx, r)
	}
	return u, err
}

// registered answers for a username that is taken: with its owner where this is the owner's own retry. That is told by
// the password, so it counts as a login does; a retry without a name is a new act, and the username is somebody's.
func (a *Accounts) registered(ctx context.Context, r Registration) (sqlstore.User, error) {
	taken := chat.RefuseField(chat.CodeUsernameTaken, "username", "is somebody's")
	if r.Key == "" {
		return sqlstore.User{}, taken
	}
	if wait := a.limits.Take("u:" + sqlstore.FoldUsername(r.Username)); wait > 0 {
		return sqlstore.User{}, chat.Refuse(chat.CodeRateLimited, "too many tries").After(wait)
	}
	u, found, err := a.store.UserByName(ctx, r.Username)
	if err != nil {
		return sqlstore.User{}, err
	}
	if !found || u.Username != r.Username || u.Nickname != r.Nickname {
		return sqlstore.User{}, taken
	}
	same, err := a.passwords.Matches(ctx, u.PasswordHash, r.Password)
	if err != nil {
		return sqlstore.User{}, err
	}
	if !same {
		return sqlstore.User{}, taken
	}
	return u, nil
}

// Tokens are what a client keeps of a session.
type Tokens struct {
	Access    string
	Refresh   string
	ExpiresIn time.Duration
	Session   int64
	User      sqlstore.User
}

var platforms = []string{"web", "desktop", "ios", "android", "miniapp", "bot"}

// Login is what a person gives to begin a session; see Registration for Address and Key.
type Login struct {
	Address, Key       string
	Username, Password string
	DeviceID, Platform string
}

// Login begins a session. A retry by its name gives the session that the first try began, with new tokens.
func (a *Accounts) Login(ctx context.Context, l Login) (Tokens, error) {
	if err := checkDevice(l.Platform, l.DeviceID); err != nil {
		return Tokens{}, err
	}
	if len(l.Username) > 64 || len(l.Password) > maxPassword {
		return Tokens{}, chat.Refuse(chat.CodeInvalidCredentials, "username and password do not belong together")
	}
	wait := max(a.limits.Take("a:"+l.Address), a.limits.Take("u:"+sqlstore.FoldUsername(l.Username)))
	if wait > 0 {
		return Tokens{}, chat.Refuse(chat.CodeRateLimited, "too many tries").After(wait)
	}
	u, found, err := a.store.UserByName(ctx, l.Username)
	if err != nil {
		return Tokens{}, err
	}
	hash := ""
	if found {
		hash = u.PasswordHash
	}
	ok, err := a.passwords.Matches(ctx, hash, l.Password)
	if err != nil {
		return Tokens{}, err
	}
	if !ok {
		return Tokens{}, chat.Refuse(chat.CodeInvalidCredentials, "username and password do not belong together")
	}
	return a.begin(ctx, u, l.Key, l.DeviceID, l.Platform)
}

// Admission is what a backend gives that has made sure by itself who somebody is; see Registration for Key.
type Admission struct {
	Key                string
	User               chat.UserID
	DeviceID, Platform string
}

// Admit begins a session without a password, for people whose identity comes from elsewhere. It is for administrators. A
// retry by its name gives the session that the first try began, with new tokens.
func (a *Accounts) Admit(ctx context.Context, m Admission) (Tokens, error) {
	if err := checkDevice(m.Platform, m.DeviceID); err != nil {
		return Tokens{}, err
	}
	list, err := a.store.Users(ctx, []chat.UserID{m.User})
	switch {
	case err != nil:
		return Tokens{}, err
	case len(list) == 0:
		return Tokens{}, chat.RefuseField(chat.CodeUserUnknown, "user_id", "there is no such user")
	}
	return a.begin(ctx, list[0], m.Key, m.DeviceID, m.Platform)
}

func checkDevice(platform, deviceID string) error {
	if !slices.Contains(platforms, platform) {
		return chat.RefuseField(chat.CodeInvalidField, "platform", "is none of web, desktop, ios, android, miniapp, bot")
	}
	if len(deviceID) > 128 {
		return chat.RefuseField(chat.CodeInvalidField, "device_id", "is over 128 bytes")
	}
	return nil
}

func (a *Accounts) begin(ctx context.Context, u sqlstore.User, key, deviceID, platform string) (Tokens, error) {
	id, err := a.sessionID(u.ID, key)
	if err != nil {
		return Tokens{}, err
	}
	refresh, refreshHash := a.newRefresh(id)
	now := a.now()
	session := sqlstore.Session{
		ID: id, User: u.ID, DeviceID: deviceID, Platform: platform, RefreshHash: refreshHash,
		CreatedAt: now.UnixMilli(), RefreshedAt: now.UnixMilli(), ExpiresAt: now.Add(a.cfg.RefreshTTL).UnixMilli(),
	}
	switch err := a.store.CreateSession(ctx, session); {
	case errors.Is(err, sqlstore.ErrTaken) && key != "":
		return a.loginAgain(ctx, u, &session, refresh)
	case err != nil:
		return Tokens{}, err
	}
	return a.tokensOf(u, id, refresh, now)
}

// loginAgain gives new tokens for the session that an earlier try of the same login began.
func (a *Accounts) loginAgain(ctx context.Context, u sqlstore.User, again *sqlstore.Session, refresh string) (Tokens, error) {
	now := a.now()
	for range 3 { // until no other try is faster
		first, found, err := a.store.SessionByID(ctx, again.ID)
		switch {
		case err != nil:
			return Tokens{}, err
		case !found || first.User != u.ID || first.DeviceID != again.DeviceID || first.Platform != again.Platform:
			return Tokens{}, chat.RefuseField(chat.CodeConflict, "client_msg_id", "was used before for another session")
		case first.RevokedAt > 0 || first.ExpiresAt < now.UnixMilli():
			return Tokens{}, chat.Refuse(chat.CodeSessionRevoked, "the session that this login began was ended; log in by another name")
		}
		err = a.store.RotateRefresh(ctx, first.ID, first.RefreshHash, again.RefreshHash, now.UnixMilli(), again.ExpiresAt)
		if err == nil {
			return a.tokensOf(u, first.ID, refresh, now)
		}
		if !errors.Is(err, sqlstore.ErrChanged) {
			return Tokens{}, err
		}
	}
	return Tokens{}, chat.Refuse(chat.CodeUnavailable, "the same login is tried too often at this moment").After(time.Second)
}

// audience is the aud of our access tokens. The key may be shared with other services; their tokens are not ours.
const audience = "tideline"

type claims struct {
	jwt.RegisteredClaims
	Session string `json:"sid"`
}

func (a *Accounts) tokensOf(u sqlstore.User, session int64, refresh string, now time.Time) (Tokens, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims{
		RegisteredClaims: jwt.RegisteredClaims{Subject: u.ID.String(), Audience: jwt.ClaimStrings{audience}, IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(a.cfg.AccessTTL))},
		Session:          strconv.FormatInt(session, 10),
	})
	access, err := token.SignedString([]byte(a.cfg.TokenKey.Reveal()))
	if err != nil {
		return Tokens{}, fmt.Errorf("signing an access token: %w", err)
	}
	return Tokens{Access: access, Refresh: refresh, ExpiresIn: a.cfg.AccessTTL, Session: session, User: u}, nil
}

// Refresh changes a refresh token for new tokens. A token that was changed before ends its session: two have it, and one
// of them stole it. Only a retry with the same token and the same key is answered again, with the same refresh token, for
// as long as that was not used: the client then lost the answer, and whoever stole the token alone does not know the key.
func (a *Accounts) Refresh(ctx context.Context, address, refresh, key string) (Tokens, error) {
	refused := chat.Refuse(chat.CodeSessionRevoked, "the refresh token is not valid (any more)")
	if len(refresh) > 128 {
		return Tokens{}, refused
	}
	if wait := a.limits.Take("f:" + address); wait > 0 {
		return Tokens{}, chat.Refuse(chat.CodeRateLimited, "too many tries").After(wait)
	}
	id, ours := a.sessionOf(refresh)
	if !ours {
		return Tokens{}, refused
	}
	session, found, err := a.store.SessionByID(ctx, id)
	if err != nil {
		return Tokens{}, err
	}
	now := a.now()
	if !found || session.RevokedAt > 0 || session.ExpiresAt < now.UnixMilli() {
		return Tokens{}, refused
	}
	users, err := a.store.Users(ctx, []chat.UserID{session.User})
	if err != nil {
		return Tokens{}, err
	}
	if len(users) == 0 {
		return Tokens{}, refused
	}
	fresh, freshHash := a.nextRefresh(id, refresh, key)
	hash := sha256.Sum256([]byte(refresh))
	if session.RefreshHash == hash {
		err := a.store.RotateRefresh(ctx, id, hash, freshHash, now.UnixMilli(), now.Add(a.cfg.RefreshTTL).UnixMilli())
		if err == nil {
			return a.tokensOf(users[0], id, fresh, now)
		}
		if !errors.Is(err, sqlstore.ErrChanged) {
			return Tokens{}, err
		}
		// Somebody else was faster, perhaps with the same request.
		if session, _, err = a.store.SessionByID(ctx, id); err != nil {
			return Tokens{}, err
		}
	}
	if key != "" && session.RevokedAt == 0 && session.PreviousHash == hash && session.RefreshHash == freshHash {
		return a.tokensOf(users[0], id, fresh, now)
	}
	a.log.Warn("a spent refresh token was used: its session ends", "session", id)
	if err := a.Revoke(ctx, id); err != nil {
		return Tokens{}, err
	}
	return Tokens{}, refused
}

// Revoke ends a session, and tells every door.
func (a *Accounts) Revoke(ctx context.Context, session int64) error {
	if err := a.store.RevokeSession(ctx, session, a.now().UnixMilli()); err != nil {
		return err
	}
	a.Forget(session)
	tell, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if err := a.redis.Publish(tell, RevokedChannel, strconv.FormatInt(session, 10)).Err(); err != nil {
		a.log.Warn("the end of a session was not told; other doors find out within seconds", "err", err)
	}
	return nil
}

// Forget drops what is remembered of a session.
func (a *Accounts) Forget(session int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forgets++
	delete(a.sessions, session)
	for t, c := range a.tokens {
		if c.Session == session {
			delete(a.tokens, t)
		}
	}
}

// maxRemembered bounds the tokens and sessions that are remembered.
const maxRemembered = 50_000

// Signed returns the user of an access token that is one of ours and has not expired. It does not ask the store, so it does
// not know whether the session was ended: use it to count requests, never to allow them.
func (a *Accounts) Signed(token string) (chat.UserID, bool) {
	a.mu.Lock()
	caller, known := a.tokens[token]
	a.mu.Unlock()
	if !known {
		var err error
		if caller, err = a.parse(token); err != nil {
			return 0, false
		}
	}
	if a.now().After(caller.ExpiresAt) {
		return 0, false
	}
	return caller.User, true
}

// Authenticate gives who has an access token.
func (a *Accounts) Authenticate(ctx context.Context, token string) (Caller, error) {
	now := a.now()
	a.mu.Lock()
	caller, known := a.tokens[token]
	until := a.sessions[caller.Session]
	forgets := a.forgets
	a.mu.Unlock()
	if !known {
		var err error
		if caller, err = a.parse(token); err != nil {
			return Caller{}, err
		}
	}
	if now.After(caller.ExpiresAt) {
		return Caller{}, chat.Refuse(chat.CodeTokenExpired, "the access token has expired")
	}
	if known && now.Before(until) {
		return caller, nil
	}
	session, found, err := a.store.SessionByID(ctx, caller.Session)
	if err != nil {
		return Caller{}, err
	}
	if !found || session.RevokedAt > 0 || session.User != caller.User {
		return Caller{}, chat.Refuse(chat.CodeSessionRevoked, "the session was ended")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.forgets != forgets { // perhaps this session ended as it was read
		return caller, nil
	}
	if len(a.tokens) >= maxRemembered {
		clear(a.tokens)
	}
	if len(a.sessions) >= maxRemembered {
		clear(a.sessions)
	}
	a.tokens[token] = caller
	a.sessions[caller.Session] = now.Add(sessionTTL)
	return caller, nil
}

func (a *Accounts) parse(token string) (Caller, error) {
	refused := chat.Refuse(chat.CodeUnauthenticated, "the access token is not one of ours")
	if token == "" || len(token) > 2048 {
		return Caller{}, refused
	}
	for _, key := range []string{a.cfg.TokenKey.Reveal(), a.cfg.OldTokenKey.Reveal()} {
		if key == "" {
			continue
		}
		var c claims
		_, err := jwt.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
			if _, there := t.Header["crit"]; there { // names extensions that must be understood (RFC 7515); none is
				return nil, jwt.ErrTokenUnverifiable
			}
			return []byte(key), nil
		},
			jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired(), jwt.WithTimeFunc(a.now))
		signed := err == nil || errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid)
		if signed && len(c.Audience) > 0 && !slices.Contains(c.Audience, audience) {
			return Caller{}, refused // signed with this key, for another service
		}
		if errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid) {
			return Caller{}, chat.Refuse(chat.CodeTokenExpired, "the access token has expired")
		}
		if err != nil {
			continue
		}
		user, err := chat.ParseUserID(c.Subject)
		if err != nil {
			return Caller{}, refused
		}
		session, err := strconv.ParseInt(c.Session, 10, 64)
		if err != nil {
			return Caller{}, refused
		}
		caller := Caller{User: user, Session: session, ExpiresAt: c.ExpiresAt.Time}
		if len(c.Audience) == 0 && caller.ExpiresAt.After(a.audienceFrom) {
			caller.ExpiresAt = a.audienceFrom // of a version before aud: it is refreshed, see audienceFrom
		}
		if a.now().After(caller.ExpiresAt) {
			return Caller{}, chat.Refuse(chat.CodeTokenExpired, "the access token has expired")
		}
		return caller, nil
	}
	return Caller{}, refused
}

// Run hears of sessions that were ended at other doors, until the context ends.
func (a *Accounts) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		sub := a.redis.Subscribe(ctx, RevokedChannel)
		ch := sub.Channel()
		for open := true; open && ctx.Err() == nil; {
			select {
			case <-ctx.Done():
			case m, more := <-ch:
				if open = more; more {
					if id, err := strconv.ParseInt(m.Payload, 10, 64); err == nil {
						a.Forget(id)
					}
				}
			}
		}
		_ = sub.Close()
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}
