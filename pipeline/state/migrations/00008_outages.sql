-- +goose Up
ALTER TABLE parks ADD COLUMN spent INTEGER NOT NULL DEFAULT 0;      -- of attempts, not of a refusal for good
ALTER TABLE cursors ADD COLUMN worked INTEGER NOT NULL DEFAULT 0;   -- microseconds since 1970; 0 = not known

-- +goose Down
ALTER TABLE cursors DROP COLUMN worked;
ALTER TABLE parks DROP COLUMN spent;
