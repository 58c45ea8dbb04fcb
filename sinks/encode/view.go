package encode

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/shape"
)

// Mapping changes how a table's columns look to one subscriber. On the left stand the table's own names.
type Mapping struct {
	Rename map[string]string
	// Drop leaves columns out, but for a key's.
	Drop []string
	// Constant are columns that the table does not have: a string, bool, int64 or float64 each.
	Constant map[string]any
	// Cast gives columns another type: CastString and its like.
	Cast map[string]string
	// Mask hides values: MaskHash or MaskRedact.
	Mask map[string]string
	// Salt of MaskHash.
	Salt string
}

// Column is one column as a subscriber sees it.
type Column struct {
	// Index into the table's columns; -1: a constant.
	Index int
	Name  string
	// Type of what Decode yields.
	Type     schemas.Type
	Nullable bool
	Decode   cell.Decode
	Plain    cell.Plain
	// Mapped: cast or masked, so that Decode yields another value than the table has.
	Mapped bool
}

// View is what a subscriber sees of a table version.
type View struct {
	// Columns that are sent, in the table's order, then constants by name.
	Columns []Column
	// every column of the table, sent or not.
	every []Column
}

// View returns what a subscriber with these options sees of t, whose rows form reads. An error says what the mapping
// asks for that the table does not allow; then nothing of the table may be sent, since what is to be hidden could be
// in it under another name.
func (o *Options) View(t *schemas.Table, form *cell.Form) (*View, error) {
	v := &View{every: make([]Column, len(t.Columns))}
	for i := range t.Columns {
		c := &t.Columns[i]
		v.every[i] = Column{Index: i, Name: c.Name, Type: c.Type, Nullable: c.Nullable}
		if i < len(form.Decode) {
			v.every[i].Plain, v.every[i].Decode = form.PlainOf(i), form.Decode[i]
		}
	}
	show := projection(o.Columns, t)
	dropped := map[string]bool{}
	var constants []Column
	for _, glob := range slices.Sorted(maps.Keys(o.Mapping)) {
		if !schemas.MatchTable(glob, t.Schema, t.Name) {
			continue
		}
		m := o.Mapping[glob]
		if err := v.apply(&m, t, !strings.ContainsAny(glob, "*?")); err != nil {
			return nil, fmt.Errorf("mapping of %s: %w", t.Subject(), err)
		}
		for _, name := range m.Drop {
			dropped[name] = true
		}
		for _, name := range slices.Sorted(maps.Keys(m.Constant)) {
			c, err := constant(name, m.Constant[name])
			if err != nil {
				return nil, fmt.Errorf("mapping of %s: %w", t.Subject(), err)
			}
			constants = append(constants, c)
		}
	}
	for i := range t.Columns {
		if name := t.Columns[i].Name; !t.Columns[i].Dropped && show(name) && !dropped[name] {
			v.Columns = append(v.Columns, v.every[i])
		}
	}
	v.Columns = append(v.Columns, constants...)
	names := map[string]bool{}
	for i := range v.Columns {
		if names[v.Columns[i].Name] {
			return nil, fmt.Errorf("mapping of %s: two columns would be called %q", t.Subject(), v.Columns[i].Name)
		}
		names[v.Columns[i].Name] = true
	}
	return v, nil
}

// Of returns the table's column i, whether it is sent or not: the columns of a key always are.
func (v *View) Of(i int) *Column { return &v.every[i] }

// apply changes the columns that m names. strict: it has to find them all.
func (v *View) apply(m *Mapping, t *schemas.Table, strict bool) error {
	find := func(name string) (*Column, error) {
		for i := range t.Columns {
			if t.Columns[i].Name == name && !t.Columns[i].Dropped {
				return &v.every[i], nil
			}
		}
		if strict {
			return nil, fmt.Errorf("the table has no column %q now", name)
		}
		return nil, nil
	}
	for _, name := range m.Drop {
		if _, err := find(name); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Cast)) {
		c, err := find(name)
		if err == nil && c != nil {
			err = c.cast(m.Cast[name])
		}
		if err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Mask)) {
		c, err := find(name)
		if err == nil && c != nil {
			err = c.mask(m.Mask[name], m.Salt, slices.Contains(t.Identity, c.Index) || slices.Contains(t.Routing, c.Index))
		}
		if err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Rename)) {
		c, err := find(name)
		if err != nil {
			return err
		}
		if c != nil {
			c.Name = m.Rename[name]
		}
	}
	return nil
}

// Keys returns the columns of the table's identity, sent or not.
func (v *View) Keys(t *schemas.Table) []*Column {
	var keys []*Column
	for _, i := range t.Identity {
		if i >= 0 && i < len(t.Columns) && !t.Columns[i].Dropped {
			keys = append(keys, v.Of(i))
		}
	}
	return keys
}

// Shape describes the view for typed formats: a field for each of Columns, and one for each of Keys.
func (v *View) Shape(t *schemas.Table) (row *shape.Row, keys []shape.Field) {
	of := v.Keys(t)
	fields := func(columns []*Column) []shape.Field {
		names := make([]string, len(columns))
		for i, c := range columns {
			names[i] = c.Name
		}
		names = shape.Names(names)
		out := make([]shape.Field, len(columns))
		for i, c := range columns {
			out[i] = shape.Field{Column: c.Name, Name: names[i], Database: c.Type.Name, Type: shape.TypeOf(&c.Type), Nullable: c.Nullable,
				Key: slices.ContainsFunc(of, func(k *Column) bool { return k.Index == c.Index })}
		}
		return out
	}
	columns := make([]*Column, len(v.Columns))
	for i := range v.Columns {
		columns[i] = &v.Columns[i]
	}
	return &shape.Row{Schema: shape.Identifier(t.Schema), Table: shape.Identifier(t.Name), Fields: fields(columns)}, fields(of)
}
