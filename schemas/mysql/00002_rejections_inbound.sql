-- +goose Up
-- Where a refused command stood in im.inbound: who waits for the outcome of a record knows by that whether it is its own.
ALTER TABLE rejections
  ADD COLUMN inbound_partition INT NOT NULL DEFAULT -1, -- -1: refused before this step
  ADD COLUMN inbound_offset BIGINT NOT NULL DEFAULT -1;
