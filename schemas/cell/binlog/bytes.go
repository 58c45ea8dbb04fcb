package binlog

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strconv"
	"sync"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

func decodeBytes(v *cell.Value, raw []byte, _ *cell.Scratch) error {
	*v = cell.Value{Kind: schemas.KindBytes, B: raw}
	return nil
}

// binaryDecoder gives BINARY(n) its full length: the binlog leaves out the zeros at its end.
func binaryDecoder(n int) cell.Decode {
	return func(v *cell.Value, raw []byte, s *cell.Scratch) error {
		if len(raw) > n {
			return errSize
		}
		*v = cell.Value{Kind: schemas.KindBytes, B: raw}
		if len(raw) < n {
			v.B = pad(raw, n, s)
		}
		return nil
	}
}

func pad(raw []byte, n int, s *cell.Scratch) []byte {
	from := len(s.Buf)
	s.Buf = append(s.Buf, raw...)
	for range n - len(raw) {
		s.Buf = append(s.Buf, 0)
	}
	return s.Buf[from:len(s.Buf):len(s.Buf)]
}

var errLabel = errors.New("the value is beyond the labels of its enum or set")

// enumDecoder reads an index into the labels from 1; 0 is the empty text of a value refused by the
// column and stored nevertheless.
func enumDecoder(labels []string) cell.Decode {
	list := make([][]byte, len(labels)+1)
	list[0] = []byte{}
	for i, l := range labels {
		list[i+1] = []byte(l)
	}
	return func(v *cell.Value, raw []byte, _ *cell.Scratch) error {
		if len(raw) > 2 {
			return errSize
		}
		n := little(raw)
		if n >= uint64(len(list)) {
			return errLabel
		}
		*v = cell.Value{Kind: schemas.KindText, B: list[n]}
		return nil
	}
}

// setDecoder reads a bit per label, the first one lowest.
func setDecoder(labels []string) cell.Decode {
	return func(v *cell.Value, raw []byte, s *cell.Scratch) error {
		if len(raw) > 8 {
			return errSize
		}
		n := little(raw)
		if len(labels) < 64 && n>>len(labels) != 0 {
			return errLabel
		}
		from := len(s.Buf)
		for i, l := range labels {
			if i > 63 || n>>i == 0 {
				break
			}
			if n>>i&1 == 0 {
				continue
			}
			if len(s.Buf) > from {
				s.Buf = append(s.Buf, ',')
			}
			s.Buf = append(s.Buf, l...)
		}
		*v = cell.Value{Kind: schemas.KindText, B: s.Buf[from:len(s.Buf):len(s.Buf)]}
		return nil
	}
}

// sridFlag marks in an EWKB's type that the SRID follows.
const sridFlag = 0x20000000

// decodeGeometry turns the servers' form, SRID and WKB, into EWKB. Coordinates stay as they are
// stored, also in the order of axes. An SRID of 0 is left out.
func decodeGeometry(v *cell.Value, raw []byte, s *cell.Scratch) error {
	*v = cell.Value{Kind: schemas.KindBytes, B: raw}
	if len(raw) == 0 { // what a NOT NULL column gets where the server is lenient
		return nil
	}
	if len(raw) < 9 {
		return errors.New("the bytes are not a geometry: too few")
	}
	srid := binary.LittleEndian.Uint32(raw)
	if srid == 0 {
		v.B = raw[4:]
		return nil
	}
	if raw[4] != 1 {
		return errors.New("the bytes are not a geometry: its byte order is not little-endian")
	}
	kind := binary.LittleEndian.Uint32(raw[5:])
	from := len(s.Buf)
	s.Buf = append(s.Buf, 1)
	s.Buf = binary.LittleEndian.AppendUint32(s.Buf, kind|sridFlag)
	s.Buf = binary.LittleEndian.AppendUint32(s.Buf, srid)
	s.Buf = append(s.Buf, raw[9:]...)
	v.B = s.Buf[from:len(s.Buf):len(s.Buf)]
	return nil
}

// decodeVector reads little-endian 32-bit floats.
func decodeVector(v *cell.Value, raw []byte, s *cell.Scratch) error {
	if len(raw)%4 != 0 {
		return errSize
	}
	from := len(s.Elems)
	for ; len(raw) > 0; raw = raw[4:] {
		s.Elems = append(s.Elems, cell.Value{Kind: schemas.KindFloat, Bits: 32, N: uint64(binary.LittleEndian.Uint32(raw))})
	}
	*v = cell.Value{Kind: schemas.KindVector, Elems: s.Elems[from:len(s.Elems):len(s.Elems)]}
	return nil
}

// fixed gives the 4 or 16 bytes of a MariaDB type that the binlog treats as BINARY(n).
func fixed(raw []byte, n int, into []byte) error {
	if len(raw) > n {
		return errSize
	}
	copy(into, raw)
	return nil
}

// oldUUID is how MariaDB declares columns from before it kept versions 6 and later unswapped.
const oldUUID = "uuid /* old */"

// uuidDecoder reads MariaDB's UUID. To sort by time its record keeps the text's groups from last to
// first, unless the version is 6 or later.
func uuidDecoder(always bool) cell.Decode {
	return func(v *cell.Value, raw []byte, s *cell.Scratch) error {
		var r [16]byte
		if err := fixed(raw, len(r), r[:]); err != nil {
			return err
		}
		u := r
		// In a swapped record byte 6 begins the variant (high bit set), byte 8 the version (1 to 5).
		if always || r[6]&0x80 != 0 && r[8] != 0 && r[8] <= 0x80 {
			copy(u[0:4], r[12:16])
			copy(u[4:6], r[10:12])
			copy(u[6:8], r[8:10])
			copy(u[8:10], r[6:8])
			copy(u[10:16], r[0:6])
		}
		from := len(s.Buf)
		for i, part := range [...][]byte{u[0:4], u[4:6], u[6:8], u[8:10], u[10:16]} {
			if i > 0 {
				s.Buf = append(s.Buf, '-')
			}
			s.Buf = hex.AppendEncode(s.Buf, part)
		}
		*v = cell.Value{Kind: schemas.KindText, B: s.Buf[from:len(s.Buf):len(s.Buf)]}
		return nil
	}
}

func decodeINET4(v *cell.Value, raw []byte, s *cell.Scratch) error {
	var a [4]byte
	if err := fixed(raw, len(a), a[:]); err != nil {
		return err
	}
	from := len(s.Buf)
	s.Buf = netip.AddrFrom4(a).AppendTo(s.Buf)
	*v = cell.Value{Kind: schemas.KindText, B: s.Buf[from:len(s.Buf):len(s.Buf)]}
	return nil
}

// decodeINET6 writes addresses as MariaDB does: the first longest run of zero groups as "::", a mapped
// or compatible IPv4 address in dots.
func decodeINET6(v *cell.Value, raw []byte, s *cell.Scratch) error {
	var a [16]byte
	if err := fixed(raw, len(a), a[:]); err != nil {
		return err
	}
	from := len(s.Buf)
	start, size := longestZeros(&a)
	mapped := start == 0 && (size == 6 || size == 5 && a[10] == 0xff && a[11] == 0xff)
	for i := 0; i < 8; i++ {
		if size > 0 && i == start {
			s.Buf = append(s.Buf, ':', ':')
			i += size - 1
			continue
		}
		if i > 0 && (size == 0 || i != start+size) {
			s.Buf = append(s.Buf, ':')
		}
		if mapped && i == 6 {
			s.Buf = netip.AddrFrom4([4]byte(a[12:])).AppendTo(s.Buf)
			break
		}
		s.Buf = strconv.AppendUint(s.Buf, uint64(binary.BigEndian.Uint16(a[2*i:])), 16)
	}
	*v = cell.Value{Kind: schemas.KindText, B: s.Buf[from:len(s.Buf):len(s.Buf)]}
	return nil
}

// longestZeros finds the first longest run of zero groups.
func longestZeros(a *[16]byte) (start, size int) {
	for i := 0; i < 8; i++ {
		n := 0
		for i+n < 8 && a[2*(i+n)] == 0 && a[2*(i+n)+1] == 0 {
			n++
		}
		if n > size {
			start, size = i, n
		}
		i += n
	}
	return start, size
}

// inflating reads MariaDB's COMPRESSED columns: a header byte (0 = as it is; else 8 in the high half
// for zlib, bit 3 for deflate without zlib's frame, and the bytes of the length in the low bits), the
// big-endian length, the data.
// https://mariadb.com/docs/server/ha-and-performance/optimization-and-tuning/optimization-and-tuning-compression/storage-engine-independent-column-compression
func inflating(next cell.Decode) cell.Decode {
	return func(v *cell.Value, raw []byte, s *cell.Scratch) error {
		if len(raw) == 0 {
			return next(v, raw, s)
		}
		if raw[0] == 0 {
			return next(v, raw[1:], s)
		}
		plain, err := inflate(raw, s)
		if err != nil {
			return fmt.Errorf("decompress: %w", err)
		}
		return next(v, plain, s)
	}
}

// maxRatio is beyond what deflate can reach (1032:1): a greater length in a header is a lie.
const maxRatio = 1040

var inflaters = sync.Pool{New: func() any { return flate.NewReader(nil) }}

func inflate(raw []byte, s *cell.Scratch) ([]byte, error) {
	n := int(raw[0] & 7)
	if raw[0]>>4 != 8 || len(raw) < 1+n {
		return nil, errors.New("the header is not one of zlib")
	}
	size := big(raw[1 : 1+n])
	data := raw[1+n:]
	if size > uint64(len(data))*maxRatio || size > math.MaxUint32 {
		return nil, errors.New("the header's length is beyond what the data can hold")
	}
	var r io.Reader
	if raw[0]&8 != 0 {
		f := inflaters.Get().(io.ReadCloser) //nolint:forcetypeassert // the pool holds nothing else
		defer inflaters.Put(f)
		if err := f.(flate.Resetter).Reset(bytes.NewReader(data), nil); err != nil {
			return nil, err
		}
		r = f
	} else {
		z, err := zlib.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		r = z
	}
	from := len(s.Buf)
	s.Buf = append(s.Buf, make([]byte, size)...)
	plain := s.Buf[from:len(s.Buf):len(s.Buf)]
	if _, err := io.ReadFull(r, plain); err != nil {
		return nil, err
	}
	var more [1]byte
	if k, err := r.Read(more[:]); k > 0 || err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.New("the data does not end where its header says")
	}
	return plain, nil
}
