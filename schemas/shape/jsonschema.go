package shape

import (
	"encoding/json"
	"fmt"
)

// jsonType is what a value that is there looks like in JSON; text: integers of 64 bits may be strings.
func jsonType(t *Type, text bool) map[string]any {
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
	case Int64, Uint64:
		if text {
			return map[string]any{"type": []string{"integer", "string"}}
		}
		return of("integer")
	case Int32:
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
		properties[f.Column] = jsonField(f, f.Nullable, false)
		required = append(required, f.Column)
	}
	p, err := json.Marshal(map[string]any{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": properties, "required": required,
		"additionalProperties": !closed})
	if err != nil {
		return "", fmt.Errorf("write a schema: %w", err)
	}
	return string(p), nil
}

func jsonField(f *Field, nullable, text bool) map[string]any {
	p := jsonType(&f.Type, text)
	if nullable {
		switch t := p["type"].(type) {
		case string:
			p["type"] = []string{t, "null"}
		case []string:
			p["type"] = append(t, "null")
		}
	}
	return p
}

// draft is the newest that every registry knows.
const draft = "http://json-schema.org/draft-07/schema#"

// jsonObject has the fields and no others; required are those that are always there.
func jsonObject(fields []Field, text bool) map[string]any {
	properties, required := map[string]any{}, []string{}
	for i := range fields {
		f := &fields[i]
		properties[f.Column] = jsonField(f, f.Optional(), text)
		if f.Key {
			required = append(required, f.Column)
		}
	}
	return map[string]any{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
}

// JSONKey is the JSON Schema of a record's key; text: integers of 64 bits may be strings.
func (r *Row) JSONKey(keys []Field, text bool) (string, error) {
	o := jsonObject(keys, text)
	o["$schema"], o["title"] = draft, r.Schema+"."+r.Table+".Key"
	p, err := json.Marshal(o)
	return string(p), err
}

// JSONEnvelope is the JSON Schema of a record's value: a CloudEvent with the rows before and after. A column that one of
// the earlier schemas has stays, so that who reads by this one reads what was written by those.
func (r *Row) JSONEnvelope(keys []Field, text bool, earlier []string) (string, error) {
	row := jsonObject(r.Fields, text)
	delete(row, "required") // a source may send less, also of the key
	properties := row["properties"].(map[string]any)
	for _, e := range earlier {
		var was struct {
			Definitions struct {
				Row struct{ Properties map[string]any }
			}
		}
		if json.Unmarshal([]byte(e), &was) != nil {
			continue // the registry compares them, not we
		}
		for name, p := range was.Definitions.Row.Properties {
			if _, ok := properties[name]; !ok {
				properties[name] = p
			}
		}
	}
	event := jsonEvent(r.Schema + "." + r.Table + ".Envelope")
	event["definitions"] = map[string]any{"row": row, "key": jsonObject(keys, text)}
	maybe := func(of string) map[string]any {
		return map[string]any{"oneOf": []any{map[string]any{"type": "null"}, map[string]any{"$ref": "#/definitions/" + of}}}
	}
	event["properties"].(map[string]any)["data"] = map[string]any{"type": "object", "required": []string{"op", "table"}, "properties": map[string]any{
		"op": map[string]any{"type": "string"}, "table": map[string]any{"type": "string"}, "key": maybe("key"), "before": maybe("row"), "after": maybe("row"),
		"absent": map[string]any{"type": "array", "items": map[string]any{"type": "string"}},
	}}
	p, err := json.Marshal(event)
	return string(p), err
}

// jsonEvent is what all CloudEvents of ours have.
func jsonEvent(title string) map[string]any {
	properties := map[string]any{}
	for _, name := range []string{"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "partitionkey", "sequence"} {
		properties[name] = map[string]any{"type": "string"}
	}
	return map[string]any{"$schema": draft, "title": title, "type": "object", "properties": properties, "required": []string{"specversion", "id", "source", "type", "data"}}
}

// JSONMessage is the JSON Schema of a logical message.
const JSONMessage = `{"$schema":"` + draft + `","title":"leat.Message","type":"object","properties":{"data":{"type":"object","properties":{"prefix":{"type":"string"},"content":{"type":"string"}}}},"required":["data"]}`
