package chunks

import (
	"slices"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/schemas/cell/binlog/rowimage"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// ident quotes a name.
func ident(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// from names the table of a statement.
func from(schema, name string) string { return ident(schema) + "." + ident(name) }

// quote writes s as an SQL string; NO_BACKSLASH_ESCAPES is off in our sessions.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\x00", `\0`).Replace(s) + "'"
}

// shaped is what statements about a table are made of.
type shaped struct {
	table *schemas.Table
	// keyed has the columns of the key alone; the others are dropped.
	keyed *schemas.Table
	// key names the columns of the identity, in whose order keys have them; order the same in that of the index.
	key, order []string
	index      string
	// create is what the server said of the table when it was looked at.
	create string
}

// columns lists what is selected of t.
func columns(t *schemas.Table) string {
	var list []string
	for _, i := range rowimage.Kept(t) {
		list = append(list, rowimage.Select(&t.Columns[i].Type, ident(t.Columns[i].Name)))
	}
	return strings.Join(list, ", ")
}

// statement writes the SELECT for q.
func (sh *shaped) statement(q *snapshot.Query, where bool) (string, error) {
	t := sh.table
	if q.Scout {
		t = sh.keyed
	}
	var conditions []string
	add := func(c string) { conditions = append(conditions, "("+c+")") }
	if where && q.Where != "" {
		add(q.Where + "\n") // a comment in it ends there
	}
	for _, bound := range []struct {
		key   []byte
		op    string
		equal string
	}{{q.After, ">", ""}, {q.Until, "<", "="}} {
		if bound.key == nil {
			continue
		}
		list, err := sh.literals(bound.key)
		if err != nil {
			return "", err
		}
		add(sh.beyond(list, bound.op, bound.equal))
	}
	if len(q.Keys) > 0 {
		var any []string
		for _, key := range q.Keys {
			list, err := sh.literals(key)
			if err != nil {
				return "", err
			}
			any = append(any, sh.equal(list))
		}
		add(strings.Join(any, " OR "))
	}
	var b strings.Builder
	b.WriteString("SELECT " + columns(t) + " FROM " + from(t.Schema, t.Name))
	if len(sh.order) > 0 {
		b.WriteString(" FORCE INDEX (" + ident(sh.index) + ")")
	}
	if len(conditions) > 0 {
		b.WriteString(" WHERE " + strings.Join(conditions, " AND "))
	}
	if len(sh.order) > 0 {
		order := make([]string, len(sh.order))
		for i, name := range sh.order {
			order[i] = ident(name)
		}
		b.WriteString(" ORDER BY " + strings.Join(order, ", "))
		switch {
		case q.Scout:
			b.WriteString(" LIMIT 1 OFFSET " + strconv.Itoa(max(q.Limit-1, 0)))
		case len(q.Keys) == 0 && q.Limit > 0:
			b.WriteString(" LIMIT " + strconv.Itoa(q.Limit+1)) // one more tells whether there is more
		}
	}
	return b.String(), nil
}

// literals returns the parts of a key in the index's order.
func (sh *shaped) literals(key []byte) ([]string, error) {
	list, err := split(key, len(sh.key))
	if err != nil {
		return nil, err
	}
	out := make([]string, len(list))
	for i, name := range sh.order {
		out[i] = list[slices.Index(sh.key, name)]
	}
	return out, nil
}

// beyond compares the key's columns with literals as one value would be: a row constructor would not use the index
// on all of them. last is added to the last column's operator.
func (sh *shaped) beyond(literals []string, op, last string) string {
	var any []string
	for i, name := range sh.order {
		o := op
		if i == len(sh.order)-1 {
			o += last
		}
		all := make([]string, 0, i+1)
		if i > 0 {
			all = append(all, sh.equal(literals[:i]))
		}
		any = append(any, "("+strings.Join(append(all, sh.compare(name, o, literals[i])), " AND ")+")")
	}
	return strings.Join(any, " OR ")
}

// maxList is how many values of an enum or a set are listed.
const maxList = 1 << 10

// compare compares one column. The servers do not use the index to compare the numbers of enums and sets, but they do
// for a list of them.
func (sh *shaped) compare(name, op, literal string) string {
	values := sh.values(name)
	n, err := strconv.ParseUint(literal, 10, 64)
	if values == 0 || err != nil {
		return ident(name) + " " + op + " " + literal
	}
	from, to := uint64(0), n // op is <
	switch op {
	case "<=":
		to = n + 1
	case ">":
		from, to = n+1, values
	}
	var list []string
	for v := from; v < to; v++ {
		list = append(list, strconv.FormatUint(v, 10))
	}
	if len(list) == 0 {
		return "FALSE"
	}
	return ident(name) + " IN (" + strings.Join(list, ",") + ")"
}

// values is how many values an enum or a set has, 0 for other columns and for too many.
func (sh *shaped) values(name string) uint64 {
	t := &sh.table.Columns[sh.table.Column(name)].Type
	values := uint64(0)
	switch binlog.Real(t) {
	case binlog.TypeEnum:
		values = uint64(len(t.Labels)) + 1
	case binlog.TypeSet:
		values = 1 << min(len(t.Labels), 63)
	}
	if values > maxList {
		return 0
	}
	return values
}

// equal compares the first columns of the key. A number that an enum or a set never has stands beside its number: what
// is one number alone the servers take out of ORDER BY, and then sort all rows that are left.
func (sh *shaped) equal(literals []string) string {
	all := make([]string, len(literals))
	for i, literal := range literals {
		name := sh.order[i]
		all[i] = ident(name) + " = " + literal
		if values := sh.values(name); values > 0 {
			all[i] = ident(name) + " IN (" + literal + "," + strconv.FormatUint(values, 10) + ")"
		}
	}
	return "(" + strings.Join(all, " AND ") + ")"
}
