package pgoutput

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/change"
)

// reshaped tells subscribers that a relation has another shape than the log knows, in front of the first row
// that has it. The catalogue is asked when that row is read, so it may be ahead of it: what it does not know
// any more counts as what may have changed rows.
func (d *Decoder) reshaped(rel *relation, was *schemas.Table) error {
	now := rel.shape.Table
	if was.Number != 0 && now.Number != was.Number { // the table of that name is gone, this is another
		none := (&schemas.Table{Schema: now.Schema, Name: now.Name, Wire: schemas.WireNone}).Seal()
		if err := d.schemaEvent(none, false); err != nil {
			return err
		}
		return d.schemaEvent(now, true) // it may have come by a rename, with its rows
	}
	if len(was.Columns) > 0 && sameColumns(was, now) {
		return nil
	}
	return d.schemaEvent(now, rewrites(was, &rel.shape))
}

// keepIdentity lets a table whose key was renamed in the catalogue since have the key that it had.
func keepIdentity(was, now *schemas.Table) {
	var list []int
	for _, i := range was.Identity {
		j := now.Column(was.Columns[i].Name)
		if j < 0 {
			return
		}
		list = append(list, j)
	}
	now.Identity = list
}

// sameColumns compares what subscribers see.
func sameColumns(was, now *schemas.Table) bool {
	x, y := *was, *now
	for _, t := range []*schemas.Table{&x, &y} {
		t.FullBefore, t.Routing, t.KeySpace, t.Carried, t.Number = false, nil, "", nil, 0
	}
	for i := range min(len(x.Columns), len(y.Columns)) {
		if x.Columns[i].Number == 0 || y.Columns[i].Number == 0 { // not known
			x.Columns, y.Columns = slices.Clone(x.Columns), slices.Clone(y.Columns)
			x.Columns[i].Number, y.Columns[i].Number = 0, 0
		}
	}
	return x.ShapeHash() == y.ShapeHash()
}

// schemaEvent appends the event that tells of a table's shape.
func (d *Decoder) schemaEvent(t *schemas.Table, rewrites bool) error {
	columns := t.Columns
	if columns == nil {
		columns = []schemas.Column{}
	}
	text, err := json.Marshal(pipeline.SchemaChange{Columns: columns, Rewrites: rewrites})
	if err != nil {
		return fmt.Errorf("describe the new shape of %s: %w", t.Subject(), err)
	}
	d.room()
	i, err := d.cur.TableIndex(t)
	if err != nil {
		return err
	}
	d.add(pipeline.OpSchema, i, pipeline.Nowhere, d.cur.Put(text))
	return nil
}

// rewrites reports whether the change of shape may have changed rows without events: a column of another type or
// name, or a new one that begins with a value.
func rewrites(was *schemas.Table, shape *Shape) bool {
	now := shape.Table
	if len(was.Columns) == 0 {
		return false
	}
	d := change.Between(was, now)
	begins := func(i int) bool {
		c := &now.Columns[i]
		return c.Generated || !c.Nullable || shape.Defaulted[c.Name]
	}
	// Without numbers a column that is dropped and one that is added may be one that was renamed.
	renamed := len(d.Renamed) > 0 || len(d.Dropped) > 0 && len(d.Added) > 0 && (d.Again(was, now) || unnumbered(was, d.Dropped) || unnumbered(now, d.Added))
	return renamed || len(d.Converted) > 0 || slices.ContainsFunc(d.Added, begins)
}

func unnumbered(t *schemas.Table, columns []int) bool {
	return slices.ContainsFunc(columns, func(i int) bool { return t.Columns[i].Number == 0 })
}
