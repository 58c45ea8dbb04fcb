// Package shape says how the rows of a table version look to readers who know no database: as Avro, as Protobuf,
// as JSON Schema. It is pure: who encodes rows and who keeps schemas both go by what it says.
package shape

import (
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/schemas"
)

// Format of a schema, in the word of registries.
type Format string

const (
	Avro       Format = "AVRO"
	Protobuf   Format = "PROTOBUF"
	JSONSchema Format = "JSON"
)

// Class is how values of a type are written in typed formats.
type Class uint8

const (
	// Text: UTF-8; also what has no better form: bit strings, unknown types, decimals without a precision.
	Text Class = iota
	Bool
	Int32
	Int64
	// Uint64 does not fit a signed 64-bit integer: Avro has it as a decimal(20,0).
	Uint64
	Float32
	Float64
	// Decimal has Precision and Scale.
	Decimal
	UUID
	Bytes
	// JSON is text that holds JSON.
	JSON
	// Date is days since 1970-01-01.
	Date
	// TimeOfDay is microseconds since midnight, below a day.
	TimeOfDay
	// Duration is microseconds, of either sign: MySQL's TIME.
	Duration
	// DateTime is microseconds since 1970-01-01T00:00:00 of no zone, Instant of UTC.
	DateTime
	Instant
	// Array has Elem. A value that is no list (of several dimensions, or of other bounds) is text.
	Array
	// Vector is a list of 32-bit floats.
	Vector
)

// Type is how a column is written.
type Type struct {
	Class            Class
	Precision, Scale int
	Elem             *Type
	// Loose: a value that the class has no form for (infinity, a zero date, NaN) is text instead.
	Loose bool
}

// maxPrecision bounds decimals that are decimals for readers: more digits are text.
const maxPrecision = 1000

// TypeOf returns how values of t are written.
func TypeOf(t *schemas.Type) Type {
	postgres := t.OID != 0
	switch t.Kind {
	case schemas.KindBool:
		return Type{Class: Bool}
	case schemas.KindInt:
		return Type{Class: integer(t.Bits <= 32 && t.Bits > 0)}
	case schemas.KindUint:
		if t.Bits == 64 || t.Bits == 0 {
			return Type{Class: Uint64, Precision: 20}
		}
		return Type{Class: integer(t.Bits < 32)}
	case schemas.KindDecimal:
		if t.Precision == 0 || t.Precision > maxPrecision {
			return Type{Class: Text}
		}
		return Type{Class: Decimal, Precision: int(t.Precision), Scale: int(t.Scale), Loose: postgres}
	case schemas.KindFloat:
		if t.Bits == 32 {
			return Type{Class: Float32}
		}
		return Type{Class: Float64}
	case schemas.KindText:
		if t.Name == "uuid" {
			return Type{Class: UUID}
		}
	case schemas.KindBytes:
		return Type{Class: Bytes}
	case schemas.KindJSON:
		return Type{Class: JSON}
	case schemas.KindDate:
		return Type{Class: Date, Loose: true}
	case schemas.KindTime:
		if postgres {
			return Type{Class: TimeOfDay, Loose: true} // 24:00:00
		}
		return Type{Class: Duration}
	case schemas.KindDateTime:
		return Type{Class: DateTime, Loose: true}
	case schemas.KindTimestamp:
		return Type{Class: Instant, Loose: true}
	case schemas.KindArray:
		if t.Elem != nil {
			e := TypeOf(t.Elem)
			return Type{Class: Array, Elem: &e, Loose: true}
		}
	case schemas.KindVector:
		return Type{Class: Vector}
	}
	return Type{Class: Text}
}

func integer(small bool) Class {
	if small {
		return Int32
	}
	return Int64
}

// Field is one column as readers see it.
type Field struct {
	// Column is the table's, Name how the format writes it: an identifier, unique in its row.
	Column, Name string
	// Database is the type in the database's words.
	Database string
	Type     Type
	// Key: one of the identity, always there.
	Key bool
	// Nullable is the table's; a field that is no key may be missing all the same.
	Nullable bool
}

// Optional reports whether the field may be null: every one but a key that is NOT NULL, since a source does not send
// all columns of each image.
func (f *Field) Optional() bool { return !f.Key || f.Nullable }

// Row is what a subscriber sees of a table version.
type Row struct {
	// Schema and Table as identifiers.
	Schema, Table string
	Fields        []Field
}

// Keys returns the fields of the identity, in its order.
func (r *Row) Keys(identity []string) []Field {
	var keys []Field
	for _, name := range identity {
		for _, f := range r.Fields {
			if f.Column == name && f.Key {
				keys = append(keys, f)
			}
		}
	}
	return keys
}

// Identifier makes a name of letters, digits and _ that begins with no digit.
func Identifier(s string) string {
	var b strings.Builder
	for i, c := range s {
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_':
			b.WriteRune(c)
		case c >= '0' && c <= '9':
			if i == 0 {
				b.WriteByte('_')
			}
			b.WriteRune(c)
		default:
			b.WriteByte('_')
		}
	}
	if b.Len() == 0 {
		return "_"
	}
	return b.String()
}

// Names gives each name an identifier of its own, in order; what would be doubled gets a number.
func Names(of []string) []string {
	taken := map[string]bool{}
	for _, s := range of { // a name that is one already keeps it
		if Identifier(s) == s {
			taken[s] = true
		}
	}
	out := make([]string, len(of))
	for i, s := range of {
		id := Identifier(s)
		if id != s {
			base := id
			for n := 2; taken[id]; n++ {
				id = base + "_" + strconv.Itoa(n)
			}
			taken[id] = true
		}
		out[i] = id
	}
	return out
}
