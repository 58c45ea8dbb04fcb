// Package parts makes what a configuration names: the sources, the sinks, and how a subscription delivers. It is
// the one place that lists every kind of source and sink; it starts nothing and keeps nothing.
package parts

import (
	"context"
	"fmt"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/ingest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/mysql"
	"github.com/leat-cdc/leat/sources/postgres"
	"github.com/leat-cdc/leat/sources/status"
)

// Database is what an installation asks of a source beside reading it.
type Database interface {
	pipeline.Source
	// Check looks at settings, rights and tables.
	Check(ctx context.Context) []pipeline.Finding
	// Remove drops what the source made in the database.
	Remove(ctx context.Context) error
}

// Source builds a source; it connects to nothing. known lists the tables that its log has, nil = none. A new source
// is one case here.
func Source(name string, c *config.Source, obs pipeline.Observer, known func() []*schemas.Table) (Database, error) {
	switch {
	case c.Postgres != nil:
		return postgres.New(postgres.Config{Name: name, URL: c.Postgres.URL.Reveal(), Slot: c.Postgres.Slot, Publication: c.Postgres.Publication,
			Create: c.Postgres.Create, Tables: c.Tables, Columns: c.Columns, Keys: c.Keys, Start: c.Start.String(), Known: known, SignalTable: signalTable(c), Observer: obs})
	case c.MySQL != nil:
		return mysql.New(mysql.Config{Name: name, URL: c.MySQL.URL.Reveal(), ServerID: c.MySQL.ServerID, Tables: c.Tables, Columns: c.Columns,
			Keys: c.Keys, Start: c.Start.String(), Known: known, SignalTable: signalTable(c), WatermarkTable: c.Snapshot.Signal,
			ReplicaURL: c.Snapshot.URL.Reveal(), Observer: obs})
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

// Table of a database, with the columns that enter the log.
type Table struct {
	Schema, Name string
	Columns      []string
}

// Tables reads the tables of a source from its catalogue.
func Tables(ctx context.Context, name string, c *config.Source) ([]Table, error) {
	db, err := Source(name, c, pipeline.Observer{}, nil)
	if err != nil {
		return nil, err
	}
	var all []Table
	switch src := db.(type) {
	case *postgres.Source:
		tables, err := src.Tables(ctx)
		if err != nil {
			return nil, err
		}
		for _, t := range tables {
			all = append(all, Table{t.Schema, t.Name, t.Columns})
		}
	case *mysql.Source:
		tables, err := src.Tables(ctx)
		if err != nil {
			return nil, err
		}
		for _, t := range tables {
			known := Table{Schema: t.Schema, Name: t.Name}
			for _, col := range t.Columns {
				if !col.Dropped {
					known.Columns = append(known.Columns, col.Name)
				}
			}
			all = append(all, known)
		}
	}
	return all, nil
}

// Kind is the name of the database for people.
func Kind(c *config.Source) string {
	switch {
	case c.Status != nil:
		return "status"
	case c.Postgres != nil:
		return "postgres"
	}
	return "mysql"
}

// Routes are the keys and key spaces that the file gives to tables.
func Routes(c *config.Source) ingest.Routes {
	var r ingest.Routes
	for _, t := range schemas.Globs(c.Keys) {
		r.Keys = append(r.Keys, ingest.KeyRoute{Table: t, Columns: c.Keys[t]})
	}
	for _, t := range schemas.Globs(c.KeySpace) {
		r.Spaces = append(r.Spaces, ingest.SpaceRoute{Table: t, Space: c.KeySpace[t]})
	}
	return r
}
