package binlog

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// TableMap is the body of a table map event with all its optional metadata. Its byte slices alias the
// event.
type TableMap struct {
	TableID uint64
	Flags   uint16
	Schema  string
	Table   string
	Columns []TableMapColumn
	// Identity lists the columns of the primary key, nil when the event does not say.
	Identity []int
	// Named tells that the event carried the columns' names: binlog_row_metadata=FULL.
	Named bool
}

// TableMapColumn is what a table map event says about one column.
type TableMapColumn struct {
	Name     string // empty without full metadata
	Code     uint8
	Meta     uint16 // as in the event; for TypeString, TypeNewDecimal with the first byte high
	Nullable bool
	Hidden   bool
	// Unsigned is only known where the event carries signedness.
	Unsigned bool
	// Collation is the id of the column's collation; 0 = the event does not say.
	Collation uint64
	// Labels of an enum or set, in the column's character set; nil = the event does not say.
	Labels [][]byte
	// Geometry is the kind of shape (0 = any, 1 = point, …).
	Geometry uint64
	// Dims is the number of a vector's dimensions, 0 = unknown.
	Dims uint64
	// Declared is the column's type as the catalogue writes it (information_schema COLUMN_TYPE),
	// where the reader knows that the catalogue is of the same version. The event cannot tell
	// MariaDB's uuid, inet4, inet6, vector from binary strings, nor the fraction's digits of its old
	// temporal formats. Empty = unknown.
	Declared string
}

// The fields of the optional metadata.
const (
	optSignedness     = 1
	optDefaultCharset = 2
	optColumnCharset  = 3
	optColumnName     = 4
	optSetLabels      = 5
	optEnumLabels     = 6
	optGeometry       = 7
	optPrimaryKey     = 8
	optPrefixKey      = 9
	optLabelDefault   = 10
	optLabelCharset   = 11
	optVisibility     = 12
	optVectorDims     = 13
)

var errTableMap = errors.New("the table map event is cut off or damaged")

// maxColumns bounds what a table may have on either server (4096), against damaged counts.
const maxColumns = 4096

// ReadTableMap reads a table map event's body: what follows the event's header, without checksum.
// mariadb tells which server wrote it: they count text columns differently.
func ReadTableMap(body []byte, mariadb bool) (*TableMap, error) {
	r := reader{b: body}
	m := &TableMap{}
	id := r.take(6)
	if r.bad {
		return nil, fmt.Errorf("read table map: %w", errTableMap)
	}
	m.TableID = uint64(binary.LittleEndian.Uint32(id)) | uint64(binary.LittleEndian.Uint16(id[4:]))<<32
	m.Flags = uint16(r.int(2))
	m.Schema = string(r.take(r.int(1)))
	r.take(1)
	m.Table = string(r.take(r.int(1)))
	r.take(1)
	n := r.packed()
	if r.bad || n > maxColumns {
		return nil, fmt.Errorf("read table map: %w", errTableMap)
	}
	m.Columns = make([]TableMapColumn, n)
	for i, c := range r.take(n) {
		m.Columns[i].Code = c
	}
	meta := reader{b: r.take(r.packed())}
	for i := range m.Columns {
		c := &m.Columns[i]
		c.Meta = meta.meta(c.Code)
	}
	for i, b := range r.take((n + 7) / 8) {
		for j := i * 8; j < min(int(n), i*8+8); j++ {
			m.Columns[j].Nullable = b&(1<<(j&7)) != 0
		}
	}
	if r.bad || meta.bad {
		return nil, fmt.Errorf("read table map of %s.%s: %w", m.Schema, m.Table, errTableMap)
	}
	for len(r.b) > 0 {
		field := r.int(1)
		value := r.take(r.packed())
		if r.bad || !m.option(field, reader{b: value}, mariadb) {
			return nil, fmt.Errorf("read metadata %d in table map of %s.%s: %w", field, m.Schema, m.Table, errTableMap)
		}
	}
	return m, nil
}

// option reads one field of the optional metadata; unknown ones are for later servers.
func (m *TableMap) option(field uint64, r reader, mariadb bool) bool {
	isText := func(c *TableMapColumn) bool { return c.text(mariadb) }
	switch field {
	case optSignedness:
		m.bits(&r, (*TableMapColumn).numeric, func(c *TableMapColumn, set bool) { c.Unsigned = set })
	case optVisibility:
		m.bits(&r, func(*TableMapColumn) bool { return true }, func(c *TableMapColumn, set bool) { c.Hidden = !set })
	case optDefaultCharset:
		m.defaultCollation(&r, isText)
	case optColumnCharset:
		m.each(&r, isText, func(c *TableMapColumn) { c.Collation = r.packed() })
	case optLabelDefault:
		m.defaultCollation(&r, (*TableMapColumn).labelled)
	case optLabelCharset:
		m.each(&r, (*TableMapColumn).labelled, func(c *TableMapColumn) { c.Collation = r.packed() })
	case optColumnName:
		m.Named = true
		m.each(&r, func(*TableMapColumn) bool { return true }, func(c *TableMapColumn) { c.Name = string(r.take(r.int(1))) })
	case optSetLabels:
		m.each(&r, func(c *TableMapColumn) bool { return c.real() == TypeSet }, func(c *TableMapColumn) { c.Labels = r.labels() })
	case optEnumLabels:
		m.each(&r, func(c *TableMapColumn) bool { return c.real() == TypeEnum }, func(c *TableMapColumn) { c.Labels = r.labels() })
	case optGeometry:
		m.each(&r, func(c *TableMapColumn) bool { return c.Code == TypeGeometry }, func(c *TableMapColumn) { c.Geometry = r.packed() })
	case optVectorDims:
		m.each(&r, func(c *TableMapColumn) bool { return c.Code == TypeVector }, func(c *TableMapColumn) { c.Dims = r.packed() })
	case optPrimaryKey, optPrefixKey:
		for len(r.b) > 0 {
			i := r.packed()
			if field == optPrefixKey {
				r.packed()
			}
			if r.bad || i >= uint64(len(m.Columns)) {
				return false
			}
			m.Identity = append(m.Identity, int(i))
		}
	}
	return !r.bad
}

// bits reads a bitmap, most significant bit first, over the columns that pick names.
func (m *TableMap) bits(r *reader, pick func(*TableMapColumn) bool, set func(*TableMapColumn, bool)) {
	n := 0
	for i := range m.Columns {
		if c := &m.Columns[i]; pick(c) {
			if n/8 >= len(r.b) {
				r.bad = true
				return
			}
			set(c, r.b[n/8]&(0x80>>(n&7)) != 0)
			n++
		}
	}
}

// each calls read for the columns that pick names.
func (m *TableMap) each(r *reader, pick func(*TableMapColumn) bool, read func(*TableMapColumn)) {
	for i := range m.Columns {
		if c := &m.Columns[i]; pick(c) && !r.bad {
			read(c)
		}
	}
}

// defaultCollation reads a default and the exceptions to it, numbered among the columns of pick.
func (m *TableMap) defaultCollation(r *reader, pick func(*TableMapColumn) bool) {
	usual := r.packed()
	other := map[uint64]uint64{}
	for len(r.b) > 0 && !r.bad {
		i := r.packed()
		other[i] = r.packed()
	}
	n := uint64(0)
	for i := range m.Columns {
		if c := &m.Columns[i]; pick(c) {
			c.Collation = usual
			if id, ok := other[n]; ok {
				c.Collation = id
			}
			n++
		}
	}
}

func (c *TableMapColumn) real() uint8 {
	if c.Code == TypeString {
		real, _ := stringMeta(c.Meta)
		return real
	}
	return c.Code
}

func (c *TableMapColumn) numeric() bool {
	switch c.Code {
	case TypeTiny, TypeShort, TypeInt24, TypeLong, TypeLonglong, TypeNewDecimal, TypeFloat, TypeDouble, TypeYear:
		return true
	}
	return false
}

func (c *TableMapColumn) labelled() bool { return c.real() == TypeEnum || c.real() == TypeSet }

// text tells the columns for which the event carries a collation.
func (c *TableMapColumn) text(mariadb bool) bool {
	switch c.real() {
	case TypeString, TypeVarString, TypeVarchar, TypeBlob:
		return true
	case TypeGeometry, TypeBlobCompressed, TypeVarcharCompressed:
		return mariadb
	}
	return false
}

// reader takes bytes from b; bad is set, and nothing returned, once they do not suffice.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

// int reads a little-endian integer of n ≤ 8 bytes.
func (r *reader) int(n uint64) uint64 {
	v := uint64(0)
	for i, c := range r.take(n) {
		v |= uint64(c) << (8 * i)
	}
	return v
}

// packed reads a length-encoded integer.
func (r *reader) packed() uint64 {
	switch c := r.int(1); c {
	case 0xfc:
		return r.int(2)
	case 0xfd:
		return r.int(3)
	case 0xfe:
		return r.int(8)
	case 0xfb, 0xff:
		r.bad, r.b = true, nil
		return 0
	default:
		return c
	}
}

func (r *reader) labels() [][]byte {
	n := r.packed()
	if n > uint64(len(r.b)) { // each takes a byte at least
		r.bad = true
		return nil
	}
	list := make([][]byte, 0, n)
	for range n {
		list = append(list, r.take(r.packed()))
	}
	return list
}

// meta reads a column's metadata, whose size goes by its type.
func (r *reader) meta(code uint8) uint16 {
	switch code {
	case TypeString, TypeNewDecimal, TypeEnum, TypeSet:
		hi := r.int(1)
		return uint16(hi<<8 | r.int(1))
	case TypeVarchar, TypeVarString, TypeBit, TypeVarcharCompressed:
		return uint16(r.int(2))
	case TypeBlob, TypeTinyBlob, TypeMediumBlob, TypeLongBlob, TypeBlobCompressed, TypeFloat, TypeDouble, TypeGeometry, TypeJSON,
		TypeVector, TypeTimestamp2, TypeDatetime2, TypeTime2:
		return uint16(r.int(1))
	case TypeTypedArray:
		// Only functional indexes have them, which the binlog does not carry; refused by TypeOf.
		r.int(1)
		return 0
	}
	return 0
}
