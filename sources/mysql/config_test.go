package mysql

import "testing"

// TestGlobs: a table is named as it is or as its subject, dots and wildcards in names or not.
func TestGlobs(t *testing.T) {
	for _, c := range []struct {
		glob, schema, table string
		fold, want          bool
	}{
		{"shop.*", "shop", "a.b", false, true},
		{"shop.*", "shop", `Tä.ble "%1`, false, true},
		{"shop.a%2Eb", "shop", "a.b", false, true},
		{"shop.A%2EB", "shop", "a.b", false, false},
		{"shop.A%2EB", "Shop", "a.b", true, true},
		{"shop.t%C3%A4", "shop", "Tä", true, true},
		{"shop.T?", "SHOP", "tä", true, true},
		{"shop.*", "shop2", "t", false, false},
		{"*.*", "mysql", "user", false, false},
	} {
		s, err := New(Config{Name: "s", URL: "mysql://u@h/", Tables: []string{c.glob}, Columns: map[string][]string{c.glob: {"!secret"}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.tables.match(c.schema, c.table, c.fold); got != c.want {
			t.Errorf("%s names %s.%s: %v", c.glob, c.schema, c.table, got)
		}
		if got := s.drops(c.schema, c.table, "Secret", c.fold); got != c.want && c.schema != "mysql" {
			t.Errorf("%s drops the column of %s.%s: %v", c.glob, c.schema, c.table, got)
		}
	}
}
