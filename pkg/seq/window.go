package seq

import (
	"container/heap"
	"crypto/sha256"
	"encoding/binary"

	"tideline/pkg/chat"
)

// idKey stands for (conversation, sender, client id): 128 bits of SHA-256, so that the window's memory does not depend
// on the length of ids and a false hit will not be seen.
type idKey [16]byte

func keyOf(c chat.ConversationID, sender chat.UserID, id string) idKey {
	b := make([]byte, 0, 96)
	b = append(b, c.Bytes()...)
	b = binary.BigEndian.AppendUint64(b, uint64(sender))
	b = append(b, id...)
	sum := sha256.Sum256(b)
	return idKey(sum[:16])
}

type idEntry struct {
	first chat.FirstEvent
	hash  chat.BodyHash
	stamp int64
}

// window remembers the client ids of the last while. It holds every id that the store may not have yet, and beyond that
// the ids with the highest stamps. What it does not hold is decided by the floor: an id whose stamp lies above it, and is
// not ahead of the clock, was never numbered.
type window struct {
	limit   int
	ids     map[idKey]idEntry
	stored  stampHeap // ids that the store has, lowest stamp first
	floor   int64
	highest int64
}

func newWindow(limit int, floor int64) *window {
	return &window{limit: limit, ids: map[idKey]idEntry{}, floor: floor, highest: floor}
}

// add remembers an id that was just numbered, or found in the log's tail.
func (w *window) add(k idKey, e idEntry) {
	w.ids[k] = e
	w.highest = max(w.highest, e.stamp)
}

// confirm says that the store has an id. One without a stamp leaves: it is looked up in the store in any case.
func (w *window) confirm(k idKey) {
	e, ok := w.ids[k]
	if !ok {
		return
	}
	if e.stamp == 0 {
		delete(w.ids, k)
		return
	}
	heap.Push(&w.stored, stamped{e.stamp, k})
	for len(w.stored) > w.limit {
		low := heap.Pop(&w.stored).(stamped)
		w.floor = max(w.floor, low.stamp)
		delete(w.ids, low.key)
	}
}

// find gives an id that is remembered.
func (w *window) find(k idKey) (idEntry, bool) {
	e, ok := w.ids[k]
	return e, ok
}

// mustLookUp tells whether the store has to be asked about an id that is not remembered.
func (w *window) mustLookUp(stamp, now int64) bool {
	return stamp == 0 || stamp > now || stamp <= w.floor
}

type stamped struct {
	stamp int64
	key   idKey
}

type stampHeap []stamped

func (h stampHeap) Len() int           { return len(h) }
func (h stampHeap) Less(i, j int) bool { return h[i].stamp < h[j].stamp }
func (h stampHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *stampHeap) Push(x any)        { *h = append(*h, x.(stamped)) }
func (h *stampHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
