package handlers

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"tideline/internal/blocks"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// page collects entries for one reader, and is used again for others: a pull makes little garbage, because a crowd that
// wakes up together asks for the same thing ten thousand times.
type page struct {
	s           *Service
	c           timeline.Conversation
	reader      chat.UserID
	trust       bool
	first, last int64 // what the reader may see
	limit       int
	tag         tag

	items   []item // in order of seq
	shown   int
	bytes   int
	hasMore bool

	senders []chat.UserID
	people  []person
	out     []byte
}

// item is an entry, or a run of numbers that the reader may not see.
type item struct {
	entry    *blocks.Entry
	from, to int64 // of a run
}

var pages = sync.Pool{New: func() any { return new(page) }}

func newPage(s *Service, c timeline.Conversation, reader chat.UserID, limit int) *page {
	p := pages.Get().(*page)
	*p = page{
		s: s, c: c, reader: reader, trust: s.heads.Fresh(), limit: limit, tag: newTag(),
		items: p.items[:0], senders: p.senders[:0], people: p.people[:0], out: p.out[:0],
	}
	return p
}

// keptPage is the size of an answer whose memory is kept: that of most, not that of the largest.
const keptPage = 64 << 10

func (p *page) free() {
	if cap(p.out) > keptPage {
		return
	}
	clear(p.items) // blocks that have left the cache are not kept alive
	clear(p.people)
	p.s = nil
	pages.Put(p)
}

// tag is a running FNV-1a hash of what an answer depends on.
type tag uint64

func newTag() tag { return 14695981039346656037 }

func (t *tag) octet(b byte) { *t = (*t ^ tag(b)) * 1099511628211 }

func (t *tag) number(n int64) {
	for range 8 {
		t.octet(byte(n))
		n >>= 8
	}
}

func (t *tag) text(s string) {
	for i := range len(s) {
		t.octet(s[i])
	}
	t.octet(0)
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

// encode writes the answer. The page is the answer's from then on.
func (p *page) encode(ctx context.Context) (Answer, error) {
	for _, it := range p.items {
		if it.entry != nil && it.entry.Sender > 0 {
			p.senders = append(p.senders, it.entry.Sender)
		}
	}
	slices.Sort(p.senders)
	var err error
	if p.people, err = p.s.profiles.of(ctx, slices.Compact(p.senders), p.people); err != nil {
		return Answer{}, err
	}
	out := slices.Grow(p.out, p.bytes+len(p.items)+len(p.people)*96+128)
	out = append(out, `{"messages":[`...)
	for i, it := range p.items {
		if i > 0 {
			out = append(out, ',')
		}
		if it.entry != nil {
			out = append(out, it.entry.JSON...)
			continue
		}
		out = appendVoid(out, it.from, it.to)
	}
	out = append(out, `],"users":{`...)
	for i, who := range p.people {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, '"')
		out = strconv.AppendInt(out, int64(who.id), 10)
		out = append(out, `":`...)
		out = append(out, who.json...)
		p.tag.number(int64(who.version))
	}
	out = append(out, `},"min_seq":`...)
	out = strconv.AppendInt(out, p.first, 10)
	out = append(out, `,"max_seq":`...)
	out = strconv.AppendInt(out, p.last, 10)
	out = append(out, `,"has_more":`...)
	out = strconv.AppendBool(out, p.hasMore)
	p.out = append(out, '}')
	// Only what this reader sees counts: a tag that moves with hidden entries, or with what came after a leave, would say that something
	// happened there.
	p.tag.text(p.c.ID.String())
	p.tag.number(int64(p.reader))
	p.tag.number(p.first)
	p.tag.number(p.last)
	if p.hasMore {
		p.tag.number(1)
	}
	for _, it := range p.items {
		if it.entry == nil {
			p.tag.number(it.from)
			p.tag.number(it.to)
		} else {
			p.tag.number(it.entry.Version)
		}
	}
	if n := len(p.items); n > 0 {
		p.tag.number(p.items[0].seq())
		p.tag.number(int64(n))
	}
	return Answer{JSON: p.out, ETag: `"` + strconv.FormatUint(uint64(p.tag), 16) + `"`, page: p}, nil
}

// appendVoid writes a run of numbers that the reader may not see.
func appendVoid(out []byte, from, to int64) []byte {
	out = append(out, `{"seq":`...)
	out = strconv.AppendInt(out, from, 10)
	out = append(out, `,"to_seq":`...)
	out = strconv.AppendInt(out, to, 10)
	return append(out, `,"type":"void"}`...)
}

func (i item) seq() int64 {
	if i.entry != nil {
		return i.entry.Seq
	}
	return i.from
}
