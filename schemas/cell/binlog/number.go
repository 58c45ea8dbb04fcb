package binlog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

var errSize = errors.New("the value has not the size of its type")

// intDecoder reads the integers, whose sign is the column's.
func intDecoder(t *schemas.Type) (cell.Decode, error) {
	size := map[uint8]int{TypeTiny: 1, TypeShort: 2, TypeInt24: 3, TypeLong: 4, TypeLonglong: 8}[t.Code]
	kind, width := t.Kind, t.Bits
	shift := 0
	switch kind {
	case schemas.KindInt:
		shift = 64 - size*8
	case schemas.KindUint:
	default:
		return nil, fmt.Errorf("an integer of kind %s", kind)
	}
	return func(v *cell.Value, raw []byte, _ *cell.Scratch) error {
		if len(raw) != size {
			return errSize
		}
		n := little(raw)
		*v = cell.Value{Kind: kind, Bits: width, N: uint64(int64(n<<shift) >> shift)}
		if shift == 0 {
			v.N = n
		}
		return nil
	}, nil
}

// little reads a little-endian integer of up to 8 bytes.
func little(b []byte) uint64 {
	if len(b) == 8 {
		return binary.LittleEndian.Uint64(b)
	}
	n := uint64(0)
	for i, c := range b {
		n |= uint64(c) << (8 * i)
	}
	return n
}

// big reads a big-endian integer of up to 8 bytes.
func big(b []byte) uint64 {
	n := uint64(0)
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n
}

func decodeYear(v *cell.Value, raw []byte, _ *cell.Scratch) error {
	if len(raw) != 1 {
		return errSize
	}
	*v = cell.Value{Kind: schemas.KindUint, Bits: 16}
	if raw[0] != 0 { // 0 is the year 0000
		v.N = 1900 + uint64(raw[0])
	}
	return nil
}

func decodeFloat(v *cell.Value, raw []byte, _ *cell.Scratch) error {
	if len(raw) != 4 {
		return errSize
	}
	*v = cell.Value{Kind: schemas.KindFloat, Bits: 32, N: uint64(binary.LittleEndian.Uint32(raw))}
	return nil
}

func decodeDouble(v *cell.Value, raw []byte, _ *cell.Scratch) error {
	if len(raw) != 8 {
		return errSize
	}
	*v = cell.Value{Kind: schemas.KindFloat, Bits: 64, N: binary.LittleEndian.Uint64(raw)}
	return nil
}

// bitDecoder reads bit strings: the highest bit first, filled up with zeros on the left to whole bytes.
func bitDecoder(n int) cell.Decode {
	return func(v *cell.Value, raw []byte, s *cell.Scratch) error {
		if len(raw) != (n+7)/8 {
			return errSize
		}
		bits := big(raw)
		if n < 64 && bits>>n != 0 {
			return fmt.Errorf("a bit string longer than its %d bits", n)
		}
		if n == 1 {
			*v = cell.Value{Kind: schemas.KindBool, N: bits}
			return nil
		}
		from := len(s.Buf)
		for i := n - 1; i >= 0; i-- {
			s.Buf = append(s.Buf, '0'+byte(bits>>i&1))
		}
		*v = cell.Value{Kind: schemas.KindBits, B: s.Buf[from:len(s.Buf):len(s.Buf)]}
		return nil
	}
}

// Decimals keep nine digits in four bytes, fewer at the ends in as few as they need; big-endian, the
// first bit inverted, all bits inverted for negative numbers.
var digitBytes = [10]int{0, 1, 1, 2, 2, 3, 3, 4, 4, 4}

var powers = [10]uint32{1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000}

const (
	groupDigits  = 9
	maxPrecision = 65
	maxDecimal   = 32 // bytes that no decimal exceeds
)

// decimalBytes returns the size of a decimal with that many digits, scale of them behind the point.
func decimalBytes(precision, scale int) (int, error) {
	if precision < 1 || precision > maxPrecision || scale > precision {
		return 0, fmt.Errorf("a decimal of %d digits, %d behind the point", precision, scale)
	}
	whole := precision - scale
	return whole/groupDigits*4 + digitBytes[whole%groupDigits] + scale/groupDigits*4 + digitBytes[scale%groupDigits], nil
}

func decimalDecoder(precision, scale int) (cell.Decode, error) {
	if _, err := decimalBytes(precision, scale); err != nil {
		return nil, err
	}
	return func(v *cell.Value, raw []byte, s *cell.Scratch) error {
		from := len(s.Buf)
		buf, err := appendDecimal(s.Buf, raw, precision, scale)
		if err != nil {
			return err
		}
		s.Buf = buf
		*v = cell.Value{Kind: schemas.KindDecimal, B: buf[from:len(buf):len(buf)]}
		return nil
	}, nil
}

// appendDecimal appends a decimal's text as the servers write it: "-0.50".
func appendDecimal(dst, raw []byte, precision, scale int) ([]byte, error) {
	size, err := decimalBytes(precision, scale)
	if err != nil {
		return dst, err
	}
	if len(raw) != size {
		return dst, errSize
	}
	var copied [maxDecimal]byte
	b := copied[:copy(copied[:], raw)]
	b[0] ^= 0x80
	if raw[0]&0x80 == 0 {
		for i := range b {
			b[i] = ^b[i]
		}
		if !zero(b) {
			dst = append(dst, '-')
		}
	}
	from := len(dst)
	group := func(digits int) {
		n := digitBytes[digits]
		x := uint32(big(b[:n]))
		b = b[n:]
		if x >= powers[digits] {
			err = errors.New("the bytes are not a decimal")
		}
		for digits--; digits >= 0; digits-- {
			d := x / powers[digits] % 10
			if d != 0 || len(dst) > from {
				dst = append(dst, '0'+byte(d))
			}
		}
	}
	whole := precision - scale
	group(whole % groupDigits)
	for range whole / groupDigits {
		group(groupDigits)
	}
	if len(dst) == from {
		dst = append(dst, '0')
	}
	if scale > 0 {
		dst = append(dst, '.')
		for range scale / groupDigits {
			group(groupDigits)
		}
		group(scale % groupDigits)
	}
	return dst, err
}
