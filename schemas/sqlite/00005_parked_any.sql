-- +goose Up
-- A record that cannot be stored may have any key and any value, or none. What it says of itself is kept beside it, and the
-- kind of an event that no process knew, so that a version that knows it finds it.
CREATE TABLE parked_any (
  topic TEXT NOT NULL,
  partition_id INTEGER NOT NULL,
  record_offset INTEGER NOT NULL,
  reason TEXT NOT NULL,
  record_key BLOB, -- NULL: the record has no key
  record BLOB, -- NULL: the record has no value
  parked_at INTEGER NOT NULL,
  conversation_id BLOB,
  seq INTEGER NOT NULL DEFAULT 0, -- 0: it is not known
  kind INTEGER NOT NULL DEFAULT 0, -- 0: parked for another reason
  PRIMARY KEY (topic, partition_id, record_offset)
) STRICT;
INSERT INTO parked_any (topic, partition_id, record_offset, reason, record_key, record, parked_at)
SELECT topic, partition_id, record_offset, reason, record_key, record, parked_at FROM parked;
DROP TABLE parked;
ALTER TABLE parked_any RENAME TO parked;
