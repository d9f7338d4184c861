-- +goose Up
-- What bounds groups: how many a person is a member of, and how many a person created within the last hour.
CREATE INDEX members_present ON members (user_id, left_seq, conversation_id);

-- 1: created over HTTP by the creator; 0: reserved by an administrator, or before this step.
ALTER TABLE group_reservations ADD COLUMN counted INTEGER NOT NULL DEFAULT 0;
CREATE INDEX group_reservations_counted ON group_reservations (creator_id, counted, created_at);
