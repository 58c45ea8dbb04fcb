// Package partition decides where a row belongs: the encoding of its routing key, whose byte order is
// the order of keys and whose equality is at least as coarse as the database's.
//
// An encoded key is a tuple of elements, each a tag and a self-delimiting body, so that a prefix tuple
// sorts before what it begins (the scheme of FoundationDB's tuple layer):
//
//	0x01                   NULL
//	0x05 text, 0x00 → 0x00 0xFF, then 0x00        text compared bytewise
//	0x06 the same           text under a collation that may hold different bytes equal: a coarse key
//	0x07 the same           bytes and bit strings
//	0x0C–0x1C               integers: 0x14 is zero, 0x14±n means n big-endian bytes follow
//	0x20 … 0x23             decimals: -Infinity/negative, positive, Infinity, NaN
//	0x25 8 bytes            floats, IEEE order, -0 = 0
//	0x26 / 0x27             false / true
//	0x30 8 bytes            date, time, datetime, timestamp, sign-flipped
//	0x40 elements 0x00      arrays and vectors
//	0x50                    a value of a type whose equality is not known here: all are one key
//
// Two different values that the database holds equal must never encode differently; the converse may
// happen and only costs concurrency.
package partition

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"

	"github.com/cespare/xxhash/v2"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// ErrAbsent: a routing column was not sent, so the row cannot be routed.
var ErrAbsent = errors.New("the column is absent from the row")

const (
	tagNull     = 0x01
	tagText     = 0x05
	tagCoarse   = 0x06
	tagBytes    = 0x07
	tagInt      = 0x14
	tagDecNeg   = 0x20
	tagDecPos   = 0x21
	tagDecInf   = 0x22
	tagDecNaN   = 0x23
	tagFloat    = 0x25
	tagFalse    = 0x26
	tagTime     = 0x30
	tagArray    = 0x40
	tagOpaque   = 0x50
	escapeNul   = 0xFF
	terminator  = 0x00
	decZero     = 0x80
	decTailEnd  = 0x00
	signBit     = 1 << 63
	maxIntBytes = 8
)

// AppendValue appends the encoding of one key column's value to dst. t is the column's type. It keeps
// nothing of v. The only error is ErrAbsent.
func AppendValue(dst []byte, v *cell.Value, t *schemas.Type) ([]byte, error) {
	switch v.State {
	case cell.Null:
		return append(dst, tagNull), nil
	case cell.Absent:
		return dst, ErrAbsent
	}
	switch v.Kind {
	case schemas.KindInt:
		if n := int64(v.N); n < 0 {
			return appendInt(dst, uint64(-n), true), nil
		}
		return appendInt(dst, v.N, false), nil
	case schemas.KindUint:
		return appendInt(dst, v.N, false), nil
	case schemas.KindText:
		return appendText(dst, v.B, t), nil
	case schemas.KindBool:
		return append(dst, tagFalse+byte(v.N&1)), nil
	case schemas.KindBytes, schemas.KindBits:
		return appendEscaped(append(dst, tagBytes), v.B), nil
	case schemas.KindDate, schemas.KindTime, schemas.KindDateTime, schemas.KindTimestamp:
		return binary.BigEndian.AppendUint64(append(dst, tagTime), v.N^signBit), nil
	case schemas.KindFloat:
		return appendFloat(dst, v.Float()), nil
	case schemas.KindDecimal:
		return appendDecimal(dst, v.B), nil
	case schemas.KindArray, schemas.KindVector:
		return appendArray(dst, v, t)
	}
	return append(dst, tagOpaque), nil // JSON, unknown types
}

// appendInt: the number of significant bytes stands in the tag, so that order holds over all widths and
// a signed and an unsigned column of one key space agree.
func appendInt(dst []byte, magnitude uint64, negative bool) []byte {
	n := (bits.Len64(magnitude) + 7) / 8
	if negative {
		dst = append(dst, byte(tagInt-n))
		magnitude = ^magnitude
	} else {
		dst = append(dst, byte(tagInt+n))
	}
	var b [maxIntBytes]byte
	binary.BigEndian.PutUint64(b[:], magnitude)
	return append(dst, b[maxIntBytes-n:]...)
}

func appendEscaped(dst, p []byte) []byte {
	for _, c := range p {
		dst = append(dst, c)
		if c == 0 {
			dst = append(dst, escapeNul)
		}
	}
	return append(dst, terminator)
}

func appendText(dst, p []byte, t *schemas.Type) []byte {
	how, special := textEquality(t)
	switch how {
	case opaque:
		return append(dst, tagOpaque)
	case bytewise:
		return appendEscaped(append(dst, tagText), p)
	case padded:
		return appendEscaped(append(dst, tagText), trimPad(p))
	}
	dst = append(dst, tagCoarse)
	return append(appendCoarse(dst, p, special), terminator)
}

func appendFloat(dst []byte, f float64) []byte {
	if f == 0 {
		f = 0 // -0 is 0
	}
	n := math.Float64bits(f)
	switch {
	case f != f:
		n = ^uint64(0) // NaN above all, and one
	case n&signBit != 0:
		n = ^n
	default:
		n |= signBit
	}
	return binary.BigEndian.AppendUint64(append(dst, tagFloat), n)
}

func appendArray(dst []byte, v *cell.Value, t *schemas.Type) ([]byte, error) {
	elem := t.Elem
	if elem == nil {
		elem = &schemas.Type{Kind: schemas.KindFloat, Bits: 32}
	}
	dst = append(dst, tagArray)
	var err error
	for i := range v.Elems {
		if dst, err = AppendValue(dst, &v.Elems[i], elem); err != nil {
			return dst, err
		}
	}
	return append(dst, terminator), nil
}

// appendDecimal encodes sign, exponent and digits, so that 1.0 and 1.00 are equal and order is numeric.
func appendDecimal(dst, text []byte) []byte {
	neg := len(text) > 0 && text[0] == '-'
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		text = text[1:]
	}
	if len(text) > 0 && (text[0] == 'N' || text[0] == 'n') {
		return append(dst, tagDecNaN)
	}
	if len(text) > 0 && (text[0] == 'I' || text[0] == 'i') {
		if neg {
			return append(dst, tagDecNeg, 0)
		}
		return append(dst, tagDecInf)
	}
	exp, first := decimalExponent(text)
	if first < 0 {
		return append(dst, tagDecPos, decZero, 0, 0, 0) // zero: below every positive
	}
	tag, flip := byte(tagDecPos), byte(0)
	if neg {
		tag, flip = tagDecNeg, 0xFF
	}
	// the biased exponent is never zero, so zero sorts first among tagDecPos and -Infinity among tagDecNeg
	e := uint32(exp) + 1<<30
	dst = append(dst, tag, byte(0x81)^flip, byte(e>>24)^flip, byte(e>>16)^flip, byte(e>>8)^flip, byte(e)^flip)
	last := len(text)
	for last > first && (text[last-1] == '0' || text[last-1] == '.') {
		last--
	}
	for _, c := range text[first:last] {
		if c >= '0' && c <= '9' {
			dst = append(dst, (c-'0'+1)^flip)
		}
	}
	return append(dst, decTailEnd^flip)
}

// decimalExponent returns the power of ten of the first digit that is not zero (0.00x → -3, 12.x → 2)
// and the digit's index, -1 when all are zero.
func decimalExponent(text []byte) (exp, first int) {
	first, point := -1, len(text)
	for i, c := range text {
		if c == '.' {
			point = i
		} else if first < 0 && c != '0' {
			first = i
		}
	}
	if first < 0 {
		return 0, -1
	}
	if first > point {
		return point - first + 1, first
	}
	return point - first, first
}

// Hash returns the hash of an encoded key in a key space: stable over restarts, as it stands in the log.
func Hash(space uint64, key []byte) uint64 { return xxhash.Sum64(key) ^ space }

// SpaceHash returns what Hash needs of a key space's name.
func SpaceHash(name string) uint64 { return xxhash.Sum64String(name) }
