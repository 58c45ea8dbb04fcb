-- +goose Up
-- Versions of the subjects of the schema registry.
CREATE TABLE schema_versions (
    subject TEXT NOT NULL,
    version INTEGER NOT NULL,           -- from 1 within the subject
    id      INTEGER NOT NULL,           -- the schema's: the same under every subject
    format  TEXT NOT NULL,              -- AVRO, PROTOBUF, JSON
    text    TEXT NOT NULL,
    created INTEGER NOT NULL,           -- microseconds since 1970
    PRIMARY KEY (subject, version)
) STRICT;

-- +goose Down
DROP TABLE schema_versions;
