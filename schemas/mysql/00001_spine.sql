-- +goose Up
-- The spine: people, conversations, the timeline, and how far each writer has come.
-- Ids of conversations are 9 or 17 bytes (kind and one or two ids), times are milliseconds since 1970.

CREATE TABLE users (
  user_id BIGINT NOT NULL,
  username VARCHAR(64) NULL,
  username_key VARCHAR(64) NULL, -- folded to lower case
  nickname VARCHAR(100) NOT NULL,
  avatar_url VARCHAR(1024) NOT NULL DEFAULT '',
  password_hash VARCHAR(255) NULL,
  external_id VARBINARY(255) NULL, -- compared byte for byte
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (user_id),
  UNIQUE KEY users_username (username_key),
  UNIQUE KEY users_external (external_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE sessions (
  session_id BIGINT NOT NULL,
  user_id BIGINT NOT NULL,
  device_id VARCHAR(128) NOT NULL,
  platform VARCHAR(16) NOT NULL,
  refresh_hash BINARY(32) NOT NULL, -- SHA-256 of the refresh token
  previous_hash BINARY(32) NULL, -- of the one before: its use betrays a theft
  created_at BIGINT NOT NULL,
  refreshed_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  revoked_at BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (session_id),
  UNIQUE KEY sessions_refresh (refresh_hash),
  KEY sessions_previous (previous_hash),
  KEY sessions_user (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- A group's id, before its first event.
CREATE TABLE group_reservations (
  creator_id BIGINT NOT NULL,
  client_msg_id VARBINARY(64) NOT NULL,
  group_id BIGINT NOT NULL,
  body_hash BINARY(16) NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (creator_id, client_msg_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE conversations (
  conversation_id VARBINARY(17) NOT NULL,
  partition_id INT NOT NULL,
  max_seq BIGINT NOT NULL,
  ordinal BIGINT NOT NULL, -- countable messages up to max_seq
  max_recalled_seq BIGINT NOT NULL DEFAULT 0,
  max_addressed_seq BIGINT NOT NULL DEFAULT 0,
  max_mention_seq BIGINT NOT NULL DEFAULT 0,
  name VARCHAR(100) NOT NULL DEFAULT '',
  avatar_url VARCHAR(1024) NOT NULL DEFAULT '',
  owner_id BIGINT NOT NULL DEFAULT 0,
  history_visible TINYINT NOT NULL DEFAULT 0,
  member_count INT NOT NULL DEFAULT 0,
  dissolved_seq BIGINT NOT NULL DEFAULT 0,
  created_at BIGINT NOT NULL,
  last_at BIGINT NOT NULL,
  last_offset BIGINT NOT NULL, -- in im.messages
  PRIMARY KEY (conversation_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE members (
  conversation_id VARBINARY(17) NOT NULL,
  user_id BIGINT NOT NULL,
  role TINYINT NOT NULL DEFAULT 1, -- 1 member, 2 admin, 3 owner
  join_seq BIGINT NOT NULL,
  left_seq BIGINT NOT NULL DEFAULT 0, -- 0 while a member
  muted_until BIGINT NOT NULL DEFAULT 0,
  nickname VARCHAR(100) NOT NULL DEFAULT '',
  changed_seq BIGINT NOT NULL,
  changed_offset BIGINT NOT NULL,
  read_seq BIGINT NOT NULL DEFAULT 0,
  read_ordinal BIGINT NOT NULL DEFAULT 0,
  read_offset BIGINT NOT NULL DEFAULT -1, -- in im.receipts
  PRIMARY KEY (conversation_id, user_id),
  KEY members_user (user_id, conversation_id),
  KEY members_read (conversation_id, left_seq, read_seq, join_seq) -- who has read a message
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- One row per event, whatever the number of members.
CREATE TABLE timeline (
  conversation_id VARBINARY(17) NOT NULL,
  seq BIGINT NOT NULL,
  ordinal BIGINT NOT NULL,
  kind TINYINT UNSIGNED NOT NULL,
  message_id BIGINT NOT NULL,
  sender_id BIGINT NOT NULL,
  client_msg_id VARBINARY(65) NULL, -- a tag byte, then 16 bytes of a UUID or the text; NULL on tombstones
  body_hash BINARY(16) NOT NULL,
  sent_at BIGINT NOT NULL,
  msg_type TINYINT UNSIGNED NOT NULL DEFAULT 0, -- 1 text, 2 custom, 3 notice
  flags TINYINT UNSIGNED NOT NULL DEFAULT 0, -- 1 receipt asked, 2 tombstone
  changes INT NOT NULL DEFAULT 0, -- edits and recalls that reached the row
  content MEDIUMTEXT NULL,
  lists VARBINARY(4096) NULL, -- mentions and recipients, versioned
  reply_to BIGINT NULL,
  target_seq BIGINT NULL,
  edited_at BIGINT NULL,
  recalled_at BIGINT NULL,
  recalled_by BIGINT NULL,
  PRIMARY KEY (conversation_id, seq),
  UNIQUE KEY timeline_client (conversation_id, sender_id, client_msg_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- A row per mentioned user, user 0 for everybody.
CREATE TABLE mentions (
  user_id BIGINT NOT NULL,
  conversation_id VARBINARY(17) NOT NULL,
  seq BIGINT NOT NULL,
  sender_id BIGINT NOT NULL,
  PRIMARY KEY (user_id, conversation_id, seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- A row per addressee of a message that is addressed to a few; the sender has none.
CREATE TABLE addressed (
  user_id BIGINT NOT NULL,
  conversation_id VARBINARY(17) NOT NULL,
  seq BIGINT NOT NULL,
  PRIMARY KEY (user_id, conversation_id, seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Countable messages that were recalled.
CREATE TABLE recalled (
  conversation_id VARBINARY(17) NOT NULL,
  seq BIGINT NOT NULL,
  PRIMARY KEY (conversation_id, seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE timeline_positions (
  partition_id INT NOT NULL,
  messages_next BIGINT NOT NULL,
  inbound_next BIGINT NOT NULL,
  rejected_next BIGINT NOT NULL,
  highest_stamp BIGINT NOT NULL,
  batch_from BIGINT NOT NULL,
  marks_dirty TINYINT NOT NULL DEFAULT 0,
  PRIMARY KEY (partition_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Positions of consumers that need nothing but the next offset: receipts, rejections.
CREATE TABLE consumer_positions (
  consumer VARCHAR(32) NOT NULL,
  partition_id INT NOT NULL,
  next_offset BIGINT NOT NULL,
  PRIMARY KEY (consumer, partition_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- The archiver's intent: it inserts exactly this range, and repeats it until it is done.
CREATE TABLE archive_positions (
  topic VARCHAR(32) NOT NULL,
  partition_id INT NOT NULL,
  next_offset BIGINT NOT NULL,
  intent_to BIGINT NOT NULL DEFAULT 0, -- 0 for none: the range is next_offset up to intent_to, which does not belong to it
  version BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (topic, partition_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Records that a store could never take.
CREATE TABLE parked (
  topic VARCHAR(32) NOT NULL,
  partition_id INT NOT NULL,
  record_offset BIGINT NOT NULL,
  reason VARCHAR(1024) NOT NULL,
  record_key VARBINARY(128) NOT NULL,
  record LONGBLOB NOT NULL,
  parked_at BIGINT NOT NULL,
  PRIMARY KEY (topic, partition_id, record_offset)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- What became of commands that were refused, for a day.
CREATE TABLE rejections (
  conversation_id VARBINARY(17) NOT NULL,
  sender_id BIGINT NOT NULL,
  client_msg_id VARBINARY(65) NOT NULL,
  code VARCHAR(40) NOT NULL,
  message VARCHAR(512) NOT NULL,
  field VARCHAR(128) NOT NULL,
  first_seq BIGINT NOT NULL DEFAULT 0,
  rejected_at BIGINT NOT NULL,
  PRIMARY KEY (conversation_id, sender_id, client_msg_id),
  KEY rejections_at (rejected_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Who makes ids with which machine number.
CREATE TABLE machine_leases (
  machine_id INT NOT NULL,
  holder VARCHAR(64) NOT NULL,
  expires_at BIGINT NOT NULL,
  PRIMARY KEY (machine_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
