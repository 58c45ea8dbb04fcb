// Package snapshot reads the existing rows of tables in chunks, between watermarks in the source's own log, and puts
// them into the stream so that order per key holds without a lock (DBLog, https://arxiv.org/abs/2010.12597).
//
// A chunk is read between two watermarks, low and high, which travel through the database's own log. What the
// stream changed between them is newer than what the chunk read, or as new: those rows are dropped from the chunk,
// the rest goes into the stream where the high watermark stands. Windows are counted in whole batches: from the one
// that holds low to the one that holds high; dropping a row that the stream brought a little earlier loses nothing.
package snapshot

import (
	"context"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// Database is what a source gives so that its tables can be read in chunks while its stream runs. Safe for
// concurrent use. Errors that trying again may cure are *pipeline.SourceError of class Transient; a *TableError
// ends the one table, its job goes on with the others. One that is an io.Closer is closed with each stream, and used
// again by the next.
type Database interface {
	// Tables returns those of the source's tables that match the globs, with what it takes to read them.
	Tables(ctx context.Context, globs []string) ([]Table, error)
	// Mark writes a watermark into the database's log: it comes back in the stream as Batch.Watermarks. On return
	// every transaction that stands before it in the log is visible to new reads, except those that Chunk.Unseen names.
	Mark(ctx context.Context, id string) error
	// Session takes a connection on which chunks are read, in a session whose settings are those of the stream.
	Session(ctx context.Context) (Session, error)
	// Key returns the key of a row image of shape t, from a chunk or from the stream, in the form that Query wants: opaque,
	// exact, the same after a restart. It may be had of an image in which only the identity's columns are present.
	Key(t *schemas.Table, image []byte) ([]byte, error)
	// Condition chooses the row of a key that Key gave, for Query.Where and for people.
	Condition(t *schemas.Table, key []byte) (string, error)
}

// Settler is the optional capability of a Database in which a transaction may stand in the log for long before reads
// see it (while it waits for a synchronous standby, or for a replica's answer; where commits are not in the log's order).
type Settler interface {
	// Settle returns when every transaction that stood in the log when it was called is visible to new reads.
	Settle(ctx context.Context) error
}

// Hurrier is the optional capability of a Database to write a watermark without waiting until it is durable.
type Hurrier interface {
	// MarkSoon is Mark, but the stream may bring the watermark no earlier than the next that Mark writes.
	MarkSoon(ctx context.Context, id string) error
}

// Cutter is the optional capability of a pipeline.Stream to end a batch, with its position, behind each transaction.
// Without it a table without a key that changes all the time may never be read.
type Cutter interface {
	// Cut holds for every transaction whose end is taken from the log after the call.
	Cut(on bool)
}

// Session reads chunks, one after the other. Not for concurrent use.
type Session interface {
	// Read fills c with what q asks for.
	Read(ctx context.Context, q Query, c *Chunk) error
	Close() error
}

// Table is one to be read.
type Table struct {
	// Schema and Name as the database has them.
	Schema, Name string
	// Key names the columns in whose order it is read; none: the table has no key that can be ordered, and is read
	// whole, in one consistent read. Why says so, for people.
	Key []string
	Why string
	// Estimate of the rows, 0 = unknown, and Width of one in bytes, about; 0 = unknown.
	Estimate, Width uint64
}

// Query is a chunk to read: rows of Table with After < key <= Until in the database's own order, in that order, at
// most Limit of them; or, with Keys, the rows of these keys alone.
type Query struct {
	Table Table
	// After and Until are keys as Database.Key gives them, and so are Keys; nil = from the first, to the last.
	After, Until []byte
	Keys         [][]byte
	// Where is the job's condition; empty = all rows.
	Where string
	Limit int
	// Bytes at which the reading ends though Limit is not reached, with at least one row; 0 = none.
	Bytes int
	// Scout asks for row number Limit behind After alone; none when there are fewer.
	Scout bool
	// Rest, for a table without a key: go on with the one consistent read that the last Read of this session began (its
	// Chunk said More). A Read without it begins anew. The read's place in the stream lies between the Marks before and
	// after its first Read: behind the last transaction that it saw (Chunk.Unseen). Where the database cannot tell
	// (Unseen is nil, or Unsure), it is known only if the stream brought nothing of the table between them.
	Rest bool
}

// Chunk is what was read: rows in the wire form of the stream, byte for byte what its images would be (JSON of MySQL
// aside), so that identity columns may be compared by their bytes. Its memory belongs to the caller and is used again.
type Chunk struct {
	// Shape of the rows, as the stream would describe it; a pointer that is stable while the shape is.
	Shape *schemas.Table
	// Rows are images in Arena, in the database's order.
	Arena []byte
	Rows  []pipeline.Span
	// Unseen reports of a transaction, by its Tx.ID, that this read did not see it; nil: it saw all that ended in the
	// log before low. When the stream had brought the end of such a one before low, its changes are in neither, and
	// the chunk is read again.
	Unseen func(id []byte) bool
	// Unsure: of some that this read did see Unseen says that it did not.
	Unsure bool
	// More: Limit or Bytes ended it.
	More bool
}

// Reset empties c and keeps its memory.
func (c *Chunk) Reset() { *c = Chunk{Arena: c.Arena[:0], Rows: c.Rows[:0]} }

// Row returns image i. It aliases the Arena.
func (c *Chunk) Row(i int) []byte {
	s := c.Rows[i]
	return c.Arena[s.Off : s.Off+s.Len : s.Off+s.Len]
}

// TableError ends the reading of one table.
type TableError struct {
	Code       string // "dropped", "no_right", "where", "shape", …
	What, Cure string
	Err        error
}

// Error returns what happened and the cure.
func (e *TableError) Error() string {
	s := e.What
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Cure != "" {
		s += "; " + e.Cure
	}
	return s
}

// Unwrap returns the cause.
func (e *TableError) Unwrap() error { return e.Err }
