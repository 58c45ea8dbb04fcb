-- +goose Up
-- Counting dead letters reads no events.
CREATE INDEX dead_letters_count ON dead_letters (subscription);

-- +goose Down
DROP INDEX dead_letters_count;
