package shape

import (
	"encoding/json"
	"fmt"
)

// jsonType is what a value that is there looks like in JSON.
func jsonType(t *Type) map[string]any {
	of := func(name string) map[string]any { return map[string]any{"type": name} }
	format := func(name string) map[string]any {
		if t.Loose {
			return of("string")
		}
		return map[string]any{"type": "string", "format": name}
	}
	switch t.Class {
	case Bool:
		return of("boolean")
	case Int32, Int64, Uint64:
		return of("integer")
	case Float32, Float64:
		return map[string]any{"type": []string{"number", "string"}} // NaN and infinities
	case UUID:
		return format("uuid")
	case JSON:
		return map[string]any{}
	case Array:
		return map[string]any{"type": []string{"array", "string"}}
	case Vector:
		return map[string]any{"type": "array", "items": of("number")}
	}
	return of("string")
}

// JSONRow is the JSON Schema of a row by itself, as JSON events have it: what a contract is held against. closed: it has
// no other properties, as what is written has.
func (r *Row) JSONRow(closed bool) (string, error) {
	properties, required := map[string]any{}, []string{}
	for i := range r.Fields {
		f := &r.Fields[i]
		p := jsonType(&f.Type)
		if f.Nullable {
			switch t := p["type"].(type) {
			case string:
				p["type"] = []string{t, "null"}
			case []string:
				p["type"] = append(t, "null")
			}
		}
		properties[f.Column] = p
		required = append(required, f.Column)
	}
	p, err := json.Marshal(map[string]any{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": properties, "required": required,
		"additionalProperties": !closed})
	if err != nil {
		return "", fmt.Errorf("write a schema: %w", err)
	}
	return string(p), nil
}
