package pusher

import (
	"encoding/json"
	"time"

	"tideline/pkg/chat"
)

// CloseCode is the code with which a connection is closed. 4000 to 4499: come back, with backoff and jitter; 4500 to 4999:
// do not, before something else has changed.
type CloseCode int

// The codes. They are public and never change their meaning.
const (
	CloseDraining           CloseCode = 4001
	CloseSlowConsumer       CloseCode = 4002
	CloseIdle               CloseCode = 4003
	CloseRateLimited        CloseCode = 4004
	CloseUnavailable        CloseCode = 4005
	CloseTooManyConnections CloseCode = 4006
	CloseTokenExpired       CloseCode = 4007
	CloseAuthTimeout        CloseCode = 4008

	CloseUnauthenticated CloseCode = 4500
	CloseSessionRevoked  CloseCode = 4501
	CloseBadFrame        CloseCode = 4502
	CloseFrameTooLarge   CloseCode = 4503
	CloseOtherSession    CloseCode = 4504
)

// CloseReason is a row of the table of close codes.
type CloseReason struct {
	Code    CloseCode
	Name    string
	Meaning string
}

// ComeBack tells whether the client should connect again.
func (c CloseCode) ComeBack() bool { return c < 4500 }

var closeReasons = []CloseReason{
	{CloseDraining, "draining", "The server stops, and closes its connections one after the other. Come back after `retry_after_ms`: another one answers."},
	{CloseSlowConsumer, "slow_consumer", "The client did not read what was written to it in time. Come back and call sync: nothing is lost."},
	{CloseIdle, "idle_timeout", "Nothing was heard from the client for `idle_timeout_ms`. Ping every `heartbeat_ms`."},
	{CloseRateLimited, "rate_limited", "The client went on with requests although it was told that they were too many."},
	{CloseUnavailable, "unavailable", "The server could not find out who the client is or which conversations it has, or has missed what moved. Come back after `retry_after_ms`."},
	{CloseTooManyConnections, "too_many_connections", "The user has as many connections as are allowed. Close one, or come back later."},
	{CloseTokenExpired, "token_expired", "The access token has expired. Refresh the session and come back with the fresh one; or send `auth` with it in time."},
	{CloseAuthTimeout, "auth_timeout", "The client did not say who it is in time."},
	{CloseUnauthenticated, "unauthenticated", "The access token is not one of ours. Log in."},
	{CloseSessionRevoked, "session_revoked", "The session was ended, here or on another device. Log in."},
	{CloseBadFrame, "bad_frame", "The first frame was not `auth`, or a frame was not text. The client has a fault."},
	{CloseFrameTooLarge, "frame_too_large", "A frame was over `max_frame_bytes`. The client has a fault."},
	{CloseOtherSession, "other_session", "`auth` was sent again with the token of another session. Open another connection for it."},
}

// CloseReasons lists every code, in the order of the documentation.
func CloseReasons() []CloseReason { return append([]CloseReason(nil), closeReasons...) }

// String gives the code's name.
func (c CloseCode) String() string {
	for _, r := range closeReasons {
		if r.Code == c {
			return r.Name
		}
	}
	return "unknown"
}

// payload gives the body of a close frame: the code, and a JSON object as its reason, which fits into the 123 bytes that
// there are.
func (c CloseCode) payload(retryAfter time.Duration) []byte {
	reason, _ := json.Marshal(struct {
		Code       string `json:"code"`
		RetryAfter int64  `json:"retry_after_ms,omitempty"`
	}{c.String(), retryAfter.Milliseconds()})
	return append([]byte{byte(int(c) >> 8), byte(int(c))}, reason...)
}

// closeFor gives the code with which a connection ends whose `auth` was refused.
func closeFor(err error) CloseCode {
	switch chat.CodeOf(err) {
	case chat.CodeTokenExpired:
		return CloseTokenExpired
	case chat.CodeSessionRevoked:
		return CloseSessionRevoked
	case chat.CodeUnauthenticated, chat.CodeInvalidField, chat.CodeMalformed, chat.CodeUnknownField, chat.CodeForbidden, chat.CodeUserUnknown:
		return CloseUnauthenticated
	}
	return CloseUnavailable
}
