package parts

import (
	"context"
	"fmt"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/mysql"
	"github.com/leat-cdc/leat/sources/postgres"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// Snapshots gives a source's streams snapshots of its tables. rows is nil where that source has none.
func Snapshots(name string, c *config.Source, src Database) (with pipeline.Source, rows snapshot.Database, err error) {
	o := snapshot.Config{Name: name, Chunk: c.Snapshot.Chunk.D(), Workers: c.Snapshot.Workers, Max: c.Snapshot.Pace == "max"}
	switch db := src.(type) {
	case *postgres.Source:
		if rows, err = db.Snapshots(c.Snapshot.URL.Reveal()); err != nil {
			return nil, nil, err
		}
	case *mysql.Source:
		rows = db.Snapshots()
	default:
		return src, nil, nil
	}
	return snapshot.New(src, rows, o), rows, nil
}

// Replica takes a connection to another database of the source's kind, for reading the table of the same name there.
func Replica(ctx context.Context, c *config.Source, url string, t snapshot.Table) (snapshot.Session, snapshot.Table, error) {
	var rows snapshot.Database
	if c.Postgres != nil {
		db, err := postgres.Plain("target", url)
		if err != nil {
			return nil, t, err
		}
		rows = db
	} else {
		db, err := mysql.New(mysql.Config{Name: "target", URL: url, Tables: []string{"*.*"}})
		if err != nil {
			return nil, t, err
		}
		rows = db.Snapshots()
	}
	there, err := rows.Tables(ctx, []string{"*.*"})
	if err != nil {
		return nil, t, err
	}
	for _, o := range there {
		if o.Schema == t.Schema && o.Name == t.Name {
			session, err := rows.Session(ctx)
			return session, o, err
		}
	}
	return nil, t, &snapshot.TableError{Code: "target", What: fmt.Sprintf("the target has no table %s", schemas.Subject(t.Schema, t.Name))}
}
