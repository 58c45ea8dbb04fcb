package compat

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// jsonSchema reads and checks a JSON Schema.
func jsonSchema(text string) (any, error) {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if !flat(doc, maxNesting) {
		return nil, fmt.Errorf("nested deeper than %d", maxNesting) // the compiler's time grows with its cube
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	if err := c.AddResource("schema.json", doc); err != nil {
		return nil, fmt.Errorf("not a JSON Schema: %w", err)
	}
	if _, err := c.Compile("schema.json"); err != nil {
		return nil, fmt.Errorf("not a JSON Schema: %w", err)
	}
	return doc, nil
}

// flat reports whether doc is nested at most so deep.
func flat(doc any, most int) bool {
	if most < 0 {
		return false
	}
	switch d := doc.(type) {
	case map[string]any:
		for _, x := range d {
			if !flat(x, most-1) {
				return false
			}
		}
	case []any:
		for _, x := range d {
			if !flat(x, most-1) {
				return false
			}
		}
	}
	return true
}

// noLoader keeps $ref from fetching anything.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("%s is another document: a schema has to stand by itself", url)
}

func jsonReads(reader, writer string) error {
	r, err := jsonSchema(reader)
	if err != nil {
		return err
	}
	w, err := jsonSchema(writer)
	if err != nil {
		return err
	}
	if reflect.DeepEqual(r, w) {
		return nil
	}
	c := &jsonChecker{reader: r, writer: w, left: mostWork, judged: map[pair]error{}}
	return c.accepts(r, w, "$", 0)
}

// jsonChecker tells whether every document that the writer's schema allows is allowed by the reader's. Where it
// cannot tell, it says no.
type jsonChecker struct {
	reader, writer any
	// left is the work that may still be done: references make a short schema endless.
	left int
	// judged are the pairs that were looked at, also those that are being looked at: of these it says no.
	judged map[pair]error
}

// pair of schemas, by where they are.
type pair struct{ reader, writer uintptr }

const (
	maxNesting = 64
	mostWork   = 10_000_000 // about that many comparisons of small values
	perStep    = 100
)

var errWork = errors.New("too much to be judged: schemas that refer to each other so often are not known to go together")

// spend reports whether so much work may be done.
func (c *jsonChecker) spend(n int) bool {
	c.left -= n
	return c.left >= 0
}

// ignored keywords say nothing of what is valid.
var ignored = []string{"$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$defs", "definitions",
	"contentEncoding", "contentMediaType"}

func (c *jsonChecker) accepts(r, w any, at string, depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("%s: nested too deep to be judged", at)
	}
	if b, ok := r.(bool); ok && b || reflect.DeepEqual(w, false) {
		return nil
	}
	if !c.spend(perStep) {
		return fmt.Errorf("%s: %w", at, errWork)
	}
	rm, ok := c.resolve(r, c.reader)
	wm, ok2 := c.resolve(w, c.writer)
	if !ok || !ok2 {
		return fmt.Errorf("%s: cannot be judged", at)
	}
	p := pair{reflect.ValueOf(rm).Pointer(), reflect.ValueOf(wm).Pointer()}
	if err, known := c.judged[p]; known {
		return err
	}
	c.judged[p] = fmt.Errorf("%s: refers to itself, which cannot be judged", at)
	err := c.resolved(rm, wm, at, depth)
	c.judged[p] = err
	return err
}

// resolved is accepts of schemas that are no references.
func (c *jsonChecker) resolved(rm, wm map[string]any, at string, depth int) error {
	if reflect.DeepEqual(rm, wm) && !strings.Contains(fmt.Sprint(rm), "$ref") {
		return nil
	}
	for _, k := range []string{"anyOf", "oneOf"} {
		if branches, ok := wm[k].([]any); ok && onlyKeyword(wm, k) {
			for i, b := range branches {
				if err := c.accepts(rm, b, fmt.Sprintf("%s/%s/%d", at, k, i), depth+1); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for _, k := range []string{"anyOf", "oneOf"} {
		if branches, ok := rm[k].([]any); ok && onlyKeyword(rm, k) {
			var first error
			for _, b := range branches {
				err := c.accepts(b, wm, at, depth+1)
				if err == nil {
					return nil
				}
				if first == nil {
					first = err
				}
			}
			return first
		}
	}
	if err := c.typesAccept(rm, wm, at); err != nil {
		return err
	}
	if err := boundsAccept(rm, wm, at); err != nil {
		return err
	}
	if err := c.objects(rm, wm, at, depth); err != nil {
		return err
	}
	if items, ok := rm["items"]; ok {
		writes, ok := wm["items"]
		if !ok {
			writes = true
		}
		if err := c.accepts(items, writes, at+"/items", depth+1); err != nil && has(types(wm), "array") {
			return err
		}
	}
	return nil
}

// What true and false stand for. They stay where they are, as pairs are known by that.
var anything, nothing = map[string]any{}, map[string]any{"not": map[string]any{}}

// resolve follows local references.
func (c *jsonChecker) resolve(s, root any) (map[string]any, bool) {
	for range maxNesting {
		if b, ok := s.(bool); ok {
			if b {
				return anything, true
			}
			return nothing, true
		}
		m, ok := s.(map[string]any)
		if !ok {
			return nil, false
		}
		ref, ok := m["$ref"].(string)
		if !ok {
			return m, true
		}
		path, ok := strings.CutPrefix(ref, "#")
		if !ok || !c.spend(perStep+len(path)) {
			return nil, false
		}
		s = root
		for _, part := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
			if part == "" {
				continue
			}
			m, ok := s.(map[string]any)
			if !ok {
				return nil, false
			}
			s = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(part)]
		}
	}
	return nil, false
}

func onlyKeyword(m map[string]any, keyword string) bool {
	for k := range m {
		if k != keyword && !slices.Contains(ignored, k) {
			return false
		}
	}
	return true
}

var everyType = []string{"array", "boolean", "integer", "null", "number", "object", "string"}

func types(m map[string]any) []string {
	switch t := m["type"].(type) {
	case string:
		return []string{t}
	case []any:
		var out []string
		for _, x := range t {
			if s, ok := x.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	if values := enum(m); values != nil {
		return typesOf(values)
	}
	return everyType
}

func typesOf(values []any) []string {
	var out []string
	for _, v := range values {
		t := "object"
		switch v := v.(type) {
		case nil:
			t = "null"
		case bool:
			t = "boolean"
		case string:
			t = "string"
		case []any:
			t = "array"
		case json.Number:
			t = "number"
			if _, err := v.Int64(); err == nil {
				t = "integer"
			}
		}
		out = append(out, t)
	}
	return out
}

func has(types []string, t string) bool {
	return slices.Contains(types, t) || t == "integer" && slices.Contains(types, "number")
}

func enum(m map[string]any) []any {
	if v, ok := m["const"]; ok {
		return []any{v}
	}
	v, _ := m["enum"].([]any)
	return v
}

func (c *jsonChecker) typesAccept(r, w map[string]any, at string) error {
	rt := types(r)
	for _, t := range types(w) {
		if !has(rt, t) {
			return fmt.Errorf("%s: a %s may be written, the reader takes %s", at, t, strings.Join(rt, " or "))
		}
	}
	allowed := enum(r)
	if allowed == nil {
		return nil
	}
	written := enum(w)
	if written == nil {
		return fmt.Errorf("%s: the reader takes few values, any may be written", at)
	}
	if !c.spend(len(allowed) * len(written)) {
		return fmt.Errorf("%s: %w", at, errWork)
	}
	for _, v := range written {
		if !slices.ContainsFunc(allowed, func(a any) bool { return reflect.DeepEqual(a, v) }) {
			return fmt.Errorf("%s: %v may be written, the reader does not take it", at, v)
		}
	}
	return nil
}

// boundsAccept compares keywords that make what is valid less, by themselves; those that it does not know must be
// the same.
func boundsAccept(r, w map[string]any, at string) error {
	for k, v := range r {
		switch k {
		case "type", "enum", "const", "properties", "required", "additionalProperties", "items":
			continue
		}
		if slices.Contains(ignored, k) || reflect.DeepEqual(v, w[k]) {
			continue
		}
		a, ok := number(v)
		b, ok2 := number(w[k])
		if ok && ok2 && (strings.HasPrefix(k, "min") || k == "exclusiveMinimum") && b >= a || ok && ok2 && (strings.HasPrefix(k, "max") || k == "exclusiveMaximum") && b <= a {
			continue
		}
		if !applies(k, types(w)) {
			continue
		}
		return fmt.Errorf("%s: the reader's %s is %v, what is written has %v", at, k, v, w[k])
	}
	return nil
}

// applies reports whether the keyword speaks of values of one of the types.
func applies(keyword string, types []string) bool {
	of := map[string]string{"minLength": "string", "maxLength": "string", "pattern": "string", "format": "string", "minItems": "array", "maxItems": "array",
		"uniqueItems": "array", "minProperties": "object", "maxProperties": "object"}[keyword]
	return of == "" || slices.Contains(types, of)
}

func number(v any) (float64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}

func (c *jsonChecker) objects(r, w map[string]any, at string, depth int) error {
	if !has(types(w), "object") {
		return nil
	}
	required, _ := w["required"].([]any)
	needs, _ := r["required"].([]any)
	there := make(map[any]bool, len(required)) // of strings: the schema is valid
	for _, name := range required {
		there[name] = true
	}
	for _, name := range needs {
		if !there[name] {
			return fmt.Errorf("%s: the reader requires %v, which may be missing in what is written", at, name)
		}
	}
	known, _ := r["properties"].(map[string]any)
	writes, _ := w["properties"].(map[string]any)
	for _, name := range sorted(writes) {
		place := at + "/" + name
		want, ok := known[name]
		if !ok {
			if want, ok = r["additionalProperties"]; !ok {
				continue
			}
			if want == false {
				return fmt.Errorf("%s: may be written, the reader takes no other properties", place)
			}
		}
		if err := c.accepts(want, writes[name], place, depth+1); err != nil {
			return err
		}
	}
	if more, ok := r["additionalProperties"]; ok && more != true {
		others, ok := w["additionalProperties"]
		if !ok {
			others = true
		}
		return c.accepts(more, others, at+"/*", depth+1)
	}
	return nil
}

func sorted(m map[string]any) []string {
	names := make([]string, 0, len(m))
	for k := range m {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}
