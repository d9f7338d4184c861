package handlers

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/accounts"
	"tideline/internal/blocks"
	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// ReadRequest says how far the caller has read.
type ReadRequest struct {
	Conversation chat.ConversationID `json:"conversation_id"`
	Seq          int64               `json:"seq"`
}

// ReadAnswer is where the mark stands now, and what is unread there and in all.
type ReadAnswer struct {
	ReadSeq     int64 `json:"read_seq"`
	Unread      int64 `json:"unread"`
	UnreadTotal int64 `json:"unread_total"`
}

// Read raises the caller's read mark. It never moves back, nor beyond what exists and the caller may see.
func (s *Service) Read(ctx context.Context, caller accounts.Caller, r ReadRequest) (ReadAnswer, error) {
	if r.Conversation.IsZero() {
		return ReadAnswer{}, chat.RefuseField(chat.CodeInvalidField, "conversation_id", "is missing")
	}
	if r.Seq < 0 {
		return ReadAnswer{}, chat.RefuseField(chat.CodeInvalidField, "seq", "is negative")
	}
	all, err := s.summaries(ctx, caller.User, false)
	if err != nil {
		return ReadAnswer{}, err
	}
	i := slices.IndexFunc(all, func(v summary) bool { return v.c.ID == r.Conversation })
	if i < 0 {
		return ReadAnswer{}, s.Outside(ctx, caller.User, r.Conversation)
	}
	v := &all[i]
	if to := min(r.Seq, v.c.MaxSeq); to > v.mark.Seq {
		mark, err := s.raise(ctx, caller, v, to)
		if err != nil {
			return ReadAnswer{}, err
		}
		v.mark = mark
		if err := s.count(ctx, caller.User, all[i:i+1]); err != nil {
			return ReadAnswer{}, err
		}
	}
	answer := ReadAnswer{ReadSeq: v.mark.Seq, Unread: v.unread}
	for j := range all {
		answer.UnreadTotal += all[j].unread
	}
	return answer, nil
}

func (s *Service) raise(ctx context.Context, caller accounts.Caller, v *summary, to int64) (timeline.Mark, error) {
	mark := timeline.Mark{Seq: to, Ordinal: v.c.Ordinal}
	if to < v.c.MaxSeq {
		ordinal, err := s.ordinalAt(ctx, &v.c, to)
		if err != nil {
			return mark, err
		}
		mark.Ordinal = ordinal
	}
	m := chat.ReadMark{
		User: caller.User, Conversation: v.c.ID, Seq: mark.Seq, Ordinal: mark.Ordinal, PreviousSeq: v.mark.Seq, At: s.now().UnixMilli(),
		Session: sessionText(caller.Session),
	}
	// It is durable before it is told to anybody.
	err := s.producer.ProduceSync(ctx, &kgo.Record{Topic: kafka.TopicReceipts, Key: []byte(caller.User.String()), Value: wire.EncodeReadMark(&m)}).FirstErr()
	if err != nil {
		return mark, chat.Refuse(chat.CodeUnavailable, "the log does not take read marks for now").After(2 * toldWait).Because(err)
	}
	s.raised.add(v.c.ID, caller.User, mark)
	if err := s.marks.Raise(ctx, []chat.ReadMark{m}); err != nil {
		s.log.Debug("a fast read mark was not raised; the writer does it", "err", err)
	}
	return mark, nil
}

// ordinalAt gives how many countable messages a conversation has up to a number below its end.
func (s *Service) ordinalAt(ctx context.Context, c *timeline.Conversation, seq int64) (int64, error) {
	// Who has read a message has pulled it, so its block is remembered.
	b, err := s.blocks.Get(ctx, c.ID, timeline.BlockOf(seq), seq, s.heads.Fresh())
	if err != nil {
		return 0, err
	}
	if b.Last() >= seq {
		if n := b.Entries[seq-b.First].Ordinal; n >= 0 {
			return n, nil
		}
	}
	rows, err := s.store.Rows(ctx, c.ID, seq, seq)
	if err != nil {
		return 0, err
	}
	// A number whose event was parked has no row; then the next one decides. Where all up to the end are parked, the head does.
	for from := seq + 1; len(rows) == 0 && from <= c.MaxSeq; from += timeline.BlockSize {
		if rows, err = s.store.Rows(ctx, c.ID, from, min(from+timeline.BlockSize-1, c.MaxSeq)); err != nil {
			return 0, err
		}
	}
	if len(rows) == 0 {
		return c.Ordinal, nil
	}
	r := &rows[0]
	if r.Seq > seq && r.Kind == chat.KindMessage && len(r.Recipients) == 0 {
		return r.Ordinal - 1, nil
	}
	return r.Ordinal, nil
}

// maxReceipts bounds the messages that one request asks about.
const maxReceipts = 100

// Receipts answers how many have read some messages.
type Receipts struct {
	Receipts []Receipt `json:"receipts"`
}

// Receipt is how many have read one message, of the present members who had joined by then, without its sender.
type Receipt struct {
	Seq         int64 `json:"seq"`
	ReadCount   int64 `json:"read_count"`
	UnreadCount int64 `json:"unread_count"`
}

// Receipts counts who has read messages of a conversation; numbers that are no messages are left out.
func (s *Service) Receipts(ctx context.Context, u chat.UserID, id chat.ConversationID, seqs []int64) (Receipts, error) {
	if len(seqs) == 0 || len(seqs) > maxReceipts {
		return Receipts{}, chat.RefuseField(chat.CodeInvalidField, "seq", "is given %d times, 1 to %d are possible", len(seqs), maxReceipts)
	}
	c, m, err := s.seenBy(ctx, u, id)
	if err != nil {
		return Receipts{}, err
	}
	if !m.Present() { // counts move after the leave
		return Receipts{}, errLeft()
	}
	first, last := m.Visible(&c)
	seqs = slices.DeleteFunc(slices.Clone(seqs), func(n int64) bool { return n < first || n > last })
	out := Receipts{Receipts: []Receipt{}}
	if len(seqs) == 0 {
		return out, nil
	}
	asked, err := s.questions(ctx, id, seqs, last)
	if err != nil {
		return out, err
	}
	asked = slices.DeleteFunc(asked, func(q timeline.ReceiptQuestion) bool { return !mayAsk(q, u) })
	if len(asked) == 0 {
		return out, nil
	}
	counts, err := s.marks.ReadCounts(ctx, id, asked)
	for _, n := range counts {
		out.Receipts = append(out.Receipts, Receipt(n))
	}
	return out, err
}

// screenBlocks is in how many blocks the messages of a screen or two can stand. Those are remembered anyhow, as their reader
// has just pulled them; what is asked of messages far apart is not worth to be.
const screenBlocks = 8

// questions gives what a count needs to know of messages up to a number that the store has.
func (s *Service) questions(ctx context.Context, id chat.ConversationID, seqs []int64, last int64) ([]timeline.ReceiptQuestion, error) {
	slices.Sort(seqs)
	seqs = slices.Compact(seqs)
	wanted := map[int64]*blocks.Block{}
	for _, n := range seqs {
		wanted[timeline.BlockOf(n)] = nil
	}
	trust := s.heads.Fresh()
	if len(wanted) > screenBlocks || !trust { // nothing is remembered then, and one statement reads less
		return s.store.Receipt(ctx, id, seqs)
	}
	for n := range wanted {
		b, err := s.blocks.Get(ctx, id, n, last, trust)
		if err != nil {
			return nil, err
		}
		wanted[n] = b
	}
	out := make([]timeline.ReceiptQuestion, 0, len(seqs))
	for _, n := range seqs {
		b := wanted[timeline.BlockOf(n)]
		if n > b.Last() {
			continue
		}
		if e := &b.Entries[n-b.First]; e.Message {
			out = append(out, timeline.ReceiptQuestion{Seq: n, Sender: e.Sender, Recipients: e.Recipients})
		}
	}
	return out, nil
}

func mayAsk(q timeline.ReceiptQuestion, u chat.UserID) bool {
	return len(q.Recipients) == 0 || q.Sender == u || slices.Contains(q.Recipients, u)
}

// Readers is a page of those who have read a message, by user id.
type Readers struct {
	Readers []Reader           `json:"readers"`
	Users   map[string]rawJSON `json:"users"`
	Next    string             `json:"next,omitempty"`
}

// Reader is one who has read a message.
type Reader struct {
	User    chat.UserID `json:"user_id"`
	ReadSeq int64       `json:"read_seq"`
}

// Readers lists who has read a message.
func (s *Service) Readers(ctx context.Context, u chat.UserID, id chat.ConversationID, seq int64, cursor string, limit int) (Readers, error) {
	after, limit, err := pageOf(cursor, limit, 100, 1000)
	if err != nil {
		return Readers{}, err
	}
	c, m, err := s.seenBy(ctx, u, id)
	if err != nil {
		return Readers{}, err
	}
	if !m.Present() { // marks move after the leave
		return Readers{}, errLeft()
	}
	asked, err := s.store.Receipt(ctx, id, []int64{seq})
	if err != nil {
		return Readers{}, err
	}
	first, last := m.Visible(&c)
	if len(asked) == 0 || seq < first || seq > last || !mayAsk(asked[0], u) {
		return Readers{}, chat.Refuse(chat.CodeMessageUnknown, "number %d is not a message that you see", seq)
	}
	list, err := s.store.Readers(ctx, id, seq, chat.UserID(after), limit)
	if err != nil {
		return Readers{}, err
	}
	out := Readers{Readers: []Reader{}}
	ids := map[chat.UserID]bool{}
	for _, r := range list {
		if r.User != asked[0].Sender && (len(asked[0].Recipients) == 0 || slices.Contains(asked[0].Recipients, r.User)) {
			ids[r.User] = true
			out.Readers = append(out.Readers, Reader{r.User, min(r.Seq, last)})
		}
	}
	if len(list) == limit {
		out.Next = cursorOf(int64(list[len(list)-1].User))
	}
	out.Users, err = s.users(ctx, ids)
	return out, err
}
