-- +goose Up
ALTER TABLE parks ADD COLUMN of_range INTEGER NOT NULL DEFAULT 0;   -- no key, but all in [key, until)
ALTER TABLE parks ADD COLUMN until BLOB;                            -- NULL: to the end

-- +goose Down
DELETE FROM parks WHERE of_range;
ALTER TABLE parks DROP COLUMN until;
ALTER TABLE parks DROP COLUMN of_range;
