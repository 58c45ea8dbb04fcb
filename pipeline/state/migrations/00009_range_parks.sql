-- +goose Up
ALTER TABLE parks ADD COLUMN of_range INTEGER NOT NULL DEFAULT 0;   -- no key, but all in [key, until)
ALTER TABLE parks ADD COLUMN until BLOB;                            -- NULL: to the end

-- +goose Down
-- A version without ranges that pause cannot hold them: what they held is lost. Redrive before (`leat redrive`).
DELETE FROM parks WHERE of_range;
ALTER TABLE parks DROP COLUMN until;
ALTER TABLE parks DROP COLUMN of_range;
