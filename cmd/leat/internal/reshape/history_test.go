package reshape

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// column and table are what the generator knows of the database.
type column struct {
	name, kind string // kind: int, bigint, short, long, decimal, date, enum
	fill       bool   // has a default
}

type table struct {
	name    string
	key     string
	columns []column // beside the key
	parts   bool     // MySQL: it is partitioned
	full    bool     // PostgreSQL: REPLICA IDENTITY FULL, so that the stream does not tell the key
}

// history makes statements at random. It never makes one that fails.
type history struct {
	*rand.Rand
	dialect
	tables []*table
	names  int
	labels []string // of the enum
	writes int
}

// dialect is how a database says it.
type dialect interface {
	typeOf(h *history, kind string) string
	// own are the changes that only this database knows; each returns statements, nil when it does not fit.
	own() map[string]func(h *history, t *table) []string
	retype(h *history, t *table, c *column, kind string) []string
	insert(t, columns, values string) string
	transactional() bool
}

func (h *history) fresh(prefix string) string {
	h.names++
	return fmt.Sprintf("%s%d", prefix, h.names)
}

var kinds = []string{"int", "bigint", "short", "long", "decimal", "date", "enum"}

func (h *history) kind() string { return kinds[h.IntN(len(kinds))] }

// value is a literal.
func (h *history) value(kind string) string {
	if h.IntN(6) == 0 {
		return "null"
	}
	return h.filled(kind)
}

func (h *history) filled(kind string) string {
	switch kind {
	case "int":
		return fmt.Sprint(h.IntN(2000) - 1000)
	case "bigint":
		return fmt.Sprint(h.Int64N(1<<62) - 1<<61)
	case "short", "long":
		words := []string{"", "a", "ä", "it''s", "weir mill", strings.Repeat("x", 19)}
		return "'" + words[h.IntN(len(words))] + "'"
	case "decimal":
		return fmt.Sprintf("%d.%02d", h.IntN(9999)+1, h.IntN(100))
	case "date":
		return fmt.Sprintf("'%04d-%02d-%02d'", 1990+h.IntN(50), 1+h.IntN(12), 1+h.IntN(28))
	}
	return "'" + h.labels[h.IntN(len(h.labels))] + "'"
}

// define is a column's definition, perhaps with a default.
func (h *history) define(c *column) string {
	text := c.name + " " + h.typeOf(h, c.kind)
	if c.kind == "enum" { // its labels may grow later
		return text
	}
	value := h.filled(c.kind)
	if c.kind == "long" {
		value = "(" + value + ")" // a text's has to be an expression in MySQL
	}
	switch h.IntN(4) {
	case 0:
		c.fill = true
		text += " default " + value
	case 1:
		c.fill = true
		text += " not null default " + value
	}
	return text
}

func (h *history) create(name string) (*table, string) {
	t := &table{name: name, key: "id"}
	var list []string
	for range 1 + h.IntN(4) {
		c := column{name: h.fresh("c"), kind: h.kind()}
		list = append(list, h.define(&c))
		t.columns = append(t.columns, c)
	}
	return t, fmt.Sprintf("create table %s (id bigint primary key, %s)", name, strings.Join(list, ", "))
}

func (h *history) pick() *table { return h.tables[h.IntN(len(h.tables))] }

// write is one write.
func (h *history) write(t *table) string {
	h.writes++
	id := 1 + h.IntN(60)
	switch h.IntN(6) {
	case 0:
		return fmt.Sprintf("delete from %s where %s = %d", t.name, t.key, id)
	case 1, 2:
		if len(t.columns) > 0 {
			c := &t.columns[h.IntN(len(t.columns))]
			v := h.filled(c.kind)
			return fmt.Sprintf("update %s set %s = %s where %s = %d", t.name, c.name, v, t.key, id)
		}
	case 3:
		return fmt.Sprintf("update %s set %s = %d where %s = %d", t.name, t.key, 1000+h.writes, t.key, id)
	}
	return h.add(t, id)
}

// add inserts a row when there is none of that id.
func (h *history) add(t *table, id int) string {
	names, values := []string{t.key}, []string{fmt.Sprint(id)}
	for i := range t.columns {
		if c := &t.columns[i]; !c.fill {
			names, values = append(names, c.name), append(values, h.value(c.kind))
		} else if h.IntN(2) == 0 {
			names, values = append(names, c.name), append(values, h.filled(c.kind))
		}
	}
	return h.insert(t.name, strings.Join(names, ", "), strings.Join(values, ", "))
}

// change makes the statements of one change of shape, with its name.
func (h *history) change() (string, []string) {
	own := h.own()
	all := []string{"add", "add", "add", "drop", "rename", "retype", "default", "readd", "truncate", "recreate", "name", "swap", "index", "key"}
	for name := range own {
		all = append(all, name)
	}
	slices.Sort(all)
	for {
		name, t := all[h.IntN(len(all))], h.pick()
		make := own[name]
		if make == nil {
			make = shared[name]
		}
		if list := make(h, t); list != nil {
			return name, list
		}
	}
}

// shared are the changes that all databases know.
var shared = map[string]func(h *history, t *table) []string{
	"add": func(h *history, t *table) []string {
		if len(t.columns) > 8 {
			return nil
		}
		c := column{name: h.fresh("c"), kind: h.kind()}
		text := h.define(&c)
		t.columns = append(t.columns, c)
		return []string{"alter table " + t.name + " add column " + text}
	},
	"drop": func(h *history, t *table) []string {
		if len(t.columns) < 2 {
			return nil
		}
		i := h.IntN(len(t.columns))
		name := t.columns[i].name
		t.columns = slices.Delete(t.columns, i, i+1)
		return []string{"alter table " + t.name + " drop column " + name}
	},
	"rename": func(h *history, t *table) []string {
		c := &t.columns[h.IntN(len(t.columns))]
		was := c.name
		c.name = h.fresh("c")
		return []string{fmt.Sprintf("alter table %s rename column %s to %s", t.name, was, c.name)}
	},
	"retype": func(h *history, t *table) []string {
		c := &t.columns[h.IntN(len(t.columns))]
		wider := map[string]string{"int": "bigint", "bigint": "long", "short": "long", "decimal": "long", "date": "short"}[c.kind]
		if wider == "" {
			return nil
		}
		return h.retype(h, t, c, wider)
	},
	"default": func(h *history, t *table) []string {
		c := &t.columns[h.IntN(len(t.columns))]
		if c.kind == "enum" || !c.fill || c.kind == "long" {
			return nil
		}
		return []string{fmt.Sprintf("alter table %s alter column %s set default %s", t.name, c.name, h.filled(c.kind))}
	},
	"readd": func(h *history, t *table) []string {
		if len(t.columns) < 2 {
			return nil
		}
		last := len(t.columns) - 1
		c := &t.columns[last]
		c.fill = false
		return []string{fmt.Sprintf("alter table %s drop column %s", t.name, c.name),
			fmt.Sprintf("alter table %s add column %s %s", t.name, c.name, h.typeOf(h, c.kind))}
	},
	"truncate": func(h *history, t *table) []string { return []string{"truncate table " + t.name} },
	"recreate": func(h *history, t *table) []string {
		now, text := h.create(t.name)
		*t = *now
		return []string{"drop table " + t.name, text}
	},
	"name": func(h *history, t *table) []string {
		was := t.name
		t.name = h.fresh("t")
		return []string{"alter table " + was + " rename to " + t.name}
	},
	"swap": func(h *history, t *table) []string {
		o := h.pick()
		if o == t {
			return nil
		}
		between := h.fresh("s")
		t.name, o.name = o.name, t.name
		return []string{"alter table " + o.name + " rename to " + between, "alter table " + t.name + " rename to " + o.name, "alter table " + between + " rename to " + t.name}
	},
	"index": func(h *history, t *table) []string {
		c := &t.columns[h.IntN(len(t.columns))]
		if c.kind == "long" {
			return nil
		}
		i := h.fresh("i")
		drop := "drop index " + i
		if !h.transactional() {
			drop += " on " + t.name
		}
		return []string{fmt.Sprintf("create index %s on %s (%s)", i, t.name, c.name), drop}
	},
	"key": func(h *history, t *table) []string {
		if t.parts || t.full {
			return nil
		}
		was := t.key
		t.key = h.fresh("k")
		return []string{fmt.Sprintf("alter table %s rename column %s to %s", t.name, was, t.key)}
	},
}
