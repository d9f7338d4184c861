-- +goose Up
-- Keys of usernames are compared byte for byte, as on SQLite: a text would be compared as if blanks at its end were not
-- there, so that "ada " found ada. Their longest form is a mark of one byte and 64 characters of four.
ALTER TABLE users MODIFY COLUMN username_key VARBINARY(264) NULL; -- NFKC with case folded; or \x01 and the name as it is
