package parts

import (
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// Snapshots gives a source's streams snapshots of its tables. rows is nil where that source has none.
func Snapshots(name string, c *config.Source, src Database) (with pipeline.Source, rows snapshot.Database, err error) {
	return src, nil, nil
}
