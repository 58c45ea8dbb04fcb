package encode

import (
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// Column is one column as a subscriber sees it.
type Column struct {
	// Index into the table's columns.
	Index int
	Name  string
	// Type of what Decode yields.
	Type     schemas.Type
	Nullable bool
	Decode   cell.Decode
	Plain    cell.Plain
}

// View is what a subscriber sees of a table version.
type View struct {
	// Columns that are sent, in the table's order.
	Columns []Column
	table   *schemas.Table
	form    *cell.Form
}

// View returns what a subscriber with these options sees of t, whose rows form reads.
func (o *Options) View(t *schemas.Table, form *cell.Form) *View {
	v := &View{table: t, form: form}
	show := projection(o.Columns, t)
	for i := range t.Columns {
		if !t.Columns[i].Dropped && show(t.Columns[i].Name) {
			v.Columns = append(v.Columns, v.Of(i))
		}
	}
	return v
}

// Of returns the table's column i, whether it is sent or not: the columns of a key always are.
func (v *View) Of(i int) Column {
	c := &v.table.Columns[i]
	out := Column{Index: i, Name: c.Name, Type: c.Type, Nullable: c.Nullable}
	if i < len(v.form.Decode) {
		out.Plain, out.Decode = v.form.PlainOf(i), v.form.Decode[i]
	}
	return out
}
