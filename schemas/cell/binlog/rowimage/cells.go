package rowimage

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
)

var errSize = errors.New("the value has not the size of its type")

// low keeps the low bytes of a little-endian number; the rest tells nothing.
func low(size int) convert {
	return func(dst, raw []byte) ([]byte, error) {
		if len(raw) < size {
			return dst, errSize
		}
		return append(dst, raw[:size]...), nil
	}
}

// high fills a big-endian number up with zeros in front.
func high(size int) convert {
	return func(dst, raw []byte) ([]byte, error) {
		if len(raw) > size {
			return dst, errSize
		}
		for range size - len(raw) {
			dst = append(dst, 0)
		}
		return append(dst, raw...), nil
	}
}

// year becomes the years since 1900 but 0, which is the year 0.
func year(dst, raw []byte) ([]byte, error) {
	if len(raw) != 2 {
		return dst, errSize
	}
	n := int(raw[0]) | int(raw[1])<<8
	if n == 0 {
		return append(dst, 0), nil
	}
	if n < 1901 || n > 2155 {
		return dst, errors.New("not a year")
	}
	return append(dst, byte(n-1900)), nil
}

// length appends a length of prefix bytes.
func length(dst []byte, n, prefix int) ([]byte, error) {
	if prefix < 8 && uint64(n)>>(8*prefix) != 0 {
		return dst, errSize
	}
	for i := range prefix {
		dst = append(dst, byte(n>>(8*i)))
	}
	return dst, nil
}

// counted keeps the bytes, with their length.
func counted(prefix int) convert {
	return func(dst, raw []byte) ([]byte, error) {
		dst, err := length(dst, len(raw), prefix)
		return append(dst, raw...), err
	}
}

// behind keeps the bytes behind a mark.
func behind(mark byte, prefix int) convert {
	return func(dst, raw []byte) ([]byte, error) {
		dst, err := length(dst, len(raw)+1, prefix)
		return append(append(dst, mark), raw...), err
	}
}

// text picks what becomes of strings of bytes.
func text(t *schemas.Type, real uint8, prefix int) convert {
	keep := counted(prefix)
	switch real {
	case binlog.TypeVarcharCompressed, binlog.TypeBlobCompressed:
		stored := behind(0, prefix) // a header that says: not compressed
		return func(dst, raw []byte) ([]byte, error) {
			if len(raw) == 0 {
				return keep(dst, raw)
			}
			return stored(dst, raw)
		}
	case binlog.TypeString:
	default:
		return keep
	}
	var parse convert
	switch {
	case t.Kind == schemas.KindBytes:
		parse = func(dst, raw []byte) ([]byte, error) { return append(dst, raw...), nil }
	case t.Kind != schemas.KindText:
	case t.Name == "inet4":
		parse = inet(4)
	case t.Name == "inet6":
		parse = inet(16)
	case strings.HasPrefix(t.Name, "uuid"):
		parse = uuid(t.Name != "uuid")
	}
	if parse == nil {
		return keep
	}
	return func(dst, raw []byte) ([]byte, error) {
		from := len(dst) + prefix
		for range prefix {
			dst = append(dst, 0)
		}
		dst, err := parse(dst, raw)
		for len(dst) > from && dst[len(dst)-1] == 0 { // the binlog leaves out the zeros at the end of fixed strings of bytes
			dst = dst[:len(dst)-1]
		}
		if err == nil {
			_, err = length(dst[:from-prefix], len(dst)-from, prefix)
		}
		return dst, err
	}
}

// inet reads the text of an address of that many bytes.
func inet(size int) convert {
	return func(dst, raw []byte) ([]byte, error) {
		a, err := netip.ParseAddr(string(raw))
		if err != nil || a.BitLen() != size*8 || a.Zone() != "" {
			return dst, errors.New("not an address of its type")
		}
		if size == 4 {
			b := a.As4()
			return append(dst, b[:]...), nil
		}
		b := a.As16()
		return append(dst, b[:]...), nil
	}
}

var errUUID = errors.New("not a UUID")

// uuid reads a UUID's text into its bytes; old: of a column from before MariaDB kept them as they are, its groups from
// last to first. (The server sorts versions 1 to 5 so in any case.)
func uuid(old bool) convert {
	return func(dst, raw []byte) ([]byte, error) {
		if len(raw) != 36 || raw[8] != '-' || raw[13] != '-' || raw[18] != '-' || raw[23] != '-' {
			return dst, errUUID
		}
		parts := [...][2]int{{0, 8}, {9, 13}, {14, 18}, {19, 23}, {24, 36}}
		for i := range parts {
			part := parts[i]
			if old {
				part = parts[len(parts)-1-i]
			}
			var err error
			if dst, err = hex.AppendDecode(dst, raw[part[0]:part[1]]); err != nil {
				return dst, errUUID
			}
		}
		return dst, nil
	}
}

// digitBytes is the room of up to nine decimal digits.
var digitBytes = [10]int{0, 1, 1, 2, 2, 3, 3, 4, 4, 4}

// decimal packs a number's text: nine digits in four bytes, fewer at both ends in as few as they need; big-endian, the
// first bit inverted, all bits inverted below zero.
func decimal(precision, scale, size int) convert {
	const group = 9
	whole := precision - scale
	return func(dst, raw []byte) ([]byte, error) {
		digits, negative := bytes.CutPrefix(raw, []byte{'-'})
		head, tail, _ := bytes.Cut(digits, []byte{'.'})
		for len(head) > 0 && head[0] == '0' {
			head = head[1:]
		}
		if len(head) > whole || len(tail) > scale {
			return dst, fmt.Errorf("a decimal of more than %d digits, or %d behind the point", precision, scale)
		}
		from := len(dst)
		bad := false
		put := func(s []byte, n, pad int) { // pad: zeros behind s
			v := uint32(0)
			for _, c := range s {
				bad = bad || c < '0' || c > '9'
				v = v*10 + uint32(c-'0')
			}
			for range pad {
				v *= 10
			}
			for i := digitBytes[n] - 1; i >= 0; i-- {
				dst = append(dst, byte(v>>(8*i)))
			}
		}
		for left := whole; left > 0; { // groups end at the point
			n := left % group
			if n == 0 {
				n = group
			}
			have := max(len(head)-(left-n), 0)
			put(head[:have], n, 0)
			head, left = head[have:], left-n
		}
		for left := scale; left > 0; left -= min(left, group) {
			n := min(left, group)
			have := min(len(tail), n)
			put(tail[:have], n, n-have)
			tail = tail[have:]
		}
		if bad || len(dst)-from != size {
			return dst[:from], errors.New("not a decimal")
		}
		dst[from] ^= 0x80
		if negative {
			for i := from; i < len(dst); i++ {
				dst[i] = ^dst[i]
			}
		}
		return dst, nil
	}
}
