package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

type kind int

const (
	kindNull kind = iota
	kindString
	kindInt
	kindFloat
	kindBool
	kindMap
	kindSeq
)

func (k kind) String() string {
	return [...]string{"empty", "a string", "a whole number", "a number", "true or false", "a mapping", "a list"}[k]
}

// node is one value of the file with its place.
type node struct {
	kind      kind
	line, col int
	raw       string // scalar as written, without quotes
	text      string // scalar after expansion
	ref       bool   // raw holds a reference
	open      bool   // and it is not expanded
	failed    bool   // an error was reported here; say no more about it
	secret    bool   // not to be shown
	keys      []*node
	items     []*node // values of a mapping, elements of a list
}

// hide keeps a value out of everything that is printed.
func (n *node) hide() {
	n.secret = true
	for _, v := range n.items {
		v.hide()
	}
}

// name is the text of a key in a path.
func (n *node) name() string {
	if n.secret {
		return Mask
	}
	return n.raw
}

func (n *node) get(key string) *node {
	if n == nil || n.kind != kindMap {
		return nil
	}
	for i, k := range n.keys {
		if k.raw == key {
			return n.items[i]
		}
	}
	return nil
}

// document is one file: its text, tree and findings.
type document struct {
	name   string
	src    []byte
	lines  []string
	root   *node
	broken bool             // not YAML: the tree is not to be trusted
	order  []*node          // keys and values in the order of the file
	paths  map[string]*node // value at each path
	errs   Errors
}

func newDocument(name string, data []byte) *document {
	d := &document{name: name, src: append([]byte(nil), data...), paths: map[string]*node{}}
	text := strings.TrimPrefix(string(d.src), "\ufeff")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	d.lines = strings.Split(text, "\n")
	return d
}

// parse builds the tree; false when the file is no usable YAML.
func (d *document) parse() bool {
	d.broken = true
	if p := d.sane(); p != nil {
		d.fail(nil, "", p.msg, p.cure)
		return false
	}
	file, err := parseYAML([]byte(strings.Join(d.lines, "\n")))
	if err != nil {
		d.syntax(err)
		return false
	}
	d.root = &node{kind: kindNull, line: 1, col: 1}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			d.fail(d.place(doc.Body), "", "a second YAML document begins here", "keep everything in one document: remove the line ---")
			return false
		}
		body = doc.Body
	}
	if body != nil {
		d.root = d.convert(body, "", false)
	}
	d.broken = false
	d.paths[""] = d.root
	if d.root.kind != kindMap && d.root.kind != kindNull {
		d.fail(d.root, "", "the file is "+d.root.kind.String()+", want a mapping", "begin with fields like data: ./leat-data; leat init writes an example")
		return false
	}
	return true
}

// maxLines bounds the parser's time, which grows with the square of the number
// of keys of one mapping: 8,000 take 0.3 s.
const maxLines = 20000

// sane refuses what could hurt the YAML parser.
func (d *document) sane() *problem {
	switch {
	case len(d.src) > maxFile:
		return wrong("the file is larger than %s", Size(maxFile))
	case len(d.lines) > maxLines:
		return wrong("the file has more than %d lines", maxLines)
	case !utf8.Valid(d.src):
		return wrong("the file is not UTF-8")
	case bytes.IndexByte(d.src, 0) >= 0:
		return wrong("the file holds a NUL byte")
	}
	const deepest = 200 // the parser recurses; a stack that overflows cannot be recovered
	depth := 0
	for _, c := range d.src {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		}
		if depth > deepest {
			return wrong("the file is nested deeper than %d levels", deepest)
		}
	}
	for _, l := range d.lines {
		if marks := strings.Count(l, "- ") + strings.Count(l, "? ") + strings.Count(l, ": ") + strings.Count(l, ","); marks > 2000 || len(l)-len(strings.TrimLeft(l, " \t")) > 1000 {
			return wrong("a line of the file has more than 2000 parts, or begins with more than 1000 spaces")
		}
	}
	return nil
}

// parseYAML guards against panics of the library: a file must never end the server.
func parseYAML(b []byte) (f *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			f, err = nil, errors.New("the file cannot be read as YAML")
		}
	}()
	return parser.ParseBytes(b, 0, parser.AllowDuplicateMapKey())
}

func (d *document) syntax(err error) {
	n, msg := &node{line: 1, col: 1}, "the file cannot be read as YAML"
	var ye yaml.Error
	if errors.As(err, &ye) {
		said, _, _ := strings.Cut(ye.GetMessage(), `: "`)
		msg = "not YAML: " + quotedText.ReplaceAllString(said, "…")
		if t := ye.GetToken(); t != nil && t.Position != nil {
			n.line, n.col = d.clamp(t.Position)
		}
	}
	cure := ""
	switch line := d.lines[n.line-1]; {
	case strings.Contains(line, "\t"):
		cure = "YAML indents with spaces, not tabs"
	case strings.Contains(line, "${"):
		cure = `inside { } and [ ] write a reference in quotes: "${NAME}"`
	case strings.Contains(line, "*"), strings.Contains(line, "!"):
		cure = `write globs in quotes: ["public.*", "!public.tmp_*"]`
	}
	d.fail(n, "", msg, cure)
}

// quotedText is what the library quotes of the file; in single quotes it has
// single characters only.
var quotedText = regexp.MustCompile(`"[^"]*"?`)

func (d *document) clamp(p *token.Position) (line, col int) {
	line = min(max(p.Line, 1), len(d.lines))
	return line, min(max(p.Column, 1), utf8.RuneCountInString(d.lines[line-1])+1)
}

func (d *document) place(n ast.Node) *node {
	out := &node{line: 1, col: 1}
	if t := n.GetToken(); t != nil && t.Position != nil {
		out.line, out.col = d.clamp(t.Position)
	}
	return out
}

// convert turns the library's tree into ours. secret is inherited: what stands
// under a secret's name is not shown.
func (d *document) convert(a ast.Node, path string, secret bool) *node {
	n := d.place(a)
	n.secret = secret

	d.order = append(d.order, n)
	switch a := a.(type) {
	case *ast.MappingNode:
		d.mapping(n, a.Values, path, secret)
		if !a.IsFlowStyle && len(n.keys) > 0 {
			n.line, n.col = n.keys[0].line, n.keys[0].col
		}
	case *ast.MappingValueNode:
		d.mapping(n, []*ast.MappingValueNode{a}, path, secret)
		n.line, n.col = n.keys[0].line, n.keys[0].col
	case *ast.SequenceNode:
		n.kind = kindSeq
		for i, v := range a.Values {
			p := join(path, strconv.Itoa(i))
			item := d.convert(v, p, secret)
			d.paths[p] = item
			n.items = append(n.items, item)
		}
	case *ast.LiteralNode:
		n.kind = kindString
		if a.Value != nil {
			n.raw = a.Value.Value
		}
	case *ast.StringNode:
		n.kind, n.raw = kindString, a.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode, *ast.NullNode:
		n.kind = map[ast.NodeType]kind{ast.IntegerType: kindInt, ast.BoolType: kindBool, ast.NullType: kindNull}[a.Type()]
		if t := a.Type(); t == ast.FloatType || t == ast.InfinityType || t == ast.NanType {
			n.kind = kindFloat
		}
		n.raw = a.GetToken().Value
	case *ast.TagNode:
		d.refuse(n, path, "a YAML tag", `a text that begins with ! needs quotes: "!public.tmp_*"`)
	case *ast.AliasNode:
		d.refuse(n, path, "a YAML anchor or alias", `write the value out; a text that begins with * or & needs quotes: "*.*"`)
		n.secret = secret
	case *ast.AnchorNode:
		d.refuse(n, path, "a YAML anchor or alias", `write the value out; a text that begins with * or & needs quotes: "*.*"`)
	default:
		d.refuse(n, path, "this form of YAML", "write a plain value, a list or a mapping")
	}
	n.text = n.raw
	if strings.Contains(n.raw, "PRIVATE KEY") {
		n.secret = true
	}
	return n
}

func (d *document) refuse(n *node, path, what, cure string) {
	n.failed, n.secret = true, true
	d.fail(n, path, what+" is not supported here", cure)
}

func (d *document) mapping(n *node, values []*ast.MappingValueNode, path string, secret bool) {
	n.kind = kindMap
	seen := map[string]*node{}
	for _, mv := range values {
		k := d.place(mv.Key)
		switch key := mv.Key.(type) {
		case *ast.StringNode:
			k.raw = key.Value
		case ast.ScalarNode:
			k.raw = key.GetToken().Value
		}
		if _, ok := mv.Key.(*ast.MergeKeyNode); ok || k.raw == "" {
			d.fail(k, path, "this key is not supported here", "a key is a plain word, like data or tables")
			k.failed = true
		}
		k.kind, k.text = kindString, k.raw
		// The names of headers may be shown; of other things below a secret's
		// name, and of what cannot be a header, nothing may.
		k.secret = secret && !(strings.HasSuffix(path, ".headers") && headerText.MatchString(k.raw))
		d.order = append(d.order, k)
		p := join(path, k.name())
		v := d.convert(mv.Value, p, secret || secretKeyName(k.raw))
		if !k.failed {
			if first := seen[k.raw]; first != nil {
				d.fail(k, p, fmt.Sprintf("%s stands here a second time", quoteKey(k)), fmt.Sprintf("the first is in line %d: remove one of them", first.line))
				continue
			}
			seen[k.raw], d.paths[p] = k, v
			n.keys, n.items = append(n.keys, k), append(n.items, v)
		}
	}
	if len(n.keys) == 0 && len(values) > 0 { // every key was refused
		k := d.place(values[0].Key)
		n.keys, n.items, n.failed = []*node{k}, []*node{k}, true
	}
}

// nearest finds the value at path or its nearest ancestor in the file.
func (d *document) nearest(path string) *node {
	for {
		if n := d.paths[path]; n != nil {
			return n
		}
		i := strings.LastIndexByte(path, '.')
		if i < 0 {
			return d.root
		}
		path = path[:i]
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// quoteKey prints a key for a message.
func quoteKey(k *node) string {
	if k.secret {
		return "a field"
	}
	return strconv.Quote(short(maskText(k.raw)))
}

// quote prints a value for a message: what stands in the file, never what a
// reference was expanded to.
func quote(n *node) string {
	switch {
	case n.secret:
		return "the value"
	case n.kind == kindMap || n.kind == kindSeq || n.kind == kindNull:
		return "the value"
	case n.ref:
		return "the value of " + short(maskText(maskDefaults(n.raw)))
	}
	return strconv.Quote(short(maskText(n.raw)))
}

func short(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}
