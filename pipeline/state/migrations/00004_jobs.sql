-- +goose Up
CREATE TABLE jobs (
    id           TEXT PRIMARY KEY,      -- [a-z0-9]+, never given out again
    subscription TEXT NOT NULL,
    source       TEXT NOT NULL,
    log          TEXT NOT NULL,         -- UUID
    kind         TEXT NOT NULL,         -- aside, fenced, rewind
    from_offset  INTEGER NOT NULL,
    to_offset    INTEGER NOT NULL,
    scope        TEXT NOT NULL,         -- JSON
    state        TEXT NOT NULL,
    reason       TEXT NOT NULL,
    at           INTEGER NOT NULL,      -- all of the window below was delivered
    high         INTEGER NOT NULL,
    pending      TEXT NOT NULL,         -- JSON: [[from,to],…]
    live         INTEGER NOT NULL,
    stop         INTEGER NOT NULL,
    done         INTEGER NOT NULL,      -- events
    total        INTEGER NOT NULL,
    dead         INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    created      INTEGER NOT NULL,      -- microseconds since 1970
    ended        INTEGER NOT NULL,      -- the same; 0 = not yet
    owner        TEXT NOT NULL
) STRICT;
CREATE INDEX jobs_subscription ON jobs (subscription, created);

-- +goose Down
DROP TABLE jobs;
