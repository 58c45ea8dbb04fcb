package filter

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/leat-cdc/leat/schemas"
)

// Tables are globs over schema.table, as the sources read them: a table is in when one of the globs
// without "!" matches it (or there is none of those) and none of those with "!". Wildcards are "*" and
// "?"; neither crosses the dot. Names are compared as they are and percent-encoded, as in the subject.
type Tables struct{ in, out []glob }

type glob struct{ schema, table string }

// ParseTables reads globs.
func ParseTables(globs []string) (Tables, error) {
	var t Tables
	for _, s := range globs {
		p, not := strings.CutPrefix(s, "!")
		schema, table, ok := strings.Cut(p, ".")
		if !ok || schema == "" || table == "" {
			return t, fmt.Errorf("table glob %q: want SCHEMA.TABLE, such as public.* or !public.tmp_*", s)
		}
		if not {
			t.out = append(t.out, glob{schema, table})
		} else {
			t.in = append(t.in, glob{schema, table})
		}
	}
	return t, nil
}

// Match reports whether the table is in.
func (t Tables) Match(schema, table string) bool {
	return (len(t.in) == 0 || anyOf(t.in, schema, table)) && !anyOf(t.out, schema, table)
}

// everything reports that what belongs to no table is in too.
func (t Tables) everything() bool { return len(t.in) == 0 }

func anyOf(globs []glob, schema, table string) bool {
	subject := schemas.Subject(schema, table)
	s, n, _ := strings.Cut(subject, ".")
	for _, g := range globs {
		if wild(g.schema, schema) && wild(g.table, table) || wild(g.schema, s) && wild(g.table, n) {
			return true
		}
	}
	return false
}

// wild matches * and ?, in time of at most the product of both lengths.
func wild(pattern, name string) bool {
	star, from := -1, 0
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, n
			p++
		case p < len(pattern) && pattern[p] == '?':
			_, w := utf8.DecodeRuneInString(name[n:])
			p, n = p+1, n+w
		case p < len(pattern) && pattern[p] == name[n]:
			p, n = p+1, n+1
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
