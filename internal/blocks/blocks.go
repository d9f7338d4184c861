// Package blocks keeps encoded pieces of timelines in memory, so that ten thousand members who ask for the same messages
// cost one read of the store. A block is 64 consecutive numbers of a conversation, aligned. A full one changes only when
// an edit or a recall aims into it; the last one of a conversation grows.
package blocks

import (
	"container/list"
	"context"
	"errors"
	"slices"
	"sync"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// Entry is one number, encoded for whoever may see it.
type Entry struct {
	Seq   int64
	JSON  []byte
	Shown bool // counts towards the limit of a page
	// Message tells that people are asked whether they have read it.
	Message bool
	Sender  chat.UserID
	// Recipients, where not empty, are the only readers besides the sender. An edit or a recall of a message that is addressed to a few has
	// those and the message's sender.
	Recipients []chat.UserID
	// Hidden entries have no reader: a tombstone, a number whose event was parked, an edit or recall of such a number, an
	// event of a kind that this version does not know, or content that some clients cannot read (see chat.CheckContent)
	// and that was numbered before it was refused.
	Hidden bool
	// Version differs whenever JSON does.
	Version int64
	// Ordinal is how many countable messages there are up to here, or -1 where there is no row that could tell.
	Ordinal int64
}

// VisibleTo tells whether a reader may see the entry.
func (e *Entry) VisibleTo(u chat.UserID) bool {
	if e.Hidden {
		return false
	}
	if len(e.Recipients) == 0 || e.Sender == u {
		return true
	}
	for _, r := range e.Recipients {
		if r == u {
			return true
		}
	}
	return false
}

// Block is a run of entries from the first number of the block on, one for every number: what the store has no row for
// stands as a hidden entry. It is never changed once it is given out.
type Block struct {
	First   int64
	Entries []Entry
	// Version differs whenever the encoded content does.
	Version uint64
	bytes   int
}

// Last is the last number that the block has.
func (b *Block) Last() int64 { return b.First + int64(len(b.Entries)) - 1 }

// entryBytes is about what an entry takes besides its content.
const entryBytes = 96

func (b *Block) add(e Entry, version uint64) {
	b.Entries = append(b.Entries, e)
	b.bytes += len(e.JSON) + entryBytes
	b.Version = b.Version*1099511628211 + uint64(e.Seq)<<8 + version
}

// hide fills the block up to a number with entries that nobody sees.
func (b *Block) hide(to int64) {
	for seq := b.Last() + 1; seq <= to; seq++ {
		b.add(Entry{Seq: seq, Hidden: true, Ordinal: -1}, 0)
	}
}

// Rows reads the timeline.
type Rows interface {
	Rows(ctx context.Context, c chat.ConversationID, first, last int64) ([]timeline.Row, error)
	// Receipt returns sender and recipients of those of some numbers that are messages, and no tombstones.
	Receipt(ctx context.Context, c chat.ConversationID, seqs []int64) ([]timeline.ReceiptQuestion, error)
}

// Cache is safe for concurrent use.
type Cache struct {
	store    Rows
	maxBytes int
	encode   func(*timeline.Row) []byte
	metrics  *Metrics

	mu    sync.Mutex // guards what follows
	items map[key]*list.Element
	order *list.List // of *item, the most recently used first
	bytes int
	loads map[key][]*load // under way; each reads further than the one before it
}

type key struct {
	c     chat.ConversationID
	block int64
}

type item struct {
	key   key
	block *Block
}

// load is a read of the store under way, that everybody who wants the same waits for. It is remembered if it still stands in
// the map when it ends: where an invalidation took it out, those who wait may have it, the cache may not.
type load struct {
	done  chan struct{}
	to    int64 // the last number that it reads
	block *Block
	err   error
	left  bool // the context of whoever read for all had ended: an error may be his alone
}

// errDropped is what those are told for whom somebody read who never came back.
var errDropped = errors.New("a read of a block was dropped half way")

// New makes a cache of at most so many bytes of content.
func New(store Rows, maxBytes int, encode func(*timeline.Row) []byte, metrics *Metrics) *Cache {
	return &Cache{store: store, maxBytes: maxBytes, encode: encode, metrics: metrics, items: map[key]*list.Element{}, order: list.New(), loads: map[key][]*load{}}
}

// Get gives a block of a conversation up to at least a number (or the block's end), which the store is known to have.
// Without trust nothing remembered or begun by others is used, and nothing is remembered.
func (c *Cache) Get(ctx context.Context, id chat.ConversationID, block, upTo int64, trust bool) (*Block, error) {
	k := key{id, block}
	first, last := timeline.BlockRange(block)
	upTo = min(upTo, last)
	if !trust {
		c.metrics.misses.Inc()
		return c.read(ctx, k, &Block{First: first}, upTo)
	}
	for {
		c.mu.Lock()
		have := &Block{First: first}
		if e, there := c.items[k]; there {
			have = e.Value.(*item).block
			if have.Last() >= upTo {
				c.order.MoveToFront(e)
				c.mu.Unlock()
				c.metrics.hits.Inc()
				return have, nil
			}
		}
		running := c.loads[k]
		if n := len(running); n == 0 || running[n-1].to < upTo {
			l := &load{done: make(chan struct{}), to: upTo}
			c.loads[k] = append(running, l)
			c.mu.Unlock()
			c.metrics.misses.Inc()
			c.fill(ctx, k, l, have)
			return l.block, l.err
		}
		l := running[len(running)-1]
		c.mu.Unlock()
		select {
		case <-l.done:
			if l.err == nil {
				c.metrics.shared.Inc()
				return l.block, nil
			}
			if !l.left {
				return nil, l.err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// read gives a block that has what have has, and what the store has from there up to a number.
func (c *Cache) read(ctx context.Context, k key, have *Block, to int64) (*Block, error) {
	rows, err := c.store.Rows(ctx, k.c, have.Last()+1, to)
	if err != nil {
		return nil, err
	}
	audiences, err := c.audiences(ctx, k.c, rows)
	if err != nil {
		return nil, err
	}
	b := &Block{First: have.First, Entries: have.Entries[:len(have.Entries):len(have.Entries)], Version: have.Version, bytes: have.bytes}
	for i := range rows {
		r := &rows[i]
		b.hide(r.Seq - 1)
		hidden := r.Tombstone || !r.Readable() || !r.Kind.IsKnown() // a newer writer may have stored kinds that are not known here
		e := Entry{Seq: r.Seq, Shown: r.Kind.IsShown() && !hidden, Message: r.Kind == chat.KindMessage && !hidden, Sender: r.Sender, Recipients: r.Recipients, Hidden: hidden, Version: int64(r.Changes) + 1, Ordinal: r.Ordinal}
		if r.Kind.HasTarget() {
			var known bool
			if e.Recipients, known = audiences[r.TargetSeq]; !known {
				e.Hidden = true
			}
		}
		if !e.Hidden {
			e.JSON = c.encode(r)
		}
		b.add(e, uint64(r.Changes)+1)
	}
	// The store is known to have this much: a number without a row was parked, and its place is kept.
	b.hide(to)
	return b, nil
}

// audiences returns who may see the edits and recalls among some rows, by the number that they aim at: a nil list is everyone. It is not
// stored with them, and never changes: neither edits nor recalls change who a message is addressed to. Numbers that are missing are no
// messages that a reader could see.
func (c *Cache) audiences(ctx context.Context, id chat.ConversationID, rows []timeline.Row) (map[int64][]chat.UserID, error) {
	var targets []int64
	for i := range rows {
		if rows[i].Kind.HasTarget() && !rows[i].Tombstone {
			targets = append(targets, rows[i].TargetSeq)
		}
	}
	if len(targets) == 0 {
		return nil, nil
	}
	slices.Sort(targets)
	found, err := c.store.Receipt(ctx, id, slices.Compact(targets))
	if err != nil {
		return nil, err
	}
	out := make(map[int64][]chat.UserID, len(found))
	for _, m := range found {
		var few []chat.UserID
		if len(m.Recipients) > 0 {
			few = append(slices.Clone(m.Recipients), m.Sender)
		}
		out[m.Seq] = few
	}
	return out, nil
}

// fill does a load, and remembers it if it still stands.
func (c *Cache) fill(ctx context.Context, k key, l *load, have *Block) {
	defer close(l.done)
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		i := slices.Index(c.loads[k], l)
		if i < 0 {
			return
		}
		if len(c.loads[k]) == 1 {
			delete(c.loads, k)
		} else {
			c.loads[k] = slices.Delete(c.loads[k], i, i+1)
		}
		if l.err == nil {
			c.keep(k, l.block)
		}
	}()
	l.err = errDropped // stands if reading panics
	l.block, l.err = c.read(ctx, k, have, l.to)
	l.left = ctx.Err() != nil
}

// keep remembers a block unless more of it is remembered. c.mu is held.
func (c *Cache) keep(k key, b *Block) {
	if e, there := c.items[k]; there {
		old := e.Value.(*item)
		if old.block.Last() >= b.Last() {
			return
		}
		c.bytes += b.bytes - old.block.bytes
		old.block = b
		c.order.MoveToFront(e)
	} else if len(b.Entries) > 0 {
		c.items[k] = c.order.PushFront(&item{k, b})
		c.bytes += b.bytes
	}
	for c.bytes > c.maxBytes && c.order.Len() > 1 {
		c.drop(c.order.Back())
	}
	c.metrics.bytes.Set(float64(c.bytes))
}

func (c *Cache) drop(e *list.Element) {
	it := e.Value.(*item)
	c.order.Remove(e)
	delete(c.items, it.key)
	c.bytes -= it.block.bytes
	c.metrics.bytes.Set(float64(c.bytes))
}

// Invalidate drops the blocks in which some numbers of a conversation stand.
func (c *Cache) Invalidate(id chat.ConversationID, seqs []int64) {
	if len(seqs) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range seqs {
		k := key{id, timeline.BlockOf(s)}
		if e, there := c.items[k]; there {
			c.drop(e)
		}
		delete(c.loads, k) // who asks from now on reads again
	}
}

// Clear drops everything: what came meanwhile is not known.
func (c *Cache) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.items)
	c.order.Init()
	c.bytes = 0
	c.metrics.bytes.Set(0)
	clear(c.loads)
}
