package accounts

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"

	"tideline/pkg/chat"
)

// Parameters of argon2id: 19 MiB, two passes, one lane, the least that OWASP's cheat sheet recommends (2024). A hash
// carries its own, so that they can be raised.
const (
	argonMemory  = 19 * 1024 // KiB
	argonTime    = 2
	argonThreads = 1
	argonKey     = 32
	argonSalt    = 16
)

// Limits of a password, in characters.
const (
	minPassword = 8
	maxPassword = 256
)

// Passwords hashes and compares passwords. Each takes 19 MiB and tens of milliseconds of one core, so only a few are
// worked on at a time; up to maxWaiting others wait, for as long as their request does.
type Passwords struct {
	seats chan struct{} // at work
	queue chan struct{} // at work or waiting
}

// maxWaiting bounds the passwords that wait: at about fifty a second the last waits five seconds.
const maxWaiting = 256

// NewPasswords allows some to be worked on at a time.
func NewPasswords(atOnce int) *Passwords {
	return &Passwords{make(chan struct{}, atOnce), make(chan struct{}, atOnce+maxWaiting)}
}

func (p *Passwords) sit(ctx context.Context) error {
	overloaded := chat.Refuse(chat.CodeOverloaded, "too many people log in at this moment").After(time.Second)
	select {
	case p.queue <- struct{}{}:
	default:
		return overloaded
	}
	select {
	case p.seats <- struct{}{}:
		return nil
	case <-ctx.Done():
		<-p.queue
		return overloaded.Because(ctx.Err())
	}
}

func (p *Passwords) rise() {
	<-p.seats
	<-p.queue
}

// Hash gives the PHC form of a new password's hash.
func (p *Passwords) Hash(ctx context.Context, password string) (string, error) {
	if err := p.sit(ctx); err != nil {
		return "", err
	}
	defer p.rise()
	salt := make([]byte, argonSalt)
	rand.Read(salt)
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKey)
	enc := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads, enc(salt), enc(key)), nil
}

// absent is compared with where there is no user, so that a name that exists takes no longer than one that does not.
const absent = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// Matches tells whether a password belongs to a hash; with an empty hash it takes as long and says no.
func (p *Passwords) Matches(ctx context.Context, hash, password string) (bool, error) {
	if err := p.sit(ctx); err != nil {
		return false, err
	}
	defer p.rise()
	known := hash != ""
	if !known {
		hash = absent
	}
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, fmt.Errorf("a stored password hash is of an unknown form")
	}
	var memory, time uint32
	var threads uint8
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &time, &threads); err != nil || memory > 1<<20 || time > 100 || threads == 0 || time == 0 {
		return false, fmt.Errorf("a stored password hash has unknown parameters")
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false, fmt.Errorf("a stored password hash has no salt: %w", err)
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil || len(want) == 0 {
		return false, fmt.Errorf("a stored password hash has no key")
	}
	got := argon2.IDKey([]byte(password), salt, time, memory, threads, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1 && known, nil
}
