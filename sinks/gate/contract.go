package gate

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/registry/compat"
	"github.com/leat-cdc/leat/schemas/shape"
	"github.com/leat-cdc/leat/sinks/encode"
)

// Contract is a schema that the rows of a subscription's tables have to go with.
type Contract struct {
	// Name of the file, for people.
	Name string
	// Read returns its text as it is now.
	Read   func() (string, error)
	Format shape.Format
	// Mode: backward, and the contract reads what the tables write; forward, and what is written by the contract can
	// be read as the tables are now; full, both; none, neither. With one contract, transitive is the same.
	Mode compat.Mode
	// Tables it is about, by glob over schema.table; none: all.
	Tables []string
}

// FormatOf tells a contract's format by the end of its file's name.
func FormatOf(path string) (shape.Format, error) {
	switch {
	case strings.HasSuffix(path, ".avsc"):
		return shape.Avro, nil
	case strings.HasSuffix(path, ".proto"):
		return shape.Protobuf, nil
	case strings.HasSuffix(path, ".json"):
		return shape.JSONSchema, nil
	}
	return "", fmt.Errorf("the file name %s does not tell the format: use .avsc (Avro), .proto (Protobuf) or .json (JSON Schema)", path)
}

func (c *Contract) covers(t *schemas.Table) bool {
	for _, glob := range c.Tables {
		if schemas.MatchTable(glob, t.Schema, t.Name) {
			return true
		}
	}
	return len(c.Tables) == 0
}

// holds returns nil when the table version goes with the contract; else an error that names both shapes.
func (c *Contract) holds(view *encode.View, t *schemas.Table) error {
	text, err := c.Read()
	if err != nil {
		return err
	}
	row, _ := view.Shape(t)
	written, err := c.render(row, text, true)
	if err != nil {
		return err
	}
	reader, err := c.render(row, text, false)
	if err != nil {
		return err
	}
	mode, _ := strings.CutSuffix(string(c.Mode), "_TRANSITIVE")
	var broken error
	if mode == string(compat.Backward) || mode == string(compat.Full) {
		broken = compat.Reads(c.Format, text, written)
	}
	if broken == nil && (mode == string(compat.Forward) || mode == string(compat.Full)) {
		broken = compat.Reads(c.Format, reader, text)
	}
	if broken == nil {
		return nil
	}
	return fmt.Errorf("not %s compatible: %w; the table now: %s; the contract: %s", strings.ToLower(string(c.Mode)), broken, columns(row), summary(c.Format, text))
}

// render is the row in the contract's format, under the contract's name, as it is written or read.
func (c *Contract) render(row *shape.Row, contract string, written bool) (string, error) {
	if err := compat.Valid(c.Format, contract); err != nil {
		return "", err
	}
	switch c.Format {
	case shape.Avro:
		var named struct{ Name, Namespace string }
		if err := json.Unmarshal([]byte(contract), &named); err != nil || named.Name == "" {
			return "", fmt.Errorf("the contract is no record: %w", err)
		}
		return row.AvroRow(named.Name, named.Namespace)
	case shape.Protobuf:
		message := compat.FirstMessage(contract)
		return row.ProtobufRow(message, shape.Number(row.Fields, compat.Numbers([]string{contract}, message))), nil
	}
	return row.JSONRow(written)
}

const maxShown = 400

// columns shows a row in the database's words.
func columns(row *shape.Row) string {
	var b strings.Builder
	for i := range row.Fields {
		f := &row.Fields[i]
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(f.Column + " " + f.Database)
		if !f.Nullable {
			b.WriteString(" not null")
		}
	}
	return cut(b.String())
}

func cut(s string) string {
	if len(s) > maxShown {
		return strings.ToValidUTF8(s[:maxShown], "") + "…"
	}
	return s
}

// summary shows a contract in few words: its fields, where they can be told.
func summary(f shape.Format, text string) string {
	var doc struct {
		Fields []struct {
			Name string
			Type json.RawMessage
		}
		Properties map[string]json.RawMessage
	}
	if f != shape.Protobuf && json.Unmarshal([]byte(text), &doc) == nil && len(doc.Fields) > 0 {
		var parts []string
		for _, x := range doc.Fields {
			parts = append(parts, x.Name+" "+strings.Trim(string(x.Type), `"`))
		}
		return cut(strings.Join(parts, ", "))
	}
	return cut(strings.Join(strings.Fields(text), " "))
}
