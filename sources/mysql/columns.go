package mysql

import (
	"context"

	"github.com/leat-cdc/leat/sources/mysql/internal/catalog"
)

const collationBinary = 63

// catalogue reads the columns of all tables but the server's own, by database.table, in order.
func (c *conn) catalogue(ctx context.Context) (map[string][]catalog.Column, error) {
	ids, err := catalog.Collations(ctx, c.rows)
	if err != nil {
		return nil, err
	}
	return catalog.Columns(ctx, c.rows, ids, catalog.Everything)
}
