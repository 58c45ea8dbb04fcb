package filter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/schemas"
)

// Tables are globs over schema.table, as the sources read them: a table is in when one of the globs
// without "!" matches it (or there is none of those) and none of those with "!". Wildcards are "*" and
// "?"; neither crosses the dot. Names are compared as they are and percent-encoded, as in the subject.
type Tables struct{ in, out []string }

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
			t.out = append(t.out, p)
		} else {
			t.in = append(t.in, p)
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

func anyOf(globs []string, schema, table string) bool {
	return slices.ContainsFunc(globs, func(g string) bool { return schemas.MatchTable(g, schema, table) })
}
