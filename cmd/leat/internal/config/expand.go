package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// piece is a part of a scalar: literal text, or a reference.
type piece struct {
	text   string // literal
	name   string // variable; "" in a literal piece
	def    string // default
	hasDef bool
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// split cuts a scalar into literals and references. $${ stands for ${.
func split(s string) ([]piece, *problem) {
	var out []piece
	lit := ""
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			break
		}
		if i > 0 && s[i-1] == '$' {
			lit += s[:i-1] + "${"
			s = s[i+2:]
			continue
		}
		lit += s[:i]
		end := strings.IndexByte(s[i:], '}')
		if end < 0 {
			return nil, wrong("a reference is not closed").fix("write ${NAME} or ${NAME:-default}; $${ stands for the characters ${")
		}
		name, def, hasDef := strings.Cut(s[i+2:i+end], ":-")
		if !variable.MatchString(name) {
			return nil, wrong("a reference does not name a variable").fix("write ${NAME} or ${NAME:-default}; a name is letters, digits and _; $${ stands for the characters ${")
		}
		if lit != "" {
			out = append(out, piece{text: lit})
			lit = ""
		}
		out = append(out, piece{name: name, def: def, hasDef: hasDef})
		s = s[i+end+1:]
	}
	if lit+s != "" || len(out) == 0 {
		out = append(out, piece{text: lit + s})
	}
	return out, nil
}

// expand replaces the references of all values, once, on the tree: what a
// variable holds can never add a field or a line.
func (d *document) expand(opts Options) { d.expandNode(d.root, "", opts) }

func (d *document) expandNode(n *node, path string, opts Options) {
	for i, v := range n.items {
		key := fmt.Sprint(i)
		if n.kind == kindMap {
			key = n.keys[i].name()
		}
		d.expandNode(v, join(path, key), opts)
	}
	if n.kind != kindString || !strings.Contains(n.raw, "${") {
		return
	}
	pieces, p := split(n.raw)
	if p != nil {
		n.failed = true
		d.fail(n, path, p.msg, p.cure)
		return
	}
	for _, p := range pieces {
		n.ref = n.ref || p.name != ""
	}
	if n.ref && opts.NoExpand {
		n.open = true
		return
	}
	url := strings.HasSuffix(path, ".url")
	n.text = d.resolve(n, path, pieces, opts, url)
}

// resolve joins the pieces with the values of the variables. In the user and
// password part of a URL a value is percent-encoded, so that a password may
// hold any character.
func (d *document) resolve(n *node, path string, pieces []piece, opts Options, url bool) string {
	from, to := -1, -1
	if url {
		from, to = userinfo(pieces)
	}
	var b strings.Builder
	at := 0 // place in the text with one NUL per reference, which userinfo counts in
	for _, p := range pieces {
		if p.name == "" {
			b.WriteString(p.text)
			at += len(p.text)
			continue
		}
		value, ok := opts.Env(p.name)
		switch {
		case p.hasDef && value == "":
			value = p.def
		case !ok:
			n.failed = true
			d.fail(n, path, fmt.Sprintf("the environment variable %s is not set", p.name), fmt.Sprintf("set it, or give a default: ${%s:-…}", p.name))
			return ""
		}
		if at >= from && at < to {
			value = escapeUserinfo(value)
		}
		b.WriteString(value)
		at++
	}
	return b.String()
}

// userinfo finds the part between :// and the last @ of the authority.
func userinfo(pieces []piece) (from, to int) {
	var b strings.Builder
	for _, p := range pieces {
		if p.name != "" {
			b.WriteByte(0)
		}
		b.WriteString(p.text)
	}
	s := b.String()
	i := strings.Index(s, "://")
	if i < 0 {
		return -1, -1
	}
	auth := s[i+3:]
	if j := strings.IndexAny(auth, "/?#"); j >= 0 {
		auth = auth[:j]
	}
	return i + 3, i + 3 + strings.LastIndexByte(auth, '@')
}

func escapeUserinfo(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// maskDefaults hides the defaults of references: they may be secrets.
func maskDefaults(raw string) string {
	pieces, p := split(raw)
	if p != nil {
		return Mask
	}
	var b strings.Builder
	for _, p := range pieces {
		switch {
		case p.name == "":
			b.WriteString(strings.ReplaceAll(p.text, "${", "$${"))
		case p.hasDef:
			b.WriteString("${" + p.name + ":-" + Mask + "}")
		default:
			b.WriteString("${" + p.name + "}")
		}
	}
	return b.String()
}

// secretFile reads the target of file:PATH. One line end at its end is not
// part of the secret.
func secretFile(text string, opts Options) (string, *problem) {
	path := strings.TrimPrefix(text, "file:")
	if path == "" {
		return "", wrong("file: names no file").fix("write file:/run/secrets/NAME")
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(opts.Dir, path)
	}
	b, err := opts.ReadFile(path)
	if err != nil {
		return "", wrong("the secret's file cannot be read: %s", reason(err)).fix("the file must exist, be regular, at most %s, and readable by the server", Size(maxSecret))
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
}
