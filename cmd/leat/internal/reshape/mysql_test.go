package reshape

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/client"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/mysql"
)

type myConn struct {
	c    *client.Conn
	name string
}

func (m myConn) do(s string) error {
	_, err := m.c.Execute(s)
	return err
}

func (m myConn) rows(query string) (columns []string, rows [][]string, err error) {
	r, err := m.c.Execute(query)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	for _, f := range r.Fields {
		columns = append(columns, strings.Clone(string(f.Name)))
	}
	for i := range r.RowNumber() {
		var cells []string
		for j := range columns {
			if is, _ := r.IsNull(i, j); is {
				cells = append(cells, null)
				continue
			}
			s, err := r.GetString(i, j)
			if err != nil {
				return nil, nil, err
			}
			cells = append(cells, strings.Clone(s)) // s lies in a buffer that is used again
		}
		rows = append(rows, cells)
	}
	return columns, rows, nil
}

func (m myConn) prefix() string { return m.name }
func (myConn) told() bool       { return true }

type myDialect struct{}

func (myDialect) transactional() bool { return false }

func (myDialect) typeOf(h *history, kind string) string {
	if kind == "enum" {
		return "enum('" + strings.Join(h.labels, "','") + "')"
	}
	return map[string]string{"int": "int", "bigint": "bigint", "short": "varchar(20)", "long": "text", "decimal": "decimal(10,2)", "date": "date"}[kind]
}

func (myDialect) insert(t, columns, values string) string {
	return fmt.Sprintf("insert ignore into %s (%s) values (%s)", t, columns, values)
}

func (d myDialect) retype(h *history, t *table, c *column, kind string) []string {
	c.kind, c.fill = kind, false
	verb := "modify column " + c.name
	if h.IntN(2) == 0 {
		was := c.name
		c.name = h.fresh("c")
		verb = "change column " + was + " " + c.name
	}
	return []string{fmt.Sprintf("alter table %s %s %s", t.name, verb, d.typeOf(h, kind))}
}

func place(h *history, t *table, c *column) string {
	if h.IntN(3) == 0 {
		return " first"
	}
	if o := &t.columns[h.IntN(len(t.columns))]; o != c {
		return " after " + o.name
	}
	return " after " + t.key
}

// copyOf is another table of t's shape with one more column, filled with t's rows as the tools do.
func copyOf(h *history, t *table, ghost string, like bool) (*table, []string) {
	now := &table{name: t.name, key: t.key, columns: slices.Clone(t.columns), parts: t.parts}
	c := column{name: h.fresh("c"), kind: h.kind()}
	names := t.key
	for i := range t.columns {
		names += ", " + t.columns[i].name
	}
	list := []string{"create table " + ghost + " like " + t.name, "alter table " + ghost + " add column " + h.define(&c)}
	now.columns = append(now.columns, c)
	list = append(list, fmt.Sprintf("insert into %s (%s) select %s from %s", ghost, names, names, t.name))
	return now, list
}

func (d myDialect) own() map[string]func(h *history, t *table) []string {
	return map[string]func(h *history, t *table) []string{
		"move": func(h *history, t *table) []string {
			c := &t.columns[h.IntN(len(t.columns))]
			if c.fill || c.kind == "enum" {
				return nil
			}
			return []string{fmt.Sprintf("alter table %s modify column %s %s%s", t.name, c.name, d.typeOf(h, c.kind), place(h, t, c))}
		},
		"put": func(h *history, t *table) []string {
			if len(t.columns) > 8 {
				return nil
			}
			c := column{name: h.fresh("c"), kind: h.kind()}
			text := h.define(&c) + place(h, t, &c)
			t.columns = append(t.columns, c)
			return []string{"alter table " + t.name + " add column " + text}
		},
		"names": func(h *history, t *table) []string {
			if len(t.columns) < 2 {
				return nil
			}
			a, b := &t.columns[0], &t.columns[1]
			a.name, b.name = b.name, a.name
			return []string{fmt.Sprintf("alter table %[1]s rename column %[2]s to %[3]s, rename column %[3]s to %[2]s", t.name, b.name, a.name)}
		},
		"both": func(h *history, t *table) []string { // dropped and added in one statement
			c := &t.columns[len(t.columns)-1]
			c.fill = false
			return []string{fmt.Sprintf("alter table %[1]s drop column %[2]s, add column %[2]s %[3]s", t.name, c.name, d.typeOf(h, c.kind))}
		},
		"label": func(h *history, t *table) []string {
			i := slices.IndexFunc(t.columns, func(c column) bool { return c.kind == "enum" })
			if i < 0 {
				return nil
			}
			h.labels = append(h.labels, h.fresh("l"))
			var list []string
			for _, o := range h.tables {
				for _, c := range o.columns {
					if c.kind == "enum" {
						list = append(list, fmt.Sprintf("alter table %s modify column %s %s", o.name, c.name, d.typeOf(h, c.kind)))
					}
				}
			}
			return list
		},
		"charset": func(h *history, t *table) []string {
			sets := []string{"utf8mb4", "latin1", "utf8mb4"}
			return []string{"alter table " + t.name + " convert to character set " + sets[h.IntN(3)]}
		},
		"parts": func(h *history, t *table) []string {
			if t.parts {
				return []string{"alter table " + t.name + " truncate partition p0"}
			}
			t.parts = true
			return []string{fmt.Sprintf("alter table %s partition by range (%s) (partition p0 values less than (30), partition p1 values less than maxvalue)", t.name, t.key)}
		},
		"ghost": func(h *history, t *table) []string { // as gh-ost does
			ghost := "_" + t.name + "_gho"
			now, list := copyOf(h, t, ghost, true)
			*t = *now
			return append(list, fmt.Sprintf("rename /* gh-ost */ table %[1]s to _%[1]s_del, %[2]s to %[1]s", t.name, ghost), fmt.Sprintf("drop table _%s_del", t.name))
		},
		"osc": func(h *history, t *table) []string { // as pt-online-schema-change does
			ghost := "_" + t.name + "_new"
			now, list := copyOf(h, t, ghost, false)
			*t = *now
			return append(list, fmt.Sprintf("rename table %[1]s to _%[1]s_old, %[2]s to %[1]s", t.name, ghost), fmt.Sprintf("drop table if exists _%s_old", t.name))
		},
		"select": func(h *history, t *table) []string { // another table with its rows, which come as events
			name := h.fresh("t")
			list := []string{fmt.Sprintf("create table %s (primary key (%s)) as select * from %s", name, t.key, t.name), "drop table " + t.name}
			t.name, t.parts = name, false
			return list
		},
	}
}

func onMySQL(t *testing.T, db *servertest.Database) {
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	conn, err := client.Connect(u.Host, u.User.Username(), password, db.Name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	m := myConn{conn, db.Name}
	if err := m.do("set names utf8mb4"); err != nil {
		t.Fatal(err)
	}
	u.Path = "/"
	run(t, m, myDialect{}, func(known func() []*schemas.Table) pipeline.Source {
		s, err := mysql.New(mysql.Config{Name: "src", URL: u.String(), Tables: []string{db.Name + ".*"}, ServerID: uint32(time.Now().UnixNano()), StatusInterval: 100 * time.Millisecond, Known: known})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestMySQL(t *testing.T) {
	t.Parallel()
	onMySQL(t, servertest.MySQL(t, servers.MySQLOptions{}))
}

func TestMariaDB(t *testing.T) {
	t.Parallel()
	onMySQL(t, servertest.MariaDB(t, servers.MySQLOptions{}))
}
