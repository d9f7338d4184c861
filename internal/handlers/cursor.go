package handlers

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"strconv"

	"tideline/pkg/chat"
)

// clock is where the store's writers stand: the offset behind what is stored, for each partition of im.messages, and
// for the user's partition of im.receipts. It needs no clock of a machine.
type clock struct {
	messages []int64
	marks    int64
}

func (c *clock) at(partition int32) int64 {
	if int(partition) < len(c.messages) {
		return c.messages[partition]
	}
	return 0
}

func (s *Service) clock(ctx context.Context, u chat.UserID) (*clock, error) {
	at, _, err := s.writers.Get(ctx, struct{}{})
	if err != nil {
		return nil, err
	}
	return &clock{messages: at.messages, marks: at.marks[chat.Partition(u.String(), int32(s.kafka.Partitions))]}, nil
}

// writersAt is where all writers stand. It is shared, and not changed.
type writersAt struct {
	messages []int64 // by partition
	marks    map[int32]int64
}

// writersAt asks for a Loader: it is the same for everybody who asks at the same time.
func (s *Service) writersAt(ctx context.Context, _ []struct{}) (map[struct{}]writersAt, error) {
	partitions := make([]int32, s.kafka.Partitions)
	for i := range partitions {
		partitions[i] = int32(i)
	}
	positions, err := s.store.Positions(ctx, partitions)
	if err != nil {
		return nil, err
	}
	at := writersAt{messages: make([]int64, len(partitions))}
	for _, p := range positions {
		at.messages[p.Partition] = p.MessagesNext
	}
	if at.marks, err = s.store.MarkPositions(ctx, partitions); err != nil {
		return nil, err
	}
	return map[struct{}]writersAt{{}: at}, nil
}

// syncCursor is where a client stands: it has everything up to since (nil: nothing), and, while it pages, is at a key
// of the pages that will bring it to until.
type syncCursor struct {
	since, until *clock
	paging       bool
	key          pageKey
}

func (c *syncCursor) movedSince(v *summary) bool {
	if c.since == nil {
		return true
	}
	at := c.since.at(v.c.Partition)
	return v.c.LastOffset >= at || v.m.ChangedOffset >= at || v.m.ReadOffset >= c.since.marks
}

// pageKey is a place in the order of a listing.
type pageKey struct {
	at int64 // less comes first
	id string
}

func keyOf(v *summary, delta bool) pageKey {
	k := pageKey{id: string(v.c.ID.Bytes())}
	if !delta {
		k.at = -v.c.LastAt
	}
	return k
}

func compareKeys(a, b pageKey) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.id, b.id)) }

// placed is a summary with its place in a listing.
type placed struct {
	key pageKey
	*summary
}

const syncCursorVersion = 1

func (c *syncCursor) encode() string {
	b := []byte{syncCursorVersion, 0}
	for i, k := range []*clock{c.since, c.until} {
		if k == nil {
			continue
		}
		b[1] |= 1 << i
		b = binary.AppendUvarint(b, uint64(len(k.messages)))
		for _, o := range k.messages {
			b = binary.AppendUvarint(b, uint64(o))
		}
		b = binary.AppendUvarint(b, uint64(k.marks))
	}
	if c.paging {
		b[1] |= 4
		b = binary.AppendVarint(b, c.key.at)
		b = append(b, c.key.id...)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

var errCursor = errors.New("not a cursor")

func parseSyncCursor(text string, partitions int) (syncCursor, error) {
	var c syncCursor
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) < 2 || b[0] != syncCursorVersion || b[1] > 7 {
		return c, errCursor
	}
	flags := b[1]
	b = b[2:]
	take := func() int64 {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > math.MaxInt64 {
			err = errCursor
			return 0
		}
		b = b[n:]
		return int64(v)
	}
	for i, into := range []**clock{&c.since, &c.until} {
		if flags&(1<<i) == 0 {
			continue
		}
		k := &clock{}
		if n := take(); err != nil || n != int64(partitions) {
			return c, errCursor
		}
		for range partitions {
			k.messages = append(k.messages, take())
		}
		k.marks = take()
		*into = k
	}
	if c.paging = flags&4 != 0; c.paging {
		at, n := binary.Varint(b)
		if n <= 0 || c.until == nil {
			return c, errCursor
		}
		c.key = pageKey{at: at, id: string(b[n:])}
		b = nil
	}
	if err != nil || len(b) > 0 || (!c.paging && c.since == nil) {
		return c, errCursor
	}
	return c, nil
}

func sessionText(id int64) string { return strconv.FormatInt(id, 10) }
