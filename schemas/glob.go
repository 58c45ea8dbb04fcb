package schemas

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// MatchTable reports whether a glob over schema.table, as it stands in a configuration, names a table. *
// is any run of characters and ? is one; neither crosses the dot between the parts. The names are compared
// as they are and as in Subject, so names with dots or wildcards in them can be written too. A pattern
// without a dot names nothing.
func MatchTable(pattern, schema, table string) bool {
	s, t, ok := strings.Cut(pattern, ".")
	if !ok {
		return false
	}
	if matchName(s, schema) && matchName(t, table) || len(pattern) == len(schema)+1+len(table) && pattern == schema+"."+table {
		return true
	}
	es, et, _ := strings.Cut(Subject(schema, table), ".")
	return matchName(s, es) && matchName(t, et)
}

// Globs returns the globs of a configuration in the order in which they are asked: what names one table goes
// before what has wildcards, and of these the longer one first.
func Globs[V any](of map[string]V) []string {
	rank := func(g string) int {
		if strings.ContainsAny(g, "*?") {
			return 1
		}
		return 0
	}
	return slices.SortedFunc(maps.Keys(of), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
}

// matchName matches * and ?, in time of at most the product of both lengths.
func matchName(pattern, name string) bool {
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
