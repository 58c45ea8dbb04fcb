// Package charset turns text in the character sets of MySQL and MariaDB into UTF-8, exactly as the
// servers do: bytes that they refuse, or that Unicode has no character for, are an error.
//
// Most sets are those of golang.org/x/text with the codes that the servers read differently (see
// charsets.txt); the rest have tables of their own there.
package charset

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"unicode/utf8"
)

// ErrText is wrapped by the refusal of bytes.
var ErrText = errors.New("bytes that are not text of the column's character set, or a character that Unicode has not")

// ToUTF8 appends raw, text of one character set, to dst as UTF-8. It allocates only to grow dst.
type ToUTF8 func(dst, raw []byte) ([]byte, error)

// Of returns the conversion of the character set called name ("latin1"), an error when it is not known.
// Safe for concurrent use.
func Of(name string) (ToUTF8, error) {
	switch name {
	case "", "utf8mb3", "utf8mb4", "binary":
		return fromUTF8, nil
	case "ascii":
		return fromASCII, nil
	case "ucs2":
		return fromUCS2, nil
	case "utf16":
		return func(dst, raw []byte) ([]byte, error) { return fromUTF16(dst, raw, 0) }, nil
	case "utf16le":
		return func(dst, raw []byte) ([]byte, error) { return fromUTF16(dst, raw, 1) }, nil
	case "utf32":
		return fromUTF32, nil
	}
	c, err := codesOf(name)
	if err != nil {
		return nil, err
	}
	return c.decode, nil
}

// HasASCII reports whether bytes below 0x80 alone are ASCII in the character set, so that text of nothing else is UTF-8
// as it stands.
func HasASCII(name string) bool {
	switch name {
	case "", "ascii", "utf8mb3", "utf8mb4", "binary":
		return true
	}
	c, err := codesOf(name)
	return err == nil && c.ascii
}

func fromUTF8(dst, raw []byte) ([]byte, error) {
	if !utf8.Valid(raw) {
		return dst, ErrText
	}
	return append(dst, raw...), nil
}

func fromASCII(dst, raw []byte) ([]byte, error) {
	if asciiLen(raw) < len(raw) {
		return dst, ErrText
	}
	return append(dst, raw...), nil
}

// asciiLen returns how many bytes of raw come before the first that is not ASCII, looking at eight at a time.
func asciiLen(raw []byte) int {
	n := 0
	for ; len(raw)-n >= 8; n += 8 {
		if high := binary.LittleEndian.Uint64(raw[n:]) & 0x8080808080808080; high != 0 {
			return n + bits.TrailingZeros64(high)/8
		}
	}
	for n < len(raw) && raw[n] < utf8.RuneSelf {
		n++
	}
	return n
}

func surrogate(r rune) bool { return r >= 0xd800 && r < 0xe000 }

func fromUCS2(dst, raw []byte) ([]byte, error) {
	if len(raw)%2 != 0 {
		return dst, ErrText
	}
	for ; len(raw) > 0; raw = raw[2:] {
		r := rune(raw[0])<<8 | rune(raw[1])
		if surrogate(r) {
			return dst, ErrText
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst, nil
}

// fromUTF16 reads UTF-16 whose low byte is at index 1-little of each unit.
func fromUTF16(dst, raw []byte, little int) ([]byte, error) {
	if len(raw)%2 != 0 {
		return dst, ErrText
	}
	for ; len(raw) > 0; raw = raw[2:] {
		r := rune(raw[little])<<8 | rune(raw[1-little])
		if surrogate(r) {
			if r >= 0xdc00 || len(raw) < 4 {
				return dst, ErrText
			}
			raw = raw[2:]
			low := rune(raw[little])<<8 | rune(raw[1-little])
			if low < 0xdc00 || low >= 0xe000 {
				return dst, ErrText
			}
			r = 0x10000 + (r-0xd800)<<10 + low - 0xdc00
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst, nil
}

func fromUTF32(dst, raw []byte) ([]byte, error) {
	if len(raw)%4 != 0 {
		return dst, ErrText
	}
	for ; len(raw) > 0; raw = raw[4:] {
		n := binary.BigEndian.Uint32(raw)
		if n > utf8.MaxRune || surrogate(rune(n)) {
			return dst, ErrText
		}
		dst = utf8.AppendRune(dst, rune(n))
	}
	return dst, nil
}

// MaxLen is the number of bytes that a character of the set takes at most: what the servers multiply
// a column's declared length by.
func MaxLen(charset string) uint32 {
	switch charset {
	case "utf8mb4", "utf16", "utf16le", "utf32", "gb18030":
		return 4
	case "utf8mb3", "ujis", "eucjpms":
		return 3
	case "big5", "sjis", "cp932", "euckr", "gb2312", "gbk", "ucs2":
		return 2
	}
	return 1
}
