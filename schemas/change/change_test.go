package change

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/schemas"
)

// A table goes through random changes; what lies between the first and the last shape is what was done.
func TestBetween(t *testing.T) {
	t.Parallel()
	for _, numbered := range []bool{true, false} {
		t.Run(fmt.Sprint("numbered ", numbered), rapid.MakeCheck(func(t *rapid.T) {
			type column struct {
				id           int
				name         string
				bits, before uint8 // before 0: it was not there
				was          string
			}
			next := 0
			fresh := func() column {
				next++
				return column{id: next, name: fmt.Sprint("c", next), bits: 32}
			}
			var list []column
			for range rapid.IntRange(1, 5).Draw(t, "columns") {
				c := fresh()
				c.before, c.was = c.bits, c.name
				list = append(list, c)
			}
			shape := func() *schemas.Table {
				s := &schemas.Table{Schema: "s", Name: "t"}
				for _, c := range list {
					k := schemas.Column{Name: c.name, Type: schemas.Type{Kind: schemas.KindInt, Bits: c.bits, Name: fmt.Sprint("int", c.bits)}}
					if numbered {
						k.Number = int16(c.id)
					}
					s.Columns = append(s.Columns, k)
				}
				return s
			}
			before, gone := shape(), 0
			for range rapid.IntRange(0, 6).Draw(t, "steps") {
				i := rapid.IntRange(0, len(list)-1).Draw(t, "column")
				switch rapid.SampledFrom([]string{"add", "drop", "wider", "narrower", "rename", "move"}).Draw(t, "step") {
				case "add":
					list = slices.Insert(list, i, fresh())
				case "drop":
					if len(list) > 1 {
						if list[i].before > 0 {
							gone++
						}
						list = slices.Delete(list, i, i+1)
					}
				case "wider":
					list[i].bits = 64
				case "narrower":
					list[i].bits = 16
				case "rename":
					if numbered {
						list[i].name += "x"
					}
				case "move":
					list[0], list[i] = list[i], list[0]
				}
			}
			now := shape()
			d := Between(before, now)
			var added, converted, renamed []int
			for i, c := range list {
				switch {
				case c.before == 0:
					added = append(added, i)
					continue
				case c.before > c.bits:
					converted = append(converted, i)
				}
				if c.name != c.was {
					renamed = append(renamed, i)
				}
			}
			var names []int
			for _, r := range d.Renamed {
				names = append(names, r[1])
			}
			if !slices.Equal(d.Added, added) || !slices.Equal(d.Converted, converted) || !slices.Equal(names, renamed) || len(d.Dropped) != gone || d.Again(before, now) {
				t.Fatalf("%+v, want added %v, converted %v, renamed %v, %d dropped", d, added, converted, renamed, gone)
			}
		}))
	}
}

func TestKeeps(t *testing.T) {
	t.Parallel()
	text := func(name string) schemas.Type { return schemas.Type{Kind: schemas.KindText, Name: name} }
	enum := func(labels ...string) schemas.Type {
		return schemas.Type{Kind: schemas.KindText, Name: fmt.Sprintf("enum(%q)", labels), Labels: labels}
	}
	latin := text("varchar(5)")
	latin.Charset = "latin1"
	for i, c := range []struct {
		was, is schemas.Type
		keeps   bool
	}{
		{text("varchar(5)"), text("varchar(9)"), true},
		{text("varchar(9)"), text("varchar(5)"), false},
		{text("character varying(9)"), text("character varying"), true},
		{text("character varying"), text("text"), true},
		{text("mediumtext"), text("text"), false},
		{text("char(5)"), text("varchar(9)"), false}, // padded
		{latin, text("varchar(5)"), false},
		{enum("a", "b"), enum("c", "a", "b"), true},
		{enum("a", "b"), enum("a", "c"), false},
		{schemas.Type{Kind: schemas.KindInt, Bits: 32}, schemas.Type{Kind: schemas.KindUint, Bits: 64, Name: "x"}, false},
		{schemas.Type{Kind: schemas.KindDecimal, Precision: 5, Scale: 2}, schemas.Type{Kind: schemas.KindDecimal, Precision: 7, Scale: 2, Name: "x"}, true},
		{schemas.Type{Kind: schemas.KindDecimal, Precision: 5, Scale: 2}, schemas.Type{Kind: schemas.KindDecimal, Precision: 7, Scale: 3, Name: "x"}, false},
	} {
		if Keeps(&c.was, &c.is) != c.keeps {
			t.Errorf("%d: %s → %s", i, c.was.Name, c.is.Name)
		}
	}
}
