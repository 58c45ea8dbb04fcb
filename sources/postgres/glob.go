package postgres

import (
	"fmt"
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

// match reports whether the table is read. Its name is compared as it is and as its subject, in which dots
// and everything unusual inside of names are percent-encoded.
func (g globs) match(schema, table string) bool {
	plain, subject := schema+"."+table, schemas.Subject(schema, table)
	return anyOf(g.in, plain, subject) && !anyOf(g.out, plain, subject)
}

func anyOf(list []string, plain, subject string) bool {
	for _, p := range list {
		if wild(p, plain) || wild(p, subject) {
			return true
		}
	}
	return false
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

// wild matches * (any run of characters but a dot) and ? (one but a dot), with one place to go back to.
func wild(pattern, text string) bool {
	p, t := []rune(pattern), []rune(text)
	i, j, star, mark := 0, 0, -1, 0
	for j < len(t) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == t[j] || p[i] == '?' && t[j] != '.'):
			i, j = i+1, j+1
		case star >= 0 && t[mark] != '.':
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
