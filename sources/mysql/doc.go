// Package mysql reads MySQL and MariaDB by their binlog.
//
// A [Source] opens one replication connection. go-mysql makes the connection and speaks the commands of
// the handshake; from the dump command on, this package reads the connection itself: go-mysql's
// BinlogSyncer allocates an event, a header and a copy of the bytes for each binlog event and passes them
// through a channel, where here packets are read in gulps into a few buffers, and rows are cut out of
// them and copied once, into the batch that they travel in (docs/performance.md has the figures).
//
// Where to begin:
//
//   - config.go, url.go: what it is told.
//   - connect.go, session.go: connection, TLS, session settings, what the server is.
//   - start.go, dump.go: where reading begins, the dump commands, packets.
//   - stream.go: the goroutines: one reads packets, one turns them into batches.
//   - reader.go, transaction.go, rows.go, query.go: what each event means.
//   - tables.go, catalogue.go: table shapes.
//   - position.go: resume tokens.
//   - snapshot.go, watermark.go: what snapshots need; internal/chunks reads the tables.
//   - check.go: what must be different on the server.
//
// Words: an *event* is one of the binlog; a *place* is where the stream stands: a GTID set, or a
// file and an offset in it.
package mysql
