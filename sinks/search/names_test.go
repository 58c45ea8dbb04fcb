package search

import (
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	for index, want := range map[string]string{"{schema}.{table}": "public.my_files", "_{source}-{table}": "files-my_files", "X{table}": "xmy_files"} {
		if have := AliasOf(index, "files", "public", "My Files"); have != want {
			t.Errorf("%s: %s, want %s", index, have, want)
		}
	}
	for _, c := range []struct{ values, want string }{{`77`, "77"}, {`"a b"`, "a b"}, {`""`, `""`}, {`1|"x"`, `[1,"x"]`}, {`null`, "null"}} {
		if have := documentID(strings.Split(c.values, "|")); have != c.want {
			t.Errorf("%s: %s", c.values, have)
		}
	}
	if long := documentID([]string{`"` + strings.Repeat("x", 600) + `"`}); len(long) > longestID {
		t.Error(long)
	}
	for _, bad := range []string{"", "::", "ftp://x", "localhost:9200"} {
		if _, err := New(Options{URL: bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
