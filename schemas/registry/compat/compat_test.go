package compat

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/schemas/shape"
)

func record(fields string) string {
	return `{"type":"record","name":"Value","namespace":"a.b","fields":[` + fields + `]}`
}

const (
	id       = `{"name":"id","type":"long"}`
	idInt    = `{"name":"id","type":"int"}`
	idText   = `{"name":"id","type":"string"}`
	path     = `{"name":"path","type":["null","string"],"default":null}`
	pathNeed = `{"name":"path","type":"string"}`
)

func message(fields string) string {
	return "syntax = \"proto3\";\nmessage Value {\n" + fields + "\n}\n"
}

func object(more, properties string) string {
	return `{"type":"object","properties":{` + properties + `}` + more + `}`
}

// Each rule, with what reads what: the reader first.
func TestReads(t *testing.T) {
	for name, c := range map[string]struct {
		f              shape.Format
		reader, writer string
		want           string // in the error; empty: reads
	}{
		"avro same":                     {shape.Avro, record(id), record(id), ""},
		"avro widened":                  {shape.Avro, record(id), record(idInt), ""},
		"avro narrowed":                 {shape.Avro, record(idInt), record(id), "id"},
		"avro retyped":                  {shape.Avro, record(id), record(idText), "id"},
		"avro column gone":              {shape.Avro, record(id), record(id + "," + pathNeed), ""},
		"avro column with default":      {shape.Avro, record(id + "," + path), record(id), ""},
		"avro column without":           {shape.Avro, record(id + "," + pathNeed), record(id), "path"},
		"avro null written":             {shape.Avro, record(pathNeed), record(path), "path"},
		"proto same":                    {shape.Protobuf, message("int64 id = 1;"), message("int64 id = 1;"), ""},
		"proto added":                   {shape.Protobuf, message("int64 id = 1;"), message("int64 id = 1; string x = 2;"), ""},
		"proto removed":                 {shape.Protobuf, message("int64 id = 1; string x = 2;"), message("int64 id = 1;"), ""},
		"proto widened":                 {shape.Protobuf, message("int64 id = 1;"), message("int32 id = 1;"), ""},
		"proto narrowed":                {shape.Protobuf, message("int32 id = 1;"), message("int64 id = 1;"), "does not hold"},
		"proto sign":                    {shape.Protobuf, message("uint64 id = 1;"), message("int64 id = 1;"), "does not hold"},
		"proto other wire":              {shape.Protobuf, message("int64 id = 1;"), message("sint64 id = 1;"), "sint64"},
		"proto text as bytes":           {shape.Protobuf, message("bytes x = 1;"), message("string x = 1;"), ""},
		"proto bytes as text":           {shape.Protobuf, message("string x = 1;"), message("bytes x = 1;"), "does not hold"},
		"proto renamed":                 {shape.Protobuf, message("int64 id = 1;"), message("int64 key = 1;"), "named key"},
		"proto renumbered":              {shape.Protobuf, message("int64 id = 1;"), message("int64 id = 2;"), "number"},
		"proto repeated":                {shape.Protobuf, message("repeated int64 id = 1;"), message("int64 id = 1;"), "repeated"},
		"proto deeper":                  {shape.Protobuf, message("M m = 1;") + "message M { int32 a = 1; }", message("M m = 1;") + "message M { string a = 1; }", "a (1)"},
		"json same":                     {shape.JSONSchema, object("", `"a":{"type":"integer"}`), object("", `"a":{"type":"integer"}`), ""},
		"json widened":                  {shape.JSONSchema, object("", `"a":{"type":"number"}`), object("", `"a":{"type":"integer"}`), ""},
		"json narrowed":                 {shape.JSONSchema, object("", `"a":{"type":"integer"}`), object("", `"a":{"type":"number"}`), "$/a"},
		"json null written":             {shape.JSONSchema, object("", `"a":{"type":"string"}`), object("", `"a":{"type":["string","null"]}`), "null"},
		"json required":                 {shape.JSONSchema, object(`,"required":["a"]`, `"a":{}`), object("", `"a":{}`), "requires a"},
		"json not required":             {shape.JSONSchema, object("", `"a":{}`), object(`,"required":["a"]`, `"a":{}`), ""},
		"json closed":                   {shape.JSONSchema, object(`,"additionalProperties":false`, `"a":{}`), object(`,"additionalProperties":false`, `"a":{},"b":{}`), "no other"},
		"json open":                     {shape.JSONSchema, object("", `"a":{}`), object("", `"a":{},"b":{}`), ""},
		"json longer":                   {shape.JSONSchema, `{"type":"string","maxLength":5}`, `{"type":"string","maxLength":6}`, "maxLength"},
		"json shorter":                  {shape.JSONSchema, `{"type":"string","maxLength":6}`, `{"type":"string","maxLength":5}`, ""},
		"json unbounded":                {shape.JSONSchema, `{"type":"string","maxLength":5}`, `{"type":"string"}`, "maxLength"},
		"json bound of another type":    {shape.JSONSchema, `{"type":["string","integer"],"maxLength":5}`, `{"type":"integer"}`, ""},
		"json enum":                     {shape.JSONSchema, `{"enum":["a","b"]}`, `{"enum":["a"]}`, ""},
		"json more of an enum":          {shape.JSONSchema, `{"enum":["a"]}`, `{"enum":["a","b"]}`, "b may be written"},
		"json items":                    {shape.JSONSchema, `{"type":"array","items":{"type":"string"}}`, `{"type":"array","items":{"type":"integer"}}`, "items"},
		"json any of":                   {shape.JSONSchema, `{"anyOf":[{"type":"string"},{"type":"null"}]}`, `{"type":"string"}`, ""},
		"json some of":                  {shape.JSONSchema, `{"type":"string"}`, `{"anyOf":[{"type":"string"},{"type":"null"}]}`, "null"},
		"json reference":                {shape.JSONSchema, `{"$ref":"#/$defs/a","$defs":{"a":{"type":"string"}}}`, `{"type":"string"}`, ""},
		"json what cannot be judged":    {shape.JSONSchema, `{"type":"string","not":{"const":"x"}}`, `{"type":"string"}`, "not"},
		"json any of, and more":         {shape.JSONSchema, `{"type":"object","anyOf":[{"required":["a"]}]}`, `{"type":"object"}`, "anyOf"},
		"json everything":               {shape.JSONSchema, `true`, `{"type":"string"}`, ""},
		"json reference to another one": {shape.JSONSchema, `{"$ref":"http://x.example/y"}`, `{"type":"string"}`, "another document"},
	} {
		err := Reads(c.f, c.reader, c.writer)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// A short schema whose references multiply, one with many values and one nested deep come to an end; whatever refers to
// itself reads itself.
func TestJSONSchemasEnd(t *testing.T) {
	twice := `{"anyOf":[{"$ref":"#"},{"$ref":"#"}]}`
	chain := func(last string) string {
		defs := []string{`"d40":` + last}
		for i := range 40 {
			next := `{"$ref":"#/$defs/d` + strconv.Itoa(i+1) + `"}`
			defs = append(defs, `"d`+strconv.Itoa(i)+`":{"type":"object","properties":{"a":`+next+`,"b":`+next+`}}`)
		}
		return `{"$ref":"#/$defs/d0","$defs":{` + strings.Join(defs, ",") + `}}`
	}
	values := func(n int) string {
		return `{"enum":[0` + strings.Repeat(",0", n) + `]}`
	}
	for _, c := range []struct{ reader, writer, want string }{
		{twice, `{"type":"string"}`, "itself"},
		{`{"type":"string"}`, twice, "itself"},
		{twice, twice, ""},
		{chain(`{"type":"number"}`), chain(`{"type":"integer"}`), ""},
		{chain(`{"type":"integer"}`), chain(`{"type":"number"}`), "number"},
		{values(10000), `{"enum":[0` + strings.Repeat(",1", 10000) + `]}`, "too much"},
		{`{"items":` + strings.Repeat(`{"items":`, 5000) + `{}` + strings.Repeat("}", 5001), `{}`, "deeper"},
	} {
		err := Reads(shape.JSONSchema, c.reader, c.writer)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60s reads %.60s: %v, want %q", c.reader, c.writer, err, c.want)
		}
	}
}

func TestModes(t *testing.T) {
	one, two, three := record(id), record(id+","+path), record(id+`,{"name":"n","type":["null","string"],"default":null}`)
	need := record(id + "," + pathNeed)
	for _, c := range []struct {
		mode    Mode
		text    string
		earlier []string
		version int // that it does not go with; 0: it goes
	}{
		{None, record(idText), []string{one}, 0},
		{Backward, need, []string{one}, 1},
		{Forward, need, []string{one}, 0},
		{Full, need, []string{one}, 1},
		{Backward, one, []string{need}, 0},
		{Forward, one, []string{need}, 1},
		{Full, two, []string{one}, 0},
		{Backward, need, []string{one, need}, 0},
		{BackwardTransitive, need, []string{one, need}, 1},
		{ForwardTransitive, record(idText), []string{one}, 1},
		{FullTransitive, three, []string{one, two}, 0},
		{FullTransitive, three, []string{one, need}, 2},
	} {
		err := Check(c.mode, shape.Avro, c.text, c.earlier)
		var ce *Error
		if errors.As(err, &ce) != (c.version > 0) || ce != nil && (ce.Version != c.version || ce.Mode != c.mode) {
			t.Errorf("%s %s after %d: %v", c.mode, c.text, len(c.earlier), err)
		}
	}
	if _, err := Parse("sideways"); err == nil {
		t.Error("a mode that is none")
	}
	for _, m := range Modes {
		if got, err := Parse(strings.ToLower(string(m))); got != m || err != nil {
			t.Error(m, err)
		}
	}
}

// Whatever a schema is, it reads itself, and garbage is refused.
func TestReadsItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom([]string{record(id), record(path + "," + idText), object("", `"a":{"type":["null","integer"],"minimum":3}`), message("repeated M m = 1; optional int32 a = 3;") + "message M { M m = 1; }"}).Draw(t, "text")
		f := map[byte]shape.Format{'s': shape.Protobuf}[text[0]]
		if f == "" {
			f = shape.Avro
			if strings.Contains(text, "properties") {
				f = shape.JSONSchema
			}
		}
		if err := Reads(f, text, text); err != nil {
			t.Fatal(err)
		}
		if !Same(f, text, text+"\n") {
			t.Fatal("white space makes it another one")
		}
		cut := text[:rapid.IntRange(0, len(text)-3).Draw(t, "cut")]
		if Valid(f, cut) == nil {
			t.Fatalf("%q is taken", cut)
		}
	})
}

func TestNumbers(t *testing.T) {
	got := Numbers([]string{message("int64 id = 1; string path = 2;"), "garbage", message("int64 id = 1; int32 path = 3;")}, "Value")
	if got["id int64"] != 1 || got["path string"] != 2 || got["path int32"] != 3 || len(got) != 3 {
		t.Error(got)
	}
}

func FuzzJSONSchemas(f *testing.F) {
	for _, s := range []string{`{}`, `true`, `{"type":"object","properties":{"a":{"$ref":"#"}}}`, `{"anyOf":[{"type":"string"}]}`, `{"$ref":"#/a"}`, `{"enum":[1,"a",null]}`} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		_ = Reads(shape.JSONSchema, a, b) // ends, without a panic
	})
}

// Tables and columns of odd names are .proto files that compile, and a field keeps its number in the next version.
func TestProtobufOfOddNames(t *testing.T) {
	list := shape.Type{Class: shape.Array, Elem: &shape.Type{}}
	field := func(column string, typ shape.Type) shape.Field {
		return shape.Field{Column: column, Name: shape.Identifier(column), Type: typ}
	}
	for _, r := range []shape.Row{
		{Schema: "public", Table: "t", Fields: []shape.Field{field("user_id", shape.Type{}), field("userId", shape.Type{}), field("userId_2", shape.Type{}), field("_user_id", shape.Type{})}},
		{Schema: "public", Table: "t", Fields: []shape.Field{field("[a]", shape.Type{}), field("A", shape.Type{}), field("a", shape.Type{})}},
		{Schema: "public", Table: "google", Fields: []shape.Field{field("l", list)}},
		{Schema: "google", Table: "t", Fields: []shape.Field{field("l", list), field("google", list)}},
		{Schema: "google", Table: "google", Fields: []shape.Field{field("google", list)}},
		{Schema: "public", Table: "t", Fields: []shape.Field{field("google", list)}},
	} {
		numbers := shape.Number(r.Fields, nil)
		text := r.ProtobufEnvelope(numbers)
		if err := Valid(shape.Protobuf, text); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
		if again := shape.Number(r.Fields, Numbers([]string{text}, "Value")); !slices.Equal(again, numbers) {
			t.Errorf("%v, then %v", numbers, again)
		}
	}
}
