// Package pipeline holds the words of the way that a change travels, and the seams between its parts.
//
//	Source → Stream → ingest → Log → deliver → Sink
//
// A [Source] is read once; its [Stream] hands over [Batch]es. Ingest gives each event its key and
// appends the batch to the [Log], which gives each event its [Offset] and makes it durable; only then
// the source is told ([Stream.Confirm]) and only then a subscriber sees it. A subscription reads the
// log at its own pace and hands [Delivery]s to its [Sink]; what the sink acknowledged moves the
// subscription's [Cursor].
//
// This package imports no machinery: every other package of pipeline, sources and sinks imports it.
package pipeline

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/leat-cdc/leat/schemas"
)

// Offset is the log's own position of an event: dense within one log, never handed out twice, the
// `sequence` that subscribers see. A log's first offset is the Unix second of its creation × 2²⁰.
type Offset uint64

// String returns the offset in decimal.
func (o Offset) String() string { return strconv.FormatUint(uint64(o), 10) }

// FirstOffset returns the first offset of a log created at t.
func FirstOffset(t time.Time) Offset { return Offset(uint64(t.Unix()) << 20) }

// EventID is the id of the event at o in the log of the named source: stable through retries,
// restarts and replays.
func EventID(source string, o Offset) string { return source + "-" + o.String() }

// ParseEventID splits an event id into source and offset.
func ParseEventID(id string) (source string, o Offset, err error) {
	i := strings.LastIndexByte(id, '-')
	if i > 0 {
		n, perr := strconv.ParseUint(id[i+1:], 10, 64)
		if perr == nil && n < math.MaxUint64 { // the place after it has to be a number too
			return id[:i], Offset(n), nil
		}
	}
	return "", 0, fmt.Errorf("event id %q: want SOURCE-OFFSET", id)
}

// OffsetRange is [From, To).
type OffsetRange struct{ From, To Offset }

// Position is where a source stands: a counter of our own for order, which never goes back within
// one log, and a resume token that only its source reads (GTID set, LSN). The zero Position means
// "nowhere yet". Tokens of failed-over servers have no order: order is the counter's.
type Position struct {
	Counter uint64
	Token   string
}

// Zero reports whether p names no place.
func (p Position) Zero() bool { return p.Counter == 0 && p.Token == "" }

// accepted begins the token of a position that a person put in the place of one that was lost.
const accepted = "anew "

// Anew is the position behind p that stands for "wherever the source can begin now", with as little lost as it can.
func (p Position) Anew() Position {
	if _, ok := p.Lost(); ok {
		return Position{Counter: p.Counter + 1, Token: p.Token}
	}
	return Position{Counter: p.Counter + 1, Token: accepted + p.Token}
}

// Lost returns the token that Anew has replaced; ok is false for any other position.
func (p Position) Lost() (token string, ok bool) { return strings.CutPrefix(p.Token, accepted) }

// Begins reports whether reading begins here rather than goes on: p is zero, or from Anew.
func (p Position) Begins() bool {
	_, ok := p.Lost()
	return ok || p.Zero()
}

// Op is what an event says happened. The numbers stand in the log's format: never reuse one.
type Op uint8

const (
	OpNone     Op = 0
	OpInsert   Op = 1
	OpUpdate   Op = 2
	OpDelete   Op = 3
	OpSnapshot Op = 4 // a row of a snapshot or backfill
	OpTruncate Op = 5
	OpSchema   Op = 6 // a table's shape changed; After is the JSON of a SchemaChange
	OpMessage  Op = 7 // a logical message: Before = prefix, After = content
)

var opNames = [...]string{"none", "insert", "update", "delete", "snapshot", "truncate", "schema", "message"}

// String is the op's name as subscribers see it.
func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return "op" + strconv.Itoa(int(o))
}

// Row reports whether the op is about one row, with images.
func (o Op) Row() bool { return o >= OpInsert && o <= OpSnapshot }

// Barrier reports whether the op is table-wide: everything earlier of its table is done first, then
// the event, then what follows.
func (o Op) Barrier() bool { return o == OpTruncate || o == OpSchema }

// Flags of an event. The bits stand in the log's format: never reuse one.
type Flags uint8

const (
	// FlagKeyChange: half of an update that changed identity or routing key: a delete, and the insert
	// right behind it (offset + 1). Both halves carry both images.
	FlagKeyChange Flags = 1 << 0
)

// Span is a piece of a batch's Arena. A Len of NoSpan means "there is none" (an empty text has Len 0).
type Span struct{ Off, Len uint32 }

// NoSpan is the Len of a span that is not there.
const NoSpan = ^uint32(0)

// Nowhere is the span that is not there.
var Nowhere = Span{Len: NoSpan}

// Present reports whether there is something, even if empty.
func (s Span) Present() bool { return s.Len != NoSpan }

// Event is one change: offsets into its Batch, nothing of its own. Its Offset is the batch's Base plus
// its index.
type Event struct {
	Op    Op
	Flags Flags
	// Table is the index into Batch.Tables; of messages it is NoTable.
	Table uint16
	// Tx is the index into Batch.Txs.
	Tx uint32
	// Hash is the hash of key space and routing key: equal keys hash equal; a collision only delays.
	Hash uint64
	// Key is the routing key, encoded so that order of bytes is order of keys (partition.AppendKey);
	// empty for the one key of a table without a key, Nowhere for events without one.
	Key Span
	// Before and After are row images in the table's wire form; Nowhere where the operation has none.
	Before, After Span
}

// NoTable is the Event.Table of events that belong to no table.
const NoTable = ^uint16(0)

// MaxTables is how many table versions one batch may speak of.
const MaxTables = 1 << 12

// Tx is one transaction of the source, or the part of it that stands in a batch.
type Tx struct {
	// ID is the source's name for it (xid, GTID); Position is its place as subscribers see it
	// (end LSN of the commit, GTID, file:position). Both are text in the Arena.
	ID, Position Span
	// Time of the commit, microseconds since 1970 UTC.
	Time int64
	// First is the index of its first event in this batch; its events are contiguous, up to the next
	// Tx's First or the end.
	First uint32
	// Before counts the events of the same transaction that stand in earlier batches.
	Before uint32
	// Part is the number of the part of an open transaction (a subtransaction) that the events stand in; 0: the
	// transaction itself. In a chunk only, which may have several entries for one transaction: one per run of events.
	Part uint32
	// Ends is set when its last event stands in this batch.
	Ends bool
}

// NoticeKind says what a Notice is about. The numbers stand in the log's format: never reuse one.
type NoticeKind uint8

const (
	// NoticeQuarantined: from here on the table's rows are not read faithfully and do not enter the log.
	NoticeQuarantined NoticeKind = 1
	// NoticeReleased: the table is read again.
	NoticeReleased NoticeKind = 2
	// NoticeGap: changes of the table before this place did not enter the log (it joined late, the
	// publication lacked it): a backfill brings them.
	NoticeGap NoticeKind = 3
	// NoticeFilled: a snapshot brought what a gap left out.
	NoticeFilled NoticeKind = 4
)

// Notice is something that the log must remember about a table, in order with its rows.
type Notice struct {
	Kind NoticeKind `json:"kind"`
	// Code is stable, for scripts: why ("route", "structure", "statement", "xa", …).
	Code     string    `json:"code,omitempty"`
	Table    string    `json:"table"` // Subject form; "messages" of logical messages
	Position string    `json:"position,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Cure     string    `json:"cure,omitempty"`
	Time     time.Time `json:"time"`
}

// OfShape reports whether a quarantine's cause is that the table's shape, or its way to a key, cannot be had: once that can
// be, reading goes on by itself. The other causes are rows that are missing: those a person lets in again.
func (n Notice) OfShape() bool {
	switch n.Code {
	case "route", "columns", "type", "metadata":
		return true
	}
	return false
}

// SchemaChange is the content of an OpSchema event.
type SchemaChange struct {
	Columns   []schemas.Column `json:"columns"`
	Statement string           `json:"statement,omitempty"`
	// Rewrites: existing rows changed without events (retype, new default): a backfill brings those.
	Rewrites bool `json:"rewrites,omitempty"`
}

// Key is a row's routing key, encoded for order, in its key space.
type Key struct {
	Space   string
	Encoded []byte
}
