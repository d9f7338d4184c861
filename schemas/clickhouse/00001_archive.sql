-- +goose Up
-- The archive: one row per event of im.messages and one per record of im.receipts, each exactly once. A plain count() is
-- the number of events; no FINAL is needed anywhere.

-- Questions mostly name a conversation, and then a stretch of it. There is no PARTITION BY: an imported community brings
-- years of months in one insert, which would be cut into as many parts.
CREATE TABLE messages (
  conversation_id String,
  conversation_type LowCardinality(String) COMMENT 'group, private or system',
  seq Int64 COMMENT 'number of the event in its conversation, from 1',
  kind LowCardinality(String) COMMENT 'message, create, join, leave, role, mute, nickname, update, edit, recall, dissolve',
  target_seq Int64 COMMENT 'of edit and recall: the number that it aims at; else 0',
  sender_id Int64,
  client_msg_id String,
  type LowCardinality(String) COMMENT 'of messages: text, custom; of other events that people see: notice; else empty',
  text String COMMENT 'of type text: what was said, in its present form',
  content String COMMENT 'JSON, in its present form; empty once recalled',
  mentions Array(Int64) COMMENT '0 stands for everybody',
  recipients Array(Int64) COMMENT 'where not empty, the only readers besides the sender',
  sent_at DateTime64(3, 'UTC'),
  recalled Bool,
  partition Int32 COMMENT 'of im.messages',
  offset Int64 COMMENT 'in that partition; -1 for rows that were filled in from the store',
  edit_seq Int64 DEFAULT 0 COMMENT 'number of the last edit that reached the row; else 0',
  INDEX by_offset (partition, offset) TYPE minmax GRANULARITY 1,
  INDEX by_time sent_at TYPE minmax GRANULARITY 1,
  INDEX by_sender sender_id TYPE bloom_filter(0.01) GRANULARITY 4
) ENGINE = MergeTree ORDER BY (conversation_id, seq)
-- A block that is inserted again is recognised by its token for this many blocks; a successor besides looks first. What an
-- insert has answered, the position in the store takes for granted: it must be on the disk, also after merges.
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

CREATE TABLE read_marks (
  user_id Int64,
  conversation_id String,
  seq Int64 COMMENT 'everything up to this number was read',
  at DateTime64(3, 'UTC'),
  partition Int32 COMMENT 'of im.receipts',
  offset Int64,
  INDEX by_offset (partition, offset) TYPE minmax GRANULARITY 1
) ENGINE = MergeTree ORDER BY (conversation_id, user_id, at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1;

-- How much is said: one row per conversation and hour. Filter by conversation_id, hour or both.
CREATE VIEW messages_per_hour AS
SELECT conversation_id, toStartOfHour(sent_at) AS hour, count() AS messages, uniqExact(sender_id) AS senders
FROM messages WHERE kind = 'message' GROUP BY conversation_id, hour;

-- Who speaks: one row per conversation, day and sender.
CREATE VIEW active_senders AS
SELECT conversation_id, toDate(sent_at) AS day, sender_id, count() AS messages, countIf(recalled) AS recalled
FROM messages WHERE kind = 'message' GROUP BY conversation_id, day, sender_id;

-- How a message was read through over time: SELECT * FROM read_through(conversation = 'g-1', number = 17). Those who
-- spoke after the message count only once they have marked something as read.
CREATE VIEW read_through AS
SELECT minute, readers, sum(readers) OVER (ORDER BY minute) AS readers_so_far
FROM (
  SELECT toStartOfMinute(first_at) AS minute, count() AS readers
  FROM (
    SELECT user_id, min(at) AS first_at FROM read_marks
    WHERE conversation_id = {conversation:String} AND seq >= {number:Int64} GROUP BY user_id
  ) GROUP BY minute
) ORDER BY minute;
