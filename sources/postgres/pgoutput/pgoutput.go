// Package pgoutput turns the messages of PostgreSQL's logical replication protocol (versions 1 to 4, text format,
// without two-phase commit) into batches. It does no IO: package postgres reads the connection and
// looks things up in the catalogue.
//
// Words: a position is "behind" a transaction when it is at or above the end LSN of its commit. "Whole"
// transactions are those whose Commit has been seen.
//
// https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
package pgoutput

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pglogrepl"

	"github.com/leat-cdc/leat/schemas"
)

// LSN is a place in the WAL; its String is "0/16B3748".
type LSN = pglogrepl.LSN

// EpochMicros is PostgreSQL's epoch, 2000-01-01 UTC, in microseconds since 1970.
const EpochMicros = 946_684_800_000_000

// WatermarkPrefix is that of the transactional messages that are watermarks of snapshots: no events.
const WatermarkPrefix = "leat.watermark"

var errShort = errors.New("message ends too early")

// Replica identities, as a Relation message names them (pg_class.relreplident).
const (
	IdentityDefault = 'd'
	IdentityIndex   = 'i'
	IdentityFull    = 'f'
	IdentityNothing = 'n'
)

// Relation is a Relation message: what the stream says about a table until it says otherwise.
type Relation struct {
	OID          uint32
	Schema, Name string
	// Identity is one of the Identity constants; with partitions it is the published root's.
	Identity byte
	Columns  []RelationColumn
	// XID is the transaction whose row it describes first.
	XID uint32
}

// RelationColumn is one column of a Relation message.
type RelationColumn struct {
	Name string
	// Key: the column is part of the replica identity (all are under FULL).
	Key bool
	OID uint32
	Mod int32
}

// Shape is how the rows of a relation are to be read.
type Shape struct {
	// Table is nil when the relation is not wanted: its rows are passed over.
	Table *schemas.Table
	// Keep says which columns of the wire form stay, nil for all. Table.Columns has only those.
	Keep []bool
	// Defaulted names columns that have a default or are not in the catalogue any more: when such a one is
	// new, rows changed without events, or may have.
	Defaulted map[string]bool
	// KeyLost: the catalogue cannot say which columns are the primary key, as one was renamed since or the table is gone.
	KeyLost bool
}

// Codes of the quarantines that a Decoder and its Resolve give.
const (
	ColumnsOut = "columns"   // the configuration leaves out what is needed
	Unreadable = "structure" // a row does not fit the table's shape
)

// Refused is an error of Resolve that concerns only its table: the table is quarantined, others go on.
// Code is the notice's.
type Refused struct{ Code, Reason, Cure string }

// Error returns reason and cure.
func (e *Refused) Error() string { return e.Reason + "; " + e.Cure }

// reader takes a message apart; after the first error everything is zero.
type reader struct {
	p   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.p) {
		r.bad, r.p = true, nil
		return nil
	}
	b := r.p[:n]
	r.p = r.p[n:]
	return b
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// text reads up to a zero byte; the result aliases the message.
func (r *reader) text() []byte {
	for i, c := range r.p {
		if c == 0 {
			b := r.p[:i]
			r.p = r.p[i+1:]
			return b
		}
	}
	r.bad, r.p = true, nil
	return nil
}

// ParseRelation reads the body of a Relation message (without its type byte).
func ParseRelation(p []byte) (*Relation, error) {
	r := reader{p: p}
	rel := &Relation{OID: r.u32(), Schema: string(r.text()), Name: string(r.text()), Identity: r.u8()}
	if rel.Schema == "" {
		rel.Schema = "pg_catalog"
	}
	n := int(r.u16())
	for i := 0; i < n && !r.bad; i++ {
		rel.Columns = append(rel.Columns, RelationColumn{Key: r.u8()&1 != 0, Name: string(r.text()), OID: r.u32(), Mod: int32(r.u32())})
	}
	if r.bad {
		return nil, fmt.Errorf("relation message: %w", errShort)
	}
	return rel, nil
}
