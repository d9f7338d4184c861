package socket

import (
	"encoding/json"
	"time"
)

// CloseCode is why a connection was closed by us: 4000 to 4499 mean come back, with back-off and jitter; 4500 to 4999
// mean do not, before something has changed.
type CloseCode int

// The close codes. They are public.
const (
	CloseDraining        CloseCode = 4000
	CloseTokenExpired    CloseCode = 4001
	CloseSlowConsumer    CloseCode = 4002
	CloseIdle            CloseCode = 4003
	CloseAuthTimeout     CloseCode = 4004
	CloseOverloaded      CloseCode = 4005
	CloseRateLimited     CloseCode = 4006
	CloseUnavailable     CloseCode = 4007
	CloseSessionRevoked  CloseCode = 4500
	CloseUnauthenticated CloseCode = 4501
	CloseMalformed       CloseCode = 4502
	CloseTooMany         CloseCode = 4503
)

// CloseReason is a row of the table of close codes.
type CloseReason struct {
	Code    CloseCode
	Name    string
	Meaning string
}

var closeReasons = []CloseReason{
	{CloseDraining, "draining", "The server stops or is replaced. Come back after retry_after_ms."},
	{CloseTokenExpired, "token_expired", "The access token ended while connected. Refresh it and come back."},
	{CloseSlowConsumer, "slow_consumer", "Frames were not taken in time. Come back, sync, and read faster."},
	{CloseIdle, "idle", "Nothing was heard for longer than idle_timeout_ms. Come back, and ping."},
	{CloseAuthTimeout, "auth_timeout", "The socket did not say who it is in time. Come back, and send auth first."},
	{CloseOverloaded, "overloaded", "The server has as many connections as it takes. Come back after retry_after_ms."},
	{CloseRateLimited, "rate_limited", "Far more requests came than are allowed. Come back after retry_after_ms."},
	{CloseUnavailable, "unavailable", "Something behind the server does not answer. Come back after retry_after_ms."},
	{CloseSessionRevoked, "session_revoked", "The session was ended. Log in again."},
	{CloseUnauthenticated, "unauthenticated", "The access token is not valid. Log in again."},
	{CloseMalformed, "malformed", "A frame was not what the contract says. Mend the client."},
	{CloseTooMany, "too_many_connections", "The user has as many connections as are allowed. Close one first."},
}

// CloseReasons lists the close codes, in the order of the documentation.
func CloseReasons() []CloseReason { return append([]CloseReason(nil), closeReasons...) }

// reasonText gives the text of a close frame: at most 123 bytes of JSON.
func reasonText(code CloseCode, after time.Duration) string {
	r := struct {
		Reason       string `json:"reason"`
		RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
	}{RetryAfterMS: after.Milliseconds()}
	for _, row := range closeReasons {
		if row.Code == code {
			r.Reason = row.Name
		}
	}
	text, _ := json.Marshal(r)
	return string(text)
}
