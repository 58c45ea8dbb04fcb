package records

import (
	"testing"

	"github.com/leat-cdc/leat/schemas/registry/compat"
	"github.com/leat-cdc/leat/schemas/shape"
)

// Who reads by a newer JSON Schema of a table reads what was written before: columns come and go. Another type breaks it.
func TestJSONEnvelopesGoTogether(t *testing.T) {
	id := shape.Field{Column: "id", Name: "id", Type: shape.Type{Class: shape.Int64}, Key: true}
	col := func(name string, c shape.Class) shape.Field {
		return shape.Field{Column: name, Name: name, Type: shape.Type{Class: c}, Nullable: true}
	}
	var earlier []string
	for i, fields := range [][]shape.Field{{id, col("a", shape.Text)}, {id, col("a", shape.Text), col("b", shape.Bool)}, {id, col("b", shape.Bool)}, {id, col("c", shape.JSON)}} {
		row := shape.Row{Schema: "public", Table: "files", Fields: fields}
		text, err := row.JSONEnvelope(fields[:1], false, earlier)
		if err == nil {
			err = compat.Valid(shape.JSONSchema, text)
		}
		if err == nil {
			err = compat.Check(compat.BackwardTransitive, shape.JSONSchema, text, earlier)
		}
		if err != nil {
			t.Fatalf("version %d: %v", i, err)
		}
		earlier = append(earlier, text)
	}
	row := shape.Row{Schema: "public", Table: "files", Fields: []shape.Field{id, col("c", shape.Text), col("b", shape.Int32)}}
	text, err := row.JSONEnvelope(row.Fields[:1], false, earlier)
	if err != nil {
		t.Fatal(err)
	}
	if compat.Check(compat.Backward, shape.JSONSchema, text, earlier) == nil {
		t.Error("another type goes")
	}
	if err := compat.Valid(shape.JSONSchema, shape.JSONMessage); err != nil {
		t.Error(err)
	}
}
