// Package change tells what lies between two shapes of one table, and whether rows that were there before
// read otherwise behind it.
package change

import (
	"slices"

	"github.com/leat-cdc/leat/schemas"
)

// Diff is what lies between two shapes. Columns that are kept from subscribers are not in it.
type Diff struct {
	// Dropped are indexes into the columns before; Added and Converted into those of now. Converted columns
	// have values that may read otherwise than they did, or may be other columns of the name (Number -1).
	Dropped, Added, Converted []int
	// Renamed columns, as far as the shapes tell: indexes before and now.
	Renamed [][2]int
	// Nulls are columns of now that may not be NULL any more.
	Nulls []int
}

// Between compares two shapes. Columns are the same when they have the same number, and where a shape does
// not number them, the same name: then a renamed one is Dropped and Added.
func Between(before, now *schemas.Table) Diff {
	var d Diff
	numbered := numbered(before) && numbered(now)
	kept := make([]bool, len(before.Columns))
	for i := range now.Columns {
		c := &now.Columns[i]
		if c.Dropped {
			continue
		}
		j := slices.IndexFunc(before.Columns, func(o schemas.Column) bool {
			if numbered && o.Number > 0 && c.Number > 0 {
				return !o.Dropped && o.Number == c.Number
			}
			return !o.Dropped && o.Name == c.Name
		})
		if j < 0 {
			d.Added = append(d.Added, i)
			continue
		}
		kept[j] = true
		o := &before.Columns[j]
		if o.Name != c.Name {
			d.Renamed = append(d.Renamed, [2]int{j, i})
		}
		if !Keeps(&o.Type, &c.Type) || o.Number < 0 || c.Number < 0 {
			d.Converted = append(d.Converted, i)
		}
		if o.Nullable && !c.Nullable {
			d.Nulls = append(d.Nulls, i)
		}
	}
	for j := range before.Columns {
		if !kept[j] && !before.Columns[j].Dropped {
			d.Dropped = append(d.Dropped, j)
		}
	}
	return d
}

func numbered(t *schemas.Table) bool {
	return !slices.ContainsFunc(t.Columns, func(c schemas.Column) bool { return c.Number == 0 })
}

// Again reports whether a name stands for another column than before: dropped and added again.
func (d *Diff) Again(before, now *schemas.Table) bool {
	return slices.ContainsFunc(d.Added, func(i int) bool {
		return slices.ContainsFunc(d.Dropped, func(j int) bool { return before.Columns[j].Name == now.Columns[i].Name })
	})
}

// Keeps reports whether a value of one type reads the same after its column got another: surely, or it says no.
func Keeps(was, is *schemas.Type) bool {
	switch {
	case was.Kind != is.Kind || was.Charset != is.Charset:
		return false
	case len(was.Labels) > 0 && len(is.Labels) > 0:
		return family(was.Name) == family(is.Name) && subset(was.Labels, is.Labels)
	case was.Name == is.Name && was.OID == is.OID && was.Mod == is.Mod:
		return true
	}
	switch was.Kind {
	case schemas.KindInt, schemas.KindUint:
		return was.Bits > 0 && was.Bits <= is.Bits
	case schemas.KindDecimal:
		return was.Precision > 0 && was.Scale == is.Scale && was.Precision <= is.Precision
	case schemas.KindText:
		return varying(was.Name) && varying(is.Name) && size(was.Name) <= size(is.Name)
	}
	return false
}

func subset(few, many []string) bool {
	return !slices.ContainsFunc(few, func(l string) bool { return !slices.Contains(many, l) })
}

// family is a type's name without its length.
func family(name string) string {
	for i := range len(name) {
		if name[i] == '(' {
			return name[:i]
		}
	}
	return name
}

// varying tells texts that are kept as they were written, whatever their length.
func varying(name string) bool {
	return slices.Contains([]string{"varchar", "character varying", "text", "tinytext", "mediumtext", "longtext"}, family(name))
}

// size is how much such a text may be, in characters.
func size(name string) int {
	switch name {
	case "tinytext":
		return 255 / 4
	case "character varying", "text":
		return 1 << 31
	case "mediumtext":
		return 1 << 32
	case "longtext":
		return 1 << 33
	}
	n := 0
	for _, c := range name[len(family(name)):] {
		if c >= '0' && c <= '9' {
			n = min(n*10+int(c-'0'), 1<<30)
		}
	}
	return n
}
