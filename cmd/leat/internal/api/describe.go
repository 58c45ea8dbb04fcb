package api

import (
	"encoding/json"
	"fmt"

	"github.com/leat-cdc/leat/schemas"
)

// object is a JSON object; encoding/json sorts its keys, so equal shapes are equal bytes.
type object map[string]any

// describe is the JSON Schema of the data of events of a table, with the database's types beside it.
// https://json-schema.org/draft/2020-12/json-schema-core
func describe(id string, t *schemas.Table) ([]byte, error) {
	row, key := object{}, object{}
	columns := []object{}
	for i := range t.Columns {
		c := &t.Columns[i]
		if c.Dropped {
			continue
		}
		row[c.Name] = value(&c.Type)
		o := object{"name": c.Name, "type": c.Type.Name, "kind": c.Type.Kind.String(), "nullable": c.Nullable}
		if c.Generated {
			o["generated"] = true
		}
		if c.Hidden {
			o["hidden"] = true
		}
		columns = append(columns, o)
	}
	identity := names(t, t.Identity)
	for _, n := range identity {
		key[n] = row[n]
	}
	image := object{"anyOf": []object{{"type": "null"}, {"$ref": "#/$defs/row"}}}
	place := object{"type": []string{"string", "null"}}
	doc := object{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"$id":     id,
		"title":   fmt.Sprintf("%s, version %d", t.Subject(), t.Version),
		"type":    "object",
		"required": []string{
			"op", "table",
		},
		"properties": object{
			"op":         object{"enum": []string{"insert", "update", "delete", "snapshot", "truncate", "schema"}},
			"table":      object{"const": t.Subject()},
			"key":        object{"anyOf": []object{{"type": "null"}, {"type": "object", "properties": key}}},
			"before":     image,
			"after":      image,
			"absent":     object{"type": "array", "items": object{"type": "string"}},
			"key_change": object{"type": "boolean"},
			"tx":         object{"type": []string{"object", "null"}},
			"position":   place,
		},
		"$defs":           object{"row": object{"type": "object", "properties": row}},
		"x-leat-version":  t.Version,
		"x-leat-columns":  columns,
		"x-leat-identity": identity,
		"x-leat-routing":  names(t, t.Routing),
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", t.Subject(), err)
	}
	return b, nil
}

func names(t *schemas.Table, columns []int) []string {
	n := make([]string, 0, len(columns))
	for _, c := range columns {
		if c >= 0 && c < len(t.Columns) {
			n = append(n, t.Columns[c].Name)
		}
	}
	return n
}

// value is the schema of a column's values in JSON, always nullable: a before image of the key alone, a
// masked column.
func value(t *schemas.Type) object {
	types := func(t ...string) object { return object{"type": append(t, "null")} }
	switch t.Kind {
	case schemas.KindBool:
		return types("boolean")
	case schemas.KindInt, schemas.KindUint:
		if t.Bits < 64 {
			return types("integer")
		}
		o := types("integer", "string") // strings under json.int64
		o["pattern"] = "^-?[0-9]+$"
		return o
	case schemas.KindFloat:
		return types("number", "string") // NaN and infinities are strings
	case schemas.KindBytes:
		o := types("string")
		o["contentEncoding"] = "base64"
		return o
	case schemas.KindJSON:
		return object{} // anything
	case schemas.KindArray:
		if t.Elem == nil {
			return object{}
		}
		// Nested to any depth; text where the lower bounds are not 1.
		return types("array", "string")
	case schemas.KindVector:
		o := types("array", "string")
		o["items"] = object{"type": "number"}
		return o
	case schemas.KindBits:
		o := types("string")
		o["pattern"] = "^[01]*$"
		return o
	}
	return types("string")
}
