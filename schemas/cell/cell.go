// Package cell holds typed values: what a cell of a row means, whatever form it was sent in.
//
// The wire forms live below it: cell/pgtext reads PostgreSQL's text, cell/binlog the row images of
// MySQL and MariaDB, and cell/form picks the one that a table names.
package cell

import (
	"math"

	"github.com/leat-cdc/leat/schemas"
)

// Ref locates one cell inside a row image. The bytes that it names are in wire form.
type Ref struct {
	Off uint32
	// Len in bytes, or LenNull, LenAbsent.
	Len uint32
}

const (
	// LenNull marks SQL NULL.
	LenNull = ^uint32(0)
	// LenAbsent marks a cell that the source did not send (unchanged TOAST, partial row image):
	// a kind of its own, never NULL.
	LenAbsent = ^uint32(0) - 1
)

// Null reports SQL NULL.
func (r Ref) Null() bool { return r.Len == LenNull }

// Absent reports that the source did not send the cell.
func (r Ref) Absent() bool { return r.Len == LenAbsent }

// Of returns the cell's bytes, nil for NULL and absent ones. They alias image.
func (r Ref) Of(image []byte) []byte {
	if r.Len >= LenAbsent {
		return nil
	}
	return image[r.Off : r.Off+r.Len : r.Off+r.Len]
}

// State tells what a Value is.
type State uint8

const (
	// Present: Kind and the fields that it names are valid.
	Present State = iota
	Null
	Absent
)

// Value is one decoded cell: a tagged struct, no interface, no allocation.
//
// By Kind:
//
//	Bool                0 or 1 in N
//	Int                 int64(N)
//	Uint                N
//	Float               Float()
//	Decimal, Text, JSON text in B (UTF-8; JSON kept digit by digit)
//	Unknown             the database's own text in B (UTF-8)
//	Bytes               B
//	Bits                '0' and '1' in B, Length of them
//	Date                days since 1970-01-01 in int64(N)
//	Time                microseconds in int64(N); may be negative or beyond a day
//	DateTime, Timestamp microseconds since 1970-01-01T00:00:00 (Timestamp: UTC) in int64(N)
//	Array, Vector       Elems
//
// A temporal value that does not fit (infinity, BC, years beyond 9999, MySQL's zero dates) has Kind
// Text and the database's own text in B; so has an array whose lower bounds are not 1.
type Value struct {
	State State
	Kind  schemas.Kind
	// Bits is the width of Int, Uint and Float.
	Bits uint8
	N    uint64
	// B aliases the row image or the decoder's scratch: valid until the next use of either.
	B     []byte
	Elems []Value
}

// Scratch is memory that a decoder may use for values that do not stand in the image as they are;
// owned by the caller, one per goroutine, reset by Reset once the values are consumed.
type Scratch struct {
	Buf   []byte
	Elems []Value
}

// Reset forgets what was decoded and keeps the memory.
func (s *Scratch) Reset() { s.Buf, s.Elems = s.Buf[:0], s.Elems[:0] }

// Decode turns the wire bytes of one present cell into v. raw is never nil for a present cell.
// An error names what is wrong with the bytes (never their content in full: it may be secret).
type Decode func(v *Value, raw []byte, s *Scratch) error

// Form reads rows of one table version: it splits an image into cells and decodes single cells.
// Safe for concurrent use; compiled once per table version.
type Form struct {
	// Walk appends one Ref per column of the table to refs[:0] and returns it. It checks the structure:
	// every Ref lies inside image. upTo limits the walk to the columns [0, upTo); pass len(Columns)
	// for all. Refs beyond are not appended.
	Walk func(image []byte, refs []Ref, upTo int) ([]Ref, error)
	// Decode has one function per column.
	Decode []Decode
	// Plain says of which columns the bytes are the values; nil, or one per column. Ask by PlainOf.
	Plain []Plain
}

// Float returns the value of Kind Float.
func (v *Value) Float() float64 {
	if v.Bits == 32 {
		return float64(math.Float32frombits(uint32(v.N)))
	}
	return math.Float64frombits(v.N)
}

// SetFloat sets a value of Kind Float and the given width (32 or 64).
func (v *Value) SetFloat(f float64, bits uint8) {
	v.Kind, v.Bits = schemas.KindFloat, bits
	if bits == 32 {
		v.N = uint64(math.Float32bits(float32(f)))
		return
	}
	v.N = math.Float64bits(f)
}
