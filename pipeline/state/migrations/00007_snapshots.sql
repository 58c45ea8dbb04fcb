-- +goose Up
CREATE TABLE snapshots (
    id       TEXT PRIMARY KEY,          -- [a-z0-9]+, never given out again
    source   TEXT NOT NULL,
    log      TEXT NOT NULL,             -- UUID
    for_one  TEXT NOT NULL,             -- subscription; '' = all
    cause    TEXT NOT NULL,             -- initial, new, laggard, backfill
    tables   TEXT NOT NULL,             -- JSON array of globs
    filter   TEXT NOT NULL,             -- the database's own language
    after    INTEGER NOT NULL,          -- offset
    state    TEXT NOT NULL,
    reason   TEXT NOT NULL,
    progress TEXT NOT NULL,             -- JSON array of pipeline.TableProgress
    created  INTEGER NOT NULL,          -- microseconds since 1970
    ended    INTEGER NOT NULL,          -- the same; 0 = not yet
    owner    TEXT NOT NULL
) STRICT;
CREATE INDEX snapshots_source ON snapshots (source, created);

-- +goose Down
DROP TABLE snapshots;
