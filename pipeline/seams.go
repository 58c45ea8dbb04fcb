package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/schemas"
)

// Source is a database (or another origin of events) that can be read from a position on.
type Source interface {
	// Open connects, checks that the stream can go on exactly after `after` (the zero Position: where the
	// configuration says that reading begins the first time) and starts it. It may block for connecting,
	// bounded by ctx. A *SourceError tells whether trying again can help. At most one Stream is open at a time.
	Open(ctx context.Context, after Position) (Stream, error)
}

// Stream is one connection's worth of changes, in commit order.
type Stream interface {
	// Next blocks until there is something and returns a batch that now belongs to the caller (one
	// reference). Tables in it come without ID, Version, Routing, KeySpace; events without Key and Hash; a
	// row that changed its key is one OpUpdate. Batches grow with what the socket holds; an idle source
	// yields positions (a batch without events) at most once per status interval. After an error the
	// stream is only good for Close. Not for concurrent use.
	Next(ctx context.Context) (*Batch, error)
	// Confirm says that everything up to and including p is durable in our log. It never blocks and may be
	// called from another goroutine than Next; calls with an older p are ignored. The stream tells the
	// server when it next reports, also while nobody calls Next.
	Confirm(p Position)
	// Close ends the connection and joins the stream's goroutines. Idempotent.
	Close() error
}

// Spiller is the optional capability of a Stream whose transactions come while they run to have the database keep one
// until its commit.
type Spiller interface {
	// Spill returns why the stream is to be closed and opened again: then the transaction of that name (Batch.Open)
	// comes at its commit, as do those beside it. Nil: it has ended, or comes in no other way. Not beside Next.
	Spill(open string) error
}

// ErrorClass says what can be done about an error of a source.
type ErrorClass uint8

const (
	// Transient: try again with backoff (connection lost, server starting).
	Transient ErrorClass = iota
	// Stopped: a person has to act; trying again changes nothing (slot lost, binlog purged, no right).
	Stopped
)

// SourceError is an error of a source with what to do about it.
type SourceError struct {
	Class ErrorClass
	// Code is stable, for scripts and tests: "slot_missing", "slot_active", "slot_lost", "binlog_purged", …
	Code string
	// What happened, and Cure: what to do, with the command or statement where there is one.
	What, Cure string
	Err        error
}

// Error returns what happened and the cure.
func (e *SourceError) Error() string {
	s := e.What
	if e.Err != nil {
		s = fmt.Sprintf("%s: %v", s, e.Err)
	}
	if e.Cure != "" {
		s += "; " + e.Cure
	}
	return s
}

// Unwrap returns the cause.
func (e *SourceError) Unwrap() error { return e.Err }

// BringRows is the cure where rows changed, or were there before, that no event brings.
const BringRows = "bring the rows with leat backfill SUBSCRIPTION --table TABLE, for each subscription"

// Finding is one result of a check of a source or sink.
type Finding struct {
	// Level: "error" (it will not work), "warning" (it will work, but), "info".
	Level string `json:"level"`
	Code  string `json:"code"`
	// Place: table, setting, file:line:column.
	Place string `json:"place,omitempty"`
	What  string `json:"what"`
	Cure  string `json:"cure,omitempty"`
}

// Synced is how far a log is durable.
type Synced struct {
	// Ticket of the last durable Append.
	Ticket uint64
	// Next is the offset that the next visible event will get: everything below is durable and visible.
	Next Offset
	// End is the last durable End position.
	End Position
}

// Log is an ordered, durable record of batches. One writer, many readers.
type Log interface {
	// ID is the log's UUID: a cursor of another log is no cursor of this one.
	ID() string
	// Append gives the batch its Base and queues it for the disk; it takes over the caller's reference.
	// It blocks while the queue is over its bound (also while the disk is full). Not durable yet: see
	// Synced. An error means that the log takes nothing more until it is opened again. Not concurrent.
	Append(ctx context.Context, b *Batch) (ticket uint64, err error)
	// Synced blocks until a ticket above `after` is durable and returns how far the log is. It returns
	// an error when the log failed: nothing later will become durable.
	Synced(ctx context.Context, after uint64) (Synced, error)
	// Read returns a reader from the first event at or above from. ErrBeyondTail, *TruncatedError.
	Read(from Offset) (LogReader, error)
	// Bounds: oldest is the first offset kept, next the one that the next visible event will get.
	Bounds() (oldest, next Offset)
	// At returns the first offset whose transaction committed at or after t, by running maximum; next
	// when there is none.
	At(ctx context.Context, t time.Time) (Offset, error)
	// Last is the End of the last durable batch that had one: where the source resumes.
	Last() Position
	// Tables returns the newest version of every table that the log knows; Notices what is in force
	// (quarantines, gaps).
	Tables() []*schemas.Table
	Notices() []Notice
	// Ranges returns what is known of the key spaces' ranges: a statement of each map in force at the oldest
	// offset kept (an entry without Closed), then each durable change behind it, in log order. Spaces that are
	// not named were never split. The slice must not be changed.
	Ranges() []RangeAt
	// Snapshots returns the last durable mark of each snapshot job, folded (FoldMarks): those under way and the
	// newest that ended. The marks must not be changed.
	Snapshots() []SnapshotMark
	// Floor tells retention that offsets at or above o are still wanted. Never blocks.
	Floor(o Offset)
	// Close syncs, ends readers with ErrClosed and joins. Idempotent.
	Close() error
}

// PreparedKeeper is the optional capability of a Log to keep the chunks of prepared transactions (BatchPrepared).
type PreparedKeeper interface {
	// Prepared returns the names (Batch.Open) of those that wait for their end, sorted. Never blocks for long.
	Prepared() []string
}

// LogReader is one subscriber's way through a log. Not for concurrent use, except Close.
type LogReader interface {
	// Next blocks until there is a durable batch at the read position and returns it with a reference
	// for the caller. The first batch may begin below the position asked for. Batches without
	// events are passed over, but those with notices or
	// changes of ranges are not. *TruncatedError when retention overtook it.
	Next(ctx context.Context) (*Batch, error)
	// Close frees what the reader holds and wakes a blocked Next with ErrClosed. Idempotent.
	Close() error
}

// Tailing is the optional capability of a LogReader to tell whether it keeps up.
type Tailing interface {
	// Behind reports whether the last batch came from the disk: not from what all who keep up share in memory.
	Behind() bool
}

var (
	// ErrClosed: the log, reader or sink was closed.
	ErrClosed = errors.New("closed")
	// ErrBeyondTail: an offset that this log has not given out: the data folder was restored or replaced.
	ErrBeyondTail = errors.New("offset lies beyond the end of the log")
)

// TruncatedError: retention has removed what was asked for.
type TruncatedError struct{ Asked, Oldest Offset }

// Error names both offsets.
func (e *TruncatedError) Error() string {
	return fmt.Sprintf("offset %d is older than the log keeps (oldest %d)", e.Asked, e.Oldest)
}

// Cursor is where a subscription stands in a log. Everything below Low is done; what of [Low, High) is
// not done is listed in Pending, in order.
type Cursor struct {
	Log       string
	Low, High Offset
	Pending   []OffsetRange
	// Resolved is the highest value that was ever told to the subscriber: it never goes back.
	Resolved Offset
	// Worked is when the endpoint last showed that it is there; zero: not known that it ever did.
	Worked time.Time
}

// Cursors keeps them. Durable when Save returns.
type Cursors interface {
	// Load returns the subscription's cursor, ok false when there is none yet.
	Load(ctx context.Context, subscription string) (c Cursor, ok bool, err error)
	// Save replaces the cursor. A Low or Resolved below the stored one of the same log is refused.
	Save(ctx context.Context, subscription string, c Cursor) error
}

// DeadLetter is an event that was given up on.
type DeadLetter struct {
	Subscription string    `json:"subscription"`
	ID           string    `json:"id"`
	Offset       Offset    `json:"offset"`
	Table        string    `json:"table"`
	Key          []byte    `json:"-"`
	KeyJSON      string    `json:"key"`
	Reason       string    `json:"reason"`
	Attempts     []Attempt `json:"attempts"`
	// Event is the event as it would have been sent, as JSON.
	Event []byte    `json:"event,omitempty"`
	Time  time.Time `json:"time"`
}

// Attempt is one try to deliver.
type Attempt struct {
	Time   time.Time     `json:"time"`
	Took   time.Duration `json:"took"`
	Reason string        `json:"reason"`
}

// Skip is a stretch of a log that a subscription left out on purpose.
type Skip struct {
	Subscription string        `json:"subscription"`
	Ranges       []OffsetRange `json:"ranges"`
	Reason       string        `json:"reason"`
	Time         time.Time     `json:"time"`
}
