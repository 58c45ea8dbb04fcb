package shape

import (
	"encoding/json"
	"fmt"
)

// Ops are the symbols of op, by their number − 1.
var Ops = []string{"insert", "update", "delete", "snapshot", "truncate", "schema"}

type avroRecord struct {
	Type      string      `json:"type"`
	Name      string      `json:"name"`
	Namespace string      `json:"namespace,omitempty"`
	Doc       string      `json:"doc,omitempty"`
	Fields    []avroField `json:"fields"`
}

type avroField struct {
	Name    string          `json:"name"`
	Type    any             `json:"type"`
	Doc     string          `json:"doc,omitempty"`
	Default json.RawMessage `json:"default,omitempty"`
	Column  string          `json:"leat.column,omitempty"`
	DB      string          `json:"leat.type,omitempty"`
}

type avroLogical struct {
	Type    string `json:"type"`
	Logical string `json:"logicalType"`
}

// avroDecimal says its scale also where that is 0, the default: not all readers know it.
type avroDecimal struct {
	avroLogical
	Precision int `json:"precision"`
	Scale     int `json:"scale"`
}

type avroArray struct {
	Type  string `json:"type"`
	Items any    `json:"items"`
}

type avroEnum struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Symbols []string `json:"symbols"`
}

var null = json.RawMessage("null")

// avroType is the type of one value that is there.
func avroType(t *Type) any {
	switch t.Class {
	case Bool:
		return "boolean"
	case Int32:
		return "int"
	case Int64, Duration:
		return "long"
	case Uint64, Decimal:
		return avroDecimal{avroLogical{"bytes", "decimal"}, t.Precision, t.Scale}
	case Float32:
		return "float"
	case Float64:
		return "double"
	case UUID:
		return avroLogical{Type: "string", Logical: "uuid"}
	case Bytes:
		return "bytes"
	case Date:
		return avroLogical{Type: "int", Logical: "date"}
	case TimeOfDay:
		return avroLogical{Type: "long", Logical: "time-micros"}
	case DateTime:
		return avroLogical{Type: "long", Logical: "local-timestamp-micros"}
	case Instant:
		return avroLogical{Type: "long", Logical: "timestamp-micros"}
	case Array:
		return avroArray{"array", avroUnion(t.Elem, true, true)}
	case Vector:
		return avroArray{"array", "float"}
	}
	return "string"
}

// avroUnion is avroType with null before it and text behind it, where those may be.
func avroUnion(t *Type, optional, loose bool) any {
	var union []any
	if optional {
		union = append(union, "null")
	}
	union = append(union, avroType(t))
	if loose && t.Loose {
		union = append(union, "string")
	}
	if len(union) == 1 {
		return union[0]
	}
	return union
}

func avroFields(fields []Field) []avroField {
	out := []avroField{}
	for i := range fields {
		f := &fields[i]
		a := avroField{Name: f.Name, Type: avroUnion(&f.Type, f.Optional(), true), DB: f.Database}
		if f.Optional() {
			a.Default = null
		}
		if f.Column != f.Name {
			a.Column = f.Column
		}
		out = append(out, a)
	}
	return out
}

func (r *Row) namespace() string { return r.Schema + "." + r.Table }

// AvroKey is the schema of a record's key.
func (r *Row) AvroKey(keys []Field) (string, error) {
	return text(avroRecord{Type: "record", Name: "Key", Namespace: r.namespace(), Fields: avroFields(keys)})
}

// AvroRow is the schema of a row by itself, as strict as the table is and with the name given: what a contract is held
// against.
func (r *Row) AvroRow(name, namespace string) (string, error) {
	fields := []avroField{}
	for i := range r.Fields {
		f := &r.Fields[i]
		a := avroField{Name: f.Name, Type: avroUnion(&f.Type, f.Nullable, false), DB: f.Database}
		if f.Nullable {
			a.Default = null
		}
		fields = append(fields, a)
	}
	return text(avroRecord{Type: "record", Name: name, Namespace: namespace, Fields: fields})
}

// AvroEnvelope is the schema of a record's value: what happened, with the row before and after it.
func (r *Row) AvroEnvelope() (string, error) {
	row := avroRecord{Type: "record", Name: "Value", Fields: avroFields(r.Fields)}
	names := avroArray{"array", "string"}
	fields := append([]avroField{{Name: "op", Type: avroEnum{"enum", "Op", Ops}}, {Name: "source", Type: "string"}, {Name: "table", Type: "string"}}, avroPlace()...)
	fields = append(fields,
		avroField{Name: "other", Type: []any{"null", "long"}, Default: null, Doc: "of half of a key change: the sequence of the other half"},
		avroField{Name: "before", Type: []any{"null", row}, Default: null},
		avroField{Name: "before_absent", Type: names, Default: json.RawMessage("[]"), Doc: "columns of before that the source did not send: not NULL"},
		avroField{Name: "after", Type: []any{"null", "Value"}, Default: null},
		avroField{Name: "absent", Type: names, Default: json.RawMessage("[]"), Doc: "columns of after that the source did not send: keep what you have"},
		avroField{Name: "schema_change", Default: null, Type: []any{"null", avroRecord{Type: "record", Name: "SchemaChange", Fields: []avroField{
			{Name: "statement", Type: []any{"null", "string"}, Default: null}, {Name: "rewrites", Type: "boolean", Doc: "existing rows changed without events"}}}}},
		avroField{Name: "replay", Type: []any{"null", "string"}, Default: null, Doc: "the job that this is a copy of"})
	return text(avroRecord{Type: "record", Name: "Envelope", Namespace: r.namespace(), Fields: fields})
}

// avroPlace is where an event stands: in our log, and in the source's.
func avroPlace() []avroField {
	return []avroField{
		{Name: "sequence", Type: "long"},
		{Name: "time", Type: avroLogical{Type: "long", Logical: "timestamp-micros"}, Doc: "of the commit"},
		{Name: "position", Type: []any{"null", "string"}, Default: null},
		{Name: "tx", Default: null, Type: []any{"null", avroRecord{Type: "record", Name: "Tx", Fields: []avroField{
			{Name: "id", Type: "string"}, {Name: "seq", Type: "long"}, {Name: "last", Type: "boolean"}}}}},
	}
}

// AvroMessage is the schema of a logical message.
func AvroMessage() (string, error) {
	fields := append([]avroField{{Name: "source", Type: "string"}}, avroPlace()...)
	fields = append(fields, avroField{Name: "prefix", Type: "string"}, avroField{Name: "content", Type: "bytes"},
		avroField{Name: "replay", Type: []any{"null", "string"}, Default: null})
	return text(avroRecord{Type: "record", Name: "Message", Namespace: "leat", Fields: fields})
}

func text(v any) (string, error) {
	p, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("write a schema: %w", err)
	}
	return string(p), nil
}
