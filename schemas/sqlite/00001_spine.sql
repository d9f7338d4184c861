-- +goose Up
-- The spine: people, conversations, the timeline, and how far each writer has come.
-- Ids of conversations are 9 or 17 bytes (kind and one or two ids), times are milliseconds since 1970.

CREATE TABLE users (
  user_id INTEGER NOT NULL,
  username TEXT NULL,
  username_key TEXT NULL, -- folded to lower case
  nickname TEXT NOT NULL,
  avatar_url TEXT NOT NULL DEFAULT '',
  password_hash TEXT NULL,
  external_id BLOB NULL, -- compared byte for byte
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (user_id)
) STRICT;
CREATE UNIQUE INDEX users_username ON users (username_key);
CREATE UNIQUE INDEX users_external ON users (external_id);


CREATE TABLE sessions (
  session_id INTEGER NOT NULL,
  user_id INTEGER NOT NULL,
  device_id TEXT NOT NULL,
  platform TEXT NOT NULL,
  refresh_hash BLOB NOT NULL, -- SHA-256 of the refresh token
  previous_hash BLOB NULL, -- of the one before: its use betrays a theft
  created_at INTEGER NOT NULL,
  refreshed_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  revoked_at INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (session_id)
) WITHOUT ROWID, STRICT;
CREATE UNIQUE INDEX sessions_refresh ON sessions (refresh_hash);
CREATE INDEX sessions_previous ON sessions (previous_hash);
CREATE INDEX sessions_user ON sessions (user_id);


-- A group's id, before its first event.
CREATE TABLE group_reservations (
  creator_id INTEGER NOT NULL,
  client_msg_id BLOB NOT NULL,
  group_id INTEGER NOT NULL,
  body_hash BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (creator_id, client_msg_id)
) WITHOUT ROWID, STRICT;


CREATE TABLE conversations (
  conversation_id BLOB NOT NULL,
  partition_id INTEGER NOT NULL,
  max_seq INTEGER NOT NULL,
  ordinal INTEGER NOT NULL, -- countable messages up to max_seq
  max_recalled_seq INTEGER NOT NULL DEFAULT 0,
  max_addressed_seq INTEGER NOT NULL DEFAULT 0,
  max_mention_seq INTEGER NOT NULL DEFAULT 0,
  name TEXT NOT NULL DEFAULT '',
  avatar_url TEXT NOT NULL DEFAULT '',
  owner_id INTEGER NOT NULL DEFAULT 0,
  history_visible INTEGER NOT NULL DEFAULT 0,
  member_count INTEGER NOT NULL DEFAULT 0,
  dissolved_seq INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  last_at INTEGER NOT NULL,
  last_offset INTEGER NOT NULL, -- in im.messages
  PRIMARY KEY (conversation_id)
) WITHOUT ROWID, STRICT;


CREATE TABLE members (
  conversation_id BLOB NOT NULL,
  user_id INTEGER NOT NULL,
  role INTEGER NOT NULL DEFAULT 1, -- 1 member, 2 admin, 3 owner
  join_seq INTEGER NOT NULL,
  left_seq INTEGER NOT NULL DEFAULT 0, -- 0 while a member
  muted_until INTEGER NOT NULL DEFAULT 0,
  nickname TEXT NOT NULL DEFAULT '',
  changed_seq INTEGER NOT NULL,
  changed_offset INTEGER NOT NULL,
  read_seq INTEGER NOT NULL DEFAULT 0,
  read_ordinal INTEGER NOT NULL DEFAULT 0,
  read_offset INTEGER NOT NULL DEFAULT -1, -- in im.receipts
  PRIMARY KEY (conversation_id, user_id)
) WITHOUT ROWID, STRICT;
CREATE INDEX members_user ON members (user_id, conversation_id);
CREATE INDEX members_read ON members (conversation_id, left_seq, read_seq, join_seq); -- who has read a message


-- One row per event, whatever the number of members.
CREATE TABLE timeline (
  conversation_id BLOB NOT NULL,
  seq INTEGER NOT NULL,
  ordinal INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  message_id INTEGER NOT NULL,
  sender_id INTEGER NOT NULL,
  client_msg_id BLOB NULL, -- a tag byte, then 16 bytes of a UUID or the text; NULL on tombstones
  body_hash BLOB NOT NULL,
  sent_at INTEGER NOT NULL,
  msg_type INTEGER NOT NULL DEFAULT 0, -- 1 text, 2 custom, 3 notice
  flags INTEGER NOT NULL DEFAULT 0, -- 1 receipt asked, 2 tombstone
  changes INTEGER NOT NULL DEFAULT 0, -- edits and recalls that reached the row
  content TEXT NULL,
  lists BLOB NULL, -- mentions and recipients, versioned
  reply_to INTEGER NULL,
  target_seq INTEGER NULL,
  edited_at INTEGER NULL,
  recalled_at INTEGER NULL,
  recalled_by INTEGER NULL,
  PRIMARY KEY (conversation_id, seq)
) WITHOUT ROWID, STRICT;
CREATE UNIQUE INDEX timeline_client ON timeline (conversation_id, sender_id, client_msg_id);


-- A row per mentioned user, user 0 for everybody.
CREATE TABLE mentions (
  user_id INTEGER NOT NULL,
  conversation_id BLOB NOT NULL,
  seq INTEGER NOT NULL,
  sender_id INTEGER NOT NULL,
  PRIMARY KEY (user_id, conversation_id, seq)
) WITHOUT ROWID, STRICT;


-- A row per addressee of a message that is addressed to a few; the sender has none.
CREATE TABLE addressed (
  user_id INTEGER NOT NULL,
  conversation_id BLOB NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (user_id, conversation_id, seq)
) WITHOUT ROWID, STRICT;


-- Countable messages that were recalled.
CREATE TABLE recalled (
  conversation_id BLOB NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (conversation_id, seq)
) WITHOUT ROWID, STRICT;


CREATE TABLE timeline_positions (
  partition_id INTEGER NOT NULL,
  messages_next INTEGER NOT NULL,
  inbound_next INTEGER NOT NULL,
  rejected_next INTEGER NOT NULL,
  highest_stamp INTEGER NOT NULL,
  batch_from INTEGER NOT NULL,
  marks_dirty INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (partition_id)
) WITHOUT ROWID, STRICT;


-- Positions of consumers that need nothing but the next offset: receipts, rejections.
CREATE TABLE consumer_positions (
  consumer TEXT NOT NULL,
  partition_id INTEGER NOT NULL,
  next_offset INTEGER NOT NULL,
  PRIMARY KEY (consumer, partition_id)
) WITHOUT ROWID, STRICT;


-- The archiver's intent: it inserts exactly this range, and repeats it until it is done.
CREATE TABLE archive_positions (
  topic TEXT NOT NULL,
  partition_id INTEGER NOT NULL,
  next_offset INTEGER NOT NULL,
  intent_to INTEGER NOT NULL DEFAULT 0, -- 0 for none: the range is next_offset up to intent_to, which does not belong to it
  version INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (topic, partition_id)
) WITHOUT ROWID, STRICT;


-- Records that a store could never take.
CREATE TABLE parked (
  topic TEXT NOT NULL,
  partition_id INTEGER NOT NULL,
  record_offset INTEGER NOT NULL,
  reason TEXT NOT NULL,
  record_key BLOB NOT NULL,
  record BLOB NOT NULL,
  parked_at INTEGER NOT NULL,
  PRIMARY KEY (topic, partition_id, record_offset)
) STRICT;


-- What became of commands that were refused, for a day.
CREATE TABLE rejections (
  conversation_id BLOB NOT NULL,
  sender_id INTEGER NOT NULL,
  client_msg_id BLOB NOT NULL,
  code TEXT NOT NULL,
  message TEXT NOT NULL,
  field TEXT NOT NULL,
  first_seq INTEGER NOT NULL DEFAULT 0,
  rejected_at INTEGER NOT NULL,
  PRIMARY KEY (conversation_id, sender_id, client_msg_id)
) WITHOUT ROWID, STRICT;
CREATE INDEX rejections_at ON rejections (rejected_at);


-- Who makes ids with which machine number.
CREATE TABLE machine_leases (
  machine_id INTEGER NOT NULL,
  holder TEXT NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (machine_id)
) WITHOUT ROWID, STRICT;
