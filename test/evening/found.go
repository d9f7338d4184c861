package evening

import (
	"context"

	"github.com/ClickHouse/clickhouse-go/v2"

	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// finder writes down what each store has of the evening, after all came to rest. Who else talked on the platform is not in
// the history.
type finder struct {
	e     *Evening
	ctx   context.Context
	store *sqlstore.Store
	ours  map[chat.ConversationID]bool
}

// log takes what the follower was given of im.messages.
func (f *finder) log() {
	f.e.t.Helper()
	var n int64
	for _, r := range f.e.log.records(kafka.TopicMessages) {
		ev, err := wire.DecodeEvent(r.value)
		if err != nil && f.e.poison[place{r.topic, r.partition}] == r.offset {
			continue
		}
		if err != nil {
			f.e.t.Errorf("%s/%d at %d: %v", r.topic, r.partition, r.offset, err)
			continue
		}
		if !f.ours[ev.Conversation] {
			continue
		}
		out := history.Event{
			Source: history.SourceLog, Seq: ev.Seq, Kind: ev.Kind, MessageID: ev.MessageID, Sender: ev.Sender, ClientMsgID: ev.ClientMsgID,
			TargetSeq: ev.TargetSeq(), Partition: r.partition, Offset: r.offset, InboundOffset: &ev.InboundOffset,
		}
		switch {
		case ev.Message != nil:
			out.Body, out.Recipients = history.BodyOf(ev.Message.Content), ev.Message.Recipients
		case ev.Edit != nil:
			out.Body = history.BodyOf(ev.Edit.Content)
		case ev.Create != nil:
			out.Users, out.HistoryVisible = append([]chat.UserID{ev.Sender}, ev.Create.Members...), &ev.Create.HistoryVisible
		case ev.Join != nil:
			out.Users = ev.Join.Users
		case ev.Leave != nil:
			out.Users = ev.Leave.Users
		case ev.Update != nil:
			out.HistoryVisible = ev.Update.HistoryVisible
		}
		f.e.w.Found(ev.Conversation, out)
		n++
	}
	f.e.w.ReadToEnd(history.SourceLog, n)
}

// rejected takes what the follower was given of im.rejected.
func (f *finder) rejected() {
	f.e.t.Helper()
	var n int64
	for _, r := range f.e.log.records(kafka.TopicRejected) {
		v, err := wire.DecodeRejection(r.value)
		if err != nil {
			f.e.t.Errorf("%s/%d at %d: %v", r.topic, r.partition, r.offset, err)
			continue
		}
		if !f.ours[v.Conversation] {
			continue
		}
		out := history.Rejected{Sender: v.Sender, ClientMsgID: v.ClientMsgID, Code: v.Code, Partition: v.Inbound.Partition, InboundOffset: v.Inbound.Offset}
		if v.First != nil {
			out.FirstSeq = v.First.Seq
		}
		f.e.w.FoundRejected(v.Conversation, out)
		n++
	}
	f.e.w.ReadToEnd(history.SourceRejected, n)
}

// timeline reads the rows of every conversation of the evening.
func (f *finder) timeline() {
	f.e.t.Helper()
	var n int64
	const page = 1000
	for _, r := range f.e.rooms {
		for first := int64(1); ; first += page {
			rows, err := f.store.Rows(f.ctx, r.id, first, first+page-1)
			if err != nil {
				f.e.t.Fatal(err)
			}
			for i := range rows {
				v := &rows[i]
				out := history.Event{
					Source: history.SourceStore, Seq: v.Seq, Kind: v.Kind, MessageID: v.MessageID, Sender: v.Sender, ClientMsgID: v.ClientMsgID,
					Recalled: v.RecalledAt > 0, Recipients: v.Recipients,
				}
				if v.Kind.HasTarget() {
					out.TargetSeq = v.TargetSeq
				}
				if v.Kind == chat.KindMessage {
					out.Body = history.BodyOf(v.Content)
				}
				if v.Tombstone {
					f.e.t.Errorf("%s/%d is a tombstone of a twin", r.id, v.Seq)
				}
				f.e.w.Found(r.id, out)
				n++
			}
			if len(rows) == 0 {
				break
			}
		}
	}
	f.e.w.ReadToEnd(history.SourceStore, n)
}

// members reads who is or was in each room, with the final marks.
func (f *finder) members() {
	f.e.t.Helper()
	var n int64
	for _, r := range f.e.rooms {
		found := func(user chat.UserID, join, left, read int64) {
			f.e.w.FoundMember(r.id, history.Member{User: user, JoinSeq: join, LeftSeq: left, ReadSeq: read})
			n++
		}
		present := map[chat.UserID]bool{}
		for after := chat.UserID(0); ; {
			page, err := f.store.MembersPage(f.ctx, r.id, after, 1000)
			if err != nil {
				f.e.t.Fatal(err)
			}
			for i := range page {
				m := &page[i]
				found(m.User, m.JoinSeq, m.LeftSeq, m.ReadSeq)
				present[m.User], after = true, m.User
			}
			if len(page) == 0 {
				break
			}
		}
		r.mu.Lock()
		guests := append([]*person{}, r.past...)
		for p := range r.guests {
			guests = append(guests, p)
		}
		r.mu.Unlock()
		for _, p := range guests {
			if present[p.id] {
				continue
			}
			present[p.id] = true
			memberships, err := f.store.Memberships(f.ctx, p.id, true)
			if err != nil {
				f.e.t.Fatal(err)
			}
			for i := range memberships {
				if m := &memberships[i].Member; m.Conversation == r.id {
					found(m.User, m.JoinSeq, m.LeftSeq, m.ReadSeq)
				}
			}
		}
	}
	f.e.w.ReadToEnd(history.SourceMembers, n)
}

// archive reads the rows of messages, as an analyst does.
func (f *finder) archive() {
	f.e.t.Helper()
	if f.e.pf.ClickHouse == nil {
		return
	}
	o, err := clickhouse.ParseDSN(f.e.pf.ClickHouse())
	if err != nil {
		f.e.t.Fatal(err)
	}
	conn, err := clickhouse.Open(o)
	if err != nil {
		f.e.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	rows, err := conn.Query(f.ctx, "SELECT conversation_id, seq, kind, target_seq, sender_id, client_msg_id, content, recalled, partition, offset FROM messages")
	if err != nil {
		f.e.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var n int64
	for rows.Next() {
		var cid, kind, content string
		var sender int64
		v := history.Event{Source: history.SourceArchive}
		if err := rows.Scan(&cid, &v.Seq, &kind, &v.TargetSeq, &sender, &v.ClientMsgID, &content, &v.Recalled, &v.Partition, &v.Offset); err != nil {
			f.e.t.Fatal(err)
		}
		v.Sender, v.Kind = chat.UserID(sender), chat.Kind(0)
		if k, known := chat.ParseKind(kind); known {
			v.Kind = k
		}
		if v.Kind == chat.KindMessage {
			v.Body = history.BodyOf([]byte(content))
		}
		id, err := chat.ParseConversationID(cid)
		if err != nil {
			f.e.t.Fatal(err)
		}
		if !f.ours[id] {
			continue
		}
		f.e.w.Found(id, v)
		n++
	}
	if err := rows.Err(); err != nil {
		f.e.t.Fatal(err)
	}
	f.e.w.ReadToEnd(history.SourceArchive, n)
}
