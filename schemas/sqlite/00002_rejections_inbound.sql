-- +goose Up
-- Where a refused command stood in im.inbound: who waits for the outcome of a record knows by that whether it is its own.
-- -1: refused before this step.
ALTER TABLE rejections ADD COLUMN inbound_partition INTEGER NOT NULL DEFAULT -1;
ALTER TABLE rejections ADD COLUMN inbound_offset INTEGER NOT NULL DEFAULT -1;
