package kafka

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/pkg/chat"
)

// HasHeader reports whether a record has a header of that name, be it empty.
func HasHeader(r *kgo.Record, key string) bool {
	return slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == key })
}

// Outside returns the conversation and the number that a record of im.messages names outside its value: in its key and its
// header seq. It reports false where either is missing or malformed, or where the conversation belongs in another partition.
func Outside(r *kgo.Record, partitions int) (id chat.ConversationID, seq int64, ok bool) {
	id, err := chat.ParseConversationID(string(r.Key))
	if err != nil || chat.Partition(id.String(), int32(partitions)) != r.Partition {
		return chat.ConversationID{}, 0, false
	}
	text := Header(r, HeaderSeq)
	seq, err = strconv.ParseInt(text, 10, 64)
	if err != nil || seq < 1 || strconv.FormatInt(seq, 10) != text {
		return chat.ConversationID{}, 0, false
	}
	return id, seq, true
}

// Ours reports whether a record of im.messages or im.rejected has what ingest puts outside of every record that it writes.
// Anyone with the right to write there can imitate that; the record only fails to be anyone else's by accident. See ADR 26.
func Ours(r *kgo.Record) bool {
	if r.Topic == TopicRejected {
		return HasHeader(r, HeaderProducer)
	}
	return HasHeader(r, HeaderKind)
}

// maxNeededBytes bounds what Needed repeats of a header.
const maxNeededBytes = 32

// Needed returns a sentence that says which version knows the kind of an event that this one does not know.
func Needed(r *kgo.Record) string {
	clip := func(key string) string { h := Header(r, key); return h[:min(len(h), maxNeededBytes)] }
	needed := clip(HeaderKinds)
	if n, err := strconv.Atoi(needed); err != nil || n <= chat.KindsVersion() {
		return fmt.Sprintf("the record calls it %q and does not say which version is needed; this one has version %d of the list of kinds", clip(HeaderKind), chat.KindsVersion())
	}
	return fmt.Sprintf("the record calls it %q: a release with version %s or later of the list of kinds is needed, and this one has %d", clip(HeaderKind), needed, chat.KindsVersion())
}
