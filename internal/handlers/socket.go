package handlers

import (
	"context"
	"encoding/json"
	"fmt"

	"tideline/internal/accounts"
	"tideline/pkg/chat"
)

// Do runs an operation by its name on the socket, with the same fields as over HTTP.
func (s *Service) Do(ctx context.Context, caller accounts.Caller, op string, body []byte) (Answer, error) {
	switch op {
	case "send":
		return run(body, func(r SendRequest) (Sent, error) { return s.Send(ctx, caller.User, r) })
	case "pull":
		var r PullRequest
		if err := Decode(body, &r); err != nil {
			return Answer{}, err
		}
		return s.Pull(ctx, caller, r)
	case "sync":
		return run(body, func(r SyncRequest) (SyncAnswer, error) { return s.Sync(ctx, caller.User, r) })
	case "read":
		return run(body, func(r ReadRequest) (ReadAnswer, error) { return s.Read(ctx, caller, r) })
	}
	return Answer{}, chat.RefuseField(chat.CodeUnsupported, "op", "%.32q is not offered on the socket", op)
}

func run[R, A any](body []byte, do func(R) (A, error)) (Answer, error) {
	var r R
	if err := Decode(body, &r); err != nil {
		return Answer{}, err
	}
	a, err := do(r)
	if err != nil {
		return Answer{}, err
	}
	text, err := json.Marshal(a)
	if err != nil {
		return Answer{}, fmt.Errorf("encoding an answer: %w", err)
	}
	return Answer{JSON: text}, nil
}
