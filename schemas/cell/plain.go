package cell

import (
	"encoding/binary"
	"unicode/utf8"
)

// Plain says of a column that its cells' bytes are their values already: who only copies them need not decode.
type Plain uint8

const (
	// PlainNone: use Decode.
	PlainNone Plain = iota
	// PlainText: what Decode makes of it is Kind Text with the same bytes, if they are UTF-8; else an error.
	PlainText
	// PlainASCII: the same if all bytes are below 0x80; what has others is for Decode to read or refuse.
	PlainASCII
	// PlainInt: Kind Int; the bytes, 8 at most, are the number in two's complement, the lowest first.
	PlainInt
	// PlainUint: Kind Uint, likewise.
	PlainUint
)

// PlainOf returns what is known of column i.
func (f *Form) PlainOf(i int) Plain {
	if i < len(f.Plain) {
		return f.Plain[i]
	}
	return PlainNone
}

// Sound reports whether the bytes of a cell of PlainText or PlainASCII are its value.
func (p Plain) Sound(raw []byte) bool {
	if p == PlainText {
		return utf8.Valid(raw)
	}
	for ; len(raw) >= 8; raw = raw[8:] {
		if binary.LittleEndian.Uint64(raw)&0x8080808080808080 != 0 {
			return false
		}
	}
	for _, c := range raw {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// Number returns the value of a cell of PlainInt, as the bits of an int64, or PlainUint; ok says that it is one.
func (p Plain) Number(raw []byte) (n uint64, ok bool) {
	switch len(raw) {
	case 8:
		return binary.LittleEndian.Uint64(raw), true
	case 1, 2, 3, 4, 5, 6, 7:
	default:
		return 0, false
	}
	for i, c := range raw {
		n |= uint64(c) << (8 * i)
	}
	if shift := 64 - 8*len(raw); p == PlainInt {
		n = uint64(int64(n<<shift) >> shift)
	}
	return n, true
}
