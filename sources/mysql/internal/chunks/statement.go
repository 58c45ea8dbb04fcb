package chunks

import (
	"slices"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/schemas"
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
		add(beyond(sh.order, list, bound.op, bound.equal))
	}
	if len(q.Keys) > 0 {
		var any []string
		for _, key := range q.Keys {
			list, err := sh.literals(key)
			if err != nil {
				return "", err
			}
			any = append(any, equal(sh.order, list))
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
func beyond(key, literals []string, op, last string) string {
	var any []string
	for i := range key {
		o := op
		if i == len(key)-1 {
			o += last
		}
		all := make([]string, 0, i+1)
		if i > 0 {
			all = append(all, equal(key[:i], literals))
		}
		any = append(any, "("+strings.Join(append(all, ident(key[i])+" "+o+" "+literals[i]), " AND ")+")")
	}
	return strings.Join(any, " OR ")
}

func equal(key, literals []string) string {
	all := make([]string, len(key))
	for i, name := range key {
		all[i] = ident(name) + " = " + literals[i]
	}
	return "(" + strings.Join(all, " AND ") + ")"
}
