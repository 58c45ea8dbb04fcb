package shape

import (
	"fmt"
	"strconv"
	"strings"
)

// ProtobufType is the type of a field of the class, as protobuf's own reflection names it. Values of times are text as
// in JSON, so that none is lost; lists may hold null, which repeated fields cannot.
func (t *Type) ProtobufType() string {
	switch t.Class {
	case Bool:
		return "bool"
	case Int32:
		return "int32"
	case Int64:
		return "int64"
	case Uint64:
		return "uint64"
	case Float32:
		return "float"
	case Float64:
		return "double"
	case Bytes:
		return "bytes"
	case Array:
		return "google.protobuf.ListValue"
	case Vector:
		return "repeated float"
	}
	return "string"
}

// The numbers of the fields of Envelope, Tx, SchemaChange and Message.
const (
	NumberOp           = 1
	NumberSource       = 2
	NumberTable        = 3
	NumberSequence     = 4
	NumberTime         = 5
	NumberPosition     = 6
	NumberTx           = 7
	NumberOther        = 8
	NumberBefore       = 9
	NumberBeforeAbsent = 10
	NumberAfter        = 11
	NumberAbsent       = 12
	NumberSchemaChange = 13
	NumberReplay       = 14
	NumberPrefix       = 15
	NumberContent      = 16
)

// Number gives each field a number: the one that known has for its name and type ("path string"), else the next that
// nobody has had.
func Number(fields []Field, known map[string]int) []int {
	last := 0
	for _, n := range known {
		last = max(last, n)
	}
	out := make([]int, len(fields))
	names := ProtobufNames(fields)
	for i := range fields {
		n, ok := known[names[i]+" "+fields[i].Type.ProtobufType()]
		if !ok {
			if last++; last == 19_000 { // protobuf keeps 19000 to 19999 for itself
				last = 20_000
			}
			n = last
		}
		out[i] = n
	}
	return out
}

// ProtobufNames are the fields' names as they stand in a message: where two have one default name in JSON (user_id and
// userId), which no compiler takes, the later one has a number behind it.
func ProtobufNames(fields []Field) []string {
	own := map[string]bool{}
	for i := range fields {
		own[fields[i].Name] = true
	}
	taken := map[string]bool{}
	out := make([]string, len(fields))
	for i := range fields {
		name := fields[i].Name
		for n := 2; taken[defaultJSON(name)] || name != fields[i].Name && own[name]; n++ {
			name = fields[i].Name + "_" + strconv.Itoa(n)
		}
		taken[defaultJSON(name)] = true
		out[i] = name
	}
	return out
}

// defaultJSON is the name in JSON that protobuf gives to a field.
// https://protobuf.dev/programming-guides/json/
func defaultJSON(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c == '_' {
			continue
		}
		if i > 0 && name[i-1] == '_' && c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()
}

// protobufMessage writes a message of the fields.
func (r *Row) protobufMessage(b *strings.Builder, message string, fields []Field, numbers []int) {
	fmt.Fprintf(b, "message %s {\n", message)
	names := ProtobufNames(fields)
	for i := range fields {
		f := &fields[i]
		typ := f.Type.ProtobufType()
		if f.Type.Class == Array && (r.Schema == "google" || r.Table == "google") {
			typ = "." + typ // else it would be looked for in our own package
		}
		if !strings.HasPrefix(typ, "repeated ") && f.Type.Class != Array {
			typ = "optional " + typ
		}
		column := f.Column
		if strings.HasPrefix(column, "[") && strings.HasSuffix(column, "]") { // in JSON such names are those of extensions
			column = names[i]
		}
		fmt.Fprintf(b, "  %s %s = %d [json_name = %s];\n", typ, names[i], numbers[i], strconv.QuoteToASCII(column))
	}
	b.WriteString("}\n")
}

func (r *Row) protobufHead(b *strings.Builder, fields []Field) {
	b.WriteString("syntax = \"proto3\";\n\npackage " + r.Schema + "." + r.Table + ";\n\n")
	for i := range fields {
		if fields[i].Type.Class == Array {
			b.WriteString("import \"google/protobuf/struct.proto\";\n\n")
			return
		}
	}
}

// ProtobufKey is the file of a record's key.
func (r *Row) ProtobufKey(keys []Field, numbers []int) string {
	var b strings.Builder
	r.protobufHead(&b, keys)
	r.protobufMessage(&b, "Key", keys, numbers)
	return b.String()
}

// ProtobufRow is the file of a row by itself, with the message's name as given: what a contract is held against.
func (r *Row) ProtobufRow(message string, numbers []int) string {
	var b strings.Builder
	r.protobufHead(&b, r.Fields)
	r.protobufMessage(&b, message, r.Fields, numbers)
	return b.String()
}

// ProtobufEnvelope is the file of a record's value: what happened, with the row before and after it.
func (r *Row) ProtobufEnvelope(numbers []int) string {
	var b strings.Builder
	r.protobufHead(&b, r.Fields)
	b.WriteString("message Envelope {\n  enum Op {\n    OP_UNSPECIFIED = 0;\n")
	for i, op := range Ops {
		fmt.Fprintf(&b, "    OP_%s = %d;\n", strings.ToUpper(op), i+1)
	}
	b.WriteString(`  }
  message SchemaChange {
    optional string statement = 1;
    // Existing rows changed without events.
    bool rewrites = 2;
  }
` + protobufTx + `  Op op = 1;
  string source = 2;
  string table = 3;
` + protobufPlace + `  // Of half of a key change: the sequence of the other half.
  optional uint64 other = 8;
  optional Value before = 9;
  // Columns of before that the source did not send: not NULL.
  repeated string before_absent = 10;
  optional Value after = 11;
  // Columns of after that the source did not send: keep what you have.
  repeated string absent = 12;
  optional SchemaChange schema_change = 13;
  // The job that this is a copy of.
  optional string replay = 14;
}

`)
	r.protobufMessage(&b, "Value", r.Fields, numbers)
	return b.String()
}

const protobufTx = `  message Tx {
    string id = 1;
    uint64 seq = 2;
    bool last = 3;
  }
`

const protobufPlace = `  uint64 sequence = 4;
  // Of the commit: microseconds since 1970-01-01 UTC.
  int64 time = 5;
  optional string position = 6;
  optional Tx tx = 7;
`

// ProtobufMessage is the file of a logical message.
const ProtobufMessage = "syntax = \"proto3\";\n\npackage leat;\n\nmessage Message {\n" + protobufTx + "  string source = 2;\n" + protobufPlace +
	"  optional string replay = 14;\n  string prefix = 15;\n  bytes content = 16;\n}\n"
