package ingest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/schemas"
)

// Routes says which columns route a table's rows and in which key space, by `schema.table` glob; the first
// that matches wins.
type Routes struct {
	Keys   []KeyRoute
	Spaces []SpaceRoute
}

// KeyRoute: rows of the tables that match are routed by these columns.
type KeyRoute struct {
	Table   string
	Columns []string
}

// SpaceRoute: the tables that match live in this key space.
type SpaceRoute struct{ Table, Space string }

// RouteError: a table cannot be routed as configured.
type RouteError struct {
	Table, What, Cure string
}

// Error names the table, what is wrong and the cure.
func (e *RouteError) Error() string { return fmt.Sprintf("table %s: %s; %s", e.Table, e.What, e.Cure) }

// Check returns the *RouteError that the routes give for a table, nil when it can be routed.
func (r Routes) Check(t *schemas.Table) error {
	c := *t
	return r.apply(&c)
}

// apply sets Routing and KeySpace.
func (r Routes) apply(t *schemas.Table) error {
	name := t.Schema + "." + t.Name
	t.Routing, t.KeySpace = t.Identity, name
	for _, s := range r.Spaces {
		if schemas.MatchTable(s.Table, t.Schema, t.Name) {
			t.KeySpace = s.Space
			break
		}
	}
	if t.Wire == schemas.WireNone {
		return nil // without rows there is nothing to route: a truncate of a table of which no row was seen
	}
	for _, k := range r.Keys {
		if !schemas.MatchTable(k.Table, t.Schema, t.Name) {
			continue
		}
		t.Routing = nil
		for _, col := range k.Columns {
			i := t.Column(col)
			if i < 0 {
				return &RouteError{name, fmt.Sprintf("the routing column %q does not exist", col), "name one of its columns under keys: " + columnNames(t)}
			}
			t.Routing = append(t.Routing, i)
		}
		break
	}
	return r.inBefore(t, name)
}

// inBefore checks that the routing columns stand in every before image: else a delete or a move cannot be
// routed.
func (r Routes) inBefore(t *schemas.Table, name string) error {
	if t.FullBefore {
		return nil
	}
	for _, c := range t.Routing {
		if slices.Contains(t.Identity, c) || slices.Contains(t.Carried, c) {
			continue
		}
		cure := fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL;", name)
		if t.Wire == schemas.WireBinlog {
			cure = "SET PERSIST binlog_row_image = 'FULL';"
		}
		return &RouteError{name, fmt.Sprintf("the routing column %q is not in the before images", t.Columns[c].Name), cure}
	}
	return nil
}

func columnNames(t *schemas.Table) string {
	names := make([]string, len(t.Columns))
	for i := range t.Columns {
		names[i] = t.Columns[i].Name
	}
	return strings.Join(names, ", ")
}
