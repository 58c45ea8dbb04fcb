// Package catalog reads what information_schema says of tables, in the words of the binlog's table maps: so a table's
// shape is the same whether an event or the catalogue told it.
package catalog

import (
	"context"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/schemas/cell/binlog"
)

// Rows runs a query and returns its rows as text, NULL as "".
type Rows func(ctx context.Context, sql string) ([][]string, error)

// Column is a column as the catalogue has it.
type Column struct {
	// Name, and Declared: its type as the catalogue writes it, the word in lower case.
	Name, Declared string
	// Collation by name and id; empty and 0 for what has none.
	Collation   string
	CollationID uint64
	Hidden      bool
	Nullable    bool
	Primary     bool
	// octets of strings, precision and scale of numbers, digits of a second's fraction.
	octets, precision, scale, digits uint64
}

// Everything picks all tables but the server's own.
const Everything = "TABLE_SCHEMA NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema')"

// Columns reads the columns of the tables that a condition over TABLE_SCHEMA and TABLE_NAME picks, by database.table,
// in order.
func Columns(ctx context.Context, rows Rows, ids map[string]uint64, where string) (map[string][]Column, error) {
	list, err := rows(ctx, `SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, COALESCE(COLLATION_NAME, ''), EXTRA, IS_NULLABLE, COLUMN_KEY,
		CHARACTER_OCTET_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION
		FROM information_schema.COLUMNS WHERE `+where+` ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION`)
	if err != nil {
		return nil, err
	}
	out := map[string][]Column{}
	for _, row := range list {
		name, end := row[0]+"."+row[1], typeEnd(row[3])
		out[name] = append(out[name], Column{
			Name: row[2], Declared: strings.ToLower(row[3][:end]) + row[3][end:], Collation: row[4], CollationID: ids[row[4]],
			Hidden: strings.Contains(row[5], "INVISIBLE"), Nullable: row[6] == "YES", Primary: row[7] == "PRI",
			octets: number(row[8]), precision: number(row[9]), scale: number(row[10]), digits: number(row[11]),
		})
	}
	return out, nil
}

func number(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Collations reads the ids of all collations.
func Collations(ctx context.Context, rows Rows) (map[string]uint64, error) {
	ids := map[string]uint64{}
	all, err := rows(ctx, "SELECT COLLATION_NAME, COALESCE(ID, 0) FROM information_schema.COLLATIONS")
	if err != nil {
		return nil, err
	}
	// MariaDB 10.10 has collations whose ids go by the character set.
	if more, merr := rows(ctx, "SELECT FULL_COLLATION_NAME, COALESCE(ID, 0) FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY"); merr == nil {
		all = append(all, more...)
	}
	for _, row := range all {
		if id := number(row[1]); id > 0 {
			ids[row[0]] = id
		}
	}
	return ids, nil
}

// typeEnd is where the word of a type ends: labels behind it keep their case.
func typeEnd(declared string) int {
	if i := strings.IndexByte(declared, '('); i >= 0 {
		return i
	}
	return len(declared)
}

// word is the type's name alone: "int" of "int(11) unsigned".
func (k *Column) word() string {
	word, _, _ := strings.Cut(k.Declared[:typeEnd(k.Declared)], " ")
	return word
}

const (
	collationBinary  = 63
	collationUTF8MB4 = 45
)

var geometries = []string{"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection"}

// Fill sets what a table map without names does not say, when the catalogue is known to be of the same version.
func (k *Column) Fill(c *binlog.TableMapColumn, m *binlog.TableMap, i int) {
	k.describe(c)
	if w := k.word(); w == "enum" || w == "set" {
		// The catalogue's text is UTF-8, whatever the column's own character set.
		c.Collation = collationUTF8MB4
	}
	if k.Primary {
		m.Identity = append(m.Identity, i)
	}
}

// describe sets all but code and metadata.
func (k *Column) describe(c *binlog.TableMapColumn) {
	word := k.word()
	c.Name, c.Declared, c.Hidden, c.Nullable = k.Name, k.Declared, k.Hidden, k.Nullable
	c.Unsigned = strings.Contains(k.Declared[typeEnd(k.Declared):], "unsigned") || strings.Contains(k.Declared, " unsigned")
	c.Collation = k.CollationID
	if k.Collation == "" {
		c.Collation = collationBinary
	}
	if word == "enum" || word == "set" {
		c.Labels = labels(k.Declared)
	}
	for id, name := range geometries {
		if word == name {
			c.Geometry = uint64(id)
		}
	}
}

// labels reads the labels of an enum or set; a quote in one is doubled.
func labels(declared string) [][]byte {
	out := [][]byte{}
	rest := declared[typeEnd(declared):]
	for len(rest) > 0 {
		at := strings.IndexByte(rest, '\'')
		if at < 0 {
			break
		}
		rest = rest[at+1:]
		var l []byte
		for len(rest) > 0 {
			if rest[0] == '\'' {
				if len(rest) > 1 && rest[1] == '\'' {
					l, rest = append(l, '\''), rest[2:]
					continue
				}
				rest = rest[1:]
				break
			}
			l, rest = append(l, rest[0]), rest[1:]
		}
		out = append(out, l)
	}
	return out
}
