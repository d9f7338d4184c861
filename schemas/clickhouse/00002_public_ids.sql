-- +goose Up
-- What analysts may see by name: the id of a conversation that is not private, else the empty string. It is a column of its
-- own so that their views never touch the id of a private conversation, and so that a question about one group
-- reads that group alone: the index follows the order of the table.
ALTER TABLE messages ADD COLUMN IF NOT EXISTS public_id String MATERIALIZED if(startsWith(conversation_id, 'g-') OR startsWith(conversation_id, 't-') OR conversation_id = 's-all', conversation_id, '');
ALTER TABLE messages ADD INDEX IF NOT EXISTS by_public_id public_id TYPE minmax GRANULARITY 1;
ALTER TABLE messages MATERIALIZE COLUMN public_id;
ALTER TABLE messages MATERIALIZE INDEX by_public_id;
ALTER TABLE read_marks ADD COLUMN IF NOT EXISTS public_id String MATERIALIZED if(startsWith(conversation_id, 'g-') OR startsWith(conversation_id, 't-') OR conversation_id = 's-all', conversation_id, '');
ALTER TABLE read_marks ADD INDEX IF NOT EXISTS by_public_id public_id TYPE minmax GRANULARITY 1;
ALTER TABLE read_marks MATERIALIZE COLUMN public_id;
ALTER TABLE read_marks MATERIALIZE INDEX by_public_id;

-- The key of the ids under which analysts see private conversations: one row, which `tideline migrate` makes. It is in a
-- table, so that neither the definition of a view nor the plan of a statement contains it.
CREATE TABLE IF NOT EXISTS analysis_key (
  k0 UInt64,
  k1 UInt64,
  made_at DateTime64(3, 'UTC')
) ENGINE = MergeTree ORDER BY (made_at, k0)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
