package evening

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/client"
	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// attemptTime is how long a client waits for an answer.
const attemptTime = 20 * time.Second

// answered gives how an operation ended. Whatever is not an answer in the contract's form says nothing of the outcome.
func (e *Evening) answered(err error) history.End {
	e.minds(err)
	var refused *client.Error
	switch {
	case err == nil:
		return history.End{Outcome: history.OutcomeOK}
	case errors.As(err, &refused):
		return history.End{Outcome: history.OutcomeRefused, Code: chat.Code(refused.Code), Retryable: refused.Retryable}
	}
	return history.End{Outcome: history.OutcomeUnknown}
}

// somewhere gives a room, and somebody who talks in it. Three of ten are in the big group.
func (e *Evening) somewhere(r *rand.Rand) (*room, *person) {
	at := e.big
	if r.IntN(10) >= 3 {
		at = e.rooms[1+r.IntN(len(e.rooms)-1)]
	}
	return at, at.talkers[r.IntN(len(at.talkers))]
}

// anybody gives somebody who may read a room.
func (e *Evening) anybody(r *rand.Rand) (*room, *person) {
	at, who := e.somewhere(r)
	if at == e.big && r.IntN(2) == 0 && len(e.online) > 0 {
		who = e.online[r.IntN(len(e.online))]
	}
	return at, who
}

func content(text string) json.RawMessage {
	b, err := json.Marshal(map[string]string{"text": text})
	if err != nil {
		panic(err) // a string always has a JSON form
	}
	return b
}

// speak says something, and tries until it is numbered.
func (e *Evening) speak(r *rand.Rand) {
	at, who := e.somewhere(r)
	key := e.newKey(r)
	body := content(fmt.Sprintf("%s says %x at %d", who.id, r.Uint64(), e.w.Now()))
	door := r.Float64()
	switch {
	case door < e.plan.Kafka:
		e.produce(r, at, who, key, body)
		return
	case door < e.plan.Kafka+e.plan.Socket:
		e.surely(func(ctx context.Context) (bool, time.Duration) { return e.sendOnce(ctx, at, who, key, body, true) })
	default:
		e.surely(func(ctx context.Context) (bool, time.Duration) { return e.sendOnce(ctx, at, who, key, body, false) })
	}
	if r.Float64() < e.plan.Retried && e.run.Err() == nil {
		if r.IntN(4) == 0 {
			body = content("something else")
		}
		e.surely(func(ctx context.Context) (bool, time.Duration) { return e.sendOnce(ctx, at, who, key, body, false) })
	}
}

// surely repeats something until it is done, for as long as the patience lasts; also when the evening ends meanwhile, so
// that whatever may be numbered has been looked after.
func (e *Evening) surely(try func(ctx context.Context) (done bool, after time.Duration)) {
	until := time.Now().Add(e.plan.Patience)
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 3*time.Second) {
		ctx, cancel := context.WithTimeout(e.listen, attemptTime)
		done, after := try(ctx)
		cancel()
		if done {
			return
		}
		if time.Now().After(until) || e.listen.Err() != nil {
			e.counted.given.Add(1)
			return
		}
		wait := max(pause, after)
		select {
		case <-e.listen.Done():
		case <-time.After(wait/2 + rand.N(wait)):
		}
	}
}

func (e *Evening) sendOnce(ctx context.Context, at *room, who *person, key string, body json.RawMessage, onSocket bool) (bool, time.Duration) {
	begin := history.Begin{Call: history.CallSend, Door: history.DoorHTTP, ClientMsgID: key, Body: history.BodyOf(body)}
	request := client.SendRequest{ClientMsgID: key, Type: "text", Content: body}
	run := who.who
	var socket *client.Socket
	if onSocket {
		who.mu.Lock()
		if socket = who.socket; socket != nil {
			begin.Door, run = history.DoorSocket, who.heard
		}
		who.mu.Unlock()
	}
	op := e.w.Begin(run, at.id, begin)
	var sent client.Sent
	var err error
	if socket != nil {
		fields := struct {
			client.SendRequest
			Conversation string `json:"conversation_id"`
		}{request, at.id.String()}
		err = socket.Ask(ctx, "send", fields, &sent)
	} else {
		sent, err = who.c.Send(ctx, at.id.String(), request)
	}
	end := e.answered(err)
	if err == nil && sent.Status != "" {
		end.Outcome = history.OutcomeAccepted
	} else if err == nil {
		end.Seq, end.Duplicate = sent.Seq, sent.Duplicate
		end.MessageID, _ = strconv.ParseInt(sent.MessageID, 10, 64)
	}
	e.w.End(op, end)
	return e.settled(end, err, at.id, who)
}

// settled tells whether nothing is left to try, and notes what was numbered.
func (e *Evening) settled(end history.End, err error, at chat.ConversationID, who *person) (bool, time.Duration) {
	switch {
	case end.Outcome == history.OutcomeOK:
		e.counted.numbered.Add(1)
		who.says(at, end.Seq)
		return true, 0
	case end.Outcome == history.OutcomeRefused && !end.Retryable:
		e.counted.refused.Add(1)
		return true, 0
	}
	var refused *client.Error
	if errors.As(err, &refused) {
		return false, refused.RetryAfter()
	}
	return false, 0
}

// produce says something as a backend does, to whatever partition.
func (e *Evening) produce(r *rand.Rand, at *room, who *person, key string, body json.RawMessage) {
	value, err := json.Marshal(map[string]any{
		"type": "message", "conversation_id": at.id, "sender_id": who.id, "client_msg_id": key, "message": map[string]any{"type": "text", "content": body},
	})
	if err != nil {
		e.t.Error(err)
		return
	}
	partition := int32(r.IntN(partitions))
	e.surely(func(ctx context.Context) (bool, time.Duration) {
		op := e.w.Begin(history.Who{Client: who.id}, at.id, history.Begin{Call: history.CallSend, Door: history.DoorKafka, ClientMsgID: key, Body: history.BodyOf(body)})
		err := e.producer.ProduceSync(ctx, &kgo.Record{
			Topic: "im.inbound", Partition: partition, Key: []byte(at.id.String()), Value: value,
			Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/json")}, {Key: "producer", Value: []byte("evening")}},
		}).FirstErr()
		end := history.End{Outcome: history.OutcomeAccepted}
		if err != nil {
			end.Outcome = history.OutcomeUnknown
		}
		e.w.End(op, end)
		return err == nil, 0
	})
}

// change edits or takes back something that somebody said.
func (e *Evening) change(r *rand.Rand) {
	at, who := e.somewhere(r)
	who.mu.Lock()
	list := who.said[at.id]
	var target int64
	if len(list) > 0 {
		target = list[r.IntN(len(list))]
	}
	who.mu.Unlock()
	if target == 0 {
		return
	}
	key, path := e.newKey(r), fmt.Sprintf("/conversations/%s/messages/%d", at.id, target)
	begin := history.Begin{Call: history.CallRecall, Door: history.DoorHTTP, ClientMsgID: key, TargetSeq: target}
	method, in := http.MethodDelete, map[string]any{"client_msg_id": key}
	if r.IntN(2) == 0 {
		body := content(fmt.Sprintf("%s means %x", who.id, r.Uint64()))
		begin.Call, begin.Body = history.CallEdit, history.BodyOf(body)
		method, in["content"] = http.MethodPatch, body
	}
	e.command(at.id, who, begin, method, path, in)
}

// command does what changes a conversation, other than a message, until its outcome is known.
func (e *Evening) command(at chat.ConversationID, who *person, begin history.Begin, method, path string, in any) (done bool) {
	e.surely(func(ctx context.Context) (bool, time.Duration) {
		op := e.w.Begin(who.who, at, begin)
		var out struct {
			Seq int64 `json:"seq"`
		}
		err := who.c.Call(ctx, method, path, in, &out)
		end := e.answered(err)
		end.Seq = out.Seq
		e.w.End(op, end)
		var refused *client.Error
		switch {
		case err == nil:
			who.hears(at, out.Seq)
			done = true
			return true, 0
		case errors.As(err, &refused):
			if !refused.Retryable {
				e.counted.refused.Add(1)
			}
			return !refused.Retryable, refused.RetryAfter()
		}
		return false, 0
	})
	return done
}

// move lets a guest come to a room or leave it.
func (e *Evening) move(r *rand.Rand) {
	at := e.rooms[1+r.IntN(len(e.rooms)-1)]
	at.mu.Lock()
	var guest *person
	member := false
	for p, in := range at.guests {
		if _, moving := at.moving[p]; !moving && (guest == nil || p.id < guest.id == (r.IntN(2) == 0)) {
			guest, member = p, in
		}
	}
	if guest != nil {
		at.moving[guest] = struct{}{}
	}
	at.mu.Unlock()
	if guest == nil {
		return
	}
	key := e.newKey(r)
	begin := history.Begin{Call: history.CallJoin, Door: history.DoorHTTP, ClientMsgID: key, Users: []chat.UserID{guest.id}}
	method, path, in := http.MethodPost, "/groups/"+at.id.String()+"/members", map[string]any{"client_msg_id": key, "user_ids": []string{guest.id.String()}}
	if member {
		begin.Call = history.CallLeave
		method, path, in = http.MethodDelete, path+"/"+guest.id.String(), map[string]any{"client_msg_id": key}
	}
	done := e.command(at.id, at.owner, begin, method, path, in)
	at.mu.Lock()
	defer at.mu.Unlock()
	delete(at.moving, guest)
	if done {
		at.guests[guest] = !member
	}
}

// read marks a room as read up to where somebody was told that it is, or a little before.
func (e *Evening) read(r *rand.Rand) {
	at, who := e.anybody(r)
	seq := who.at(at.id) - int64(r.IntN(3))
	if seq < 1 {
		return
	}
	ctx, cancel := context.WithTimeout(e.listen, attemptTime)
	defer cancel()
	op := e.w.Begin(who.who, at.id, history.Begin{Call: history.CallRead, Door: history.DoorHTTP, Seq: seq})
	got, err := who.c.Read(ctx, at.id.String(), seq)
	end := e.answered(err)
	end.ReadSeq, end.Unread = got.ReadSeq, got.Unread
	e.w.End(op, end)
}

// pull reads a part of a room: what is new, or something of before.
func (e *Evening) pull(r *rand.Rand) {
	at, who := e.anybody(r)
	told := who.at(at.id)
	request := client.PullRequest{Limit: 50, Told: told}
	switch r.IntN(4) {
	case 0:
		before := 1 + r.Int64N(told+1)
		request.Before = &before
	case 1:
		after := r.Int64N(told + 1)
		request.After = &after
	case 2:
		after := max(told-20, 0)
		request.After = &after
	}
	_, _ = e.pullOnce(at.id, who, request, r.IntN(3) == 0) // how it ended stands in the history
}

func (e *Evening) pullOnce(at chat.ConversationID, who *person, request client.PullRequest, onSocket bool) (client.Page, error) {
	ctx, cancel := context.WithTimeout(e.listen, attemptTime)
	defer cancel()
	request.Conversation = at.String()
	begin := history.Begin{
		Call: history.CallPull, Door: history.DoorHTTP, After: request.After, Before: request.Before, Around: request.Around, Limit: request.Limit, Told: request.Told,
	}
	run := who.who
	var socket *client.Socket
	if onSocket {
		who.mu.Lock()
		if socket = who.socket; socket != nil {
			begin.Door, run = history.DoorSocket, who.heard
		}
		who.mu.Unlock()
	}
	op := e.w.Begin(run, at, begin)
	var page client.Page
	var err error
	if socket != nil {
		err = socket.Ask(ctx, "pull", request, &page)
	} else {
		page, err = who.c.Pull(ctx, request)
	}
	end := e.answered(err)
	if err == nil {
		end.Pull = pulled(page)
	}
	e.w.End(op, end)
	return page, err
}

func pulled(page client.Page) *history.Pull {
	out := &history.Pull{MinSeq: page.MinSeq, MaxSeq: page.MaxSeq, HasMore: page.HasMore, Entries: []history.Entry{}}
	for _, m := range page.Messages {
		entry := history.Entry{
			Seq: m.Seq, ToSeq: m.ToSeq, Type: m.Type, ClientMsgID: m.ClientMsgID, Body: history.BodyOf(m.Content), Recalled: m.Recalled, Edited: m.EditedAt > 0,
			TargetSeq: m.TargetSeq,
		}
		entry.MessageID, _ = strconv.ParseInt(m.MessageID, 10, 64)
		if sender, err := chat.ParseUserID(m.Sender); err == nil {
			entry.Sender = sender
		}
		out.Entries = append(out.Entries, entry)
	}
	return out
}

// ask syncs, or asks who has read something of one's own.
func (e *Evening) ask(r *rand.Rand) {
	at, who := e.anybody(r)
	if r.IntN(2) == 0 {
		e.syncAll(who)
		return
	}
	who.mu.Lock()
	seqs := append([]int64{}, who.said[at.id]...)
	who.mu.Unlock()
	if len(seqs) > 0 {
		e.receipts(at.id, who, seqs)
	}
}

func (e *Evening) receipts(at chat.ConversationID, who *person, seqs []int64) {
	ctx, cancel := context.WithTimeout(e.listen, attemptTime)
	defer cancel()
	op := e.w.Begin(who.who, at, history.Begin{Call: history.CallReceipts, Door: history.DoorHTTP, Seqs: seqs})
	list, err := who.c.Receipts(ctx, at.String(), seqs...)
	end := e.answered(err)
	for _, v := range list {
		end.Receipts = append(end.Receipts, history.Receipt(v))
	}
	e.w.End(op, end)
}

// syncAll asks for all conversations, a page at a time; each page is an operation of its own.
func (e *Evening) syncAll(who *person) {
	for cursor := ""; ; {
		ctx, cancel := context.WithTimeout(e.listen, attemptTime)
		op := e.w.Begin(who.who, chat.ConversationID{}, history.Begin{Call: history.CallSync, Door: history.DoorHTTP})
		page, err := who.c.Sync(ctx, client.SyncRequest{Cursor: cursor, Limit: 100})
		cancel()
		end := e.answered(err)
		end.Sync = synced(e, page)
		e.w.End(op, end)
		if err != nil || !page.HasMore {
			return
		}
		cursor = page.Cursor
	}
}

func synced(e *Evening, page client.Sync) []history.Synced {
	var out []history.Synced
	for _, v := range page.Conversations {
		id, err := chat.ParseConversationID(v.ID)
		if err != nil {
			e.t.Errorf("a sync names the conversation %q: %v", v.ID, err)
			continue
		}
		out = append(out, history.Synced{Conversation: id, MaxSeq: v.MaxSeq, ReadSeq: v.ReadSeq, Unread: v.Unread})
	}
	return out
}
