package binlog

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// MySQL's binary JSON: https://dev.mysql.com/doc/dev/mysql-server/latest/json__binary_8h.html. A value is
// a type byte and data; a container has the types and places of its values at its front.
const (
	jsonSmallObject = 0x00
	jsonLargeObject = 0x01
	jsonSmallArray  = 0x02
	jsonLargeArray  = 0x03
	jsonLiteral     = 0x04
	jsonInt16       = 0x05
	jsonUint16      = 0x06
	jsonInt32       = 0x07
	jsonUint32      = 0x08
	jsonInt64       = 0x09
	jsonUint64      = 0x0a
	jsonDouble      = 0x0b
	jsonString      = 0x0c
	jsonOpaque      = 0x0f
)

// JSONText begins a document that is kept as the server's own text instead: a snapshot's, since no statement gives
// the binary form. Binary documents begin with their type, below.
const JSONText = 0xff

// maxJSONDepth is above what MySQL accepts (100).
const maxJSONDepth = 128

// base64Line is how many bytes the server puts into one line of base64.
const base64Line = 57

var errJSON = errors.New("the bytes are not binary JSON")

// decodeJSON writes a document as the server shows it: the order of keys is its own, and every digit
// stays.
func decodeJSON(v *cell.Value, raw []byte, s *cell.Scratch) error {
	if len(raw) > 0 && raw[0] == JSONText {
		if raw = raw[1:]; !json.Valid(raw) || !utf8.Valid(raw) {
			return errJSON
		}
		*v = cell.Value{Kind: schemas.KindJSON, B: raw}
		return nil
	}
	from := len(s.Buf)
	buf, err := appendJSON(s.Buf, raw)
	if err != nil {
		return err
	}
	s.Buf = buf
	*v = cell.Value{Kind: schemas.KindJSON, B: buf[from:len(buf):len(buf)]}
	return nil
}

// appendJSON appends a binary document's text. An empty one, which lenient servers store for a
// missing value, reads as null, as they read it.
func appendJSON(dst, raw []byte) ([]byte, error) {
	if len(raw) == 0 {
		return append(dst, "null"...), nil
	}
	p := jsonReader{budget: len(raw)}
	return p.value(dst, raw[0], raw[1:], 0)
}

// jsonReader reads one document. Parts of a document do not overlap, so budget, which begins at its
// size and pays for every part, keeps a damaged one from being read more than once over.
type jsonReader struct {
	budget int
}

func (p *jsonReader) pay(n int) bool {
	p.budget -= n
	return p.budget >= 0
}

// value appends the value whose data begins b.
func (p *jsonReader) value(dst []byte, kind byte, b []byte, depth int) ([]byte, error) {
	switch kind {
	case jsonSmallObject, jsonLargeObject, jsonSmallArray, jsonLargeArray:
		return p.container(dst, kind, b, depth)
	case jsonString:
		text, err := p.counted(b)
		if err != nil {
			return dst, err
		}
		return appendQuoted(dst, text)
	case jsonOpaque:
		return p.opaque(dst, b)
	}
	return p.scalar(dst, kind, b)
}

func (p *jsonReader) scalar(dst []byte, kind byte, b []byte) ([]byte, error) {
	size := 0
	switch kind {
	case jsonLiteral:
		size = 1
	case jsonInt16, jsonUint16:
		size = 2
	case jsonInt32, jsonUint32:
		size = 4
	case jsonInt64, jsonUint64, jsonDouble:
		size = 8
	}
	if size == 0 || len(b) < size {
		return dst, errJSON
	}
	n := little(b[:size])
	switch kind {
	case jsonLiteral:
		if n > 2 {
			return dst, errJSON
		}
		return append(dst, [...]string{"null", "true", "false"}[n]...), nil
	case jsonInt16, jsonInt32, jsonInt64:
		shift := 64 - 8*size
		return strconv.AppendInt(dst, int64(n<<shift)>>shift, 10), nil
	case jsonDouble:
		return appendDouble(dst, math.Float64frombits(n))
	}
	return strconv.AppendUint(dst, n, 10), nil
}

// container appends an object or an array: a count and a size, for objects the places of the keys,
// the values' types and places (small scalars stand there themselves), then keys and values.
func (p *jsonReader) container(dst []byte, kind byte, b []byte, depth int) ([]byte, error) {
	w, object := 2, kind == jsonSmallObject || kind == jsonLargeObject
	if kind == jsonLargeObject || kind == jsonLargeArray {
		w = 4
	}
	if depth >= maxJSONDepth || len(b) < 2*w {
		return dst, errJSON
	}
	count, size := little(b[:w]), little(b[w:2*w])
	if size > uint64(len(b)) {
		return dst, errJSON
	}
	b = b[:size]
	keys, values := 2*w, 2*w
	if object {
		values += int(count) * (w + 2)
	}
	front := uint64(values) + count*uint64(w+1)
	if front > size || !p.pay(int(front)) {
		return dst, errJSON
	}
	open, shut := byte('['), byte(']')
	if object {
		open, shut = '{', '}'
	}
	dst = append(dst, open)
	var err error
	for i := range int(count) {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		if object {
			if dst, err = p.key(dst, b, b[keys+i*(w+2):], w); err != nil {
				return dst, err
			}
		}
		if dst, err = p.entry(dst, b, b[values+i*(w+1):], w, depth); err != nil {
			return dst, err
		}
	}
	return append(dst, shut), nil
}

// key appends the key that entry places within b.
func (p *jsonReader) key(dst, b, entry []byte, w int) ([]byte, error) {
	at, n := little(entry[:w]), little(entry[w:w+2])
	if at+n > uint64(len(b)) || !p.pay(int(n)) {
		return dst, errJSON
	}
	dst, err := appendQuoted(dst, b[at:at+n])
	return append(dst, ": "...), err
}

// entry appends the value that entry holds or places within b.
func (p *jsonReader) entry(dst, b, entry []byte, w, depth int) ([]byte, error) {
	kind := entry[0]
	if jsonInline(kind, w) {
		return p.scalar(dst, kind, entry[1:1+w])
	}
	at := little(entry[1 : 1+w])
	if at >= uint64(len(b)) {
		return dst, errJSON
	}
	return p.value(dst, kind, b[at:], depth+1)
}

// jsonInline tells the values that stand in their entry, whose places are w bytes wide.
func jsonInline(kind byte, w int) bool {
	switch kind {
	case jsonLiteral, jsonInt16, jsonUint16:
		return true
	case jsonInt32, jsonUint32:
		return w == 4
	}
	return false
}

// counted returns the bytes behind a length of up to five bytes, seven bits each, lowest first.
func (p *jsonReader) counted(b []byte) ([]byte, error) {
	n := uint64(0)
	for i := 0; i < 5 && i < len(b); i++ {
		n |= uint64(b[i]&0x7f) << (7 * i)
		if b[i]&0x80 != 0 {
			continue
		}
		if n > uint64(len(b)-i-1) || !p.pay(int(n)) {
			return nil, errJSON
		}
		return b[i+1 : i+1+int(n)], nil
	}
	return nil, errJSON
}

// opaque appends a value of a type that JSON has not.
func (p *jsonReader) opaque(dst, b []byte) ([]byte, error) {
	if len(b) == 0 {
		return dst, errJSON
	}
	kind := b[0]
	data, err := p.counted(b[1:])
	if err != nil {
		return dst, err
	}
	switch kind {
	case TypeNewDecimal:
		if len(data) < 2 {
			return dst, errJSON
		}
		if dst, err = appendDecimal(dst, data[2:], int(data[0]), int(data[1])); err != nil {
			return dst, fmt.Errorf("a decimal in JSON: %w", err)
		}
		return dst, nil
	case TypeDate, TypeTime, TypeDatetime, TypeTimestamp:
		if len(data) != 8 {
			return dst, errJSON
		}
		return appendPacked(dst, kind, int64(binary.LittleEndian.Uint64(data))), nil
	}
	dst = append(dst, `"base64:type`...)
	dst = append(strconv.AppendUint(dst, uint64(kind), 10), ':')
	for len(data) > base64Line { // the server breaks lines
		dst = append(base64.StdEncoding.AppendEncode(dst, data[:base64Line]), `\n`...)
		data = data[base64Line:]
	}
	return append(base64.StdEncoding.AppendEncode(dst, data), '"'), nil
}

// appendPacked appends a time of the servers' in-memory form: the binlog's, with 24 bits of
// microseconds.
func appendPacked(dst []byte, kind byte, n int64) []byte {
	const digits = 6
	dst = append(dst, '"')
	if n < 0 {
		dst = append(dst, '-')
		n = -n
	}
	whole, micro := n>>24&(1<<39-1), n&(1<<24-1)
	c := unpack(whole)
	c.micro = micro
	switch kind {
	case TypeTime:
		c = clock{hour: whole >> 12 & 1023, minute: c.minute, second: c.second, micro: micro}
		dst = c.appendTime(dst, digits)
	default:
		dst = c.append(dst, kind == TypeDate, digits)
	}
	return append(dst, '"')
}

// appendDouble appends a number as the server shows it: the shortest digits that read back the same,
// plain from 1e-15 to below 1e15 and where digits stand behind the point, else with an exponent; a
// ".0" tells it from an integer.
func appendDouble(dst []byte, f float64) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return dst, errJSON
	}
	if f == 0 {
		if math.Signbit(f) {
			dst = append(dst, '-')
		}
		return append(dst, "0.0"...), nil
	}
	var b [32]byte
	e := strconv.AppendFloat(b[:0], f, 'e', -1, 64)
	if e[0] == '-' {
		dst = append(dst, '-')
		e = e[1:]
	}
	mark := len(e) - 1
	for e[mark] != 'e' {
		mark--
	}
	exp, _ := strconv.Atoi(string(e[mark+1:])) // does not allocate: it does not escape
	digits := e[:mark]
	if len(digits) > 1 {
		digits[1] = digits[0] // over the point
		digits = digits[1:]
	}
	const most = 15
	point := exp + 1 // digits before the point
	switch {
	case point <= -most || point > most && len(digits) <= point:
		dst = append(dst, digits[0])
		if len(digits) > 1 {
			dst = append(append(dst, '.'), digits[1:]...)
		}
		return strconv.AppendInt(append(dst, 'e'), int64(exp), 10), nil
	case point <= 0:
		dst = append(dst, "0."...)
		for range -point {
			dst = append(dst, '0')
		}
		return append(dst, digits...), nil
	case point < len(digits):
		dst = append(append(dst, digits[:point]...), '.')
		return append(dst, digits[point:]...), nil
	}
	dst = append(dst, digits...)
	for range point - len(digits) {
		dst = append(dst, '0')
	}
	return append(dst, ".0"...), nil
}

// appendQuoted appends a JSON string.
func appendQuoted(dst, text []byte) ([]byte, error) {
	if !utf8.Valid(text) {
		return dst, errJSON
	}
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i, c := range text {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, text[from:i]...)
		from = i + 1
		switch c {
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		case '"', '\\':
			dst = append(dst, '\\', c)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(dst, text[from:]...), '"'), nil
}
