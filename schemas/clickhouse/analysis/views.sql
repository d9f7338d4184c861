-- What analysts see. `tideline migrate` makes these views at every start and upgrade, with the archive's database in place of
-- {archive} and the analysts' in place of {analysis} (tideline and tideline_analysis).
--
-- Each column that says something private is masked by an expression, and not by a WHERE alone: the engine may try a reader's
-- condition on a row before it tries the view's, and an error message can show what the condition was tried on.
-- The views run with the rights of their owner, so readers need none on {archive}.

-- The columns of {archive}.messages. A conversation of two people, and the notices to one person, have a keyed hash as id; of
-- their messages no sender, no client_msg_id and nothing that was said is shown. Messages that are addressed to a few have
-- neither what was said nor for whom.
CREATE OR REPLACE VIEW {analysis}.messages DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
  m.public_id AS conversation_id, m.conversation_type AS conversation_type, m.seq AS seq, m.kind AS kind, m.target_seq AS target_seq,
  if(m.public_id = '', 0, m.sender_id) AS sender_id,
  if(m.public_id = '', '', m.client_msg_id) AS client_msg_id,
  m.type AS type,
  if(m.public_id = '' OR notEmpty(m.recipients), '', m.text) AS text,
  if(m.public_id = '' OR notEmpty(m.recipients), '', m.content) AS content,
  if(m.public_id = '' OR notEmpty(m.recipients), emptyArrayInt64(), m.mentions) AS mentions,
  emptyArrayInt64() AS recipients,
  m.sent_at AS sent_at, m.recalled AS recalled, m.partition AS partition, m.offset AS offset, m.edit_seq AS edit_seq
FROM {archive}.messages AS m WHERE m.public_id != ''
UNION ALL
SELECT
  concat(substring(m.conversation_id, 1, 2), lower(hex(sipHash128ReferenceKeyed((k.k0, k.k1), m.conversation_id)))) AS conversation_id,
  m.conversation_type AS conversation_type, m.seq AS seq, m.kind AS kind, m.target_seq AS target_seq,
  toInt64(0) AS sender_id, '' AS client_msg_id, m.type AS type, '' AS text, '' AS content, emptyArrayInt64() AS mentions, emptyArrayInt64() AS recipients,
  m.sent_at AS sent_at, m.recalled AS recalled, m.partition AS partition, m.offset AS offset, m.edit_seq AS edit_seq
FROM {archive}.messages AS m CROSS JOIN (SELECT k0, k1 FROM {archive}.analysis_key ORDER BY made_at, k0 LIMIT 1) AS k
WHERE m.public_id = '';

-- The columns of {archive}.read_marks, without those of conversations of two people.
CREATE OR REPLACE VIEW {analysis}.read_marks DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT
  if(r.public_id = '', 0, r.user_id) AS user_id, r.public_id AS conversation_id, if(r.public_id = '', 0, r.seq) AS seq, r.at AS at,
  r.partition AS partition, r.offset AS offset
FROM {archive}.read_marks AS r WHERE r.public_id != '';

-- How much is read: one row per conversation and hour, those of two people among them.
CREATE OR REPLACE VIEW {analysis}.read_marks_per_hour DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT r.public_id AS conversation_id, toStartOfHour(r.at) AS hour, count() AS marks
FROM {archive}.read_marks AS r WHERE r.public_id != '' GROUP BY conversation_id, hour
UNION ALL
SELECT
  concat(substring(r.conversation_id, 1, 2), lower(hex(sipHash128ReferenceKeyed((k.k0, k.k1), r.conversation_id)))) AS conversation_id,
  toStartOfHour(r.at) AS hour, count() AS marks
FROM {archive}.read_marks AS r CROSS JOIN (SELECT k0, k1 FROM {archive}.analysis_key ORDER BY made_at, k0 LIMIT 1) AS k
WHERE r.public_id = '' GROUP BY 1, 2;

-- How much is said: one row per conversation and hour. Where senders are not shown, they are not counted.
CREATE OR REPLACE VIEW {analysis}.messages_per_hour DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT conversation_id, toStartOfHour(sent_at) AS hour, count() AS messages, uniqExactIf(sender_id, sender_id != 0) AS senders
FROM {analysis}.messages WHERE kind = 'message' GROUP BY conversation_id, hour;

-- The senders of each conversation and day; 0 means all of those that are not shown.
CREATE OR REPLACE VIEW {analysis}.active_senders DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT conversation_id, toDate(sent_at) AS day, sender_id, count() AS messages, countIf(recalled) AS recalled
FROM {analysis}.messages WHERE kind = 'message' GROUP BY conversation_id, day, sender_id;

-- How a message was read through over time: SELECT * FROM read_through(conversation = 'g-1', number = 17). A message counts
-- as a mark of its sender, as it does everywhere else. The sender of the message itself is no reader of it.
CREATE OR REPLACE VIEW {analysis}.read_through DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT minute, readers, sum(readers) OVER (ORDER BY minute) AS readers_so_far
FROM (
  SELECT toStartOfMinute(first_at) AS minute, count() AS readers
  FROM (
    SELECT user_id, min(at) AS first_at FROM (
      SELECT user_id, at FROM {analysis}.read_marks WHERE conversation_id = {conversation:String} AND seq >= {number:Int64}
      UNION ALL
      SELECT sender_id AS user_id, sent_at AS at FROM {analysis}.messages
      WHERE conversation_id = {conversation:String} AND seq > {number:Int64} AND kind = 'message' AND sender_id != 0
    )
    WHERE user_id NOT IN (SELECT sender_id FROM {analysis}.messages WHERE conversation_id = {conversation:String} AND seq = {number:Int64})
    GROUP BY user_id
  ) GROUP BY minute
) ORDER BY minute;
