// Package rowimage makes row images of the binlog ([schemas.WireBinlog]) of rows that were selected, so that each cell
// has the same bytes whether the binlog or a SELECT brought it.
//
// It takes rows in the client protocol's binary form (prepared statements), which has integers, floats and times
// exactly as they are, of a session with character_set_results=NULL, so that text stays in its column's character set.
// What the binary form lacks is asked for by [Select]: enums and sets by their number. JSON alone has no image, since
// no statement gives MySQL's binary form: it is kept as text behind [binlog.JSONText].
// https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_binary_resultset.html
package rowimage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
)

// typeNull is the type of a result's column that has no values.
const typeNull = 6

// Select returns the expression that gives a column in the form that [Maker] wants; name is quoted for SQL.
func Select(t *schemas.Type, name string) string {
	switch binlog.Real(t) {
	case binlog.TypeEnum, binlog.TypeSet:
		return "CAST(" + name + " AS UNSIGNED)"
	}
	return name
}

// convert appends what raw, a value of the binary protocol without its length, is in a row image.
type convert func(dst, raw []byte) ([]byte, error)

// column is one of the result.
type column struct {
	at   int // in the table
	code uint8
	into convert
}

// Maker makes the images of one table's rows. Safe for concurrent use.
type Maker struct {
	columns []column
	head    []byte // first byte and, when columns are left out, the bitmap of the present ones
	nulls   int    // bytes of the null bitmap
	names   []string
}

// Kept lists the columns of t that are selected, in order: all but the dropped ones.
func Kept(t *schemas.Table) []int {
	var list []int
	for i := range t.Columns {
		if !t.Columns[i].Dropped {
			list = append(list, i)
		}
	}
	return list
}

// New returns a maker for rows that have the columns that Kept lists; codes are their types as the result declares
// them.
func New(t *schemas.Table, codes []uint8) (*Maker, error) {
	layout, err := binlog.NewLayout(t)
	if err != nil {
		return nil, err
	}
	kept := Kept(t)
	if len(kept) != len(codes) || len(kept) == 0 {
		return nil, fmt.Errorf("rows of %d columns, the table has %d", len(codes), len(kept))
	}
	m := &Maker{head: []byte{0}, nulls: (len(kept) + 7) / 8}
	if len(kept) < len(t.Columns) {
		m.head = make([]byte, 1+(len(t.Columns)+7)/8)
		m.head[0] = 1
		for _, i := range kept {
			m.head[1+i/8] |= 1 << (i % 8)
		}
	}
	for n, i := range kept {
		fixed, prefix := layout.Width(i)
		into, err := converter(&t.Columns[i].Type, codes[n], fixed, prefix)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", t.Columns[i].Name, err)
		}
		m.columns = append(m.columns, column{at: i, code: codes[n], into: into})
		m.names = append(m.names, t.Columns[i].Name)
	}
	return m, nil
}

var errRow = errors.New("the row is cut off, or of other columns than its result declares")

// Append appends the image of a row, given as the packet of the binary protocol.
func (m *Maker) Append(dst, row []byte) ([]byte, error) {
	const ahead = 2 // bits of the protocol's null bitmap that are not used
	nulls := (len(m.columns) + 7 + ahead) / 8
	if len(row) < 1+nulls || row[0] != 0 {
		return dst, errRow
	}
	bits, at := row[1:1+nulls], 1+nulls
	dst = append(dst, m.head...)
	null := len(dst)
	for range m.nulls {
		dst = append(dst, 0)
	}
	for i := range m.columns {
		c := &m.columns[i]
		if bits[(i+ahead)/8]&(1<<((i+ahead)%8)) != 0 || c.code == typeNull {
			dst[null+i/8] |= 1 << (i % 8)
			continue
		}
		from, to := value(c.code, row, at)
		if to < 0 {
			return dst, errRow
		}
		var err error
		if dst, err = c.into(dst, row[from:to]); err != nil {
			return dst, fmt.Errorf("column %s: %w", m.names[i], err)
		}
		at = to
	}
	if at != len(row) {
		return dst, errRow
	}
	return dst, nil
}

// value returns where the value at row[at:] begins, behind its length if it has one, and ends; to is -1 when it is
// cut off.
func value(code uint8, row []byte, at int) (from, to int) {
	size := 0
	switch code {
	case binlog.TypeTiny:
		size = 1
	case binlog.TypeShort, binlog.TypeYear:
		size = 2
	case binlog.TypeLong, binlog.TypeInt24, binlog.TypeFloat:
		size = 4
	case binlog.TypeLonglong, binlog.TypeDouble:
		size = 8
	default:
		if at >= len(row) {
			return 0, -1
		}
		if size = int(row[at]); size < 0xfb {
			at++
			break
		}
		n := map[int]int{0xfc: 2, 0xfd: 3, 0xfe: 8}[size]
		if n == 0 || at+1+n > len(row) {
			return 0, -1
		}
		var b [8]byte
		copy(b[:], row[at+1:at+1+n])
		long := binary.LittleEndian.Uint64(b[:])
		if at += 1 + n; long > uint64(len(row)-at) {
			return 0, -1
		}
		size = int(long)
	}
	if at+size > len(row) {
		return 0, -1
	}
	return at, at + size
}

// converter picks how a value that the result declares as code becomes a cell of type t, which takes fixed bytes or
// has a length of prefix bytes.
func converter(t *schemas.Type, code uint8, fixed, prefix int) (convert, error) {
	if code == typeNull {
		return func(dst, _ []byte) ([]byte, error) { return dst, nil }, nil
	}
	real := binlog.Real(t)
	want := []uint8{real}
	var into convert
	switch real {
	case binlog.TypeTiny, binlog.TypeShort, binlog.TypeInt24, binlog.TypeLong, binlog.TypeLonglong, binlog.TypeFloat, binlog.TypeDouble:
		into = low(fixed)
	case binlog.TypeEnum, binlog.TypeSet:
		want, into = []uint8{binlog.TypeLonglong, binlog.TypeLong}, low(fixed)
	case binlog.TypeYear:
		into = year
	case binlog.TypeNewDecimal:
		into = decimal(int(t.Precision), int(t.Scale), fixed)
	case binlog.TypeBit:
		into = high(fixed)
	case binlog.TypeJSON:
		into = behind(binlog.JSONText, prefix)
	case binlog.TypeGeometry, binlog.TypeVector:
		into = counted(prefix)
	case binlog.TypeDate, binlog.TypeNewDate, binlog.TypeTime, binlog.TypeTime2, binlog.TypeDatetime, binlog.TypeDatetime2, binlog.TypeTimestamp, binlog.TypeTimestamp2:
		want, into = temporal(t, real, fixed)
	default:
		want = []uint8{binlog.TypeString, binlog.TypeVarString, binlog.TypeVarchar, binlog.TypeBlob, binlog.TypeTinyBlob, binlog.TypeMediumBlob, binlog.TypeLongBlob}
		into = text(t, real, prefix)
	}
	if into == nil || !slices.Contains(want, code) {
		return nil, fmt.Errorf("the server gives values of type %d for a column of type %d", code, real)
	}
	return into, nil
}
