package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"

	"github.com/goccy/go-yaml"
)

// Show returns the file with its defaults filled in and its secrets masked:
// references and file: names of secrets stay, literal ones become a mask. The
// result parses again, with Options.Masked where a secret was literal.
func Show(c *Config) ([]byte, error) {
	v := (&viewer{cfg: c}).value(reflect.ValueOf(c).Elem(), "", "")
	out, err := yaml.MarshalWithOptions(v, yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("show config: %w", err)
	}
	return out, nil
}

// viewer turns a Config into plain YAML values.
type viewer struct{ cfg *Config }

// value returns a MapSlice, a list or a scalar; nil for what is not set.
func (w *viewer) value(v reflect.Value, path string, tag reflect.StructTag) any {
	if raw, ok := w.cfg.open[path]; ok && path != "" {
		return raw
	}
	switch x := v.Interface().(type) {
	case Secret:
		return emptyNil(x.String())
	case URL:
		return emptyNil(x.String())
	case Secrets:
		if len(x) == 1 {
			return x[0].String()
		}
	case From:
		switch x.Kind {
		case FromOffset:
			return yaml.MapSlice{{Key: "offset", Value: x.Offset}}
		case FromTime:
			return yaml.MapSlice{{Key: "time", Value: x.Time.String()}}
		}
		return string(x.Kind)
	case Constant:
		if text, ok := x.Value.(string); ok {
			return escape(text)
		}
		return x.Value
	case TLS:
		if x.Off {
			return "off"
		} else if !x.Enabled() {
			return nil
		}
	case Duration:
		if x == 0 && tag.Get("off") != "" {
			return "off"
		}
		return x.String()
	case fmt.Stringer:
		return x.String()
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return w.value(v.Elem(), path, tag)
	case reflect.Struct:
		return w.structure(v, path)
	case reflect.Map:
		out := yaml.MapSlice{}
		for _, k := range sortedMapKeys(v) {
			out = append(out, yaml.MapItem{Key: escape(k), Value: w.value(v.MapIndex(reflect.ValueOf(k)), yamltree.Join(path, k), tag)})
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case reflect.Slice:
		var out []any
		for i := range v.Len() {
			out = append(out, w.value(v.Index(i), yamltree.Join(path, strconv.Itoa(i)), tag))
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case reflect.String:
		return emptyNil(escape(v.String()))
	case reflect.Float64:
		if v.Float() == 0 {
			return nil
		}
	}
	return v.Interface()
}

func (w *viewer) structure(v reflect.Value, path string) any {
	out := yaml.MapSlice{}
	names, byName := fields(v.Type())
	for _, name := range names {
		f := byName[name]
		if x := w.value(v.FieldByIndex(f.Index), yamltree.Join(path, name), f.Tag); x != nil {
			out = append(out, yaml.MapItem{Key: name, Value: x})
		}
	}
	return out
}

func emptyNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// escape keeps a text that came out of a variable from being expanded again.
func escape(s string) string { return strings.ReplaceAll(s, "${", "$${") }

func sortedMapKeys(v reflect.Value) []string {
	m := map[string]bool{}
	for _, k := range v.MapKeys() {
		m[k.String()] = true
	}
	return sortedKeys(m)
}
