package binlog

import (
	"fmt"
	"unicode/utf8"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/binlog/charset"
)

// textDecoder reads text of the named character set; "" is UTF-8.
func textDecoder(name string) (cell.Decode, error) {
	if name == "" {
		return decodeUTF8, nil
	}
	convert, err := charset.Of(name)
	if err != nil {
		return nil, err
	}
	return func(v *cell.Value, raw []byte, s *cell.Scratch) error {
		from := len(s.Buf)
		buf, err := convert(s.Buf, raw)
		if err != nil {
			return fmt.Errorf("%w (%s)", err, name)
		}
		s.Buf = buf
		*v = cell.Value{Kind: schemas.KindText, B: buf[from:len(buf):len(buf)]}
		return nil
	}, nil
}

func decodeUTF8(v *cell.Value, raw []byte, _ *cell.Scratch) error {
	if !utf8.Valid(raw) {
		return charset.ErrText
	}
	*v = cell.Value{Kind: schemas.KindText, B: raw}
	return nil
}
