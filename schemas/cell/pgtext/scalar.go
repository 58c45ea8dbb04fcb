package pgtext

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
	"unsafe"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

var (
	errBool    = errors.New("bool is neither t nor f")
	errInt     = errors.New("integer has a form or size that its type does not allow")
	errDecimal = errors.New("numeric has an unknown form")
	errFloat   = errors.New("float has an unknown form")
	errUTF8    = errors.New("text is not UTF-8 (is the database's encoding SQL_ASCII?)")
	errHex     = errors.New("bytes are not in hex form (is bytea_output hex?)")
	errBits    = errors.New("bit string holds something else than 0 and 1")
)

// decoder picks the function that reads a column of type t.
func decoder(t *schemas.Type) cell.Decode {
	switch t.Kind {
	case schemas.KindBool:
		return decodeBool
	case schemas.KindInt:
		return decodeInts(t.Bits)
	case schemas.KindUint:
		return decodeUints(t.Bits)
	case schemas.KindDecimal:
		return decodeDecimal
	case schemas.KindFloat:
		if t.Bits == 32 {
			return decodeFloat32
		}
		return decodeFloat64
	case schemas.KindText:
		return decodeText
	case schemas.KindJSON:
		return decodeJSON
	case schemas.KindBytes:
		if spatial(t.Name) {
			return decodeEWKB
		}
		return decodeBytes
	case schemas.KindBits:
		return decodeBits
	case schemas.KindDate:
		return decodeDate
	case schemas.KindTime:
		return decodeTime
	case schemas.KindDateTime:
		return decodeDateTime
	case schemas.KindTimestamp:
		return decodeTimestamp
	case schemas.KindArray:
		if t.Elem != nil {
			return decodeArray(t.Elem)
		}
	case schemas.KindVector:
		return decodeVector
	}
	return decodeUnknown
}

func decodeBool(v *cell.Value, raw []byte, _ *cell.Scratch) error {
	if len(raw) != 1 || raw[0] != 't' && raw[0] != 'f' {
		return errBool
	}
	*v = cell.Value{Kind: schemas.KindBool}
	if raw[0] == 't' {
		v.N = 1
	}
	return nil
}

func decodeInts(bits uint8) cell.Decode {
	if bits == 0 {
		bits = 64
	}
	limit := uint64(1) << (bits - 1)
	return func(v *cell.Value, raw []byte, _ *cell.Scratch) error {
		digits, neg := raw, false
		if len(digits) > 0 && digits[0] == '-' {
			digits, neg = digits[1:], true
		}
		n, ok := digitsOf(digits)
		switch {
		case !ok, n > limit, n == limit && !neg:
			return errInt
		case neg:
			n = -n
		}
		*v = cell.Value{Kind: schemas.KindInt, Bits: bits, N: n}
		return nil
	}
}

func decodeUints(bits uint8) cell.Decode {
	if bits == 0 {
		bits = 64
	}
	limit := uint64(1)<<(bits-1)<<1 - 1
	return func(v *cell.Value, raw []byte, _ *cell.Scratch) error {
		n, ok := digitsOf(raw)
		if !ok || n > limit {
			return errInt
		}
		*v = cell.Value{Kind: schemas.KindUint, Bits: bits, N: n}
		return nil
	}
}

// digitsOf reads an unsigned decimal number below 2⁶⁴.
func digitsOf(p []byte) (uint64, bool) {
	if len(p) == 0 || len(p) > 20 {
		return 0, false
	}
	var n uint64
	for _, c := range p {
		d := uint64(c - '0')
		if d > 9 || n > (1<<64-1)/10 {
			return 0, false
		}
		m := n*10 + d
		if m < n*10 {
			return 0, false
		}
		n = m
	}
	return n, true
}

// decodeDecimal checks the form and keeps the database's own digits.
func decodeDecimal(v *cell.Value, raw []byte, _ *cell.Scratch) error {
	switch string(raw) {
	case "NaN", "Infinity", "-Infinity":
		*v = cell.Value{Kind: schemas.KindDecimal, B: raw}
		return nil
	}
	p := raw
	if len(p) > 0 && p[0] == '-' {
		p = p[1:]
	}
	if len(p) == 0 {
		return errDecimal
	}
	dot := -1
	for i, c := range p {
		if c == '.' && dot < 0 && i > 0 && i < len(p)-1 {
			dot = i
			continue
		}
		if c < '0' || c > '9' {
			return errDecimal
		}
	}
	*v = cell.Value{Kind: schemas.KindDecimal, B: raw}
	return nil
}

func decodeFloat32(v *cell.Value, raw []byte, _ *cell.Scratch) error { return decodeFloat(v, raw, 32) }
func decodeFloat64(v *cell.Value, raw []byte, _ *cell.Scratch) error { return decodeFloat(v, raw, 64) }

func decodeFloat(v *cell.Value, raw []byte, bits uint8) error {
	f, ok := floatOf(raw, int(bits))
	if !ok {
		return errFloat
	}
	*v = cell.Value{}
	v.SetFloat(f, bits)
	return nil
}

func floatOf(raw []byte, bits int) (float64, bool) {
	if len(raw) == 0 || len(raw) > 64 {
		return 0, false
	}
	for _, c := range raw { // what ParseFloat takes and the server never sends: hex, underscores, "inf"
		if (c == '_') || (c|0x20 == 'x') || (c|0x20 == 'p') {
			return 0, false
		}
	}
	f, err := strconv.ParseFloat(unsafe.String(&raw[0], len(raw)), bits)
	return f, err == nil
}

func decodeText(v *cell.Value, raw []byte, _ *cell.Scratch) error {
	return decodeUTF8(v, raw, schemas.KindText)
}

func decodeJSON(v *cell.Value, raw []byte, _ *cell.Scratch) error {
	return decodeUTF8(v, raw, schemas.KindJSON)
}

func decodeUnknown(v *cell.Value, raw []byte, _ *cell.Scratch) error {
	return decodeUTF8(v, raw, schemas.KindUnknown)
}

func decodeUTF8(v *cell.Value, raw []byte, kind schemas.Kind) error {
	if !utf8.Valid(raw) {
		return errUTF8
	}
	*v = cell.Value{Kind: kind, B: raw}
	return nil
}

func decodeBytes(v *cell.Value, raw []byte, s *cell.Scratch) error {
	if len(raw) < 2 || raw[0] != '\\' || raw[1] != 'x' {
		return errHex
	}
	return decodeHex(v, raw[2:], s)
}

// decodeEWKB reads PostGIS's text form: EWKB as hex digits without a prefix.
func decodeEWKB(v *cell.Value, raw []byte, s *cell.Scratch) error { return decodeHex(v, raw, s) }

func decodeHex(v *cell.Value, digits []byte, s *cell.Scratch) error {
	if len(digits)%2 != 0 {
		return errHex
	}
	from := len(s.Buf)
	for i := 0; i < len(digits); i += 2 {
		hi, lo := unhex[digits[i]], unhex[digits[i+1]]
		if hi|lo > 15 {
			s.Buf = s.Buf[:from]
			return errHex
		}
		s.Buf = append(s.Buf, hi<<4|lo)
	}
	*v = cell.Value{Kind: schemas.KindBytes, B: s.Buf[from:len(s.Buf):len(s.Buf)]}
	if v.B == nil {
		v.B = raw0
	}
	return nil
}

// raw0 is a value that is there and empty.
var raw0 = []byte{}

var unhex = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range 10 {
		t['0'+i] = byte(i)
	}
	for i := range 6 {
		t['a'+i], t['A'+i] = byte(10+i), byte(10+i)
	}
	return t
}()

func decodeBits(v *cell.Value, raw []byte, _ *cell.Scratch) error {
	for _, c := range raw {
		if c != '0' && c != '1' {
			return errBits
		}
	}
	*v = cell.Value{Kind: schemas.KindBits, B: raw}
	return nil
}

// decodeVector reads pgvector's text, [1,2.5,-3e-05].
// https://github.com/pgvector/pgvector
func decodeVector(v *cell.Value, raw []byte, s *cell.Scratch) error {
	if len(raw) < 2 || raw[0] != '[' || raw[len(raw)-1] != ']' {
		return fmt.Errorf("vector of %d bytes is not in brackets", len(raw))
	}
	from, body := len(s.Elems), raw[1:len(raw)-1]
	for start, i := 0, 0; i <= len(body) && len(body) > 0; i++ {
		if i < len(body) && body[i] != ',' {
			continue
		}
		f, ok := floatOf(body[start:i], 32)
		if !ok {
			s.Elems = s.Elems[:from]
			return errFloat
		}
		var e cell.Value
		e.SetFloat(f, 32)
		s.Elems = append(s.Elems, e)
		start = i + 1
	}
	*v = cell.Value{Kind: schemas.KindVector, Elems: s.Elems[from:len(s.Elems):len(s.Elems)]}
	return nil
}
