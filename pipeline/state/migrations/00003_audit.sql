-- +goose Up
ALTER TABLE audit ADD COLUMN arguments TEXT NOT NULL DEFAULT '{}';    -- JSON object, without secrets
ALTER TABLE audit ADD COLUMN outcome   TEXT NOT NULL DEFAULT 'done';  -- done, refused, failed
CREATE INDEX audit_time ON audit (time);

CREATE TABLE throttles (
    name   TEXT NOT NULL,               -- of a source or subscription
    ratio  REAL NOT NULL,               -- share of the full speed that is left
    reason TEXT NOT NULL,
    owner  TEXT NOT NULL,
    since  INTEGER NOT NULL,            -- microseconds since 1970
    until  INTEGER NOT NULL,            -- the same; 0 = until it is ended
    PRIMARY KEY (name)
) STRICT;

-- +goose Down
DROP TABLE throttles;
DROP INDEX audit_time;
ALTER TABLE audit DROP COLUMN outcome;
ALTER TABLE audit DROP COLUMN arguments;
