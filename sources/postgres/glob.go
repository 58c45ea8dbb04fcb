package postgres

import (
	"fmt"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/schemas"
)

// globs decide which tables are read: those that one of in matches and none of out.
type globs struct{ in, out []string }

func parseGlobs(list []string) (globs, error) {
	var g globs
	for _, p := range list {
		body, not := strings.CutPrefix(p, "!")
		if i := strings.IndexByte(body, '.'); i <= 0 || i == len(body)-1 {
			return g, fmt.Errorf(`tables: %q is no glob over schema.table, like "public.*" or "!public.tmp_*"`, p)
		}
		if not {
			g.out = append(g.out, body)
		} else {
			g.in = append(g.in, body)
		}
	}
	if len(g.in) == 0 {
		g.in = []string{"*.*"}
	}
	return g, nil
}

// match reports whether the table is read.
func (g globs) match(schema, table string) bool {
	named := func(p string) bool { return schemas.MatchTable(p, schema, table) }
	return slices.ContainsFunc(g.in, named) && !slices.ContainsFunc(g.out, named)
}

// all says that the globs are exactly "*.*".
func (g globs) all() bool { return len(g.out) == 0 && len(g.in) == 1 && g.in[0] == "*.*" }

// wholeSchemas returns the schemas when the globs are exactly "schema.*" each.
func (g globs) wholeSchemas() ([]string, bool) {
	var names []string
	for _, p := range g.in {
		name, rest, _ := strings.Cut(p, ".")
		if rest != "*" || strings.ContainsAny(name, "*?") || len(g.out) > 0 {
			return nil, false
		}
		names = append(names, name)
	}
	return names, true
}
