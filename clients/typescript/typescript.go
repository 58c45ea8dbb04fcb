// Package typescript writes the types of what Leat sends for TypeScript: index.d.ts has what is the same for all tables,
// and is an npm package of types together with what stands beside it; [Write] adds the rows of tables.
package typescript

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/schemas"
)

//go:embed index.d.ts
var index string

// Form is how values are written.
type Form uint8

const (
	// JSON is that of CloudEvents.
	JSON Form = iota
	// Debezium is that of encoding: debezium.
	Debezium
)

// Column is one column as a subscriber sees it.
type Column struct {
	Name string
	Type schemas.Type
	// Nullable is true unless the column is known to be NOT NULL.
	Nullable bool
}

// Table is what a subscriber sees of a table version.
type Table struct {
	Subject string
	Version uint32
	Row     []Column
	// Key are the columns of the identity, also those that Row does not have; none: nothing identifies a row.
	Key []Column
}

// Options of Write.
type Options struct {
	// For names whose events these are, in the file's head.
	For  string
	Form Form
	// Int64AsString: 64-bit integers are strings.
	Int64AsString bool
}

// Write returns a module of types that stands alone: those of index.d.ts, a row and a key for each table, all tables by
// their subjects, and the event of them.
func Write(o Options, tables []Table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "// Written by `leat schemas typescript %s`: do not edit.\n\n", o.For)
	b.WriteString(index)
	names := names(tables)
	for i := range tables {
		t := &tables[i]
		fmt.Fprintf(&b, "\n/** A row of %s, version %d. */\nexport interface %s {\n", t.Subject, t.Version, names[i])
		o.columns(&b, t.Row)
		b.WriteString("}\n")
		if len(t.Key) > 0 {
			fmt.Fprintf(&b, "\nexport interface %sKey {\n", names[i])
			o.columns(&b, t.Key)
			b.WriteString("}\n")
		}
	}
	b.WriteString("\n/** The tables by their subjects. */\nexport interface AllTables {\n")
	for i := range tables {
		key := "null"
		if len(tables[i].Key) > 0 {
			key = names[i] + "Key"
		}
		fmt.Fprintf(&b, "  %s: { row: %s; key: %s };\n", property(tables[i].Subject), names[i], key)
	}
	b.WriteString("}\n")
	if o.Form == Debezium {
		b.WriteString("\nexport type AnyRecord = { [S in keyof AllTables]: Debezium<AllTables[S]> }[keyof AllTables];\n")
	} else {
		b.WriteString("\nexport type AnyEvent = Event<AllTables>;\n")
	}
	return b.String()
}

// columns writes the members of a row or key.
func (o *Options) columns(b *strings.Builder, columns []Column) {
	for i := range columns {
		c := &columns[i]
		text := o.value(&c.Type)
		if c.Nullable && c.Type.Kind != schemas.KindJSON {
			text += " | null"
		}
		if c.Type.Name != "" {
			fmt.Fprintf(b, "  /** %s */\n", strings.ReplaceAll(line(c.Type.Name), "*/", "* /"))
		}
		fmt.Fprintf(b, "  %s: %s;\n", property(c.Name), text)
	}
}

// value is the type of a column's values, as docs/subscribers.md and docs/schemas.md have them.
func (o *Options) value(t *schemas.Type) string {
	debezium := o.Form == Debezium
	switch t.Kind {
	case schemas.KindBool:
		return "boolean"
	case schemas.KindInt, schemas.KindUint:
		if o.Int64AsString && t.Bits == 64 && !debezium {
			return "string"
		}
		return "number"
	case schemas.KindFloat:
		return "Float"
	case schemas.KindText:
		if len(t.Labels) > 0 && strings.HasPrefix(t.Name, "enum") {
			return labels(t.Labels)
		}
	case schemas.KindJSON:
		if !debezium {
			return "Json"
		}
	case schemas.KindDate, schemas.KindDateTime:
		if debezium {
			return "number | string" // infinity and its like
		}
	case schemas.KindTime:
		if debezium {
			return "number | string"
		}
	case schemas.KindArray:
		elem := "Json"
		if t.Elem != nil {
			elem = o.value(t.Elem)
		}
		return "List<" + elem + ">"
	case schemas.KindVector:
		return "number[]"
	}
	return "string"
}

// labels of an enum; MySQL keeps what is none of them as "".
func labels(of []string) string {
	quoted := []string{text("")}
	for _, l := range of {
		if l != "" {
			quoted = append(quoted, text(l))
		}
	}
	return strings.Join(quoted, " | ")
}

// names gives each table an interface of its own, whose name is none of ours: PublicFiles for public.files.
func names(tables []Table) []string {
	taken := map[string]bool{}
	for _, word := range strings.FieldsFunc(index, func(c rune) bool { return !identifier(c) }) {
		taken[word] = true
	}
	for _, own := range []string{"AllTables", "AnyEvent", "AnyRecord"} {
		taken[own] = true
	}
	out := make([]string, len(tables))
	for i := range tables {
		schema, table, ok := schemas.ParseSubject(tables[i].Subject)
		if !ok {
			schema, table = "", tables[i].Subject
		}
		base := camel(schema) + camel(table)
		if base == "" || base[0] >= '0' && base[0] <= '9' {
			base = "Table" + base
		}
		name := base
		for n := 2; taken[name] || taken[name+"Key"]; n++ {
			name = base + "_" + strconv.Itoa(n)
		}
		taken[name], taken[name+"Key"] = true, true
		out[i] = name
	}
	return out
}

func identifier(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

// camel makes FolderItems of folder_items.
func camel(s string) string {
	var b strings.Builder
	for _, word := range strings.FieldsFunc(s, func(c rune) bool { return !identifier(c) || c == '_' }) {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}

// property is a name as a member has it.
func property(name string) string {
	plain := name != "" && (name[0] < '0' || name[0] > '9') && !slices.ContainsFunc([]rune(name), func(c rune) bool { return !identifier(c) })
	if plain {
		return name
	}
	return text(name)
}

// text is a string literal: one of JSON is one of TypeScript.
func text(s string) string {
	p, err := json.Marshal(s)
	if err != nil { // a string always has a form
		return `""`
	}
	return string(p)
}

// line keeps a comment on its line.
func line(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == '\u2028' || c == '\u2029' {
			return ' '
		}
		return c
	}, s)
}
