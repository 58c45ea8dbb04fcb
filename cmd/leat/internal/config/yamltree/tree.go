// Package yamltree is a YAML file as a tree whose values know their place, with what is found wrong in it:
// each finding names file, line and column and shows the line, with what looks like a secret masked. It
// knows nothing of what the file is about.
package yamltree

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

// Kind is what a value is.
type Kind int

// Kinds of values. A reference is a string until it is expanded.
const (
	KindNull Kind = iota
	KindString
	KindInt
	KindFloat
	KindBool
	KindMap
	KindSeq
)

// String is for messages: "a list".
func (k Kind) String() string {
	return [...]string{"empty", "a string", "a whole number", "a number", "true or false", "a mapping", "a list"}[k]
}

// Node is one value of the file with its place.
type Node struct {
	Kind      Kind
	Line, Col int
	Raw       string // scalar as written, without quotes
	Text      string // scalar after expansion
	Ref       bool   // raw holds a reference
	Open      bool   // and it is not expanded
	Failed    bool   // an error was reported here; say no more about it
	Secret    bool   // not to be shown
	Keys      []*Node
	Items     []*Node // values of a mapping, elements of a list
}

// Hide keeps a value out of everything that is printed.
func (n *Node) Hide() {
	n.Secret = true
	for _, v := range n.Items {
		v.Hide()
	}
}

// Name is the text of a key in a path.
func (n *Node) Name() string {
	if n.Secret {
		return Mask
	}
	return n.Raw
}

// Get is the value of a mapping's key; nil where there is none, or no mapping.
func (n *Node) Get(key string) *Node {
	if n == nil || n.Kind != KindMap {
		return nil
	}
	for i, k := range n.Keys {
		if k.Raw == key {
			return n.Items[i]
		}
	}
	return nil
}

// Document is one file: its text, tree and findings.
type Document struct {
	Name   string
	Src    []byte
	lines  []string
	Root   *Node
	broken bool             // not YAML: the tree is not to be trusted
	order  []*Node          // keys and values in the order of the file
	Paths  map[string]*Node // value at each path
	Errs   Errors
	fields func() map[string]bool
}

// New copies data. fields gives the words that are never masked in a file that is no YAML.
func New(name string, data []byte, fields func() map[string]bool) *Document {
	d := &Document{Name: name, fields: fields, Src: append([]byte(nil), data...), Paths: map[string]*Node{}}
	text := strings.TrimPrefix(string(d.Src), "\ufeff")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	d.lines = strings.Split(text, "\n")
	return d
}

// Parse builds the tree; false when the file is no usable YAML.
func (d *Document) Parse() bool {
	d.broken = true
	if p := d.sane(); p != nil {
		d.Fail(nil, "", p.Msg, p.Cure)
		return false
	}
	file, err := parseYAML([]byte(strings.Join(d.lines, "\n")))
	if err != nil {
		d.syntax(err)
		return false
	}
	d.Root = &Node{Kind: KindNull, Line: 1, Col: 1}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			d.Fail(d.place(doc.Body), "", "a second YAML document begins here", "keep everything in one document: remove the line ---")
			return false
		}
		body = doc.Body
	}
	if body != nil {
		d.Root = d.convert(body, "", false)
	}
	d.broken = false
	d.Paths[""] = d.Root
	if d.Root.Kind != KindMap && d.Root.Kind != KindNull {
		d.Fail(d.Root, "", "the file is "+d.Root.Kind.String()+", want a mapping", "begin with fields like data: ./leat-data; leat init writes an example")
		return false
	}
	return true
}

// MaxFile is how large a file may be.
const MaxFile = 1 << 20

// maxLines bounds the parser's time, which grows with the square of the number
// of keys of one mapping: 8,000 take 0.3 s.
const maxLines = 20000

// sane refuses what could hurt the YAML parser.
func (d *Document) sane() *Problem {
	switch {
	case len(d.Src) > MaxFile:
		return Wrong("the file is larger than %dMiB", MaxFile>>20)
	case len(d.lines) > maxLines:
		return Wrong("the file has more than %d lines", maxLines)
	case !utf8.Valid(d.Src):
		return Wrong("the file is not UTF-8")
	case bytes.IndexByte(d.Src, 0) >= 0:
		return Wrong("the file holds a NUL byte")
	}
	const deepest = 200 // the parser recurses; a stack that overflows cannot be recovered
	depth := 0
	for _, c := range d.Src {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		}
		if depth > deepest {
			return Wrong("the file is nested deeper than %d levels", deepest)
		}
	}
	for _, l := range d.lines {
		if marks := strings.Count(l, "- ") + strings.Count(l, "? ") + strings.Count(l, ": ") + strings.Count(l, ","); marks > 2000 || len(l)-len(strings.TrimLeft(l, " \t")) > 1000 {
			return Wrong("a line of the file has more than 2000 parts, or begins with more than 1000 spaces")
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

func (d *Document) syntax(err error) {
	n, msg := &Node{Line: 1, Col: 1}, "the file cannot be read as YAML"
	var ye yaml.Error
	if errors.As(err, &ye) {
		said, _, _ := strings.Cut(ye.GetMessage(), `: "`)
		msg = "not YAML: " + quotedText.ReplaceAllString(said, "…")
		if t := ye.GetToken(); t != nil && t.Position != nil {
			n.Line, n.Col = d.clamp(t.Position)
		}
	}
	cure := ""
	switch line := d.lines[n.Line-1]; {
	case strings.Contains(line, "\t"):
		cure = "YAML indents with spaces, not tabs"
	case strings.Contains(line, "${"):
		cure = `inside { } and [ ] write a reference in quotes: "${NAME}"`
	case strings.Contains(line, "*"), strings.Contains(line, "!"):
		cure = `write globs in quotes: ["public.*", "!public.tmp_*"]`
	}
	d.Fail(n, "", msg, cure)
}

// quotedText is what the library quotes of the file; in single quotes it has
// single characters only.
var quotedText = regexp.MustCompile(`"[^"]*"?`)

func (d *Document) clamp(p *token.Position) (line, col int) {
	line = min(max(p.Line, 1), len(d.lines))
	return line, min(max(p.Column, 1), utf8.RuneCountInString(d.lines[line-1])+1)
}

func (d *Document) place(n ast.Node) *Node {
	out := &Node{Line: 1, Col: 1}
	if t := n.GetToken(); t != nil && t.Position != nil {
		out.Line, out.Col = d.clamp(t.Position)
	}
	return out
}

// HeaderName is what the name of a header may be made of.
var HeaderName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// convert turns the library's tree into ours. secret is inherited: what stands
// under a secret's name is not shown.
func (d *Document) convert(a ast.Node, path string, secret bool) *Node {
	n := d.place(a)
	n.Secret = secret

	d.order = append(d.order, n)
	switch a := a.(type) {
	case *ast.MappingNode:
		d.mapping(n, a.Values, path, secret)
		if !a.IsFlowStyle && len(n.Keys) > 0 {
			n.Line, n.Col = n.Keys[0].Line, n.Keys[0].Col
		}
	case *ast.MappingValueNode:
		d.mapping(n, []*ast.MappingValueNode{a}, path, secret)
		n.Line, n.Col = n.Keys[0].Line, n.Keys[0].Col
	case *ast.SequenceNode:
		n.Kind = KindSeq
		for i, v := range a.Values {
			p := Join(path, strconv.Itoa(i))
			item := d.convert(v, p, secret)
			d.Paths[p] = item
			n.Items = append(n.Items, item)
		}
	case *ast.LiteralNode:
		n.Kind = KindString
		if a.Value != nil {
			n.Raw = a.Value.Value
		}
	case *ast.StringNode:
		n.Kind, n.Raw = KindString, a.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode, *ast.NullNode:
		n.Kind = map[ast.NodeType]Kind{ast.IntegerType: KindInt, ast.BoolType: KindBool, ast.NullType: KindNull}[a.Type()]
		if t := a.Type(); t == ast.FloatType || t == ast.InfinityType || t == ast.NanType {
			n.Kind = KindFloat
		}
		n.Raw = a.GetToken().Value
	case *ast.TagNode:
		d.refuse(n, path, "a YAML tag", `a text that begins with ! needs quotes: "!public.tmp_*"`)
	case *ast.AliasNode:
		d.refuse(n, path, "a YAML anchor or alias", `write the value out; a text that begins with * or & needs quotes: "*.*"`)
		n.Secret = secret
	case *ast.AnchorNode:
		d.refuse(n, path, "a YAML anchor or alias", `write the value out; a text that begins with * or & needs quotes: "*.*"`)
	default:
		d.refuse(n, path, "this form of YAML", "write a plain value, a list or a mapping")
	}
	n.Text = n.Raw
	if strings.Contains(n.Raw, "PRIVATE KEY") {
		n.Secret = true
	}
	return n
}

func (d *Document) refuse(n *Node, path, what, cure string) {
	n.Failed, n.Secret = true, true
	d.Fail(n, path, what+" is not supported here", cure)
}

func (d *Document) mapping(n *Node, values []*ast.MappingValueNode, path string, secret bool) {
	n.Kind = KindMap
	seen := map[string]*Node{}
	for _, mv := range values {
		k := d.place(mv.Key)
		switch key := mv.Key.(type) {
		case *ast.StringNode:
			k.Raw = key.Value
		case ast.ScalarNode:
			k.Raw = key.GetToken().Value
		}
		if _, ok := mv.Key.(*ast.MergeKeyNode); ok || k.Raw == "" {
			d.Fail(k, path, "this key is not supported here", "a key is a plain word, like data or tables")
			k.Failed = true
		}
		k.Kind, k.Text = KindString, k.Raw
		// The names of headers may be shown; of other things below a secret's
		// Name, and of what cannot be a header, nothing may.
		k.Secret = secret && !(strings.HasSuffix(path, ".headers") && HeaderName.MatchString(k.Raw))
		d.order = append(d.order, k)
		p := Join(path, k.Name())
		v := d.convert(mv.Value, p, secret || secretKeyName(k.Raw))
		if !k.Failed {
			if first := seen[k.Raw]; first != nil {
				d.Fail(k, p, fmt.Sprintf("%s stands here a second time", QuoteKey(k)), fmt.Sprintf("the first is in line %d: remove one of them", first.Line))
				continue
			}
			seen[k.Raw], d.Paths[p] = k, v
			n.Keys, n.Items = append(n.Keys, k), append(n.Items, v)
		}
	}
	if len(n.Keys) == 0 && len(values) > 0 { // every key was refused
		k := d.place(values[0].Key)
		n.Keys, n.Items, n.Failed = []*Node{k}, []*Node{k}, true
	}
}

// Nearest finds the value at path or its nearest ancestor in the file.
func (d *Document) Nearest(path string) *Node {
	for {
		if n := d.Paths[path]; n != nil {
			return n
		}
		i := strings.LastIndexByte(path, '.')
		if i < 0 {
			return d.Root
		}
		path = path[:i]
	}
}

// Join appends a key to a dotted path.
func Join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// QuoteKey prints a key for a message.
func QuoteKey(k *Node) string {
	if k.Secret {
		return "a field"
	}
	return strconv.Quote(Short(MaskText(k.Raw)))
}

// Quote prints a value for a message: what stands in the file, never what a
// Reference was expanded to.
func Quote(n *Node) string {
	switch {
	case n.Secret:
		return "the value"
	case n.Kind == KindMap || n.Kind == KindSeq || n.Kind == KindNull:
		return "the value"
	case n.Ref:
		return "the value of " + Short(MaskText(MaskDefaults(n.Raw)))
	}
	return strconv.Quote(Short(MaskText(n.Raw)))
}

// Short cuts a text for a message, at 60 characters.
func Short(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}
