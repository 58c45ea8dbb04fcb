package mysql

import (
	"context"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/schemas/cell/binlog"
)

// catalogue reads the columns of all tables but the server's own, by database.table, in order.
func (c *conn) catalogue(ctx context.Context) (map[string][]catalogColumn, error) {
	ids, err := c.collations(ctx)
	if err != nil {
		return nil, err
	}
	return c.columns(ctx, ids, "")
}

// collations reads the numbers of the collations.
func (c *conn) collations(ctx context.Context) (map[string]uint64, error) {
	ids := map[string]uint64{}
	all, err := c.rows(ctx, "SELECT COLLATION_NAME, COALESCE(ID, 0) FROM information_schema.COLLATIONS")
	if err != nil {
		return nil, err
	}
	// MariaDB 10.10 has collations whose ids go by the character set.
	if more, merr := c.rows(ctx, "SELECT FULL_COLLATION_NAME, COALESCE(ID, 0) FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY"); merr == nil {
		all = append(all, more...)
	}
	for _, row := range all {
		if id, perr := strconv.ParseUint(row[1], 10, 64); perr == nil && id > 0 {
			ids[row[0]] = id
		}
	}
	return ids, nil
}

// columns reads the columns of tables; and limits which, in SQL.
func (c *conn) columns(ctx context.Context, ids map[string]uint64, and string) (map[string][]catalogColumn, error) {
	rows, err := c.rows(ctx, `SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, COALESCE(COLLATION_NAME, ''), EXTRA, IS_NULLABLE, COLUMN_KEY
		FROM information_schema.COLUMNS WHERE TABLE_SCHEMA NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema')`+and+`
		ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION`)
	if err != nil {
		return nil, err
	}
	out := map[string][]catalogColumn{}
	for _, row := range rows {
		name := row[0] + "." + row[1]
		out[name] = append(out[name], catalogColumn{name: row[2], declared: strings.ToLower(row[3][:typeEnd(row[3])]) + row[3][typeEnd(row[3]):],
			collation: row[4], collationID: ids[row[4]], hidden: strings.Contains(row[5], "INVISIBLE"), nullable: row[6] == "YES", primary: row[7] == "PRI"})
	}
	return out, nil
}

// typeEnd is where the word of a type ends: labels behind it keep their case.
func typeEnd(declared string) int {
	if i := strings.IndexByte(declared, '('); i >= 0 {
		return i
	}
	return len(declared)
}

const (
	collationBinary  = 63
	collationUTF8MB4 = 45
)

var geometries = []string{"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection"}

// fill sets what the table map does not say, when the catalogue is known to be of the same version.
func (k *catalogColumn) fill(c *binlog.TableMapColumn, m *binlog.TableMap, i int) {
	word := k.declared[:typeEnd(k.declared)]
	word, _, _ = strings.Cut(word, " ")
	c.Name, c.Declared, c.Hidden, c.Nullable = k.name, k.declared, k.hidden, k.nullable
	c.Unsigned = strings.Contains(k.declared[typeEnd(k.declared):], "unsigned") || strings.Contains(k.declared, " unsigned")
	c.Collation = k.collationID
	if k.collation == "" {
		c.Collation = collationBinary
	}
	if word == "enum" || word == "set" {
		// The catalogue's text is UTF-8, whatever the column's own character set.
		c.Labels, c.Collation = labels(k.declared), collationUTF8MB4
	}
	for id, name := range geometries {
		if word == name {
			c.Geometry = uint64(id)
		}
	}
	if k.primary {
		m.Identity = append(m.Identity, i)
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
