package app

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/ingest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/mysql"
	"github.com/leat-cdc/leat/sources/postgres"
	"github.com/leat-cdc/leat/sources/status"
)

// database is what the app asks of a source beside reading it.
type database interface {
	pipeline.Source
	// Check looks at settings, rights and tables.
	Check(ctx context.Context) []pipeline.Finding
	// Remove drops what the source made in the database.
	Remove(ctx context.Context) error
}

// newDatabase builds a source. A new source is one case here.
func newDatabase(name string, c *config.Source, obs pipeline.Observer, known func() []*schemas.Table) (database, error) {
	switch {
	case c.Postgres != nil:
		return postgres.New(postgres.Config{Name: name, URL: c.Postgres.URL.Reveal(), Slot: c.Postgres.Slot, Publication: c.Postgres.Publication,
			Create: c.Postgres.Create, Tables: c.Tables, Columns: c.Columns, Keys: c.Keys, Start: c.Start.String(), Known: known, SignalTable: signalTable(c), Observer: obs})
	case c.MySQL != nil:
		return mysql.New(mysql.Config{Name: name, URL: c.MySQL.URL.Reveal(), ServerID: c.MySQL.ServerID, Tables: c.Tables, Columns: c.Columns,
			Keys: c.Keys, Start: c.Start.String(), Known: known, SignalTable: signalTable(c), Observer: obs})
	}
	if c.Status != nil {
		return status.New(), nil
	}
	return nil, fmt.Errorf("source %q names no database", name)
}

func signalTable(c *config.Source) string {
	if c.Load == nil {
		return ""
	}
	return c.Load.SignalTable
}

// columnsOf is a table with the columns that enter the log.
type columnsOf struct {
	schema, name string
	columns      []string
}

// tableColumns reads the tables of a source from its catalogue.
func tableColumns(ctx context.Context, name string, c *config.Source) ([]columnsOf, error) {
	db, err := newDatabase(name, c, pipeline.Observer{}, nil)
	if err != nil {
		return nil, err
	}
	var all []columnsOf
	switch src := db.(type) {
	case *postgres.Source:
		tables, err := src.Tables(ctx)
		if err != nil {
			return nil, err
		}
		for _, t := range tables {
			all = append(all, columnsOf{t.Schema, t.Name, t.Columns})
		}
	case *mysql.Source:
		tables, err := src.Tables(ctx)
		if err != nil {
			return nil, err
		}
		for _, t := range tables {
			known := columnsOf{schema: t.Schema, name: t.Name}
			for _, col := range t.Columns {
				if !col.Dropped {
					known.columns = append(known.columns, col.Name)
				}
			}
			all = append(all, known)
		}
	}
	return all, nil
}

// sourceKind is the name of the database for people.
func sourceKind(c *config.Source) string {
	switch {
	case c.Status != nil:
		return "status"
	case c.Postgres != nil:
		return "postgres"
	}
	return "mysql"
}

func routes(c *config.Source) ingest.Routes {
	var r ingest.Routes
	for _, t := range slices.Sorted(maps.Keys(c.Keys)) {
		r.Keys = append(r.Keys, ingest.KeyRoute{Table: t, Columns: c.Keys[t]})
	}
	for _, t := range slices.Sorted(maps.Keys(c.KeySpace)) {
		r.Spaces = append(r.Spaces, ingest.SpaceRoute{Table: t, Space: c.KeySpace[t]})
	}
	return r
}
