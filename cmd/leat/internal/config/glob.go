package config

import (
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
)

// MatchTable says whether globs take in table ("schema.table", or
// "database.table"). It does when one glob without ! matches (or there is
// none) and none with ! does: their order is of no account. `*` is any run of
// characters but a dot, `?` one character but a dot. An empty list takes in all.
func MatchTable(globs []string, table string) bool {
	in, positive := false, false
	for _, g := range globs {
		pattern, not := strings.CutPrefix(g, "!")
		positive = positive || !not
		if !matchGlob(pattern, table) {
			continue
		}
		if not {
			return false
		}
		in = true
	}
	return in || !positive
}

// matchGlob is the two-pointer wildcard match: no recursion, at most
// len(pattern)×len(s) steps.
func matchGlob(pattern, s string) bool {
	p, r := []rune(pattern), []rune(s)
	i, j, star, mark := 0, 0, -1, 0
	for j < len(r) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == r[j] || p[i] == '?' && r[j] != '.'):
			i++
			j++
		case star >= 0 && r[mark] != '.':
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

// checkGlob checks the syntax of a table glob.
func checkGlob(s string) *yamltree.Problem {
	g := strings.TrimPrefix(s, "!")
	const want = `a glob is schema.table with * and ?, like "public.*" or "!public.tmp_*"`
	switch {
	case g == "" || strings.TrimSpace(g) != g:
		return yamltree.Wrong("is not a glob").Fix(want)
	case g == "*" || g == "**":
		return yamltree.Wrong("is not a glob").Fix(`did you mean "*.*"? %s`, want)
	case !strings.Contains(g, "."):
		return yamltree.Wrong("names no schema").Fix(`did you mean "public.%s" or "%s.*"? %s`, g, g, want)
	case strings.HasPrefix(g, ".") || strings.HasSuffix(g, "."):
		return yamltree.Wrong("has an empty part").Fix(want)
	case strings.ContainsAny(g, "[]{}\\!\n"):
		return yamltree.Wrong("uses a character that globs do not have").Fix(want)
	}
	return nil
}
