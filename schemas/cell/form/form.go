// Package form picks the reader for the wire form that a table names.
package form

import (
	"fmt"
	"sync"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
)

// Of returns the form that reads rows of the table version t; compiled at each call: see Cache.
func Of(t *schemas.Table) *cell.Form {
	switch t.Wire {
	case schemas.WirePGText:
		return pgtext.Form(t)
	case schemas.WireBinlog:
		return binlog.Form(t)
	}
	err := fmt.Errorf("table %s: rows in wire form %d cannot be read by this version", t.Subject(), t.Wire)
	return &cell.Form{
		Walk: func([]byte, []cell.Ref, int) ([]cell.Ref, error) { return nil, err },
	}
}

// Cache keeps the compiled forms of table versions by pointer. Safe for concurrent use.
type Cache struct{ m sync.Map }

// Of returns the form of t, compiled at most a few times however often it is asked for.
func (c *Cache) Of(t *schemas.Table) *cell.Form {
	if f, ok := c.m.Load(t); ok {
		return f.(*cell.Form)
	}
	f, _ := c.m.LoadOrStore(t, Of(t))
	return f.(*cell.Form)
}
