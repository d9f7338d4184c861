package chat

import (
	"errors"
	"fmt"
	"time"
)

// Code is the stable word for a reason. Clients write it into their programs; it is never renamed.
type Code string

// The reasons. Reasons() says what each means to a client and which HTTP status it has.
const (
	CodeMalformed           Code = "malformed"
	CodeUnknownField        Code = "unknown_field"
	CodeInvalidField        Code = "invalid_field"
	CodeTooLarge            Code = "too_large"
	CodeUnsupported         Code = "unsupported"
	CodeUnauthenticated     Code = "unauthenticated"
	CodeTokenExpired        Code = "token_expired"
	CodeSessionRevoked      Code = "session_revoked"
	CodeInvalidCredentials  Code = "invalid_credentials"
	CodeForbidden           Code = "forbidden"
	CodeNotAMember          Code = "not_a_member"
	CodeMuted               Code = "muted"
	CodeRecipient           Code = "recipient_not_a_member"
	CodeLeftRecently        Code = "left_recently"
	CodeMembershipLimit     Code = "membership_limit"
	CodeDissolved           Code = "dissolved"
	CodeNotFound            Code = "not_found"
	CodeConversationUnknown Code = "conversation_not_found"
	CodeUserUnknown         Code = "user_not_found"
	CodeMessageUnknown      Code = "message_not_found"
	CodeMethodNotAllowed    Code = "method_not_allowed"
	CodeBodyTimeout         Code = "body_timeout"
	CodeNotAcceptable       Code = "unsupported_media_type"
	CodeConflict            Code = "client_msg_id_conflict"
	CodeDuplicate           Code = "duplicate"
	CodeUsernameTaken       Code = "username_taken"
	CodeExists              Code = "already_exists"
	CodeNothingToDo         Code = "nothing_to_do"
	CodeRecalled            Code = "recalled"
	CodeExpired             Code = "expired"
	CodeGroupFull           Code = "group_full"
	CodeMisrouted           Code = "misrouted"
	CodeMoved               Code = "moved"
	CodeRateLimited         Code = "rate_limited"
	CodeOverloaded          Code = "overloaded"
	CodeUnavailable         Code = "unavailable"
	CodeTimeout             Code = "timeout"
	CodeInternal            Code = "internal"
)

// Reason is a row of the table of reasons.
type Reason struct {
	Code      Code
	Status    int    // the HTTP status at the edge; 0 where the code never reaches HTTP
	Retryable bool   // whether the same request can succeed later without a change
	Meaning   string // one sentence for the person who reads the documentation
}

var reasons = []Reason{
	{CodeMalformed, 400, false, "The request is not readable: broken JSON, broken UTF-8, or half a record."},
	{CodeUnknownField, 400, false, "The request has a field that this call does not know; `field` names it."},
	{CodeInvalidField, 400, false, "A field is missing, of the wrong type or out of range; `field` names it."},
	{CodeTooLarge, 413, false, "The body, or one field of it, is over its limit."},
	{CodeUnsupported, 400, false, "What was asked for is known but not offered here."},
	{CodeUnauthenticated, 401, false, "No access token was given, or it is not one of ours."},
	{CodeTokenExpired, 401, false, "The access token has expired: refresh the session."},
	{CodeSessionRevoked, 401, false, "The session was ended: log in again."},
	{CodeInvalidCredentials, 401, false, "Username and password do not belong together."},
	{CodeForbidden, 403, false, "The caller's role does not allow this."},
	{CodeNotAMember, 403, false, "The caller has left the conversation. In im.rejected: the sender is not a member, whether it ever was or not."},
	{CodeMuted, 403, false, "The caller may not speak in the conversation for now."},
	{CodeRecipient, 409, false, "A recipient of the message is not a member of the conversation; the message names the first one."},
	{CodeLeftRecently, 409, false, "A person left the group within the last day and cannot be put back by the member who had added them until retry_after_ms has passed."},
	{CodeMembershipLimit, 409, false, "A person would be a member of more groups than allowed; the message names the first one and nothing was changed."},
	{CodeDissolved, 403, false, "The group was dissolved: it can be read and left, not changed."},
	{CodeNotFound, 404, false, "There is nothing at this address."},
	{CodeConversationUnknown, 404, false, "There is no such conversation, or the caller was never a member of it."},
	{CodeUserUnknown, 404, false, "There is no such user."},
	{CodeMessageUnknown, 404, false, "There is no message with this number that could be meant."},
	{CodeMethodNotAllowed, 405, false, "The address exists, but not for this method."},
	{CodeBodyTimeout, 408, true, "The body did not arrive in time: nothing was done; retry with the same client_msg_id."},
	{CodeNotAcceptable, 415, false, "The body is not application/json."},
	{CodeConflict, 409, false, "The same client_msg_id was used before for another body."},
	{CodeDuplicate, 0, false, "The command was numbered before; the first number is given. Only in im.rejected."},
	{CodeUsernameTaken, 409, false, "Somebody has this username."},
	{CodeExists, 409, false, "What should be created is there already."},
	{CodeNothingToDo, 409, false, "The command would change nothing: already a member, already in that role, not a member."},
	{CodeRecalled, 409, false, "The message was recalled and cannot be changed any more."},
	{CodeExpired, 409, false, "The command was not worth numbering any more: expires_at had passed."},
	{CodeGroupFull, 409, false, "The group would have more members than allowed."},
	{CodeMisrouted, 0, false, "The record was moved once and still is not in its partition. Only in im.rejected."},
	{CodeMoved, 0, false, "The record was in a foreign partition and was moved to its own. Only in im.rejected."},
	{CodeRateLimited, 429, true, "Too many attempts; come back after retry_after_ms."},
	{CodeOverloaded, 503, true, "More is in flight than the platform takes on; come back after retry_after_ms."},
	{CodeUnavailable, 503, true, "Something behind the edge does not answer; come back after retry_after_ms."},
	{CodeTimeout, 504, true, "The outcome is not known in time; retry with the same client_msg_id."},
	{CodeInternal, 500, true, "Our fault; the log has the truth under the request id."},
}

var reasonOf = func() map[Code]Reason {
	m := make(map[Code]Reason, len(reasons))
	for _, r := range reasons {
		m[r.Code] = r
	}
	return m
}()

// Reasons lists every reason, in the order of the documentation.
func Reasons() []Reason { return append([]Reason(nil), reasons...) }

// ReasonFor gives the row of a code; an unknown code gives the row of CodeInternal.
func ReasonFor(c Code) Reason {
	if r, ok := reasonOf[c]; ok {
		return r
	}
	return reasonOf[CodeInternal]
}

// Error is a refusal that may be shown to whoever asked. Everything that is not an Error is internal: it is logged, and
// the client sees a request id only.
type Error struct {
	Code       Code
	Message    string        // a sentence for people, without secrets and without content
	Field      string        // the request field that is at fault, or ""
	RetryAfter time.Duration // when to come back, or 0
	Cause      error         // for the log only
}

// Refuse makes an Error; the message is formatted with fmt.Sprintf.
func Refuse(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// RefuseField makes an Error that names the field at fault.
func RefuseField(code Code, field, format string, args ...any) *Error {
	return &Error{Code: code, Field: field, Message: fmt.Sprintf(format, args...)}
}

// After returns a copy that tells when to come back.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// Because returns a copy that carries the cause for the log.
func (e *Error) Because(err error) *Error {
	c := *e
	c.Cause = err
	return &c
}

// Error gives code, field and message.
func (e *Error) Error() string {
	s := string(e.Code)
	if e.Field != "" {
		s += " (" + e.Field + ")"
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// CodeOf tells the code of an error: that of the first Error in its chain, CodeInternal where there is none, "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}
