package parts

import (
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline"
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
