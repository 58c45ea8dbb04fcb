package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
)

// nodeDecoder is a type that reads a node itself; it reports its own errors.
type nodeDecoder interface {
	decodeNode(d *decoder, n *yamltree.Node, path string)
}

// textDecoder is a type that reads a scalar.
type textDecoder interface {
	decodeText(string) *yamltree.Problem
}

// decoder fills structs from the tree by their tags.
type decoder struct {
	doc  *yamltree.Document
	opts Options
	open map[string]string
}

// Open says whether the value at path was left unexpanded.
func (d *decoder) Open(path string) bool { _, ok := d.open[path]; return ok }

func (d *decoder) fill(c *Config) {
	v := reflect.ValueOf(c).Elem()
	setDefaults(v)
	d.structure(d.doc.Root, "", v)
}

// fields lists the fields of a struct that the file may hold, by name.
func fields(t reflect.Type) (names []string, byName map[string]reflect.StructField) {
	byName = map[string]reflect.StructField{}
	for i := range t.NumField() {
		f := t.Field(i)
		if name := f.Tag.Get("json"); name != "" && name != "-" {
			names = append(names, name)
			byName[name] = f
		}
	}
	return names, byName
}

// custom says whether the type reads itself.
func custom(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[nodeDecoder]()) || p.Implements(reflect.TypeFor[textDecoder]())
}

// setDefaults gives the fields of a struct the values of their default tags.
func setDefaults(v reflect.Value) {
	if v.Kind() != reflect.Struct {
		return
	}
	_, byName := fields(v.Type())
	for _, f := range byName {
		fv := v.FieldByIndex(f.Index)
		text, ok := f.Tag.Lookup("default")
		switch {
		case ok && f.Type.Kind() == reflect.Slice:
			for part := range strings.SplitSeq(text, ",") {
				e := reflect.New(f.Type.Elem()).Elem()
				setText(e, part)
				fv.Set(reflect.Append(fv, e))
			}
		case ok:
			setText(fv, text)
		case f.Type.Kind() == reflect.Struct && !custom(f.Type):
			setDefaults(fv)
		}
	}
}

// setText sets a scalar from its text, whatever its kind.
func setText(v reflect.Value, text string) *yamltree.Problem {
	if td, ok := v.Addr().Interface().(textDecoder); ok {
		return td.decodeText(text)
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return yamltree.Wrong("is not true or false").Fix("write true or false")
		}
		v.SetBool(text == "true")
	case reflect.Int, reflect.Int64:
		i, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return yamltree.Wrong("is not a whole number")
		}
		v.SetInt(i)
	case reflect.Uint32:
		i, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return yamltree.Wrong("is not a whole number from 0 to 4294967295")
		}
		v.SetUint(i)
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return yamltree.Wrong("is not a number")
		}
		v.SetFloat(f)
	}
	return nil
}

// value decodes one node into v.
func (d *decoder) value(n *yamltree.Node, path string, v reflect.Value, tag reflect.StructTag) {
	if n.Failed {
		return
	}
	if nd, ok := v.Addr().Interface().(nodeDecoder); ok {
		nd.decodeNode(d, n, path)
		return
	}
	if td, ok := v.Addr().Interface().(textDecoder); ok {
		if !d.off(n, v, tag) && d.text(n, path, td, tag) {
			d.bounds(n, path, v, tag)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		setDefaults(p.Elem())
		d.value(n, path, p.Elem(), tag)
		v.Set(p)
	case reflect.Struct:
		d.structure(n, path, v)
	case reflect.Map:
		d.mapping(n, path, v, tag)
	case reflect.Slice:
		d.list(n, path, v, tag)
	default:
		d.scalar(n, path, v, tag)
	}
}

func (d *decoder) off(n *yamltree.Node, v reflect.Value, tag reflect.StructTag) bool {
	if tag.Get("off") == "" || n.Text != "off" {
		return false
	}
	v.SetZero()
	return true
}

// structure decodes a mapping into a struct. An empty value is an empty mapping.
func (d *decoder) structure(n *yamltree.Node, path string, v reflect.Value) {
	names, byName := fields(v.Type())
	if n.Kind == yamltree.KindMap {
		for i, k := range n.Keys {
			f, ok := byName[k.Raw]
			switch p := yamltree.Join(path, k.Name()); {
			case k.Failed, n.Items[i].Failed:
			case ok:
				d.value(n.Items[i], p, v.FieldByIndex(f.Index), f.Tag)
			default:
				n.Items[i].Hide() // it may be a secret under a misspelt name
				d.unknown(k, path, names)
			}
		}
	} else if n.Kind != yamltree.KindNull {
		d.wrongKind(n, path, "a mapping", "its fields: "+strings.Join(names, ", "))
		return
	}
	for _, name := range names {
		if byName[name].Tag.Get("need") != "" && n.Get(name) == nil {
			cure := cures[name]
			if cure == "" {
				cure = "write " + name + ": …"
			}
			d.doc.Fail(d.owner(path, n), yamltree.Join(path, name), fmt.Sprintf("%s is missing in %s", name, d.label(path)), cure)
		}
	}
}

// cures of missing fields that need more than their name.
var cures = map[string]string{
	"password": "write password: ${NAME} or password: file:/run/secrets/NAME",
	"secret":   "write secret: ${NAME} or secret: file:/run/secrets/NAME; leat init makes one",
	"deliver":  "write deliver: {pull: {}}, or with one of webhook, kafka, redis, nats, search, table, parquet, file, stdout",
	"stream":   "write stream: NAME, the name of a stream (nats stream ls)",
	"source":   "write source: NAME, one of sources",
}

// owner is the key of the value at path where it has one: that is where a
// missing field is reported.
func (d *decoder) owner(path string, n *yamltree.Node) *yamltree.Node {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return n
	}
	parent := d.doc.Paths[path[:i]]
	if parent != nil && parent.Kind == yamltree.KindMap {
		for k, v := range parent.Items {
			if v == n {
				return parent.Keys[k]
			}
		}
	}
	return n
}

func (d *decoder) unknown(k *yamltree.Node, path string, names []string) {
	in := ""
	if path != "" {
		in = " in " + d.label(path)
	}
	cure := yamltree.DidYouMean(k.Raw, names)
	if len(names) == 0 {
		cure = "it has no fields: write {}"
	}
	d.doc.Fail(k, yamltree.Join(path, k.Name()), "unknown field "+yamltree.QuoteKey(k)+in, cure)
}

func (d *decoder) mapping(n *yamltree.Node, path string, v reflect.Value, tag reflect.StructTag) {
	if n.Kind == yamltree.KindNull {
		return
	}
	if n.Kind != yamltree.KindMap {
		d.wrongKind(n, path, "a mapping", "names and, for each, its fields")
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for i, k := range n.Keys {
		p := yamltree.Join(path, k.Name())
		if pr := forms[tag.Get("keys")](k.Raw); pr != nil {
			d.doc.Fail(k, p, yamltree.QuoteKey(k)+" in "+d.label(path)+" "+pr.Msg, pr.Cure)
			continue
		}
		e := reflect.New(v.Type().Elem()).Elem()
		d.value(n.Items[i], p, e, tag)
		v.SetMapIndex(reflect.ValueOf(k.Raw), e)
	}
}

func (d *decoder) list(n *yamltree.Node, path string, v reflect.Value, tag reflect.StructTag) {
	if n.Kind != yamltree.KindSeq {
		d.wrongKind(n, path, "a list", "write a list: [ … ]")
		return
	}
	v.SetZero()
	if len(n.Items) == 0 && v.Type().Elem().Kind() != reflect.Struct {
		d.doc.Fail(n, path, d.label(path)+" is an empty list", "name at least one, or leave the field out")
	}
	for i, item := range n.Items {
		e := reflect.New(v.Type().Elem()).Elem()
		setDefaults(e)
		d.value(item, yamltree.Join(path, strconv.Itoa(i)), e, tag)
		v.Set(reflect.Append(v, e))
	}
}

// text decodes a scalar by its own type.
func (d *decoder) text(n *yamltree.Node, path string, td textDecoder, _ reflect.StructTag) bool {
	if n.Failed || !d.isScalar(n, path) {
		return false
	}
	if p := td.decodeText(n.Text); p != nil {
		d.doc.Fail(n, path, d.label(path)+": "+yamltree.Quote(n)+" "+p.Msg, d.cure(n, p))
		return false
	}
	return true
}

// cure keeps what a variable holds out of advice that repeats the value.
func (d *decoder) cure(n *yamltree.Node, p *yamltree.Problem) string {
	if (n.Ref || n.Secret) && strings.Contains(p.Cure, n.Text) || n.Ref && strings.HasPrefix(p.Cure, "did you mean") {
		_, rest, _ := strings.Cut(p.Cure, "? ")
		if n.Text != "" && strings.Contains(rest, n.Text) {
			return ""
		}
		return rest
	}
	return p.Cure
}

// isScalar refuses lists, mappings and empty values, and sets aside what is open.
func (d *decoder) isScalar(n *yamltree.Node, path string) bool {
	switch {
	case n.Kind == yamltree.KindMap || n.Kind == yamltree.KindSeq:
		d.wrongKind(n, path, "a plain value", "")
	case n.Kind == yamltree.KindNull:
		d.doc.Fail(n, path, d.label(path)+" has no value", "give a value, or leave the field out to get its default")
	case n.Open:
		d.open[path] = n.Raw
	default:
		return true
	}
	return false
}

func (d *decoder) scalar(n *yamltree.Node, path string, v reflect.Value, tag reflect.StructTag) {
	if !d.isScalar(n, path) {
		return
	}
	// A variable's value has no type of its own; a written one has.
	want := map[reflect.Kind][]yamltree.Kind{
		reflect.String: {yamltree.KindString}, reflect.Bool: {yamltree.KindBool}, reflect.Float64: {yamltree.KindInt, yamltree.KindFloat},
	}[v.Kind()]
	if want == nil {
		want = []yamltree.Kind{yamltree.KindInt}
	}
	if !n.Ref && n.Kind != want[0] && n.Kind != want[len(want)-1] {
		cure := ""
		if want[0] == yamltree.KindString {
			cure = "write it in quotes"
		} else if n.Kind == yamltree.KindString && setText(reflect.New(v.Type()).Elem(), n.Text) == nil {
			cure = "write it without quotes"
		}
		d.wrongKind(n, path, want[len(want)-1].String(), cure)
		return
	}
	old := reflect.New(v.Type()).Elem()
	old.Set(v)
	if p := setText(v, strings.ReplaceAll(n.Text, "_", map[bool]string{true: "_", false: ""}[v.Kind() == reflect.String])); p != nil {
		v.Set(old)
		d.doc.Fail(n, path, d.label(path)+": "+yamltree.Quote(n)+" "+p.Msg, d.cure(n, p))
		return
	}
	if v.Kind() == reflect.String {
		d.form(n, path, v, tag)
		return
	}
	d.bounds(n, path, v, tag)
}

// form checks the syntax of a string, and makes paths absolute.
func (d *decoder) form(n *yamltree.Node, path string, v reflect.Value, tag reflect.StructTag) {
	s := v.String()
	if enum := tag.Get("enum"); enum != "" {
		words := strings.Split(enum, "|")
		for _, w := range words {
			if s == w {
				return
			}
		}
		words = supported(path, words)
		cure := yamltree.DidYouMean(s, words)
		if n.Ref {
			cure = "one of: " + strings.Join(words, ", ")
		}
		d.doc.Fail(n, path, d.label(path)+": "+yamltree.Quote(n)+" is not known", cure)
		return
	}
	name := tag.Get("form")
	if name == "" {
		return
	}
	if s == "" {
		d.doc.Fail(n, path, d.label(path)+" is empty", "give a value, or leave the field out")
		return
	}
	if p := forms[name](s); p != nil {
		d.doc.Fail(n, path, d.label(path)+": "+yamltree.Quote(n)+" "+p.Msg, d.cure(n, p))
		return
	}
	if name == "path" || name == "place" && !strings.Contains(s, "://") {
		v.SetString(absolute(d.opts.Dir, s))
	}
}

// bounds checks min and max.
func (d *decoder) bounds(n *yamltree.Node, path string, v reflect.Value, tag reflect.StructTag) {
	for _, side := range []string{"min", "max"} {
		text := tag.Get(side)
		if text == "" {
			continue
		}
		limit := reflect.New(v.Type()).Elem()
		setText(limit, text)
		less := false
		switch {
		case v.CanInt():
			less = v.Int() < limit.Int()
		case v.CanUint():
			less = v.Uint() < limit.Uint()
		case v.CanFloat():
			less = v.Float() < limit.Float() || v.Float() != v.Float()
		}
		if side == "min" && less {
			d.doc.Fail(n, path, d.label(path)+": "+yamltree.Quote(n)+" is too small", rangeText(tag))
			return
		}
		if side == "max" && !less && !v.Equal(limit) {
			d.doc.Fail(n, path, d.label(path)+": "+yamltree.Quote(n)+" is too large", rangeText(tag))
			return
		}
	}
}

func rangeText(tag reflect.StructTag) string {
	s := "at least " + tag.Get("min") + ", at most " + tag.Get("max")
	if def := tag.Get("default"); def != "" {
		s += "; default " + def
	}
	return s
}

func (d *decoder) wrongKind(n *yamltree.Node, path, want, cure string) {
	d.doc.Fail(n, path, fmt.Sprintf("%s is %s, want %s", d.label(path), n.Kind, want), cure)
}

// label names a value in a message.
func (d *decoder) label(path string) string {
	if path == "" {
		return "the file"
	}
	return yamltree.Short(yamltree.MaskText(path))
}

// fieldNames are the names of all fields that a file may hold.
var fieldNames = sync.OnceValue(func() map[string]bool {
	out := map[string]bool{"-": true, "*": true}
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		switch t.Kind() {
		case reflect.Pointer, reflect.Map, reflect.Slice:
			walk(t.Elem())
		case reflect.Struct:
			names, byName := fields(t)
			for _, n := range names {
				out[n] = true
				walk(byName[n].Type)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
	return out
})
