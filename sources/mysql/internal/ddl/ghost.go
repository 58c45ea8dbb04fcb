package ddl

import "strings"

// Ghost tells of which table one of this name is the ghost, by the names that the tools give:
//
//   - gh-ost: _t_gho (the copy), _t_ghc (its notes), _t_del or _t_20060102150405_del (the old table);
//     https://github.com/github/gh-ost/blob/master/doc/command-line-flags.md
//   - pt-online-schema-change: _t_new and _t_old, with more underscores in front when those are taken.
//     https://docs.percona.com/percona-toolkit/pt-online-schema-change.html
//
// It is one only when a table of that name exists beside it.
func Ghost(name string) (of string, ok bool) {
	of = strings.TrimLeft(name, "_")
	under := len(name) - len(of)
	if under == 0 {
		return "", false
	}
	for _, suffix := range []string{"_gho", "_ghc", "_del", "_new", "_old"} {
		head, found := strings.CutSuffix(of, suffix)
		if !found || head == "" || under > 1 && suffix[1] != 'n' && suffix[1] != 'o' {
			continue
		}
		if i := len(head) - len("_20060102150405"); suffix == "_del" && i > 0 && head[i] == '_' && strings.Trim(head[i+1:], "0123456789") == "" {
			head = head[:i]
		}
		return head, true
	}
	return "", false
}
