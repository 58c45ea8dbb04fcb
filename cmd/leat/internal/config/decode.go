package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// nodeDecoder is a type that reads a node itself; it reports its own errors.
type nodeDecoder interface {
	decodeNode(d *decoder, n *node, path string)
}

// textDecoder is a type that reads a scalar.
type textDecoder interface {
	decodeText(string) *problem
}

// decoder fills structs from the tree by their tags.
type decoder struct {
	doc  *document
	opts Options
	open map[string]string
}

// Open says whether the value at path was left unexpanded.
func (d *decoder) Open(path string) bool { _, ok := d.open[path]; return ok }

func (d *decoder) fill(c *Config) {
	v := reflect.ValueOf(c).Elem()
	setDefaults(v)
	d.structure(d.doc.root, "", v)
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
func setText(v reflect.Value, text string) *problem {
	if td, ok := v.Addr().Interface().(textDecoder); ok {
		return td.decodeText(text)
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return wrong("is not true or false").fix("write true or false")
		}
		v.SetBool(text == "true")
	case reflect.Int, reflect.Int64:
		i, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return wrong("is not a whole number")
		}
		v.SetInt(i)
	case reflect.Uint32:
		i, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return wrong("is not a whole number from 0 to 4294967295")
		}
		v.SetUint(i)
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return wrong("is not a number")
		}
		v.SetFloat(f)
	}
	return nil
}

// value decodes one node into v.
func (d *decoder) value(n *node, path string, v reflect.Value, tag reflect.StructTag) {
	if n.failed {
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

func (d *decoder) off(n *node, v reflect.Value, tag reflect.StructTag) bool {
	if tag.Get("off") == "" || n.text != "off" {
		return false
	}
	v.SetZero()
	return true
}

// structure decodes a mapping into a struct. An empty value is an empty mapping.
func (d *decoder) structure(n *node, path string, v reflect.Value) {
	names, byName := fields(v.Type())
	if n.kind == kindMap {
		for i, k := range n.keys {
			f, ok := byName[k.raw]
			switch p := join(path, k.name()); {
			case k.failed, n.items[i].failed:
			case ok:
				d.value(n.items[i], p, v.FieldByIndex(f.Index), f.Tag)
			default:
				n.items[i].hide() // it may be a secret under a misspelt name
				d.unknown(k, path, names)
			}
		}
	} else if n.kind != kindNull {
		d.wrongKind(n, path, "a mapping", "its fields: "+strings.Join(names, ", "))
		return
	}
	for _, name := range names {
		if byName[name].Tag.Get("need") != "" && n.get(name) == nil {
			cure := cures[name]
			if cure == "" {
				cure = "write " + name + ": …"
			}
			d.doc.fail(d.owner(path, n), join(path, name), fmt.Sprintf("%s is missing in %s", name, d.label(path)), cure)
		}
	}
}

// cures of missing fields that need more than their name.
var cures = map[string]string{
	"secret":  "write secret: ${NAME} or secret: file:/run/secrets/NAME; leat init makes one",
	"deliver": "write deliver: {pull: {}}, or with one of webhook, file, stdout",
	"source":  "write source: NAME, one of sources",
}

// owner is the key of the value at path where it has one: that is where a
// missing field is reported.
func (d *decoder) owner(path string, n *node) *node {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return n
	}
	parent := d.doc.paths[path[:i]]
	if parent != nil && parent.kind == kindMap {
		for k, v := range parent.items {
			if v == n {
				return parent.keys[k]
			}
		}
	}
	return n
}

func (d *decoder) unknown(k *node, path string, names []string) {
	in := ""
	if path != "" {
		in = " in " + d.label(path)
	}
	cure := didYouMean(k.raw, names)
	if len(names) == 0 {
		cure = "it has no fields: write {}"
	}
	d.doc.fail(k, join(path, k.name()), "unknown field "+quoteKey(k)+in, cure)
}

func (d *decoder) mapping(n *node, path string, v reflect.Value, tag reflect.StructTag) {
	if n.kind == kindNull {
		return
	}
	if n.kind != kindMap {
		d.wrongKind(n, path, "a mapping", "names and, for each, its fields")
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for i, k := range n.keys {
		p := join(path, k.name())
		if pr := forms[tag.Get("keys")](k.raw); pr != nil {
			d.doc.fail(k, p, quoteKey(k)+" in "+d.label(path)+" "+pr.msg, pr.cure)
			continue
		}
		e := reflect.New(v.Type().Elem()).Elem()
		d.value(n.items[i], p, e, tag)
		v.SetMapIndex(reflect.ValueOf(k.raw), e)
	}
}

func (d *decoder) list(n *node, path string, v reflect.Value, tag reflect.StructTag) {
	if n.kind != kindSeq {
		d.wrongKind(n, path, "a list", "write a list: [ … ]")
		return
	}
	v.SetZero()
	if len(n.items) == 0 && v.Type().Elem().Kind() != reflect.Struct {
		d.doc.fail(n, path, d.label(path)+" is an empty list", "name at least one, or leave the field out")
	}
	for i, item := range n.items {
		e := reflect.New(v.Type().Elem()).Elem()
		setDefaults(e)
		d.value(item, join(path, strconv.Itoa(i)), e, tag)
		v.Set(reflect.Append(v, e))
	}
}

// text decodes a scalar by its own type.
func (d *decoder) text(n *node, path string, td textDecoder, _ reflect.StructTag) bool {
	if n.failed || !d.isScalar(n, path) {
		return false
	}
	if p := td.decodeText(n.text); p != nil {
		d.doc.fail(n, path, d.label(path)+": "+quote(n)+" "+p.msg, d.cure(n, p))
		return false
	}
	return true
}

// cure keeps what a variable holds out of advice that repeats the value.
func (d *decoder) cure(n *node, p *problem) string {
	if (n.ref || n.secret) && strings.Contains(p.cure, n.text) || n.ref && strings.HasPrefix(p.cure, "did you mean") {
		_, rest, _ := strings.Cut(p.cure, "? ")
		if n.text != "" && strings.Contains(rest, n.text) {
			return ""
		}
		return rest
	}
	return p.cure
}

// isScalar refuses lists, mappings and empty values, and sets aside what is open.
func (d *decoder) isScalar(n *node, path string) bool {
	switch {
	case n.kind == kindMap || n.kind == kindSeq:
		d.wrongKind(n, path, "a plain value", "")
	case n.kind == kindNull:
		d.doc.fail(n, path, d.label(path)+" has no value", "give a value, or leave the field out to get its default")
	case n.open:
		d.open[path] = n.raw
	default:
		return true
	}
	return false
}

func (d *decoder) scalar(n *node, path string, v reflect.Value, tag reflect.StructTag) {
	if !d.isScalar(n, path) {
		return
	}
	// A variable's value has no type of its own; a written one has.
	want := map[reflect.Kind][]kind{
		reflect.String: {kindString}, reflect.Bool: {kindBool}, reflect.Float64: {kindInt, kindFloat},
	}[v.Kind()]
	if want == nil {
		want = []kind{kindInt}
	}
	if !n.ref && n.kind != want[0] && n.kind != want[len(want)-1] {
		cure := ""
		if want[0] == kindString {
			cure = "write it in quotes"
		} else if n.kind == kindString && setText(reflect.New(v.Type()).Elem(), n.text) == nil {
			cure = "write it without quotes"
		}
		d.wrongKind(n, path, want[len(want)-1].String(), cure)
		return
	}
	old := reflect.New(v.Type()).Elem()
	old.Set(v)
	if p := setText(v, strings.ReplaceAll(n.text, "_", map[bool]string{true: "_", false: ""}[v.Kind() == reflect.String])); p != nil {
		v.Set(old)
		d.doc.fail(n, path, d.label(path)+": "+quote(n)+" "+p.msg, d.cure(n, p))
		return
	}
	if v.Kind() == reflect.String {
		d.form(n, path, v, tag)
		return
	}
	d.bounds(n, path, v, tag)
}

// form checks the syntax of a string, and makes paths absolute.
func (d *decoder) form(n *node, path string, v reflect.Value, tag reflect.StructTag) {
	s := v.String()
	if enum := tag.Get("enum"); enum != "" {
		words := strings.Split(enum, "|")
		for _, w := range words {
			if s == w {
				return
			}
		}
		words = supported(path, words)
		cure := didYouMean(s, words)
		if n.ref {
			cure = "one of: " + strings.Join(words, ", ")
		}
		d.doc.fail(n, path, d.label(path)+": "+quote(n)+" is not known", cure)
		return
	}
	name := tag.Get("form")
	if name == "" {
		return
	}
	if s == "" {
		d.doc.fail(n, path, d.label(path)+" is empty", "give a value, or leave the field out")
		return
	}
	if p := forms[name](s); p != nil {
		d.doc.fail(n, path, d.label(path)+": "+quote(n)+" "+p.msg, d.cure(n, p))
		return
	}
	if name == "path" {
		v.SetString(absolute(d.opts.Dir, s))
	}
}

// bounds checks min and max.
func (d *decoder) bounds(n *node, path string, v reflect.Value, tag reflect.StructTag) {
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
			d.doc.fail(n, path, d.label(path)+": "+quote(n)+" is too small", rangeText(tag))
			return
		}
		if side == "max" && !less && !v.Equal(limit) {
			d.doc.fail(n, path, d.label(path)+": "+quote(n)+" is too large", rangeText(tag))
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

func (d *decoder) wrongKind(n *node, path, want, cure string) {
	d.doc.fail(n, path, fmt.Sprintf("%s is %s, want %s", d.label(path), n.kind, want), cure)
}

// label names a value in a message.
func (d *decoder) label(path string) string {
	if path == "" {
		return "the file"
	}
	return short(maskText(path))
}
