-- +goose Up
CREATE TABLE parks (
    subscription TEXT NOT NULL,
    hash         INTEGER NOT NULL,          -- of space and key, as in the log
    single       INTEGER NOT NULL,          -- the offset, when only that event is held; else 0
    log          TEXT NOT NULL,             -- UUID
    from_offset  INTEGER NOT NULL,
    space        TEXT NOT NULL,
    key          BLOB,
    key_json     TEXT NOT NULL,
    pair         INTEGER,                   -- hash of the key whose delete it waits for
    reason       TEXT NOT NULL,
    attempts     INTEGER NOT NULL,
    since        INTEGER NOT NULL,          -- microseconds since 1970
    redrive      INTEGER NOT NULL,          -- 1 = to be delivered again
    PRIMARY KEY (subscription, hash, single)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE parks;
