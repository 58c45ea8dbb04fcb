-- +goose Up
CREATE TABLE sources (
    name    TEXT PRIMARY KEY,
    log     TEXT NOT NULL,              -- UUID of its log
    spec    TEXT NOT NULL,              -- what the file said when it was last named there, without secrets
    seen    INTEGER NOT NULL            -- microseconds since 1970
) STRICT;

CREATE TABLE subscriptions (
    name    TEXT PRIMARY KEY,
    source  TEXT NOT NULL,
    spec    TEXT NOT NULL,
    created INTEGER NOT NULL,
    paused  INTEGER NOT NULL DEFAULT 0, -- 1 = paused
    reason  TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE cursors (
    subscription TEXT PRIMARY KEY,
    log          TEXT NOT NULL,
    low          INTEGER NOT NULL,
    high         INTEGER NOT NULL,
    resolved     INTEGER NOT NULL,
    pending      TEXT NOT NULL,         -- JSON: [[from,to],…]
    saved        INTEGER NOT NULL
) STRICT;

CREATE TABLE dead_letters (
    subscription TEXT NOT NULL,
    offset       INTEGER NOT NULL,
    id           TEXT NOT NULL,
    tab          TEXT NOT NULL,
    key          BLOB,
    key_json     TEXT NOT NULL,
    reason       TEXT NOT NULL,
    attempts     TEXT NOT NULL,         -- JSON
    event        BLOB,                  -- JSON of the event as it would have been sent
    time         INTEGER NOT NULL,
    PRIMARY KEY (subscription, offset)
) STRICT, WITHOUT ROWID;

CREATE TABLE skips (
    id           INTEGER PRIMARY KEY,
    subscription TEXT NOT NULL,
    from_offset  INTEGER NOT NULL,
    to_offset    INTEGER NOT NULL,
    reason       TEXT NOT NULL,
    time         INTEGER NOT NULL,
    UNIQUE (subscription, from_offset, to_offset)
) STRICT;

CREATE TABLE audit (
    id     INTEGER PRIMARY KEY,
    time   INTEGER NOT NULL,
    actor  TEXT NOT NULL,
    action TEXT NOT NULL,
    name   TEXT NOT NULL,               -- of the source or subscription
    detail TEXT NOT NULL
) STRICT;

-- +goose Down
DROP TABLE audit;
DROP TABLE skips;
DROP TABLE dead_letters;
DROP TABLE cursors;
DROP TABLE subscriptions;
DROP TABLE sources;
