package schemas

import (
	"slices"
	"testing"
)

func TestMatchTable(t *testing.T) {
	for _, c := range []struct {
		pattern, schema, table string
		want                   bool
	}{
		{"*.*", "a", "b", true},
		{"public.*", "public", "x.y", true},
		{"public.*", "public", `T/ä.ble "%1`, true},
		{"public.x.y", "public", "x.y", true},
		{"public.x%2Ey", "public", "x.y", true},
		{"public.x%2Ey", "public", "xzy", false},
		{"a%2Eb.t", "a.b", "t", true},
		{"a.b.t", "a.b", "t", true},
		{"a.*", "a.b", "t", false},
		{"*.t", "a.b", "t", true},
		{"p?blic.?", "püblic", "ä", true},
		{"public.[a]", "public", "[a]", true},
		{"public.%5Ba%5D", "public", "[a]", true},
		{"public.a*b*c", "public", "aXXbYYc", true},
		{"public.a*b*c", "public", "aXXbYY", false},
		{"public", "public", "t", false},
		{"Public.t", "public", "t", false},
		{"public.", "public", "", true},
	} {
		if got := MatchTable(c.pattern, c.schema, c.table); got != c.want {
			t.Errorf("%s names %s.%s: %v", c.pattern, c.schema, c.table, got)
		}
	}
}

// TestGlobsOrder: the more exact is asked first.
func TestGlobsOrder(t *testing.T) {
	got := Globs(map[string]int{"*.*": 1, "public.*": 1, "public.files": 1, "public.f*": 1, "a.b": 1})
	if want := []string{"public.files", "a.b", "public.f*", "public.*", "*.*"}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}
