package archive

import (
	"context"
	"fmt"
)

// What follows is for those who go through all of an archive to see whether it is sound. Every statement is a SELECT in
// the order of a table's key, or in the index by_offset, and gives a bounded page.

// Stored gives what the archive has of a range of a conversation, in order, and no more than twice as many rows as the
// range has numbers, which is enough to see that there are too many.
func (c *ClickHouse) Stored(ctx context.Context, conversation string, first, last int64) ([]Message, error) {
	return c.messages(ctx, "WHERE conversation_id = ? AND seq >= ? AND seq <= ? ORDER BY conversation_id, seq LIMIT ?", conversation, first, last, 2*(last-first+1))
}

// Outside gives rows of a conversation whose numbers are not in a range.
func (c *ClickHouse) Outside(ctx context.Context, conversation string, first, last int64, limit int) ([]Message, error) {
	return c.messages(ctx, "WHERE conversation_id = ? AND (seq < ? OR seq > ?) ORDER BY conversation_id, seq LIMIT ?", conversation, first, last, limit)
}

// Behind gives rows of messages at or behind an offset of a partition.
func (c *ClickHouse) Behind(ctx context.Context, partition int32, offset int64, limit int) ([]Message, error) {
	return c.messages(ctx, "WHERE partition = ? AND offset >= ? ORDER BY offset LIMIT ?", partition, offset, limit)
}

func (c *ClickHouse) messages(ctx context.Context, where string, args ...any) ([]Message, error) {
	var out []Message
	if err := c.conn.Select(ctx, &out, "SELECT "+messageColumns+" FROM messages "+where, args...); err != nil {
		return nil, fmt.Errorf("reading the archive's messages: %w", err)
	}
	return out, nil
}

// Marks gives the read marks of a range of offsets of a partition, the last of which does not belong to it, in order, and
// at most limit.
func (c *ClickHouse) Marks(ctx context.Context, partition int32, from, to int64, limit int) ([]Mark, error) {
	var out []Mark
	err := c.conn.Select(ctx, &out, "SELECT "+markColumns+" FROM read_marks WHERE partition = ? AND offset >= ? AND offset < ? ORDER BY offset LIMIT ?", partition, from, to, limit)
	if err != nil {
		return nil, fmt.Errorf("reading the archive's marks: %w", err)
	}
	return out, nil
}

// ConversationsAfter lists the conversations of the archive by their ids, beginning after one; "" for the first page.
func (c *ClickHouse) ConversationsAfter(ctx context.Context, after string, limit int) ([]string, error) {
	var rows []struct {
		ID string `ch:"conversation_id"`
	}
	if err := c.conn.Select(ctx, &rows, "SELECT DISTINCT conversation_id FROM messages WHERE conversation_id > ? ORDER BY conversation_id LIMIT ?", after, limit); err != nil {
		return nil, fmt.Errorf("listing the archive's conversations: %w", err)
	}
	out := make([]string, len(rows))
	for i := range rows {
		out[i] = rows[i].ID
	}
	return out, nil
}
