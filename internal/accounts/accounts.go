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
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
	"github.com/redis/go-redis/v9"

	"tideline/internal/config"
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
	Logins       int           `conf:"logins-per-minute" help:"failed logins, failed refreshes and registrations of one address (IPv6: a /64) a minute"`
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
	// RevokeSessions ends all sessions of a person but one (0: all), and returns the ids of those that it ended.
	RevokeSessions(ctx context.Context, user chat.UserID, except, at int64) ([]int64, error)
	// SessionsOf returns a person's sessions that have not ended at a time, the one that was refreshed last first.
	SessionsOf(ctx context.Context, user chat.UserID, at int64, limit int) ([]sqlstore.Session, error)
	// ChangePassword replaces a hash by compare-and-set (sqlstore.ErrChanged) and ends all other sessions with it.
	ChangePassword(ctx context.Context, user chat.UserID, old, fresh string, except, at int64) ([]int64, error)
	// KeptUsernames returns people whose username has no normal form of its own.
	KeptUsernames(ctx context.Context, limit int) ([]sqlstore.User, error)
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
	attempts  *attempts
	metrics   *Metrics
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

// New makes the accounts.
func New(cfg Config, store Store, ids IDs, client redis.UniversalClient, log *slog.Logger, metrics *Metrics) *Accounts {
	a := &Accounts{
		cfg: cfg, store: store, ids: ids, redis: client, log: log, passwords: NewPasswords(2), metrics: metrics, now: time.Now,
		audienceFrom: time.Now().Add(2 * cfg.AccessTTL),
		tokens:       map[string]Caller{}, sessions: map[int64]time.Time{},
	}
	a.attempts = newAttempts(cfg.Logins, func() time.Time { return a.now() })
	return a
}

var usernameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{1,31}$`)

// Registration is what a person gives to register. The address is where it comes from, as it is counted. Key, where not
// empty, is the name that the client made up for this act, the same on a retry.
type Registration struct {
	Address, Key                 string
	Username, Password, Nickname string
}

// maxUsername bounds the username of a login, in bytes: the longest of older versions, 64 characters of four.
const maxUsername = 256

// maxDeviceID bounds a device id, in characters: the width of its column.
const maxDeviceID = 128

// Register creates a person. Whether a username is in use is told by the answer, as everywhere where people choose
// names; what that costs an attacker is the budget of registrations. A retry by its name is answered with the person that the first try created.
func (a *Accounts) Register(ctx context.Context, r Registration) (sqlstore.User, error) {
	if !a.cfg.Registration {
		return sqlstore.User{}, chat.Refuse(chat.CodeForbidden, "nobody registers here by themselves")
	}
	if !usernameForm.MatchString(r.Username) {
		return sqlstore.User{}, chat.RefuseField(chat.CodeInvalidField, "username", "is not 2 to 32 letters, digits, dots, dashes and underscores, beginning with a letter or digit")
	}
	if err := checkPassword("password", r.Password, r.Username); err != nil {
		return sqlstore.User{}, err
	}
	if r.Nickname == "" {
		r.Nickname = r.Username
	}
	if err := chat.ValidateName("nickname", r.Nickname); err != nil {
		return sqlstore.User{}, err
	}
	if wait := a.attempts.registrations.Take(r.Address); wait > 0 {
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
	u, ok, err := a.verify(ctx, r.Address, r.Username, r.Password)
	if err != nil {
		return sqlstore.User{}, err
	}
	if !ok || u.Username != r.Username || u.Nickname != r.Nickname {
		return sqlstore.User{}, taken
	}
	return u, nil
}

// verify returns the person with a username and reports whether the password is theirs, within the budgets of failed
// tries. An unknown name takes as long as a known one.
func (a *Accounts) verify(ctx context.Context, address, username, password string) (sqlstore.User, bool, error) {
	end, err := a.attempt(ctx, address, username)
	if err != nil {
		return sqlstore.User{}, false, err
	}
	ok := false
	u, _, err := a.store.UserByName(ctx, username)
	if err == nil {
		ok, err = a.passwords.Matches(ctx, u.PasswordHash, password)
	}
	failed := err == nil && !ok
	end(failed)
	if failed {
		a.failed(ctx, address, u.ID)
	}
	return u, ok, err
}

// failed counts and logs a wrong password. The user is 0 where there is none; the name that was typed is not in the log,
// because people type passwords where names belong.
func (a *Accounts) failed(ctx context.Context, address string, u chat.UserID) {
	a.metrics.Failed.Inc()
	a.log.InfoContext(ctx, "login failed", "address", address, "user", u)
}

// AdminRefused counts and logs a call with a wrong administrators' token, at most one line a minute for an address.
func (a *Accounts) AdminRefused(ctx context.Context, address string) {
	a.metrics.AdminRefused.Inc()
	if a.attempts.lines.Take("admin "+address) == 0 {
		a.log.WarnContext(ctx, "admin token refused", "address", address)
	}
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
	refused := chat.Refuse(chat.CodeInvalidCredentials, "wrong username or password")
	if len(l.Username) > maxUsername || utf8.RuneCountInString(l.Password) > maxPassword {
		return Tokens{}, refused
	}
	u, ok, err := a.verify(ctx, l.Address, l.Username, l.Password)
	if err != nil {
		return Tokens{}, err
	}
	if !ok {
		return Tokens{}, refused
	}
	tokens, err := a.begin(ctx, u, l.Key, l.DeviceID, l.Platform)
	if err != nil {
		return Tokens{}, err
	}
	// A change of the password ends the sessions that it finds after it was made. One that it cannot find is begun later,
	// and then the new password is found here.
	now, err := a.store.Users(ctx, []chat.UserID{u.ID})
	if err != nil {
		return Tokens{}, err
	}
	if len(now) == 0 || now[0].PasswordHash != u.PasswordHash {
		if err := a.revoke(ctx, tokens.Session, endedByPassword); err != nil {
			return Tokens{}, err
		}
		return Tokens{}, refused
	}
	return tokens, nil
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
	t, err := a.begin(ctx, list[0], m.Key, m.DeviceID, m.Platform)
	if err == nil {
		a.metrics.AdminSessions.Inc()
		a.log.InfoContext(ctx, "admin began a session", "user", m.User, "session", t.Session)
	}
	return t, err
}

func checkDevice(platform, deviceID string) error {
	if !slices.Contains(platforms, platform) {
		return chat.RefuseField(chat.CodeInvalidField, "platform", "is none of web, desktop, ios, android, miniapp, bot")
	}
	if utf8.RuneCountInString(deviceID) > maxDeviceID {
		return chat.RefuseField(chat.CodeInvalidField, "device_id", "is over %d characters", maxDeviceID)
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
	if len(refresh) > 128 {
		return Tokens{}, errRefresh
	}
	wait, err := a.attempts.refreshes.Reserve(ctx, address)
	if err != nil {
		return Tokens{}, chat.Refuse(chat.CodeOverloaded, "too many sessions are refreshed at this moment").Because(err)
	}
	if wait > 0 {
		return Tokens{}, chat.Refuse(chat.CodeRateLimited, "too many failed tries").After(wait)
	}
	t, err := a.renew(ctx, refresh, key)
	a.attempts.refreshes.Settle(address, errors.Is(err, errRefresh))
	return t, err
}

// errRefresh is what every refresh token is answered with that begins nothing.
var errRefresh = chat.Refuse(chat.CodeSessionRevoked, "the refresh token is not valid (any more)")

func (a *Accounts) renew(ctx context.Context, refresh, key string) (Tokens, error) {
	refused := errRefresh
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
	if err := a.revoke(ctx, id, endedByTheft); err != nil {
		return Tokens{}, err
	}
	return Tokens{}, refused
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

// maxKeptListed bounds the names that are listed at start; a store has more only where others wrote names into it.
const maxKeptListed = 100

// listKept logs usernames without a normal form of their own, so that an operator can rename their owners.
func (a *Accounts) listKept(ctx context.Context) {
	kept, err := a.store.KeptUsernames(ctx, maxKeptListed)
	if err != nil {
		a.log.WarnContext(ctx, "usernames that were kept as they are could not be read", "err", err)
		return
	}
	for _, u := range kept {
		a.log.WarnContext(ctx, "username has no normal form of its own: its owner logs in with exactly this name", "user", u.ID, "username", strconv.QuoteToASCII(u.Username))
	}
	if len(kept) == maxKeptListed {
		a.log.WarnContext(ctx, "more such usernames may exist; the first are listed", "listed", len(kept))
	}
}

// Run lists usernames that collide, and then hears of sessions that were ended at other doors, until the context ends.
func (a *Accounts) Run(ctx context.Context) error {
	a.listKept(ctx)
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
