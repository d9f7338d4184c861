package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	"tideline/internal/blocks"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// Limits of a pull.
const (
	defaultPull    = 50
	maxPull        = 200
	maxPullEntries = 1000
	maxPullBytes   = 1 << 20
)

// toldWait is how long a pull waits for the store to have what its client was told of.
const toldWait = time.Second

// PullRequest asks for a part of a conversation. At most one of After, Before, Around, AroundTime is set; with none, the
// newest messages are given.
type PullRequest struct {
	Conversation chat.ConversationID `json:"conversation_id"`
	After        *int64              `json:"after,omitempty"`
	Before       *int64              `json:"before,omitempty"`
	Around       *int64              `json:"around,omitempty"`
	AroundTime   *int64              `json:"around_time,omitempty"` // ms
	Limit        int                 `json:"limit,omitempty"`
	Told         int64               `json:"told,omitempty"` // the number that the client was told of
}

// Pulled is an encoded answer with its tag.
type Pulled struct {
	JSON []byte
	ETag string
}

func (r *PullRequest) validate() error {
	if r.Conversation.IsZero() {
		return chat.RefuseField(chat.CodeInvalidField, "conversation_id", "is missing")
	}
	given := 0
	for name, v := range map[string]*int64{"after": r.After, "before": r.Before, "around": r.Around, "around_time": r.AroundTime} {
		if v != nil {
			given++
			if *v < 0 {
				return chat.RefuseField(chat.CodeInvalidField, name, "is negative")
			}
		}
	}
	if given > 1 {
		return chat.RefuseField(chat.CodeInvalidField, "after", "only one of after, before, around, around_time can be given")
	}
	if r.Limit == 0 {
		r.Limit = defaultPull
	}
	if r.Limit < 1 || r.Limit > maxPull {
		return chat.RefuseField(chat.CodeInvalidField, "limit", "is not 1 to %d", maxPull)
	}
	if r.Told < 0 {
		return chat.RefuseField(chat.CodeInvalidField, "told", "is negative")
	}
	return nil
}

// Pull gives messages of a conversation to a member, present or past.
func (s *Service) Pull(ctx context.Context, u chat.UserID, r PullRequest) (Pulled, error) {
	if err := r.validate(); err != nil {
		return Pulled{}, err
	}
	c, m, err := s.seenBy(ctx, u, r.Conversation, r.Told)
	if err != nil {
		return Pulled{}, err
	}
	p := &page{s: s, c: c, reader: u, trust: s.heads.Fresh(), limit: r.Limit, tag: fnv.New64a()}
	p.first, p.last = m.Visible(&c)
	switch {
	case r.After != nil:
		err = p.forward(ctx, *r.After+1)
	case r.Around != nil:
		err = p.around(ctx, *r.Around)
	case r.AroundTime != nil:
		var at int64
		if at, err = s.store.SeqAt(ctx, r.Conversation, *r.AroundTime); err == nil {
			if at == 0 {
				at = p.last
			}
			err = p.around(ctx, at)
		}
	case r.Before != nil:
		err = p.backward(ctx, *r.Before-1)
	default:
		err = p.backward(ctx, p.last)
	}
	if err != nil {
		return Pulled{}, err
	}
	return p.encode(ctx)
}

// seenBy gives a conversation and the membership of a reader, as of at least the number that the reader was told of.
func (s *Service) seenBy(ctx context.Context, u chat.UserID, id chat.ConversationID, told int64) (timeline.Conversation, timeline.Member, error) {
	var none timeline.Member
	c, found, err := s.views.conversation(ctx, id)
	if err != nil {
		return c, none, err
	}
	if told > c.MaxSeq {
		wait, cancel := context.WithTimeout(ctx, toldWait)
		err := s.heads.WaitFor(wait, id, told)
		cancel()
		// Whether we were told or not, the store is what answers.
		list, storeErr := s.store.Conversations(ctx, []chat.ConversationID{id})
		if storeErr != nil {
			return c, none, storeErr
		}
		found = len(list) > 0
		if found {
			c = list[0]
		}
		if told > c.MaxSeq {
			return c, none, chat.Refuse(chat.CodeUnavailable, "number %d is not stored yet", told).After(500 * time.Millisecond).Because(err)
		}
	}
	if !found {
		return c, none, chat.Refuse(chat.CodeConversationUnknown, "there is no such conversation")
	}
	m, found, err := s.views.member(ctx, timeline.MemberKey{Conversation: id, User: u})
	if err != nil {
		return c, none, err
	}
	if !found {
		return c, none, chat.Refuse(chat.CodeNotAMember, "you are not a member of this conversation")
	}
	return c, m, nil
}

// page collects entries for one reader.
type page struct {
	s           *Service
	c           timeline.Conversation
	reader      chat.UserID
	trust       bool
	first, last int64 // what the reader may see
	limit       int
	tag         interface {
		Write([]byte) (int, error)
		Sum64() uint64
	}

	items   []item // in order of seq
	shown   int
	bytes   int
	hasMore bool
}

// item is an entry, or a run of numbers that the reader may not see.
type item struct {
	entry    *blocks.Entry
	from, to int64 // of a run
}

func (p *page) full() bool {
	return p.shown >= p.limit || len(p.items) >= maxPullEntries || p.bytes >= maxPullBytes
}

func (p *page) block(ctx context.Context, seq int64) (*blocks.Block, error) {
	n := timeline.BlockOf(seq)
	b, err := p.s.blocks.Get(ctx, p.c.ID, n, p.last, p.trust)
	if err != nil {
		return nil, err
	}
	_, blockLast := timeline.BlockRange(n)
	if b.Last() < min(blockLast, p.last) {
		return nil, fmt.Errorf("the store has %s up to %d only, and its head is %d", p.c.ID, b.Last(), p.c.MaxSeq)
	}
	_, _ = p.tag.Write(strconv.AppendUint(nil, b.Version, 16))
	return b, nil
}

// add adds one number at the end (or, going backwards, before the beginning: the caller reverses).
func (p *page) add(e *blocks.Entry) {
	if !e.VisibleTo(p.reader) {
		p.void(e.Seq, e.Seq)
		return
	}
	p.items = append(p.items, item{entry: e})
	p.bytes += len(e.JSON)
	if e.Shown {
		p.shown++
	}
}

func (p *page) void(from, to int64) {
	if n := len(p.items); n > 0 && p.items[n-1].entry == nil {
		last := &p.items[n-1]
		if last.to+1 == from {
			last.to = to
			return
		}
		if to+1 == last.from {
			last.from = from
			return
		}
	}
	p.items = append(p.items, item{from: from, to: to})
}

func (p *page) forward(ctx context.Context, from int64) error {
	from = max(from, 1)
	if from < p.first && p.first <= p.last {
		p.void(from, p.first-1) // what was before the reader's time is accounted for as one run
		from = p.first
	}
	for seq := from; seq <= p.last && !p.full(); {
		b, err := p.block(ctx, seq)
		if err != nil {
			return err
		}
		for ; seq <= min(b.Last(), p.last) && !p.full(); seq++ {
			p.add(&b.Entries[seq-b.First])
		}
		p.hasMore = seq <= p.last
	}
	return nil
}

func (p *page) backward(ctx context.Context, from int64) error {
	from = min(from, p.last)
	seq := from
	for seq >= p.first && !p.full() {
		b, err := p.block(ctx, seq)
		if err != nil {
			return err
		}
		for ; seq >= max(b.First, p.first) && !p.full(); seq-- {
			p.add(&b.Entries[seq-b.First])
		}
	}
	p.hasMore = seq >= p.first
	if !p.hasMore && p.first > 1 && seq >= 1 && len(p.items) > 0 {
		p.void(1, p.first-1)
	}
	slices.Reverse(p.items)
	return nil
}

// around gives about as much before a number as from it on.
func (p *page) around(ctx context.Context, seq int64) error {
	seq = min(max(seq, p.first), p.last)
	whole := p.limit
	p.limit = whole / 2
	if err := p.backward(ctx, seq-1); err != nil {
		return err
	}
	more := p.hasMore
	p.limit = whole
	if err := p.forward(ctx, max(seq, 1)); err != nil {
		return err
	}
	p.hasMore = p.hasMore || more
	return nil
}

func (p *page) encode(ctx context.Context) (Pulled, error) {
	senders := map[chat.UserID]bool{}
	for _, it := range p.items {
		if it.entry != nil && it.entry.Sender > 0 {
			senders[it.entry.Sender] = true
		}
	}
	profiles, err := p.s.profiles.of(ctx, senders)
	if err != nil {
		return Pulled{}, err
	}
	ids := make([]chat.UserID, 0, len(profiles))
	for id := range profiles {
		ids = append(ids, id)
	}
	slices.Sort(ids)

	out := make([]byte, 0, p.bytes+len(p.items)+len(ids)*96+128)
	out = append(out, `{"messages":[`...)
	for i, it := range p.items {
		if i > 0 {
			out = append(out, ',')
		}
		if it.entry != nil {
			out = append(out, it.entry.JSON...)
			continue
		}
		out = append(out, `{"seq":`...)
		out = strconv.AppendInt(out, it.from, 10)
		out = append(out, `,"to_seq":`...)
		out = strconv.AppendInt(out, it.to, 10)
		out = append(out, `,"type":"void"}`...)
	}
	out = append(out, `],"users":{`...)
	for i, id := range ids {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, '"')
		out = strconv.AppendInt(out, int64(id), 10)
		out = append(out, `":`...)
		out = append(out, profiles[id].json...)
		_, _ = p.tag.Write(strconv.AppendUint(nil, profiles[id].version, 16))
	}
	out = append(out, `},"min_seq":`...)
	out = strconv.AppendInt(out, p.first, 10)
	out = append(out, `,"max_seq":`...)
	out = strconv.AppendInt(out, p.last, 10)
	out = append(out, `,"has_more":`...)
	out = strconv.AppendBool(out, p.hasMore)
	out = append(out, '}')
	// The blocks' versions stand for the content, the rest for what this reader sees of it.
	_, _ = fmt.Fprintf(p.tag, "|%s|%d|%d|%d|%t", p.c.ID, p.reader, p.first, p.last, p.hasMore)
	for _, it := range p.items {
		if it.entry == nil {
			_, _ = fmt.Fprintf(p.tag, "|%d-%d", it.from, it.to)
		}
	}
	if n := len(p.items); n > 0 {
		_, _ = fmt.Fprintf(p.tag, "|%d|%d", p.items[0].seq(), n)
	}
	return Pulled{JSON: out, ETag: `"` + strconv.FormatUint(p.tag.Sum64(), 16) + `"`}, nil
}

func (i item) seq() int64 {
	if i.entry != nil {
		return i.entry.Seq
	}
	return i.from
}

// Message is the JSON form of a message.
type Message struct {
	Conversation chat.ConversationID `json:"conversation_id"`
	Seq          int64               `json:"seq"`
	MessageID    string              `json:"message_id"`
	Sender       chat.UserID         `json:"sender_id"`
	ClientMsgID  string              `json:"client_msg_id,omitempty"`
	Type         string              `json:"type"`
	Content      json.RawMessage     `json:"content,omitempty"`
	Mentions     *chat.Mentions      `json:"mentions,omitempty"`
	Recipients   []chat.UserID       `json:"recipients,omitempty"`
	ReplyTo      int64               `json:"reply_to,omitempty"`
	Receipt      bool                `json:"receipt,omitempty"`
	TargetSeq    int64               `json:"target_seq,omitempty"`
	SentAt       int64               `json:"sent_at"`
	EditedAt     int64               `json:"edited_at,omitempty"`
	Recalled     bool                `json:"recalled,omitempty"`
}

func encodeMessage(r *timeline.Row) []byte {
	m := Message{
		Conversation: r.Conversation, Seq: r.Seq, MessageID: strconv.FormatInt(r.MessageID, 10), Sender: r.Sender, ClientMsgID: r.ClientMsgID,
		Type: string(r.Type), Content: r.Content, Mentions: r.Mentions, Recipients: r.Recipients, ReplyTo: r.ReplyTo, Receipt: r.Receipt,
		TargetSeq: r.TargetSeq, SentAt: r.SentAt, EditedAt: r.EditedAt, Recalled: r.RecalledAt > 0,
	}
	if m.Type == "" {
		m.Type = r.Kind.String()
	}
	text, err := marshalPlain(m)
	if err != nil { // content that is no JSON cannot have been stored by us
		m.Content = nil
		text, _ = marshalPlain(m)
	}
	return text
}

// marshalPlain leaves <, > and & as they are: people write them often, and nobody puts our answers into a page unseen.
func marshalPlain(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}
