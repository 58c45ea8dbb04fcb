// Package schemas holds the words for the shape of data: tables, columns, types.
//
// A [Table] is one version of a table's shape, as the source's own log described it when a row was
// written. Rows are kept in the wire form that the source sent ([Wire]); the shape is what turns a
// row's bytes into values (package schemas/cell). Values of this package are immutable once shared.
package schemas

import (
	"fmt"
	"hash/fnv"
	"net/url"
	"strconv"
	"strings"
)

// Wire names the form in which the cells of a row are kept. The numbers stand in the log's format:
// never reuse one.
type Wire uint8

const (
	// WireNone is the form of tables without rows.
	WireNone Wire = 0
	// WirePGText is a pgoutput TupleData message part in text format: Int16 column count, then for
	// each column a kind byte ('n' null, 'u' unchanged TOAST = absent, 't' text) and, for 't', an
	// Int32 length and that many bytes; all integers big-endian.
	// https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
	WirePGText Wire = 1
	// WireBinlog is a row image of a MySQL or MariaDB rows event, made self-contained by a first
	// byte: 0 = all columns present; 1 = a bitmap of the present columns follows (bit i of byte
	// i/8, LSB first, ceil(columns/8) bytes). Then the null bitmap over the present columns and
	// the packed values, as in the binlog. Rows of a snapshot have the same form; a JSON value of MySQL is then the
	// byte 0xff and the server's text, since no statement gives the binary one.
	// https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Rows__event.html
	WireBinlog Wire = 2
)

// Kind is the family of a value: what a sink needs to know to encode it. The numbers stand in the
// log's format: never reuse one.
type Kind uint8

const (
	// KindUnknown: only the database's own text form is known.
	KindUnknown Kind = 0
	KindBool    Kind = 1
	KindInt     Kind = 2 // signed integer of Bits bits
	KindUint    Kind = 3 // unsigned integer of Bits bits; year and oid too
	KindDecimal Kind = 4 // exact decimal, or NaN, Infinity, -Infinity
	KindFloat   Kind = 5 // binary float of Bits bits (32 or 64)
	KindText    Kind = 6 // UTF-8 text; enum, set, uuid, inet, xml, … too
	KindBytes   Kind = 7
	KindBits    Kind = 8  // bit string of Length bits
	KindJSON    Kind = 9  // JSON text, digits kept
	KindDate    Kind = 10 // day of the proleptic Gregorian calendar
	KindTime    Kind = 11 // time of day, or MySQL's TIME (negative, beyond 24 h)
	// KindDateTime is a point on a calendar and clock of no zone (timestamp, datetime).
	KindDateTime Kind = 12
	// KindTimestamp is an instant (timestamptz, MySQL's timestamp).
	KindTimestamp Kind = 13
	KindArray     Kind = 14 // of Elem
	KindVector    Kind = 15 // of 32-bit floats (MySQL VECTOR, pgvector)
)

var kindNames = [...]string{"unknown", "bool", "int", "uint", "decimal", "float", "text", "bytes", "bits", "json", "date", "time", "datetime", "timestamp", "array", "vector"}

// String returns the kind's name in lower case.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "kind" + strconv.Itoa(int(k))
}

// Type is the type of a column, with what is needed to read its wire form.
type Type struct {
	Kind Kind `json:"kind"`
	// Name is the type as the database writes it: "numeric(10,2)", "bigint unsigned".
	Name string `json:"name,omitempty"`
	// Bits is the width of integers and floats: 8, 16, 24, 32, 64.
	Bits uint8 `json:"bits,omitempty"`
	// Length of char(n), binary(n), bit(n), in characters, bytes, bits; the digits of a second's
	// fraction for times.
	Length    uint32 `json:"length,omitempty"`
	Precision uint16 `json:"precision,omitempty"`
	Scale     uint16 `json:"scale,omitempty"`
	// Labels of an enum or set, in UTF-8, in declaration order.
	Labels []string `json:"labels,omitempty"`
	// Charset of the stored text, in MySQL's name ("latin1"); empty = UTF-8.
	Charset string `json:"charset,omitempty"`
	// Collation by which the database compares; empty = unknown or bytewise.
	Collation string `json:"collation,omitempty"`
	// Elem is the element type of an array.
	Elem *Type `json:"elem,omitempty"`
	// OID and Mod are PostgreSQL's type and modifier as the Relation message gave them.
	OID uint32 `json:"oid,omitempty"`
	Mod int32  `json:"mod,omitempty"`
	// Code and Meta are the column type and metadata of the binlog's table map.
	Code uint8  `json:"code,omitempty"`
	Meta uint16 `json:"meta,omitempty"`
}

// Column is one column of a table version.
type Column struct {
	Name string `json:"name"`
	Type Type   `json:"type"`
	// Nullable is true unless the column is known to be NOT NULL.
	Nullable bool `json:"nullable,omitempty"`
	// Generated and Hidden (invisible) columns travel only where the stream carries them.
	Generated bool `json:"generated,omitempty"`
	Hidden    bool `json:"hidden,omitempty"`
	// Dropped columns stand in the wire form but not in what a subscriber sees: the columns
	// that `columns:` keeps out.
	Dropped bool `json:"dropped,omitempty"`
	// Number is the database's own of the column (PostgreSQL's attnum): one that is renamed keeps it, one that is
	// dropped and added again does not. 0: not known; -1: the catalogue had changed the column since the
	// rows were written, so it may be another one of that name.
	Number int16 `json:"number,omitempty"`
}

// Table is one version of one table's shape. The source fills everything but ID, Version, Routing
// and KeySpace, which ingest sets before anyone else sees it; then it is immutable.
type Table struct {
	// ID is stable for the table's name within one log, never reused; Version counts its shapes from 1.
	ID      uint32 `json:"id"`
	Version uint32 `json:"version"`
	// Schema is PostgreSQL's schema or MySQL's database.
	Schema  string   `json:"schema"`
	Name    string   `json:"name"`
	Wire    Wire     `json:"wire"`
	Columns []Column `json:"columns"`
	// Identity lists the columns (indexes into Columns) that identify a row: the primary key,
	// else the replica identity; empty when there is none.
	Identity []int `json:"identity,omitempty"`
	// FullBefore: before images carry all columns (REPLICA IDENTITY FULL, row image FULL).
	FullBefore bool `json:"full_before,omitempty"`
	// Carried lists columns that before images carry beside Identity (a replica identity index that is
	// wider than the primary key).
	Carried []int `json:"carried,omitempty"`
	// Routing lists the columns whose values decide order and range; empty: the table is one key.
	Routing []int `json:"routing,omitempty"`
	// KeySpace names the space that the routing key lives in; tables of one space share order per key.
	KeySpace string `json:"key_space,omitempty"`
	// Number is the database's own of the table (PostgreSQL's oid), 0 = unknown: another one under the same
	// name is another table.
	Number uint32 `json:"number,omitempty"`

	subject string
}

// Subject is "schema.table", everything but A–Z a–z 0–9 _ - percent-encoded in each part: the name
// that subscribers see.
func (t *Table) Subject() string {
	if t.subject != "" {
		return t.subject
	}
	return Subject(t.Schema, t.Name)
}

// Seal computes what is derived (the subject) and returns t; call it before t is shared.
func (t *Table) Seal() *Table {
	t.subject = Subject(t.Schema, t.Name)
	return t
}

// Subject joins and percent-encodes a schema's and a table's name.
func Subject(schema, table string) string {
	var b strings.Builder
	b.Grow(len(schema) + len(table) + 1)
	escape(&b, schema)
	b.WriteByte('.')
	escape(&b, table)
	return b.String()
}

// ParseSubject takes apart what Subject made; false when s is nothing that it makes.
func ParseSubject(s string) (schema, table string, ok bool) {
	a, b, dot := strings.Cut(s, ".")
	schema, errA := url.PathUnescape(a)
	table, errB := url.PathUnescape(b)
	return schema, table, dot && errA == nil && errB == nil && Subject(schema, table) == s
}

func escape(b *strings.Builder, s string) {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
}

// ShapeHash fingerprints everything about the table but ID and Version: two versions with one hash
// are one shape.
func (t *Table) ShapeHash() uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%q %q %d %v %v %v %q", t.Schema, t.Name, t.Wire, t.Identity, t.FullBefore, t.Routing, t.KeySpace)
	if len(t.Carried) > 0 {
		fmt.Fprintf(h, " %v", t.Carried)
	}
	if t.Number != 0 {
		fmt.Fprintf(h, " #%d", t.Number)
	}
	for i := range t.Columns {
		c := &t.Columns[i]
		fmt.Fprintf(h, "|%q %v %v %v %v ", c.Name, c.Nullable, c.Generated, c.Hidden, c.Dropped)
		if c.Number != 0 {
			fmt.Fprintf(h, "#%d ", c.Number)
		}
		for ty := &c.Type; ty != nil; ty = ty.Elem {
			fmt.Fprintf(h, "%d %q %d %d %d %d %q %q %q %d %d %d %d;", ty.Kind, ty.Name, ty.Bits, ty.Length, ty.Precision,
				ty.Scale, ty.Labels, ty.Charset, ty.Collation, ty.OID, ty.Mod, ty.Code, ty.Meta)
		}
	}
	return h.Sum64()
}

// Column returns the index of the named column, or -1.
func (t *Table) Column(name string) int {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return i
		}
	}
	return -1
}
