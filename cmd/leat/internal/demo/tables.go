package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// space is the schema (MySQL: the database) that the demo makes, works in and drops.
const space = "leat_demo"

// kind says how values of a column are made comparable between the database, JSON and protobuf.
type kind int

const (
	plain   kind = iota // text, integers, decimals: the database's own text
	instant             // microseconds since 1970 UTC
	tree                // JSON, whose spaces and order of members mean nothing
)

type column struct {
	name string
	kind kind
	// Types in PostgreSQL and MySQL.
	postgres, mysql string
}

// table of the demo. The first column identifies a row among the table's.
type table struct {
	name    string
	columns []column
	// routed by namespace_id, which is part of the primary key so that old images tell it: a move between
	// namespaces is a change of key.
	routed bool
	// later is how many of the columns, at the end, come in the middle of the demo.
	later int
}

// first are the columns that the table begins with.
func (t *table) first() []column { return t.columns[:len(t.columns)-t.later] }

// empty is a row of NULLs in the columns that came later: rows and events from before do not have them.
func (t *table) empty() []string {
	row := make([]string, len(t.columns))
	for i := len(t.first()); i < len(row); i++ {
		row[i] = null
	}
	return row
}

func (t *table) column(name string) int {
	for i := range t.columns {
		if t.columns[i].name == name {
			return i
		}
	}
	return -1
}

func (t *table) primaryKey() string {
	if t.routed {
		return "primary key (id, namespace_id)"
	}
	return "primary key (id)"
}

var tables = []*table{
	{name: "namespaces", columns: []column{
		{"id", plain, "bigint", "bigint"},
		{"name", plain, "text not null", "varchar(200) not null"},
		{"quota_gb", plain, "numeric(12,3)", "decimal(12,3)"},
		{"labels", tree, "jsonb", "json"},
	}},
	{name: "folders", routed: true, columns: []column{
		{"id", plain, "bigint", "bigint"},
		{"namespace_id", plain, "bigint not null", "bigint not null"},
		{"path", plain, "text not null", "varchar(500) not null"},
		{"changed", instant, "timestamptz not null", "timestamp(6) not null"},
	}},
	{name: "files", routed: true, later: 1, columns: []column{
		{"id", plain, "bigint", "bigint"},
		{"namespace_id", plain, "bigint not null", "bigint not null"},
		{"folder_id", plain, "bigint not null", "bigint not null"},
		{"path", plain, "text not null", "varchar(500) not null"},
		{"size", plain, "bigint not null", "bigint not null"},
		{"sha256", plain, "text", "varchar(64)"},
		{"preview", plain, "text", "text"}, // long ones travel only when they change: unchanged TOAST
		{"changed", instant, "timestamptz not null", "timestamp(6) not null"},
		{"media_type", plain, "text", "varchar(100)"},
	}},
}

func tableOf(name string) (int, bool) {
	for i, t := range tables {
		if t.name == name {
			return i, true
		}
	}
	return 0, false
}

// null stands for SQL NULL among comparable values; no text of the databases holds a zero byte.
const null = "\x00null"

// comparable makes a value's text comparable.
func (k kind) comparable(text string) (string, error) {
	switch k {
	case instant:
		if _, err := strconv.ParseInt(text, 10, 64); err == nil {
			return text, nil
		}
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return "", err
		}
		return strconv.FormatInt(t.UnixMicro(), 10), nil
	case tree:
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			return "", fmt.Errorf("JSON column: %w", err)
		}
		out, err := json.Marshal(v)
		return string(out), err
	}
	return text, nil
}

// fromJSON reads a value as it stands in an event.
func (k kind) fromJSON(raw json.RawMessage) (string, error) {
	raw = bytes.TrimSpace(raw)
	if string(raw) == "null" {
		return null, nil
	}
	text := string(raw)
	if len(raw) > 0 && raw[0] == '"' { // MariaDB's JSON is text, too
		if err := json.Unmarshal(raw, &text); err != nil {
			return "", err
		}
	}
	return k.comparable(text)
}

// fromProto reads a value of a pulled event; absent is true when the source did not send it.
func (k kind) fromProto(v *leatv1.Value) (text string, absent bool, err error) {
	switch x := v.GetKind().(type) {
	case *leatv1.Value_Null:
		return null, false, nil
	case *leatv1.Value_Absent:
		return "", true, nil
	case *leatv1.Value_Integer:
		text = strconv.FormatInt(x.Integer, 10)
	case *leatv1.Value_Unsigned:
		text = strconv.FormatUint(x.Unsigned, 10)
	case *leatv1.Value_Decimal:
		text = x.Decimal
	case *leatv1.Value_Text:
		text = x.Text
	case *leatv1.Value_Json:
		text = x.Json
	case *leatv1.Value_TimestampMicros:
		text = strconv.FormatInt(x.TimestampMicros, 10)
	default:
		return "", false, fmt.Errorf("a value of a kind that the demo's tables do not have: %T", x)
	}
	text, err = k.comparable(text)
	return text, false, err
}
