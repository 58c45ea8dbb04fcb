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
// that has it; was is nil when the log knows none of that name, last is the shape that the same table had before. The catalogue is asked when that row is read, so it
// may be ahead of it: what it does not know any more counts as what may have changed rows.
func (d *Decoder) reshaped(rel *relation, was, last *schemas.Table) error {
	now := rel.shape.Table
	subject := now.Subject()
	moved := last != nil && last.Subject() != subject
	if moved {
		if t := d.shapeKnown(last.Subject()); t != nil && t.Number == now.Number {
			if err := d.gone(t, rel.heard); err != nil {
				return err
			}
		}
	}
	other := was != nil && now.Number != 0 && was.Number != now.Number && (was.Number != 0 || len(was.Columns) == 0)
	if other && len(was.Columns) > 0 {
		if err := d.gone(was, rel.heard); err != nil {
			return err
		}
		d.learn(now, rel.heard)
	}
	switch {
	case moved || other: // by a rename it came with its rows
		return d.schemaEvent(now, true)
	case was == nil || sameColumns(was, now) && (rel.refreshed || !doubtful(now)):
		return nil
	}
	return d.schemaEvent(now, rewrites(was, &rel.shape))
}

// gone tells that the table is not there under its name any more: its newest shape has no columns.
func (d *Decoder) gone(t *schemas.Table, heard uint64) error {
	none := (&schemas.Table{Schema: t.Schema, Name: t.Name, Wire: schemas.WireNone}).Seal()
	d.learn(none, heard)
	return d.schemaEvent(none, false)
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

// doubtful reports whether the catalogue was ahead of the rows with one of the columns.
func doubtful(t *schemas.Table) bool {
	return slices.ContainsFunc(t.Columns, func(c schemas.Column) bool { return c.Number < 0 })
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
	return slices.ContainsFunc(columns, func(i int) bool { return t.Columns[i].Number <= 0 })
}
