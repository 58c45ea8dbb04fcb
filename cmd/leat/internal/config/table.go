package config

import (
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
)

// Table is another database, whose tables are kept as the source's are.
type Table struct {
	// postgres://… or mysql://…, as of a source; the database named in it is where
	// names without a schema are.
	URL URL `json:"url" need:"true"`
	// Name of a table's target; {source}, {schema} and {table} stand for their
	// names. In MySQL and MariaDB the part before the dot is the database.
	Name string `json:"name" default:"{schema}.{table}" form:"target"`
	// Whether tables that are missing are made.
	Create bool `json:"create" default:"true"`
	// Whether columns that are missing are added, as when the source's table gains
	// one. None is ever dropped or changed.
	Evolve bool `json:"evolve" default:"true"`
	// Name of the column that has the offset of a row's last event, so that what
	// comes again never overwrites what is newer; none: there is no such column.
	Guard string `json:"guard" default:"leat_offset" form:"plain"`
	// Most connections at once, 1 to 100.
	Connections int `json:"connections" default:"4" min:"1" max:"100"`
	// How long a delivery may take, 1s to 10m.
	Timeout Duration `json:"timeout" default:"30s" min:"1s" max:"10m"`
}

// checkTarget is of a name in which {source}, {schema} and {table} stand for their names.
func checkTarget(s string) *yamltree.Problem {
	rest := strings.NewReplacer("{source}", "", "{schema}", "", "{table}", "").Replace(s)
	switch {
	case strings.ContainsAny(rest, "{}"):
		return yamltree.Wrong("has a field that is not known").Fix("these there are: {source}, {schema}, {table}")
	case strings.Count(rest, ".") > 1, strings.HasPrefix(s, "."), strings.HasSuffix(s, "."), s == "", strings.ContainsAny(s, "\x00\n"):
		return yamltree.Wrong("is not the name of a table").Fix("SCHEMA.TABLE or TABLE, as in {schema}.{table}, copies.{table}, or shop.orders for a single one")
	}
	return nil
}

// table holds the rules over several fields.
func (c *checker) table(path string, s *Subscription, t *Table) {
	p := path + ".url"
	if u := t.URL.Parsed(); u != nil && c.ok(p) {
		kinds := []string{"postgres", "postgresql", "mysql", "mariadb"}
		switch {
		case !slices.Contains(kinds, u.Scheme):
			c.fail(p, "want postgres://USER:PASSWORD@HOST/DATABASE or mysql://USER:PASSWORD@HOST/DATABASE", "%s is no URL of PostgreSQL, MySQL or MariaDB", p)
		case strings.Trim(u.Path, "/") == "" && u.Query().Get("dbname") == "" && (strings.HasPrefix(u.Scheme, "postgres") || !strings.Contains(t.Name, ".")):
			c.fail(p, "write it behind the host: …@HOST/DATABASE", "%s names no database", p)
		}
	}
	if c.ok(p) && c.ok(path+".name") && c.itself(s, t) {
		c.fail(path+".name", "name another database in url, or other tables: name: copies.{table}", "%s writes into the tables that its source reads: each change would come again without end", path)
	}
	sub := strings.TrimSuffix(path, ".deliver.table")
	if s.Resolved > 0 && c.ok(sub+".resolved") {
		c.fail(sub+".resolved", "remove it", "%s.resolved: there is no place in a table for leat.resolved events", sub)
	}
	if s.Order == "none" && c.ok(sub+".order") {
		c.fail(sub+".order", "use key", "%s.order: none may leave a row as it was before its last change", sub)
	}
}

// itself reports whether the target is the source, by their urls: what they do not show, as two names of one host, is
// not seen here.
func (c *checker) itself(s *Subscription, t *Table) bool {
	src, to := c.cfg.Sources[s.Source], t.URL.Parsed()
	if src == nil || to == nil || t.Name != "{schema}.{table}" && t.Name != "{table}" {
		return false
	}
	at := func(u *url.URL, port string) string {
		if p := u.Port(); p != "" {
			port = p
		}
		return net.JoinHostPort(u.Hostname(), port)
	}
	postgres := strings.HasPrefix(to.Scheme, "postgres")
	switch {
	case postgres && src.Postgres != nil:
		from := src.Postgres.URL.Parsed()
		return from != nil && at(from, "5432") == at(to, "5432") && from.Path == to.Path
	case !postgres && src.MySQL != nil:
		from := src.MySQL.URL.Parsed()
		return from != nil && at(from, "3306") == at(to, "3306") && t.Name == "{schema}.{table}"
	}
	return false
}
