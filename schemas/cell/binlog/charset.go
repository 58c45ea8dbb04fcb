package binlog

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

var errText = errors.New("bytes that are not text of the column's character set")

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
	}
	return nil, fmt.Errorf("character set %s is not known to this version", charset)
}

func fromUTF8(dst, raw []byte) ([]byte, error) {
	if !utf8.Valid(raw) {
		return dst, errText
	}
	return append(dst, raw...), nil
}
