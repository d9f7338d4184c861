-- +goose Up
-- What bounds groups: how many a person is a member of, and how many a person created within the last hour.
ALTER TABLE members
  ADD KEY members_present (user_id, left_seq, conversation_id);

ALTER TABLE group_reservations
  ADD COLUMN counted TINYINT NOT NULL DEFAULT 0, -- 1: created over HTTP by the creator; 0: reserved by an administrator, or before this step
  ADD KEY group_reservations_counted (creator_id, counted, created_at);
