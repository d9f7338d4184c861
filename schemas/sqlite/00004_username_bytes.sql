-- +goose Up
-- Keys of usernames are compared byte for byte here already; the step keeps the numbers those of MySQL.
SELECT 1;
