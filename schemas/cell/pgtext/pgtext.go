// Package pgtext reads rows in the form in which pgoutput sends them: TupleData messages with values in
// PostgreSQL's text form ([schemas.WirePGText]), and maps PostgreSQL's types to [schemas.Type].
//
// It expects the text of a session with TimeZone UTC, DateStyle ISO, bytea_output hex and
// extra_float_digits 1 or more, which sources/postgres sets and reads back.
//
// https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-TUPLEDATA
package pgtext

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// Kinds of a column in TupleData.
const (
	TagNull      = 'n'
	TagUnchanged = 'u' // TOASTed and not changed: the server does not send it
	TagText      = 't'
	TagBinary    = 'b'
)

var (
	errShort  = errors.New("tuple ends inside a column")
	errBehind = errors.New("tuple has bytes behind its last column")
	errBinary = errors.New("tuple has a column in binary format, want text")
)

// Form returns the reader of rows of t, whose Wire is WirePGText.
func Form(t *schemas.Table) *cell.Form {
	n := len(t.Columns)
	f := &cell.Form{Decode: make([]cell.Decode, n), Plain: make([]cell.Plain, n)}
	f.Walk = func(image []byte, refs []cell.Ref, upTo int) ([]cell.Ref, error) {
		return walk(image, refs[:0], upTo, n)
	}
	for i := range t.Columns {
		f.Decode[i] = decoder(&t.Columns[i].Type)
		if t.Columns[i].Type.Kind == schemas.KindText {
			f.Plain[i] = cell.PlainText
		}
	}
	return f
}

// walk splits image, a tuple of want columns, into cells.
func walk(image []byte, refs []cell.Ref, upTo, want int) ([]cell.Ref, error) {
	if len(image) < 2 {
		return refs, errShort
	}
	if n := int(binary.BigEndian.Uint16(image)); n != want {
		return refs, fmt.Errorf("tuple has %d columns, its table %d", n, want)
	}
	p := 2
	for range min(upTo, want) {
		if p >= len(image) {
			return refs, errShort
		}
		switch tag := image[p]; tag {
		case TagNull:
			refs = append(refs, cell.Ref{Off: uint32(p), Len: cell.LenNull})
			p++
		case TagUnchanged:
			refs = append(refs, cell.Ref{Off: uint32(p), Len: cell.LenAbsent})
			p++
		case TagText:
			if len(image)-p < 5 {
				return refs, errShort
			}
			size := int(binary.BigEndian.Uint32(image[p+1:]))
			p += 5
			if size > len(image)-p {
				return refs, errShort
			}
			refs = append(refs, cell.Ref{Off: uint32(p), Len: uint32(size)})
			p += size
		case TagBinary:
			return refs, errBinary
		default:
			return refs, fmt.Errorf("tuple has a column of unknown kind 0x%02x", tag)
		}
	}
	if upTo >= want && p != len(image) {
		return refs, errBehind
	}
	return refs, nil
}
