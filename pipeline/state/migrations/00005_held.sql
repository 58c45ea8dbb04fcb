-- +goose Up
ALTER TABLE parks ADD COLUMN copied INTEGER NOT NULL DEFAULT 0;

-- Copies of what parks hold, made before retention takes it from the log.
CREATE TABLE held (
    subscription TEXT NOT NULL,
    offset       INTEGER NOT NULL,
    hash         INTEGER NOT NULL,          -- of its park, as is single
    single       INTEGER NOT NULL,
    log          TEXT NOT NULL,
    block        BLOB NOT NULL,             -- in the log's format
    PRIMARY KEY (subscription, offset)
) STRICT, WITHOUT ROWID;
CREATE INDEX held_park ON held (subscription, hash, single);

CREATE TABLE held_tables (
    log     TEXT NOT NULL,
    id      INTEGER NOT NULL,
    version INTEGER NOT NULL,
    shape   BLOB NOT NULL,
    PRIMARY KEY (log, id, version)
) STRICT, WITHOUT ROWID;

-- +goose StatementBegin
CREATE TRIGGER held_with_park AFTER DELETE ON parks BEGIN
    DELETE FROM held WHERE subscription = old.subscription AND hash = old.hash AND single = old.single;
END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER held_with_park;
DROP TABLE held_tables;
DROP TABLE held;
ALTER TABLE parks DROP COLUMN copied;
