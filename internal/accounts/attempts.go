package accounts

import (
	"context"
	"time"

	"tideline/internal/limits"
	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
)

// Budgets of failed logins besides auth.logins-per-minute, which is for an address. They are this process's own, as all
// limits are: with n processes behind a balancer an attacker has up to n times as many.
const (
	// A person who does not remember tries a handful of passwords. The budget is for a name at an address, so that nobody
	// else can use it up.
	pairTries  = 10
	pairWindow = 10 * time.Minute
	// What all addresses together may try at one name. It is far above what a person and their devices fail at, because an
	// attacker with many addresses can use it up; a password that is not among the commonest withstands this for years.
	nameTries  = 300
	nameWindow = time.Hour
	// A line in the log for a throttled key once in so long: what is throttled may come thousands of times a second.
	throttledLine = time.Minute
)

// maxLimited bounds the keys of each table: 20 MB.
const maxLimited = 100_000

// pair is a name at an address.
type pair struct{ address, name string }

// attempts are the tries at something that can be guessed. Failures cost, successes do not.
type attempts struct {
	addresses     *limits.Keyed[string]
	pairs         *limits.Keyed[pair]
	names         *limits.Keyed[string]
	refreshes     *limits.Keyed[string]
	registrations *limits.Keyed[string]
	lines         *limits.Keyed[string]
}

func newAttempts(perMinute int, now func() time.Time) *attempts {
	minute := float64(perMinute) / 60
	return &attempts{
		addresses:     limits.New[string](minute, perMinute, maxLimited, now),
		pairs:         limits.New[pair](pairTries/pairWindow.Seconds(), pairTries, maxLimited, now),
		names:         limits.New[string](nameTries/nameWindow.Seconds(), nameTries, maxLimited, now),
		refreshes:     limits.New[string](minute, perMinute, maxLimited, now),
		registrations: limits.New[string](minute, perMinute, maxLimited, now),
		lines:         limits.New[string](1/throttledLine.Seconds(), 1, maxLimited, now),
	}
}

// What throttles an attempt, as the metric and the log say it.
const (
	byAddress = "address"
	byPair    = "address_and_name"
	byName    = "name"
)

// attempt begins a try at a person's password. The address is judged first: while it is refused, nothing is taken from
// the name, so that one address cannot lock others out. The caller says how it ended; only a wrong password costs.
func (a *Accounts) attempt(ctx context.Context, address, username string) (end func(failed bool), err error) {
	name, ok := sqlstore.NormalUsername(username)
	if !ok {
		name = username
	}
	both := pair{address, name}
	budgets := [...]struct {
		by      string
		reserve func() (time.Duration, error)
		settle  func(failed bool)
	}{
		{byAddress, func() (time.Duration, error) { return a.attempts.addresses.Reserve(ctx, address) }, func(f bool) { a.attempts.addresses.Settle(address, f) }},
		{byPair, func() (time.Duration, error) { return a.attempts.pairs.Reserve(ctx, both) }, func(f bool) { a.attempts.pairs.Settle(both, f) }},
		{byName, func() (time.Duration, error) { return a.attempts.names.Reserve(ctx, name) }, func(f bool) { a.attempts.names.Settle(name, f) }},
	}
	held := 0
	end = func(failed bool) {
		for _, b := range budgets[:held] {
			b.settle(failed)
		}
	}
	for _, b := range budgets {
		wait, err := b.reserve()
		if err == nil && wait == 0 {
			held++
			continue
		}
		end(false)
		if err != nil {
			return nil, chat.Refuse(chat.CodeOverloaded, "too many people log in at this moment").Because(err)
		}
		a.throttled(ctx, b.by, address, name)
		return nil, chat.Refuse(chat.CodeRateLimited, "too many failed tries").After(wait)
	}
	return end, nil
}

// throttled counts and logs. The name is not in the log: people type passwords where names belong.
func (a *Accounts) throttled(ctx context.Context, by, address, name string) {
	a.metrics.Throttled.WithLabelValues(by).Inc()
	key := by + " " + address
	if by == byName {
		key = by + " " + name
	}
	if a.attempts.lines.Take(key) == 0 {
		a.log.WarnContext(ctx, "logins are throttled", "by", by, "address", address)
	}
}
