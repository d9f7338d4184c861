-- +goose Up
-- How a message was read through over time: SELECT * FROM read_through(conversation = 'g-1', number = 17). A message counts
-- as a mark of its sender, as it does everywhere else. The sender of the message itself is no reader of it.
CREATE OR REPLACE VIEW read_through AS
SELECT minute, readers, sum(readers) OVER (ORDER BY minute) AS readers_so_far
FROM (
  SELECT toStartOfMinute(first_at) AS minute, count() AS readers
  FROM (
    SELECT user_id, min(at) AS first_at FROM (
      SELECT user_id, at FROM read_marks WHERE conversation_id = {conversation:String} AND seq >= {number:Int64}
      UNION ALL
      SELECT sender_id AS user_id, sent_at AS at FROM messages
      WHERE conversation_id = {conversation:String} AND seq > {number:Int64} AND kind = 'message' AND sender_id != 0
    )
    WHERE user_id NOT IN (SELECT sender_id FROM messages WHERE conversation_id = {conversation:String} AND seq = {number:Int64})
    GROUP BY user_id
  ) GROUP BY minute
) ORDER BY minute;
