package config

import (
	"embed"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"

	"github.com/invopop/jsonschema"
)

// The comments of the structs are the schema's descriptions; so they are part
// of the program.
//
//go:embed config.go source.go subscription.go kafka.go redis.go nats.go mapping.go parquet.go table.go
var sources embed.FS

const refPattern = `\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}`

// Schema returns the JSON Schema (draft 2020-12) of the file. It also describes
// what this version does not support, and says so.
func Schema() ([]byte, error) {
	docs, err := comments()
	if err != nil {
		return nil, fmt.Errorf("config schema: %w", err)
	}
	r := &jsonschema.Reflector{
		Anonymous: true, ExpandedStruct: true, RequiredFromJSONSchemaTags: true,
		Mapper: mapped,
		LookupComment: func(t reflect.Type, field string) string {
			return docs[strings.TrimSuffix(t.Name()+"."+field, ".")]
		},
	}
	s := r.Reflect(&Config{})
	s.Title, s.Description = "leat.yaml", "Configuration of Leat: sources, subscriptions and the server between them."
	(&refiner{defs: s.Definitions, seen: map[string]bool{}}).object(s, reflect.TypeFor[Config](), "")
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("config schema: %w", err)
	}
	return append(out, '\n'), nil
}

// comments reads the doc comments of types and of fields, by "Type.Field".
func comments() (map[string]string, error) {
	out := map[string]string{}
	for _, name := range []string{"config.go", "source.go", "subscription.go", "kafka.go", "redis.go", "nats.go", "mapping.go", "parquet.go", "table.go"} {
		src, err := sources.ReadFile(name)
		if err != nil {
			return nil, err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		for _, decl := range f.Decls {
			g, ok := decl.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			for _, spec := range g.Specs {
				ts := spec.(*ast.TypeSpec)
				out[ts.Name.Name] = oneLine(g.Doc.Text())
				if st, ok := ts.Type.(*ast.StructType); ok {
					for _, field := range st.Fields.List {
						for _, n := range field.Names {
							out[ts.Name.Name+"."+n.Name] = oneLine(field.Doc.Text())
						}
					}
				}
			}
		}
	}
	return out, nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// mapped gives the schemas of our own scalar types.
func mapped(t reflect.Type) *jsonschema.Schema {
	text := func(pattern string, examples ...any) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Pattern: "^(?:" + pattern + ")$|" + refPattern, Examples: examples}
	}
	str := func() *jsonschema.Schema { return &jsonschema.Schema{Type: "string", MinLength: ptr(1)} }
	switch t {
	case reflect.TypeFor[Duration]():
		return text(`(\d+(\.\d+)?(ms|s|m|h|d))+`, "250ms", "30s", "72h", "7d")
	case reflect.TypeFor[Size]():
		return text(`\d+(\.\d+)?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)`, "512MiB", "20GB")
	case reflect.TypeFor[Time]():
		return &jsonschema.Schema{Type: "string", Format: "date-time"}
	case reflect.TypeFor[Start](), reflect.TypeFor[Secret](), reflect.TypeFor[URL]():
		return str()
	case reflect.TypeFor[Secrets]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{str(), {Type: "array", Items: str(), MinItems: ptr(1)}}}
	case reflect.TypeFor[From]():
		offset, moment := jsonschema.NewProperties(), jsonschema.NewProperties()
		offset.Set("offset", &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "integer", Minimum: "0"}, {Type: "string", Pattern: refPattern}}})
		moment.Set("time", &jsonschema.Schema{Type: "string"})
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
			text("earliest|latest|snapshot"),
			{Type: "object", Properties: offset, Required: []string{"offset"}, AdditionalProperties: jsonschema.FalseSchema},
			{Type: "object", Properties: moment, Required: []string{"time"}, AdditionalProperties: jsonschema.FalseSchema},
		}}
	case reflect.TypeFor[Constant]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "string"}, {Type: "number"}, {Type: "boolean"}}}
	case reflect.TypeFor[TLS]():
		files := jsonschema.NewProperties()
		files.Set("cert", str())
		files.Set("key", str())
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
			text("off"),
			{Type: "object", Properties: files, Required: []string{"cert", "key"}, AdditionalProperties: jsonschema.FalseSchema},
		}}
	}
	return nil
}

func ptr(n uint64) *uint64 { return &n }

// refiner adds to the reflected schema what our tags say.
type refiner struct {
	defs jsonschema.Definitions
	seen map[string]bool
}

func (r *refiner) object(s *jsonschema.Schema, t reflect.Type, path string) {
	names, byName := fields(t)
	for _, name := range names {
		p, ok := s.Properties.Get(name)
		if !ok {
			continue
		}
		f := byName[name]
		if f.Tag.Get("need") != "" {
			s.Required = append(s.Required, name)
		}
		p = r.field(p, f)
		s.Properties.Set(name, p)
		at := yamltree.Join(path, name)
		p.Description = strings.TrimSpace(p.Description + " " + unsupportedAt(at))
		r.nested(f.Type, at)
	}
	one := uint64(1)
	switch t {
	case reflect.TypeFor[Deliver]():
		s.MinProperties, s.MaxProperties = &one, &one
	case reflect.TypeFor[Webhook]():
		s.OneOf = []*jsonschema.Schema{{Required: []string{"url"}}, {Required: []string{"urls"}}}
	case reflect.TypeFor[Source]():
		s.OneOf = []*jsonschema.Schema{{Required: []string{"postgres"}}, {Required: []string{"mysql"}}, {Required: []string{"status"}}}
	}
}

// nested goes on into the definition of a struct, once.
func (r *refiner) nested(t reflect.Type, path string) {
	switch t.Kind() {
	case reflect.Pointer:
		r.nested(t.Elem(), path)
	case reflect.Map, reflect.Slice:
		r.nested(t.Elem(), path+".*")
	case reflect.Struct:
		if def := r.defs[t.Name()]; def != nil && !r.seen[t.Name()] {
			r.seen[t.Name()] = true
			r.object(def, t, path)
		}
	}
}

// field adds default, range and words of one field, and lets every scalar be a
// reference.
func (r *refiner) field(s *jsonschema.Schema, f reflect.StructField) *jsonschema.Schema {
	tag := f.Tag
	scalar := s
	if f.Type.Kind() == reflect.Slice && s.Items != nil && s.Items.Ref == "" {
		s.MinItems = ptr(1)
		scalar = s.Items
	}
	if f.Type.Kind() == reflect.Map {
		s.PropertyNames = map[string]*jsonschema.Schema{"name": {Pattern: nameText.String()}}[tag.Get("keys")]
		if s.PatternProperties != nil {
			s.PatternProperties = nil
		}
	}
	if enum := tag.Get("enum"); enum != "" {
		scalar.Pattern, scalar.Examples = "^(?:"+enum+")$|"+refPattern, nil
		for _, w := range strings.Split(enum, "|") {
			scalar.Examples = append(scalar.Examples, w)
		}
	}
	if tag.Get("off") != "" {
		scalar.Pattern = "^off$|" + scalar.Pattern
	}
	switch scalar.Type {
	case "integer", "number":
		typed := &jsonschema.Schema{Type: scalar.Type, Minimum: json.Number(tag.Get("min")), Maximum: json.Number(tag.Get("max"))}
		scalar.Type, scalar.AnyOf = "", []*jsonschema.Schema{typed, {Type: "string", Pattern: refPattern}}
	case "boolean":
		scalar.Type, scalar.AnyOf = "", []*jsonschema.Schema{{Type: "boolean"}, {Type: "string", Pattern: refPattern}}
	}
	if def, ok := tag.Lookup("default"); ok {
		s.Default = typedDefault(f.Type, def)
	}
	return s
}

func typedDefault(t reflect.Type, text string) any {
	if t.Kind() == reflect.Slice {
		var out []any
		for part := range strings.SplitSeq(text, ",") {
			out = append(out, typedDefault(t.Elem(), part))
		}
		return out
	}
	if custom(t) {
		return text
	}
	v := reflect.New(t).Elem()
	setText(v, text)
	return v.Interface()
}
