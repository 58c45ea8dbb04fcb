package binlog

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

var errText = errors.New("bytes that are not text of the column's character set, or a character that Unicode has not")

// transcode appends raw, text of one character set, to dst as UTF-8.
type transcode func(dst, raw []byte) ([]byte, error)

// charsetDecoder reads text of the named character set; "" is UTF-8.
func charsetDecoder(charset string) (cell.Decode, error) {
	if charset == "" {
		return decodeUTF8, nil
	}
	convert, err := textDecoder(charset)
	if err != nil {
		return nil, err
	}
	return func(v *cell.Value, raw []byte, s *cell.Scratch) error {
		from := len(s.Buf)
		buf, err := convert(s.Buf, raw)
		if err != nil {
			return fmt.Errorf("%w (%s)", err, charset)
		}
		s.Buf = buf
		*v = cell.Value{Kind: schemas.KindText, B: buf[from:len(buf):len(buf)]}
		return nil
	}, nil
}

func decodeUTF8(v *cell.Value, raw []byte, _ *cell.Scratch) error {
	if !utf8.Valid(raw) {
		return errText
	}
	*v = cell.Value{Kind: schemas.KindText, B: raw}
	return nil
}

// textDecoder returns the conversion of the named character set.
func textDecoder(charset string) (transcode, error) {
	switch charset {
	case "utf8mb3", "utf8mb4", "binary":
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
	c, err := codesOf(charset)
	if err != nil {
		return nil, err
	}
	return c.decode, nil
}

func fromUTF8(dst, raw []byte) ([]byte, error) {
	if !utf8.Valid(raw) {
		return dst, errText
	}
	return append(dst, raw...), nil
}

func fromASCII(dst, raw []byte) ([]byte, error) {
	for _, c := range raw {
		if c >= utf8.RuneSelf {
			return dst, errText
		}
	}
	return append(dst, raw...), nil
}

func surrogate(r rune) bool { return r >= 0xd800 && r < 0xe000 }

func fromUCS2(dst, raw []byte) ([]byte, error) {
	if len(raw)%2 != 0 {
		return dst, errText
	}
	for ; len(raw) > 0; raw = raw[2:] {
		r := rune(raw[0])<<8 | rune(raw[1])
		if surrogate(r) {
			return dst, errText
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst, nil
}

// fromUTF16 reads UTF-16 whose low byte is at index 1-little of each unit.
func fromUTF16(dst, raw []byte, little int) ([]byte, error) {
	if len(raw)%2 != 0 {
		return dst, errText
	}
	for ; len(raw) > 0; raw = raw[2:] {
		r := rune(raw[little])<<8 | rune(raw[1-little])
		if surrogate(r) {
			if r >= 0xdc00 || len(raw) < 4 {
				return dst, errText
			}
			raw = raw[2:]
			low := rune(raw[little])<<8 | rune(raw[1-little])
			if low < 0xdc00 || low >= 0xe000 {
				return dst, errText
			}
			r = 0x10000 + (r-0xd800)<<10 + low - 0xdc00
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst, nil
}

func fromUTF32(dst, raw []byte) ([]byte, error) {
	if len(raw)%4 != 0 {
		return dst, errText
	}
	for ; len(raw) > 0; raw = raw[4:] {
		n := big(raw[:4])
		if n > utf8.MaxRune || surrogate(rune(n)) {
			return dst, errText
		}
		dst = utf8.AppendRune(dst, rune(n))
	}
	return dst, nil
}
