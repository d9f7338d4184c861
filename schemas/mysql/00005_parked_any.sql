-- +goose Up
-- A record that cannot be stored may have any key and any value, or none. What it says of itself is kept beside it, and the
-- kind of an event that no process knew, so that a version that knows it finds it.
ALTER TABLE parked
  MODIFY COLUMN record_key LONGBLOB NULL, -- NULL: the record has no key
  MODIFY COLUMN record LONGBLOB NULL, -- NULL: the record has no value
  ADD COLUMN conversation_id VARBINARY(17) NULL,
  ADD COLUMN seq BIGINT NOT NULL DEFAULT 0, -- 0: it is not known
  ADD COLUMN kind SMALLINT NOT NULL DEFAULT 0; -- 0: parked for another reason
