package config

import (
	"net/url"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
)

var sslModes = []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}

func (c *checker) source(path string, s *Source) {
	switch both := s.Postgres != nil && s.MySQL != nil; {
	case both:
		c.fail(path+".mysql", "a source is one database: make two sources of it", "%s has both postgres and mysql", path)
	case s.Status != nil:
		c.statusSource(path, s)
		return
	case s.Postgres == nil && s.MySQL == nil && c.ok(path):
		c.fail(path, "add postgres: {url: …} or mysql: {url: …}", "%s has neither postgres nor mysql", path)
	case s.Postgres != nil:
		c.postgresURL(path+".postgres.url", s.Postgres.URL.Parsed())
	case s.MySQL != nil:
		c.mysqlURL(path+".mysql.url", s.MySQL.URL.Parsed())
	}
	if u := s.Snapshot.URL.Parsed(); u != nil && s.Postgres != nil {
		c.postgresURL(path+".snapshot.url", u)
	} else if s.MySQL != nil {
		c.mysqlURL(path+".snapshot.url", u)
	}
	c.start(path, s)
	c.tables(path, s)
}

// Snapshots reports whether the source has tables whose rows can be read.
func (s *Source) Snapshots() bool { return s.Postgres != nil || s.MySQL != nil }

// statusSource refuses what only a database has.
func (c *checker) statusSource(path string, s *Source) {
	if s.Postgres != nil || s.MySQL != nil {
		c.fail(path+".status", "a source is one thing: make two sources of it", "%s has status and a database", path)
	}
	set := map[string]bool{"tables": !slices.Equal(s.Tables, []string{"*.*"}), "start": s.Start.Kind != StartNow, "load": s.Load != nil, "snapshot": s.Snapshot.Mode != "none" || s.Snapshot.Pace != "default" || s.Snapshot.Workers != 0 || s.Snapshot.URL.Parsed() != nil,
		"columns": len(s.Columns) > 0, "keys": len(s.Keys) > 0, "key_space": len(s.KeySpace) > 0} // defaults may stand there, as config show prints them
	for _, field := range sortedKeys(set) {
		if p := path + "." + field; set[field] && c.doc.Paths[p] != nil && c.ok(p) {
			c.doc.Fail(c.keyOf(p), p, p+" has no meaning for a status source", "remove it: a status source has messages, no tables")
		}
	}
}

func (c *checker) postgresURL(path string, u *url.URL) {
	if u == nil || !c.ok(path) {
		return
	}
	if u.Scheme != "postgres" && u.Scheme != "postgresql" {
		c.fail(path, "want postgres://user:password@host:port/database", "%s does not begin with postgres://", path)
		return
	}
	if strings.Trim(u.Path, "/") == "" && u.Query().Get("dbname") == "" {
		c.fail(path, "a slot belongs to one database: end the URL with /NAME", "%s names no database", path)
	}
	if m := u.Query().Get("sslmode"); m != "" && !slices.Contains(sslModes, m) {
		c.fail(path, "sslmode is one of: "+strings.Join(sslModes, ", "), "%s has an unknown sslmode", path)
	}
}

func (c *checker) mysqlURL(path string, u *url.URL) {
	if u == nil || !c.ok(path) {
		return
	}
	if u.Scheme != "mysql" && u.Scheme != "mariadb" {
		c.fail(path, "want mysql://user:password@host:port/", "%s does not begin with mysql://", path)
	}
}

// start checks that the place to begin at is one of this kind of database.
func (c *checker) start(path string, s *Source) {
	p, k := path+".start", s.Start.Kind
	if !c.ok(p) {
		return
	}
	if s.Postgres != nil && (k == StartGTID || k == StartFile) {
		c.fail(p, "for postgres: now, earliest or an LSN like 0/16B3748", "%s is a place in a binlog, but the source is postgres", p)
	}
	if s.MySQL != nil && k == StartLSN {
		c.fail(p, "for mysql: now, earliest, a GTID set or file:position", "%s is an LSN, but the source is mysql", p)
	}
}

// tables checks what is said of single tables against what is read.
func (c *checker) tables(path string, s *Source) {
	if !c.ok(path + ".tables") {
		return
	}
	gone := func(field, table string) bool {
		p := yamltree.Join(path+"."+field, table)
		if strings.ContainsAny(table, "*?") || MatchTable(s.Tables, table) || !c.ok(p) {
			return false
		}
		c.doc.Fail(c.keyOf(p), p, p+" speaks of a table that tables leaves out", "take it into "+path+".tables, or remove it here")
		return true
	}
	for _, t := range sortedKeys(s.Columns) {
		if !gone("columns", t) {
			c.columns(yamltree.Join(path+".columns", t), s.Columns[t])
		}
	}
	for _, t := range sortedKeys(s.KeySpace) {
		gone("key_space", t)
	}
	for _, t := range sortedKeys(s.Keys) {
		if gone("keys", t) {
			continue
		}
		for i, col := range s.Keys[t] {
			p := yamltree.Join(yamltree.Join(path+".keys", t), itoa(i))
			if slices.Contains(s.Keys[t][:i], col) {
				c.fail(p, "remove one of them", "%s names a column twice", p)
			}
			for _, pattern := range sortedKeys(s.Columns) {
				if matchGlob(pattern, t) && !hasColumn(s.Columns[pattern], col) && c.ok(p) {
					c.fail(p, "a routing key must be in the log: keep the column in "+path+".columns, or route by another", "%s names a column that columns leaves out", p)
				}
			}
		}
	}
}

// hasColumn says whether a list of columns (all with !, or none) keeps one.
func hasColumn(list []string, col string) bool {
	if len(list) > 0 && strings.HasPrefix(list[0], "!") {
		return !slices.Contains(list, "!"+col)
	}
	return slices.Contains(list, col)
}

// columns refuses lists that take in and leave out at once.
func (c *checker) columns(path string, list []string) {
	for i, col := range list {
		if p := yamltree.Join(path, itoa(i)); strings.HasPrefix(col, "!") != strings.HasPrefix(list[0], "!") && c.ok(p) {
			c.fail(p, "either name what to keep, or, with !, what to leave out", "%s mixes columns to keep and to leave out", path)
			return
		}
	}
}

// keyOf is the key of the value at path, for findings about the name.
func (c *checker) keyOf(path string) *yamltree.Node {
	v := c.doc.Paths[path]
	for at := path; v != nil; {
		i := strings.LastIndexByte(at, '.')
		if i < 0 {
			break
		}
		at = at[:i]
		if parent := c.doc.Paths[at]; parent != nil && parent.Kind == yamltree.KindMap {
			if k := slices.Index(parent.Items, v); k >= 0 {
				return parent.Keys[k]
			}
		}
	}
	return v
}

// clashes refuses two sources that would take each other's place at one server.
func (c *checker) clashes() {
	seen := map[string]string{}
	for _, name := range sortedKeys(c.cfg.Sources) {
		s, path := c.cfg.Sources[name], "sources."+name
		if s == nil {
			continue
		}
		var id, field, cure string
		if p := s.Postgres; p != nil && p.URL.Parsed() != nil {
			id, field, cure = "pg "+p.URL.Parsed().Host+" "+p.Slot, path+".postgres.slot", "a slot serves one reader: name another"
		} else if m := s.MySQL; m != nil && m.URL.Parsed() != nil {
			id, field, cure = "my "+m.URL.Parsed().Host+" "+itoa(int(m.ServerID)), path+".mysql.server_id", "each reader of a server needs an id of its own"
		} else {
			continue
		}
		if first, dup := seen[id]; dup && c.ok(field) {
			c.fail(field, cure, "%s is the same as that of sources.%s", field, first)
		}
		seen[id] = name
	}
}

// fileClashes refuses two subscriptions that would write into one file, or one folder of files.
func (c *checker) fileClashes() {
	seen := map[string]string{}
	for _, name := range sortedKeys(c.cfg.Subscriptions) {
		s := c.cfg.Subscriptions[name]
		if s == nil {
			continue
		}
		field, path := "subscriptions."+name+".deliver.file.path", ""
		switch {
		case s.Deliver.File != nil:
			path = s.Deliver.File.Path
		case s.Deliver.Parquet != nil:
			field, path = "subscriptions."+name+".deliver.parquet.path", strings.TrimSuffix(s.Deliver.Parquet.Path, "/")
		}
		if path == "" {
			continue
		}
		if first, dup := seen[path]; dup && c.ok(field) {
			c.fail(field, "give each its own", "%s is the same as that of subscriptions.%s", field, first)
		}
		seen[path] = name
	}
}
