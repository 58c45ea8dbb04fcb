package postgres

import (
	"slices"
	"testing"
)

// TestColumnsByGlob: what columns: leaves out stays out under every spelling of the table.
func TestColumnsByGlob(t *testing.T) {
	s, err := New(Config{Name: "files", URL: "postgres://u@h/d", Columns: map[string][]string{
		"*.users": {"!password"}, "public.%5Bx%5D": {"id", "v"}, "public.users": {"!iban"},
	}, Keys: map[string][]string{"public.u*": {"tenant"}, "public.users": {"team"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		schema, table, column string
		want                  bool
	}{
		{"public", "users", "password", true},
		{"other", "users", "password", true},
		{"public", "users", "iban", true},
		{"other", "users", "iban", false},
		{"public", "users", "id", false},
		{"public", "[x]", "v", false},
		{"public", "[x]", "w", true},
	} {
		if got := s.excluded(c.schema, c.table, c.column); got != c.want {
			t.Errorf("%s.%s.%s is left out: %v", c.schema, c.table, c.column, got)
		}
	}
	users := &table{schema: "public", name: "users"}
	if got := named(s.cfg.Columns, users); !slices.Equal(got, []string{"!iban", "!password"}) {
		t.Errorf("columns: %v", got)
	}
	if got := s.cfg.routing(users); !slices.Equal(got, []string{"team"}) {
		t.Errorf("keys: %v", got)
	}
}
