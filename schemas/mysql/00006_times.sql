-- +goose Up
-- The highest sent_at up to a row, for rows that were sent before one that has a lower number (imports); NULL for all
-- others. It never falls with seq, so the first row at or after a time is found by halving.
ALTER TABLE timeline ADD COLUMN high_at BIGINT NULL;

-- The highest sent_at of a conversation.
ALTER TABLE conversations ADD COLUMN high_at BIGINT NOT NULL DEFAULT 0;

UPDATE (
  SELECT conversation_id, seq, high FROM (
    SELECT conversation_id, seq, sent_at, MAX(sent_at) OVER (PARTITION BY conversation_id ORDER BY seq) AS high FROM timeline
  ) AS sorted
  WHERE sent_at < high
) AS late STRAIGHT_JOIN timeline ON timeline.conversation_id = late.conversation_id AND timeline.seq = late.seq
SET timeline.high_at = late.high;

UPDATE conversations SET high_at = COALESCE((SELECT MAX(sent_at) FROM timeline WHERE timeline.conversation_id = conversations.conversation_id), 0);
